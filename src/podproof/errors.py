"""Every way to be refused. Each owns its HTTP status, its RFC 6750 error word, and a text that is safe to show.

What a caller sees depends only on the family (`InvalidToken`, `Forbidden`, ...): which check said no is for the log.
"""

from __future__ import annotations

from copy import copy
from traceback import extract_tb
from typing import Self

from podproof.identity import PodIdentity


class ConfigurationError(ValueError):
    """An option is wrong: says what was given and what is possible."""


class PodAuthError(Exception):
    """A request is refused. `str()` is the reason for the log: it never holds a token, and is never sent.

    `code` names the refusal for logs and metrics, `status` is the HTTP status, `error` the word of RFC 6750 section
    3.1 (None where that section wants no word), `detail` the one text that the caller is shown, `retry_after` the
    seconds after which asking again makes sense.
    """

    code = "denied"
    status = 401
    error: str | None = None
    title = "Unauthorized"
    detail = "A bearer token is needed."
    retry_after: int | None = None

    service_account: str | None = None
    pod: str | None = None
    identity: PodIdentity | None = None
    peer: str | None = None

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def with_subject(self, service_account: object, pod: object) -> Self:
        """Note whom this refuses, for the log: only what the API server has vouched for."""
        self.service_account, self.pod = str(service_account), str(pod)
        return self

    def with_identity(self, identity: PodIdentity, peer: str | None = None) -> Self:
        """Note the known caller whom this refuses, and the address that it calls from where that was compared."""
        self.identity, self.peer = identity, peer
        return self.with_subject(identity.service_account, identity.pod)

    def without_traceback(self) -> Self:
        """Return the same refusal, to be raised once more without the first one's traceback."""
        return copy(self)


class NoCredential(PodAuthError):
    """There is no Authorization header, or it is not a bearer token: RFC 6750 section 3.1 wants a bare challenge."""

    code = "no-credential"


class MalformedCredential(PodAuthError):
    """The Authorization header is not exactly one `Bearer` token."""

    code = "malformed-credential"
    status = 400
    error = "invalid_request"
    title = "Bad Request"
    detail = "The Authorization header must be given once, as: Bearer <token>"


class InvalidToken(PodAuthError):
    """The token is not good for this app."""

    code = "invalid-token"
    error = "invalid_token"
    detail = "The token is not accepted here."


class MalformedToken(InvalidToken):
    """It is not a JSON Web Token in its one canonical form."""

    code = "malformed-token"


class WrongAudience(InvalidToken):
    """The token was issued for somebody else."""

    code = "wrong-audience"


class WrongIssuer(InvalidToken):
    """The token comes from an issuer that is not among those named."""

    code = "wrong-issuer"


class Expired(InvalidToken):
    """The token's time is over, or has not come."""

    code = "expired"


class NotPodBound(InvalidToken):
    """The token is bound to no pod, so there is none to compare the connection with."""

    code = "not-pod-bound"


class TokenReviewFailed(InvalidToken):
    """The API server does not vouch for the token, or not in the way that a pod's token needs."""

    code = "token-review-failed"


class PodGone(InvalidToken):
    """The pod that the token is bound to is no more; one of the same name may have taken its place."""

    code = "pod-gone"


class PodFinished(InvalidToken):
    """The pod has run to its end: its address may be another's by now."""

    code = "pod-finished"


class ServiceAccountMismatch(InvalidToken):
    """The pod does not run as the token's service account."""

    code = "service-account-mismatch"


class Forbidden(PodAuthError):
    """The token is good, and still the caller may not be here."""

    code = "forbidden"
    status = 403
    error = "insufficient_scope"
    title = "Forbidden"
    detail = "The caller is not allowed here."


class WrongAddress(Forbidden):
    """The connection does not come from the token's pod."""

    code = "wrong-address"


class PeerUnknown(Forbidden):
    """The connection's true peer address cannot be known."""

    code = "peer-unknown"


class HostNetwork(Forbidden):
    """The pod is on the host network, whose address proves only the node."""

    code = "host-network"


class NotAllowed(Forbidden):
    """The caller is known, and not on the list."""

    code = "not-allowed"


class Unavailable(PodAuthError):
    """The API server could not be asked: our trouble, and no word on the token."""

    code = "unavailable"
    status = 503
    title = "Service Unavailable"
    detail = "The caller cannot be identified just now. Try again."
    retry_after = 1

    @classmethod
    def unexpected(cls, error: Exception) -> Self:
        """Return the refusal for an error that nobody thought of: without its text, which may quote a token."""
        place = extract_tb(error.__traceback__)[-1]
        return cls(f"an unexpected {type(error).__name__} in {place.name}, line {place.lineno}")


class Overloaded(Unavailable):
    """Too many questions are waiting for the API server already, or too much was refused that came from one address."""

    code = "overloaded"


class NoAddressYet(PodAuthError):
    """The cluster does not say yet where the pod is: the kubelet tells a second or two after the pod has started."""

    code = "no-address-yet"
    status = Unavailable.status
    title = Unavailable.title
    detail = Unavailable.detail
    retry_after = 1


class IdentityEnded(OSError):
    """The caller's token has expired while it was connected: to the app, the caller is gone (ASGI HTTP spec 2.4)."""
