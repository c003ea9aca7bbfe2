"""The audiences that an app under test accepts, found in the app itself."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from types import FunctionType, MethodType, ModuleType
from typing import Any

from podproof.options import Options

_MOST_LOOKED_AT = 100_000


def find_audiences(app: object) -> list[str]:
    """Return an audience for each part of podproof in an app, or in the settings of Django or in the environment.

    Raises ValueError if there is none.
    """
    found = dict.fromkeys(_audiences_in(app))
    if not found and "django.conf" in sys.modules and sys.modules["django.conf"].settings.configured:
        found = dict.fromkeys(_first(getattr(sys.modules["django.conf"].settings, "PODPROOF", {})))
    if not found:
        found = dict.fromkeys(_first({"audience": os.environ.get("PODPROOF_AUDIENCE", "").partition(",")[0].strip()}))
    if not found:
        raise ValueError('the app\'s audience was not found: name it, as audience="bob"')
    return [*found]


def _audiences_in(app: object) -> Iterator[str]:
    waiting, seen = deque([app]), set[int]()
    while waiting and len(seen) < _MOST_LOOKED_AT:
        one = waiting.popleft()
        if id(one) in seen or isinstance(one, type | ModuleType | str | bytes | int | float | None):
            continue
        seen.add(id(one))
        if isinstance(one, Options):
            yield one.audience[0]
        elif isinstance(one, dict) and "audience" in one:  # the arguments of a middleware that is not made yet
            yield from _first(one)
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


def _first(options: dict[str, Any]) -> Iterator[str]:
    audience = options.get("audience")
    if isinstance(audience, str | list | tuple) and audience:
        yield audience if isinstance(audience, str) else audience[0]
