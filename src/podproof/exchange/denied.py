"""Why an exchange refuses, for the log, and the error of RFC 6749 that the client gets for it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from podproof.errors import InvalidProof, NonceNeeded, NotAllowed, PodAuthError
from podproof.exchange.oauth_error import OAuthError
from podproof.exchange.token_request import CredentialSource


class MalformedRequest(PodAuthError):
    """The request is not one that a token endpoint understands."""

    code = "malformed-request"
    status = 400


class WrongClient(NotAllowed):
    """The request has the client_id of somebody else."""

    code = "wrong-client"


class TargetNotGranted(NotAllowed):
    """No grant lets the caller have a token for the audience that it asks for."""

    code = "target-not-granted"


class ScopeNotGranted(NotAllowed):
    """No grant lets the caller have a scope that it asks for."""

    code = "scope-not-granted"


_UNAUTHORIZED = ("invalid_client", "invalid_token")

_REJECTED: Mapping[CredentialSource, str] = MappingProxyType(
    {
        "subject_token": "invalid_request",  # RFC 8693 section 2.2.2
        "actor_token": "invalid_request",
        "assertion": "invalid_grant",  # RFC 7523 section 3.1
        "client_assertion": "invalid_client",  # RFC 7523 section 3.2
        "Authorization header": "invalid_token",  # RFC 7662 section 2.3: as RFC 6750 section 3.1
    }
)

_NOT_ALLOWED: Mapping[type[NotAllowed], tuple[str, str]] = MappingProxyType(
    {
        TargetNotGranted: ("invalid_target", "No token is issued for this audience or resource."),
        ScopeNotGranted: ("invalid_scope", "A scope is not granted."),
        WrongClient: ("invalid_client", "The client_id is not the caller's."),
        NotAllowed: ("unauthorized_client", "The caller is not allowed here."),
    }
)


def error_of_denial(denial: PodAuthError, source: CredentialSource) -> OAuthError:
    """Return the error for a denied request; `source` is the parameter that had the token which was denied.

    As with the responses of a middleware it says which kind of denial this is, and no more: a token that is not
    accepted looks the same whether it is forged, for another audience, or sent from elsewhere than its pod.
    """
    if denial.retryable:
        headers = {"Retry-After": str(denial.retry_after)}
        return OAuthError("temporarily_unavailable", denial.detail, status=denial.status, headers=headers)
    if isinstance(denial, InvalidProof | NonceNeeded):  # RFC 9449 sections 5 and 8
        headers = {"DPoP-Nonce": denial.nonce} if isinstance(denial, NonceNeeded) else {}
        return OAuthError(str(denial.error), denial.detail, headers=headers)
    error, description = _REJECTED[source], f"The {source} is not accepted here."
    if isinstance(denial, NotAllowed):
        error, description = _NOT_ALLOWED[type(denial)]
    return OAuthError(error, description, status=401 if error in _UNAUTHORIZED else 400)
