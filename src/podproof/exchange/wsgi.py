"""`IssuedTokenMiddleware` for WSGI apps: callers with a token that a token exchange has issued."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

from podproof.exchange.issued_tokens import IssuedTokenArguments, build_issued_pipeline, issued_signature
from podproof.wsgi import PodAuthMiddleware

if TYPE_CHECKING:
    from podproof._request.pipeline import RequestPipeline

__all__ = ["IssuedTokenMiddleware"]


class IssuedTokenMiddleware(PodAuthMiddleware):
    """Allows only requests with a token of a token exchange, and tells the app which pod is calling.

    The token is verified by the published keys of its `issuer`: no API server is asked, and no permission needed.
    Unless `dpop` is "optional", it has to be bound to a key, and each request to prove that its sender has that key
    (RFC 9449). Options are those of `IssuedTokenOptions`, and those of `PodAuthMiddleware` that are about requests,
    caches and what a caller may do.

    The caller is a `PodIdentity` as there, its pod the one that the token was issued to. Its `extra` has the token's
    claims `sub`, the user's for whom it acts, `client_id`, `scope` and `act.sub`. A token that names no pod is denied.

    With `introspect`, the exchange is asked on risky requests whether the token is still active (RFC 7662), by this
    pod's own token: 401 if it is not, 503 while the exchange cannot be asked.

    Raises ConfigurationError as `PodAuthMiddleware` does.
    """

    __signature__ = issued_signature()

    def __init__(self, app: Any, **given: Unpack[IssuedTokenArguments]) -> None:
        super().__init__(app, **given)  # type: ignore[misc]  # _build_pipeline has the other arguments

    def _build_pipeline(self, given: Any) -> RequestPipeline:
        return build_issued_pipeline(given)
