"""The options of podproof that an app under test has, found in the app itself."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from types import FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

from podproof._token.header_name import AUTHORIZATION, is_header_name
from podproof.options import Options

_MOST_LOOKED_AT = 100_000


class AppOptions(NamedTuple):
    """An audience of each part of podproof in an app, and the headers in which they take tokens."""

    audiences: list[str]
    headers: list[str]


def find_options(app: object) -> AppOptions:
    """Return the options that are in an app, else those of Django's settings or of the environment."""
    found = [*_options_in(app)]
    if not found and "django.conf" in sys.modules and sys.modules["django.conf"].settings.configured:
        found = [getattr(sys.modules["django.conf"].settings, "PODPROOF", {})]
    audiences = [audience for options in found if (audience := _audience(options))]
    if not audiences:
        audiences = [named] if (named := os.environ.get("PODPROOF_AUDIENCE", "").partition(",")[0].strip()) else []
    headers = [_header(options) for options in found or [{}]]
    return AppOptions([*dict.fromkeys(audiences)], [*dict.fromkeys(headers)])


def _options_in(app: object) -> Iterator[Mapping[str, Any]]:
    waiting, seen = deque([app]), set[int]()
    while waiting and len(seen) < _MOST_LOOKED_AT:
        one: Any = waiting.popleft()
        if id(one) in seen or isinstance(one, type | ModuleType | str | bytes | int | float | None):
            continue
        seen.add(id(one))
        if isinstance(one, Options):
            yield {"audience": one.audience, "header": one.header}
        elif isinstance(one, dict) and "audience" in one:  # the arguments of a middleware that is not made yet
            yield one
        elif type(one).__module__ == "starlette.middleware" and one.cls.__module__.startswith("podproof."):
            yield one.kwargs  # without an audience, which is then in the environment
        waiting.extend(_parts(one))


def _parts(one: Any) -> Iterator[object]:
    if isinstance(one, dict):
        yield from one.values()
    elif isinstance(one, list | tuple | set | frozenset | deque):
        yield from one
    elif isinstance(one, MethodType):
        yield one.__self__
    elif isinstance(one, partial):
        yield from (one.func, *one.args, *one.keywords.values())
    elif isinstance(one, FunctionType):
        for cell in one.__closure__ or ():
            with suppress(ValueError):  # empty until its variable has a value
                yield cell.cell_contents
    with suppress(AttributeError):
        # Not by getattr, which a proxy such as flask.request answers with an error.
        yield from [*object.__getattribute__(one, "__dict__").values()]


def _audience(options: Mapping[str, Any]) -> str | None:
    given = options.get("audience")
    if isinstance(given, list | tuple):
        given = next(iter(given), None)
    return given if isinstance(given, str) and given else None


def _header(options: Mapping[str, Any]) -> str:
    given = options.get("header") or os.environ.get("PODPROOF_HEADER", "").strip()
    return given if is_header_name(str(given)) else AUTHORIZATION
