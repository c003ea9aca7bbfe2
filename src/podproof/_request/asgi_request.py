"""From an ASGI scope to the facts of a request, and to the decision on it."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.types import Scope

from podproof._authentication.cached_identity import CachedIdentity
from podproof._authentication.claims import MAX_TOKEN
from podproof._request.async_driver import run_flow
from podproof._request.context import IDENTITY
from podproof._request.credential import CredentialHeader
from podproof._request.flow import Allowed
from podproof._request.incoming import IncomingRequest
from podproof._request.peer import ADDRESS_HEADERS, MAX_LENGTH, MAX_LINES
from podproof._request.pipeline import RequestPipeline
from podproof._request.routing import Routing

AUTHORIZATION = CredentialHeader("Authorization")
# Where one of these is beside the credential, the peer's address may not be the socket's: such a request goes the whole
# way.
ADDRESSES = frozenset(name.encode() for name in ADDRESS_HEADERS)
_READ = ADDRESSES | {b"traceparent", b"trailer", b"transfer-encoding", b"dpop", b"host"}
_CREDENTIAL = b""
_HTTP_SCHEMES = {"ws": "http", "wss": "https"}
LONGEST = len("Bearer ") + MAX_TOKEN
MAX_HEADERS = 1000  # of a request; servers that bound them allow fewer


async def decide(
    pipeline: RequestPipeline, routing: Routing, scope: Scope, key: bytes | None, known: CachedIdentity | None
) -> Allowed:
    """Return who a request or handshake is allowed for; see `RequestPipeline.decide`. Raises a PodAuthError to deny."""
    paths = routing.read_asgi(scope["path"], scope.get("root_path", "")) if pipeline.checks_paths else ("",)
    request = read_request(scope, paths, pipeline.header)
    if key is not None and not request.authorization[0].startswith("Bearer "):
        key = None  # the scheme in another case: the same token has another key
    return await run_flow(pipeline.decide(request, key, known))


def read_request(
    scope: Scope, paths: Sequence[str] = ("",), header: CredentialHeader = AUTHORIZATION
) -> IncomingRequest:
    """Return the facts of a scope; `paths` are what the wrapped app may route it as, `header` has the credential."""
    lines = scope["headers"]
    overlong = len(lines) > MAX_HEADERS
    occurrences: dict[bytes, list[str]] = {}
    for name, value in () if overlong else lines:
        if name in header.names or name in _READ:
            values = occurrences.setdefault(_CREDENTIAL if name in header.names else name, [])
            # One line and one byte more than is accepted show that there are too many.
            if len(values) <= MAX_LINES:
                values.append(value[: LONGEST + 1].decode("latin-1"))
    authorization, traceparent, trailer, chunked, x_forwarded_for, forwarded, proofs, hosts = (
        occurrences.pop(name, [])
        for name in (
            *(_CREDENTIAL, b"traceparent", b"trailer", b"transfer-encoding"),
            *(b"x-forwarded-for", b"forwarded", b"dpop", b"host"),
        )
    )
    scheme = scope.get("scheme", "http")
    host, port = scope.get("client") or (None, None)
    raw_path: bytes | None = scope.get("raw_path")
    return IncomingRequest(
        # The handshake of a WebSocket is a GET (RFC 6455 section 4.1).
        method=scope.get("method", "GET"),
        path=paths[0],
        raw_path=raw_path.decode("latin-1") if raw_path else None,
        full_path=scope["path"],
        remote=host,
        authorization=authorization,
        x_forwarded_for=x_forwarded_for,
        forwarded=forwarded,
        traceparent=next(iter(traceparent), None),
        rewritten=port == 0,
        authenticated=IDENTITY in scope,
        websocket=scope["type"] == "websocket",
        address_headers=[value for values in occurrences.values() for value in values],
        trailers=bool(chunked) and (_decides(trailer, header) or max(len(x_forwarded_for), len(forwarded)) > 1),
        overlong=overlong,
        other_paths=paths[1:],
        proofs=proofs,
        origin=f"{_HTTP_SCHEMES.get(scheme, scheme)}://{hosts[0]}" if proofs and len(hosts) == 1 else None,
    )


def _decides(trailer: Sequence[str], header: CredentialHeader) -> bool:
    """Return True if a Trailer header (RFC 9110 section 6.6.2) announces a header that decides.

    uvicorn with httptools adds trailers to the headers. One that is too long to be read may announce anything.
    """
    value = ",".join(trailer)
    watched = ADDRESSES | header.names
    return len(value) > MAX_LENGTH or any(name.strip().lower().encode() in watched for name in value.split(","))
