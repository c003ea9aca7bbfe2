"""How the wrapped app finds the path that it routes by: where frameworks depart from the ASGI specification.

By that, `path` is the whole path and `root_path` the start of it at which the app is mounted. Frameworks that read
these otherwise, or that take a path with and without its trailing slash for one, are recognised here by their class,
which is looked for inside the app: behind other middleware, bound methods, partials and functions.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from inspect import ismethod
from types import FunctionType, ModuleType
from typing import Any

from podproof._request.paths import path_below, with_other_slash

_MOST_LOOKED_AT = 1000
_AMBIGUOUS = ("",)


class Routing:
    """How one app routes, as far as its frameworks are recognised in it; others follow the specification."""

    def __init__(self, app: object) -> None:
        self._apps = [*_frameworks_in(app)]
        self._mounted: dict[int, tuple[object, Routing]] = {}

    def read_asgi(self, path: str, root: str) -> tuple[str, ...]:
        """Return the path below the root, then what else the app may take it for; "" if it has two readings."""
        below = {_BELOW.get(name, _below_given)(app, path, root) for name, app in self._apps}
        below = below or {path_below(path, root)}
        first = below.pop()
        return _AMBIGUOUS if below or first is None else self.read_wsgi(first)

    def read_wsgi(self, path: str) -> tuple[str, ...]:
        """Return a path that has no root, then what else the app may take it for; "" if it has two readings."""
        readings = {path: None}  # in order
        for name, app in self._apps:
            also = _ALSO[name](app, path) if name in _ALSO else path
            if also is None:
                return _AMBIGUOUS
            readings[also] = None
            for inner, rest in _MOUNTED[name](app, path) if name in _MOUNTED else ():
                for other in self._read_mounted(inner, rest):
                    if not other:
                        return _AMBIGUOUS
                    readings[path.removesuffix(rest) + other] = None
        return tuple(readings)

    def _read_mounted(self, app: object, path: str) -> tuple[str, ...]:
        known = self._mounted.get(id(app))
        if known is None:
            known = self._mounted[id(app)] = (app, Routing(app))  # with the app, so that its id stays its own
        return known[1].read_wsgi(path)


class LatestRouting:
    """The routing of whichever app handles a request, for what is used in several."""

    def __init__(self) -> None:
        self._latest: tuple[object, Routing] = (None, Routing(None))

    def of_app(self, app: object) -> Routing:
        """Return an app's routing, worked out once while it is the same app."""
        if self._latest[0] is not app:
            self._latest = (app, Routing(app))
        return self._latest[1]


def _mounted_in_starlette(app: Any, path: str) -> Iterator[tuple[object, str]]:
    """Yield the apps whose mounts a path may be below, with the rest of the path."""
    for route in app.routes:
        below = _is_mount(route) and route.path_regex.match(path)
        if below:
            yield route.app, f"/{below['path']}"


def _mounted_in_dispatcher(app: Any, path: str) -> Iterator[tuple[object, str]]:
    for mount, inner in app.mounts.items():
        if path.startswith(f"{mount}/"):
            yield inner, path.removeprefix(mount)


def _is_mount(route: object) -> bool:
    # By name: podproof.wsgi does not need Starlette.
    return any((c.__module__, c.__qualname__) == ("starlette.routing", "Mount") for c in type(route).__mro__)


def _below_given(_: Any, path: str, root: str) -> str | None:
    return path_below(path, root)


def _below_django(_: Any, path: str, root: str) -> str | None:
    return path_below(path, sys.modules["django.conf"].settings.FORCE_SCRIPT_NAME or root)


def _below_falcon(_: Any, path: str, __: str) -> str:
    return path  # Falcon routes by the whole path, root or none


def _below_fastapi(app: Any, path: str, root: str) -> str | None:
    return path_below(path, app.root_path or root)  # FastAPI(root_path=...) takes the place of the server's


def _below_quart(_: Any, path: str, root: str) -> str | None:
    """Return None, too, where the root is not in the path: Quart then routes a path that no client can send."""
    return path_below(path, root) if path.startswith(root) and path != root else None


