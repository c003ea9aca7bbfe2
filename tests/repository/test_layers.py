"""The rooms of the package: what is public, and that imports point down one list, lazy ones included."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"
PACKAGE = SOURCE / "podproof"

LAYERS = (
    ("podproof",),  # the facade: nothing in the package imports from it
    ("podproof.__main__",),
    ("podproof.cli",),
    ("podproof.testing",),
    (
        "podproof.django",
        "podproof.falcon",
        "podproof.fastapi",
        "podproof.flask",
        "podproof.grpc",
        "podproof.litestar",
        "podproof.mcp",
        "podproof.opentelemetry",
        "podproof.quart",
        "podproof.rest_framework",
        "podproof.starlette",
    ),
    ("podproof.exchange", "podproof.forward_auth"),
    ("podproof.asgi", "podproof.authenticator", "podproof.wsgi", "podproof.audit"),
    ("podproof._mcp",),
    ("podproof.drain",),
    ("podproof._request",),
    ("podproof._authentication",),
    ("podproof.options",),
    ("podproof._authorization",),
    ("podproof._apiserver",),
    ("podproof._cache",),
    ("podproof._telemetry",),
    ("podproof.client",),
    ("podproof._token",),
    ("podproof.errors",),
    ("podproof.identity",),
    ("podproof._extras", "podproof._version"),
)
"""Rooms and doors from top to bottom: a module may import from its own room and from those below."""

LONGEST_CHAIN = 11

PUBLIC = {
    "podproof.asgi": {"IDENTITY", "PodAuthMiddleware"},
    "podproof.authenticator": {"Authenticator"},
    "podproof.audit": {"FIELDS", "CallerFilter", "JSONFormatter"},
    "podproof.client": {"Exchange", "HostNotAllowed", "TokenAuth", "TokenClient", "TokenFile", "TokenUnavailable"},
    "podproof.django": {"CallerMiddleware", "PodAuthMiddleware", "PodUser", "require"},
    "podproof.errors": {
        "ConfigurationError",
        "Expired",
        "Forbidden",
        "HostNetwork",
        "HostNotAllowed",
        "IdentityEnded",
        "InvalidProof",
        "InvalidToken",
        "MalformedCredential",
        "MalformedToken",
        "NoAddressYet",
        "NoCredential",
        "NonceNeeded",
        "NotAllowed",
        "NotPodBound",
        "OriginalUnknown",
        "Overloaded",
        "PeerUnknown",
        "PodAuthError",
        "PodFinished",
        "PodGone",
        "ServiceAccountMismatch",
        "SignatureInvalid",
        "TokenInactive",
        "TokenReviewFailed",
        "TokenUnavailable",
        "Unavailable",
        "WrongAddress",
        "WrongAudience",
        "WrongIssuer",
    },
    "podproof.exchange": {"Grant", "TokenExchange"},
    "podproof.falcon": {"CallerMiddleware"},
    "podproof.forward_auth": {"ForwardAuth"},
    "podproof.grpc": {"PodAuthInterceptor", "TokenInterceptor", "call_credentials"},
    "podproof.grpc.aio": {"PodAuthInterceptor", "token_interceptors"},
    "podproof.fastapi": {"Caller", "PodAuth", "PodAuthMiddleware"},
    "podproof.flask": {"PodAuth", "PodAuthMiddleware", "caller"},
    "podproof.identity": {"Owner", "Pod", "PodIdentity", "ServiceAccount"},
    "podproof.litestar": {"Caller", "CallerPlugin", "PodAuthMiddleware"},
    "podproof.mcp": {"IssuedTokenMiddleware", "PodAuthMiddleware", "PodTokenVerifier"},
    "podproof.opentelemetry": {"CallerSpanProcessor"},
    "podproof.quart": {"PodAuthMiddleware", "caller"},
    "podproof.rest_framework": {"PodAuthentication", "PodPermission"},
    "podproof.starlette": {"PodAuthBackend", "PodAuthMiddleware", "caller", "on_error"},
    "podproof.wsgi": {"IDENTITY", "PodAuthMiddleware"},
}
"""The public names of each door. To add one is a decision: names stay."""


@cache
def modules() -> Mapping[str, Path]:
    """Return each module's name and file."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported_by(name: str) -> Iterator[str]:
    """Yield the package's modules that a module imports, wherever in it: at its top, in a function, for type checking.

    `import_module` by a computed name, as the facade does, is not seen.
    """
    for node in ast.walk(ast.parse(modules()[name].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules())
        elif isinstance(node, ast.ImportFrom) and node.module and node.module in modules():
            below = {f"{node.module}.{alias.name}" for alias in node.names} & {*modules()}
            yield from below
            if len(below) < len(node.names):
                yield node.module


@cache
def graph() -> Mapping[str, frozenset[str]]:
    return {name: frozenset(imported_by(name)) - {name} for name in modules()}


def layer_of(name: str) -> int:
    """Return the index of a module's layer: that of the longest prefix of its name."""
    places = {room: index for index, rooms in enumerate(LAYERS) for room in rooms}
    while name not in places:
        name = name.rpartition(".")[0]
    return places[name]


def test_each_public_module_is_a_door_of_the_list() -> None:
    doors = {name for name in modules() if "._" not in name and name.count(".") == 1}
    listed = {room for rooms in LAYERS for room in rooms if "._" not in room} - {"podproof"}
    assert doors <= listed


@pytest.mark.parametrize("name", modules())
def test_imports_point_down_the_list(name: str) -> None:
    upward = [other for other in graph()[name] if layer_of(other) < layer_of(name)]
    assert upward == []


@pytest.mark.parametrize("name", modules())
def test_nothing_imports_from_the_facade(name: str) -> None:
    assert "podproof" not in graph()[name]


def test_no_imports_go_round_in_a_circle_and_the_longest_chain_is_short() -> None:
    longest: dict[str, list[str]] = {}
    for name in TopologicalSorter(graph()).static_order():  # raises CycleError
        below = max((longest[other] for other in graph()[name]), key=len, default=[])
        longest[name] = [name, *below]
    chain = max(longest.values(), key=len)
    print(f"\nlongest chain of imports: {len(chain)} modules: {' > '.join(chain)}")
    assert len(chain) <= LONGEST_CHAIN, " > ".join(chain)


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_these(name: str) -> None:
    module = import_module(name)
    assert set(module.__all__) == PUBLIC[name]
    assert all(hasattr(module, one) for one in module.__all__)
