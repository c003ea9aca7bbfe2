"""From a WSGI environ to the facts of a request, and to the decision on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from podproof._authentication.cached_identity import CachedIdentity
from podproof._authentication.claims import MAX_TOKEN
from podproof._request.blocking_driver import run_flow
from podproof._request.context import IDENTITY
from podproof._request.credential import CredentialHeader
from podproof._request.flow import Allowed
from podproof._request.incoming import IncomingRequest
from podproof._request.peer import ADDRESS_HEADERS
from podproof._request.pipeline import RequestPipeline
from podproof._request.routing import Routing

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

AUTHORIZATION = CredentialHeader("Authorization")
# Where one of these is there, the peer's address may not be the socket's: such a request goes the whole way.
_ADDRESS_KEYS = frozenset("HTTP_" + name.upper().replace("-", "_") for name in ADDRESS_HEADERS)
UNUSUAL = _ADDRESS_KEYS | {"werkzeug.proxy_fix.orig", IDENTITY}
_OTHER_KEYS = _ADDRESS_KEYS - {"HTTP_X_FORWARDED_FOR", "HTTP_FORWARDED"}
LONGEST = len("Bearer ") + MAX_TOKEN


def decide(
    pipeline: RequestPipeline,
    routing: Routing,
    environ: WSGIEnvironment,
    key: bytes | None,
    known: CachedIdentity | None,
) -> Allowed:
    """Return who a request is allowed for; see `RequestPipeline.decide`. Raises a PodAuthError to deny."""
    paths = routing.read_wsgi(environ.get("PATH_INFO", "")) if pipeline.checks_paths else ("",)
    request = read_request(environ, paths, pipeline.header)
    if key is not None and not request.authorization[0].startswith("Bearer "):
        key = None  # the scheme in another case: the same token has another key
    return run_flow(pipeline.decide(request, key, known))


def read_request(
    environ: WSGIEnvironment, paths: Sequence[str] = ("",), header: CredentialHeader = AUTHORIZATION
) -> IncomingRequest:
    """Return the facts of an environ; `paths` are what the wrapped app may route it as, `header` has the credential."""
    # ProxyFix keeps what it replaces.
    original = environ.get("werkzeug.proxy_fix.orig", environ)
    # WSGI servers join several occurrences of a header with commas, in order.
    authorization = environ.get(header.key)
    x_forwarded_for = environ.get("HTTP_X_FORWARDED_FOR")
    forwarded = environ.get("HTTP_FORWARDED")
    proof, host = environ.get("HTTP_DPOP"), environ.get("HTTP_HOST")
    return IncomingRequest(
        environ["REQUEST_METHOD"],
        paths[0],
        _raw_path(environ),
        environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", ""),
        original.get("REMOTE_ADDR"),
        () if authorization is None else (authorization,),
        () if x_forwarded_for is None else (x_forwarded_for,),
        () if forwarded is None else (forwarded,),
        environ.get("HTTP_TRACEPARENT"),
        authenticated=IDENTITY in environ,
        address_headers=[environ[key] for key in _OTHER_KEYS & environ.keys()],
        other_paths=paths[1:],
        proofs=() if proof is None else (proof,),
        origin=None if proof is None or host is None else f"{environ['wsgi.url_scheme']}://{host}",
    )


def _raw_path(environ: WSGIEnvironment) -> str | None:
    """Return the path as it was sent, before decoding; gunicorn and Werkzeug pass it on, PEP 3333 has no key for it."""
    target: str | None = environ.get("RAW_URI") or environ.get("REQUEST_URI")
    return None if target is None else target.partition("?")[0]
