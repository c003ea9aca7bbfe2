"""`ForwardAuth`: answers proxies that ask whether a request may pass, for apps in other languages."""

from __future__ import annotations

from podproof._extras import require_extra

require_extra(__name__, "asgi")

import os
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Unpack, cast, get_args

from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from podproof._authentication.pod_address import canonical_address, is_within
from podproof._request.asgi_request import read_request
from podproof._request.async_driver import run_flow
from podproof._request.lifetime import send_response
from podproof._request.original_request import Proxy, read_original
from podproof._request.problem import HTTPResponse
from podproof._request.setup import MiddlewareOptions, build_own_pipeline
from podproof.errors import ConfigurationError, NotAllowed, PodAuthError
from podproof.identity import PodIdentity
from podproof.options import is_service_variable

__all__ = ["ForwardAuth"]

PREFIX = "PODPROOF_FORWARD_AUTH_"
_FLAGS = {"true": True, "false": False}

_LEFT_TO_PROXY = {
    "other_credentials": "pass",  # it takes the header with the token off every request
    "keep_authorization": True,
}
_IN_HEADER = re.compile(r"[!-~]+")


class ForwardAuthArguments(MiddlewareOptions, total=False):
    """What a `ForwardAuth` takes: the proxy, how the app routes, and the options of a middleware."""

    proxy: Proxy
    ignore_case: bool


class ForwardAuth:
    """Answers a proxy that asks whether a request may pass, as an ASGI app.

    `proxy` says which one asks, since each names the original request in its own way: "envoy" (HTTP ext_authz), "nginx"
    (auth_request) or "caddy" (forward_auth). With `ignore_case`, for routers that take /Admin for /admin, a path has to
    be allowed in lower case too. Both can be in the environment as PODPROOF_FORWARD_AUTH_<NAME>. The other options are
    those of a middleware, or PODPROOF_<NAME>; `trusted_proxies` has to name the proxy, and whatever else asks is
    denied.

    The response is 200 with the caller in headers X-Podproof-..., none of them for an anonymous request, or the denial
    of a middleware.

    Raises ConfigurationError.
    """

    def __init__(self, **given: Unpack[ForwardAuthArguments]) -> None:
        arguments: dict[str, Any] = dict(given)
        self._proxy, self._ignore_case = _read_own(arguments, os.environ)
        self._authenticator, self._pipeline = build_own_pipeline(cast("MiddlewareOptions", arguments))
        options = self._pipeline.options
        if not options.trusted_proxies:
            raise ConfigurationError("no trusted_proxies were given: expected the address of the proxy that asks")
        for name, value in _LEFT_TO_PROXY.items():
            if getattr(options, name) == value:
                raise ConfigurationError(f"{name} cannot be {value!r} here: the proxy decides which headers pass")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a connection."""
        if scope["type"] == "lifespan":
            await Starlette(lifespan=self.lifespan)(scope, receive, send)
            return
        if scope["type"] != "http":
            raise RuntimeError(f"unexpected ASGI scope type {scope['type']!r}: a proxy asks by http")
        pipeline = self._pipeline
        try:
            request = read_original(
                scope,
                self._proxy,
                pipeline.options.trusted_proxies,
                pipeline.header,
                ignore_case=self._ignore_case,
            )
        except PodAuthError as denial:
            await send_response(pipeline.record_denied(denial, read_request(scope)), scope, send)
            return
        try:
            allowed = await run_flow(pipeline.decide(request))
            identity = None if allowed.caller is None else allowed.caller.identity
            headers = [] if identity is None else [*_identity_headers(identity)]
        except PodAuthError as denial:
            await send_response(pipeline.record_denied(denial, request), scope, send)
            return
        headers += [("Content-Length", "0"), ("Cache-Control", "no-store")]
        await send_response(HTTPResponse(200, headers, b""), scope, send)
        allowed.recorder.record_allowed(identity, allowed.peer, lambda _: request, None, 200)

    def is_asked_by(self, scope: Scope) -> bool:
        """Return True if a request comes from a trusted proxy: each of those is about another one, whatever its path.

        So a proxy never takes the response of another endpoint of the server for a permission.
        """
        peer = canonical_address((scope.get("client") or ("",))[0])
        return peer is not None and is_within(peer, self._pipeline.options.trusted_proxies)

    @asynccontextmanager
    async def lifespan(self, _: object) -> AsyncIterator[None]:
        """Begin what is checked once a process, and end its threads: the lifespan of an app that this is mounted in."""
        self._pipeline.begin()
        yield
        self.close()

    def close(self) -> None:
        """End the threads of this process."""
        if self._authenticator is not None:
            self._authenticator.close()


def _read_own(arguments: dict[str, Any], environ: Mapping[str, str]) -> tuple[Proxy, bool]:
    """Take the options that are forward auth's own out of the arguments, else out of the environment."""
    own: dict[str, Any] = {"proxy": None, "ignore_case": False}
    for variable, text in environ.items():
        if variable.startswith(PREFIX) and text.strip() and not is_service_variable(variable):
            name = variable.removeprefix(PREFIX).lower()
            if name not in own:
                expected = ", ".join(PREFIX + one.upper() for one in own)
                raise ConfigurationError(f"unknown option {variable}: expected one of {expected}")
            own[name] = _FLAGS.get(text.strip(), text.strip())
    own |= {name: arguments.pop(name) for name in own if name in arguments}
    proxy, ignore_case = own.values()
    expected = f"expected one of {', '.join(get_args(Proxy))}"
    if proxy is None:
        raise ConfigurationError(f"no proxy was given, nor {PREFIX}PROXY: {expected}")
    if proxy not in get_args(Proxy):
        raise ConfigurationError(f"invalid proxy {proxy!r}: {expected}")
    if not isinstance(ignore_case, bool):
        raise ConfigurationError(f"invalid ignore_case {ignore_case!r}: expected true or false")
    return proxy, ignore_case


def _identity_headers(identity: PodIdentity) -> Iterator[tuple[str, str]]:
    """Yield the headers that tell an app who is calling. Raises NotAllowed for a name that cannot be in a header."""
    values = {
        "X-Podproof-Service-Account": str(identity.service_account),
        "X-Podproof-Pod": str(identity.pod),
        "X-Podproof-Pod-Uid": identity.pod.uid,
        "X-Podproof-Audience": identity.audience,
        "X-Podproof-Expires-At": str(int(identity.expires_at)),
    }
    for name, value in values.items():
        if _IN_HEADER.fullmatch(value) is None:
            raise NotAllowed(f"the caller's {name} cannot be in a header").with_identity(identity)
        yield name, value