def _also_litestar(app: Any, path: str) -> str | None:
    """Return the path without its trailing slash; None where a mount's path is the start of a longer segment."""
    path = path.rstrip("/") or "/"
    for route in app.routes:
        if getattr(getattr(route, "route_handler", None), "is_mount", False):
            # Litestar matches mounts so: any path that starts like one, and dots in it stand for any character.
            start = re.match(route.path, path)
            if start is not None and not route.path.endswith("/") and path[start.end() :][:1] not in {"", "/"}:
                return None
    return path


def _also_dispatcher(app: Any, path: str) -> str | None:
    """Return the path; None where hypercorn's dispatcher takes the start of a longer segment for one of its mounts."""
    mounts = [mount for mount in app.mounts if path.startswith(mount) and not mount.endswith("/")]
    return path if all(path[len(mount) :][:1] in {"", "/"} for mount in mounts) else None


def _also_falcon(app: Any, path: str) -> str:
    return (path.rstrip("/") or "/") if app.req_options.strip_url_path_trailing_slash else path


def _also_werkzeug(app: Any, path: str) -> str:
    """Return the path with the other slash where a route of Flask or Quart has `strict_slashes=False`."""
    strict = app.url_map.strict_slashes and all(rule.strict_slashes for rule in app.url_map.iter_rules())
    return path if strict else with_other_slash(path)


_NAMES = {
    ("bottle", "Bottle"): "bottle",
    ("django.core.handlers.asgi", "ASGIHandler"): "django",
    ("django.core.handlers.wsgi", "WSGIHandler"): "django",
    ("falcon.app", "App"): "falcon",
    ("fastapi.applications", "FastAPI"): "fastapi",
    ("flask.app", "Flask"): "flask",
    ("hypercorn.middleware.dispatcher", "_DispatcherMiddleware"): "dispatcher",
    ("litestar.app", "Litestar"): "litestar",
    ("quart.app", "Quart"): "quart",
    ("starlette.applications", "Starlette"): "starlette",
    ("starlette.routing", "Router"): "starlette",
}
_BELOW: dict[str, Callable[[Any, str, str], str | None]] = {
    "django": _below_django,
    "falcon": _below_falcon,
    "fastapi": _below_fastapi,
    "quart": _below_quart,
}
_MOUNTED: dict[str, Callable[[Any, str], Iterator[tuple[object, str]]]] = {
    "dispatcher": _mounted_in_dispatcher,
    "fastapi": _mounted_in_starlette,
    "starlette": _mounted_in_starlette,
}
_ALSO: dict[str, Callable[[Any, str], str | None]] = {
    "dispatcher": _also_dispatcher,
    "falcon": _also_falcon,
    "flask": _also_werkzeug,
    "litestar": _also_litestar,
    "quart": _also_werkzeug,
}


def _frameworks_in(app: object) -> Iterator[tuple[str, Any]]:
    """Yield the apps of known frameworks that an app leads to, with the name of each's way."""
    waiting, seen = [app], set[int]()
    while waiting and len(seen) < _MOST_LOOKED_AT:
        one = waiting.pop()
        if id(one) in seen or not callable(one) or isinstance(one, type | ModuleType):
            continue
        seen.add(id(one))
        names = [_NAMES[place] for c in type(one).__mro__ if (place := (c.__module__, c.__qualname__)) in _NAMES]
        if names:
            yield names[0], one
        if not names or names[0] == "dispatcher":
            waiting += _parts(one)


def _parts(one: Any) -> Iterator[object]:
    """Yield what an app may hand its requests to."""
    if ismethod(one):
        yield one.__self__
    elif isinstance(one, partial):
        yield from (one.func, *one.args, *one.keywords.values())
    elif isinstance(one, FunctionType):
        for cell in one.__closure__ or ():
            with suppress(ValueError):  # empty until its variable has a value
                yield cell.cell_contents
        yield from (one.__globals__[name] for name in one.__code__.co_names if name in one.__globals__)
    with suppress(AttributeError):
        # Not by getattr, which a proxy such as flask.request answers with an error.
        for value in [*object.__getattribute__(one, "__dict__").values()]:
            yield from value.values() if isinstance(value, dict) else (value,)
