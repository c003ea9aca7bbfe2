"""The errors that podproof raises.

Each reason to deny a request is a subclass of `PodAuthError`, with its HTTP status, its RFC 6750 error code and a text
that is safe to send. The response depends on the family alone (`InvalidToken`, `Forbidden`, `Unavailable`, ...): the
exact reason is for the log.

`retryable` says whether the same request can succeed when it is repeated soon.
"""

from __future__ import annotations

from copy import copy
from traceback import extract_tb
from typing import Self

from podproof.identity import PodIdentity

__all__ = [
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
]


class ConfigurationError(ValueError):
    """An option is invalid. The message says what was given and what was expected."""

    retryable = False


class TokenUnavailable(Exception):
    """No token is available to send. The message names the file, the problem and the fix, and holds no token.

    `args` are the problem and the fix. Raised inside `requests`, it is a `requests.RequestException` too.
    """

    retryable = False

    def __str__(self) -> str:
        return "\n".join(self.args)


class HostNotAllowed(Exception):
    """The token would go to a host that is not in `hosts`, or unencrypted to a proxy. The request is not sent.

    Raised inside `requests`, it is a `requests.RequestException` too.
    """

    retryable = False


class PodAuthError(Exception):
    """A request is denied. `str()` is the reason for the log: it never holds a token, and is never sent.

    `code` names the reason in logs and metrics. `status` is the HTTP status, `error` the error code of RFC 6750 section
    3.1 (None where that section wants none), `detail` the text that the caller sees, `retry_after` the seconds after
    which `retryable` requests can be repeated. `service_account`, `pod`, `identity` and `peer` say who was denied, as
    far as it is known.
    """

    code = "denied"
    status = 401
    error: str | None = None
    title = "Unauthorized"
    detail = "A bearer token is needed."
    retryable = False
    retry_after: int | None = None

    service_account: str | None = None
    pod: str | None = None
    identity: PodIdentity | None = None
    peer: str | None = None

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def with_subject(self, service_account: object, pod: object) -> Self:
        """Return this error with the names of who was denied: only what the API server has authenticated."""
        self.service_account, self.pod = str(service_account), str(pod)
        return self

    def with_identity(self, identity: PodIdentity, peer: str | None = None) -> Self:
        """Return this error with the identity that was denied, and the peer address if that was compared."""
        self.identity, self.peer = identity, peer
        return self.with_subject(identity.service_account, identity.pod)

    def without_traceback(self) -> Self:
        """Return a copy without the traceback, to raise again."""
        return copy(self)


class NoCredential(PodAuthError):
    """The request has no bearer token in the header for it (RFC 6750 section 3.1: no error code)."""

    code = "no-credential"


class MalformedCredential(PodAuthError):
    """The header for the token is not exactly one `Bearer` token."""

    code = "malformed-credential"
    status = 400
    error = "invalid_request"
    title = "Bad Request"
    detail = "The header with the token must be given once, as: Bearer <token>"


class InvalidToken(PodAuthError):
    """The token is rejected."""

    code = "invalid-token"
    error = "invalid_token"
    detail = "The token is not accepted here."


class MalformedToken(InvalidToken):
    """The token is not a JSON Web Token in canonical form."""

    code = "malformed-token"


class WrongAudience(InvalidToken):
    """The token was issued for another audience."""

    code = "wrong-audience"


class WrongIssuer(InvalidToken):
    """The token was issued by an issuer that is not accepted."""

    code = "wrong-issuer"


class Expired(InvalidToken):
    """The token has expired, or is not valid yet."""

    code = "expired"


class NotPodBound(InvalidToken):
    """The token is not bound to a pod, so there is no pod to compare the peer address with."""

    code = "not-pod-bound"


class TokenReviewFailed(InvalidToken):
    """The API server's TokenReview did not authenticate the token, or not as a bound token of a service account."""

    code = "token-review-failed"


class SignatureInvalid(InvalidToken):
    """The token names one of the issuer's signing keys, and is not signed with it."""

    code = "invalid-signature"


class PodGone(InvalidToken):
    """The pod that the token is bound to no longer exists, even if there is a new pod of the same name."""

    code = "pod-gone"


class PodFinished(InvalidToken):
    """The pod has finished (phase Succeeded or Failed): its address may belong to another pod by now."""

    code = "pod-finished"


class ServiceAccountMismatch(InvalidToken):
    """The pod does not run as the token's service account."""

    code = "service-account-mismatch"


class TokenInactive(InvalidToken):
    """The token exchange that has issued the token says that it is not active any more."""

    code = "token-inactive"


class InvalidProof(PodAuthError):
    """The request does not show that its sender holds the key that the token is bound to (RFC 9449 section 4.3)."""

    code = "invalid-proof"
    error = "invalid_dpop_proof"
    detail = "The DPoP proof is not accepted here."


class NonceNeeded(PodAuthError):
    """The proof has to have a nonce that the response brings (RFC 9449 section 9)."""

    code = "nonce-needed"
    error = "use_dpop_nonce"
    detail = "The DPoP proof needs the nonce of this response's DPoP-Nonce header."

    def __init__(self, reason: str, nonce: str = "") -> None:
        super().__init__(reason)
        self.nonce = nonce


class Forbidden(PodAuthError):
    """The token is valid, but the caller is not allowed."""

    code = "forbidden"
    status = 403
    error = "insufficient_scope"
    title = "Forbidden"
    detail = "The caller is not allowed here."


class WrongAddress(Forbidden):
    """The peer address is not one of the pod's addresses."""

    code = "wrong-address"


class PeerUnknown(Forbidden):
    """The connection's peer address cannot be determined."""

    code = "peer-unknown"


class OriginalUnknown(Forbidden):
    """A proxy asks about a request (forward auth), and does not say clearly about which."""

    code = "original-unknown"


class HostNetwork(Forbidden):
    """The pod is on the host network: its address identifies the node, not the pod."""

    code = "host-network"


class NotAllowed(Forbidden):
    """The policy does not allow this caller."""

    code = "not-allowed"


class Unavailable(PodAuthError):
    """The API server did not respond as needed: this says nothing about the token."""

    code = "unavailable"
    status = 503
    title = "Service Unavailable"
    detail = "The caller cannot be identified just now. Try again."
    retryable = True
    retry_after = 1

    @classmethod
    def unexpected(cls, error: Exception) -> Self:
        """Return the error for an unexpected exception, without its text, which may quote a token."""
        place = extract_tb(error.__traceback__)[-1]
        return cls(f"an unexpected {type(error).__name__} in {place.name}, line {place.lineno}")


class Overloaded(Unavailable):
    """Too many TokenReviews are waiting, or too many tokens from this peer address were rejected."""

    code = "overloaded"


class NoAddressYet(PodAuthError):
    """The pod has no address in its status yet: the kubelet reports it a second or two after the start."""

    code = "no-address-yet"
    status = Unavailable.status
    title = Unavailable.title
    detail = Unavailable.detail
    retryable = True
    retry_after = 1


class IdentityEnded(OSError):
    """The caller's token has expired during its request: the app sees a disconnected client (ASGI HTTP spec 2.4)."""
