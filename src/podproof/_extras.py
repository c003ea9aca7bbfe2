"""What each extra of the distribution brings, and the error for a part that is imported without its extra."""

from __future__ import annotations

import sys
from importlib.util import find_spec

_SERVER = ("cachetools", "kubernetes", "pyjwt", "pyyaml", "urllib3")
_ASGI = (*_SERVER, "anyio", "starlette")
_WSGI = (*_SERVER, "werkzeug")

EXTRAS = {
    "server": _SERVER,
    "asgi": _ASGI,
    "wsgi": _WSGI,
    "flask": (*_WSGI, "flask"),
    "starlette": _ASGI,
    "fastapi": (*_ASGI, "fastapi"),
    "django": (*_SERVER, "django"),
    "rest-framework": (*_SERVER, "django", "djangorestframework"),
    "quart": (*_ASGI, "quart", "werkzeug"),
    "litestar": (*_ASGI, "litestar"),
    "falcon": (*_SERVER, "falcon"),
    "exchange": (*_ASGI, "prometheus-client", "uvicorn"),
    "forward-auth": (*_ASGI, "prometheus-client", "uvicorn"),
    "mcp": (*_ASGI, "mcp"),
    "grpc": (*_SERVER, "anyio", "grpcio"),
    "dpop": ("cryptography", "pyjwt"),
    "testing": ("cryptography", "pyjwt"),
    "completion": ("shtab",),
}
"""The distributions of each extra in pyproject.toml, without which its part cannot work.

Django and Falcon apps are served by WSGI or ASGI, and whoever serves them by one needs nothing of the other.
"""

_MODULES = {
    "djangorestframework": "rest_framework",
    "grpcio": "grpc",
    "prometheus-client": "prometheus_client",
    "pyjwt": "jwt",
    "pyyaml": "yaml",
}
"""The modules of distributions that are not named after them."""


class MissingExtra(ModuleNotFoundError):
    """A part of podproof was imported, and packages of its extra are not installed."""


def require_extra(part: str, *extras: str) -> None:
    """Raise MissingExtra if a package of these extras is not installed; `part` is what needs them.

    A part calls this before its imports: it loads no package, so a package that is installed and broken raises its own
    error. Packages that are only imported later, as kubernetes is, are missed at once.
    """
    distributions = dict.fromkeys(name for extra in extras for name in EXTRAS[extra])
    if missing := [name for name in distributions if not _is_installed(_MODULES.get(name, name))]:
        raise MissingExtra(
            f"{part} needs packages that are not installed ({', '.join(missing)}): "
            f"pip install 'podproof[{','.join(extras)}]'",
            name=_MODULES.get(missing[0], missing[0]),
        )


def _is_installed(module: str) -> bool:
    if module in sys.modules:
        return sys.modules[module] is not None
    spec = find_spec(module)
    # Any folder on sys.path is a namespace package, such as one of manifests that is called kubernetes.
    return spec is not None and spec.origin is not None
