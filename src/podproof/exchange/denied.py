"""From the denial of a caller to the error of a token endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from podproof.errors import NotAllowed, PodAuthError
from podproof.exchange.grants import ScopeNotGranted, TargetNotGranted
from podproof.exchange.oauth_error import OAuthError
from podproof.exchange.token_request import CredentialSource

_REJECTED: Mapping[CredentialSource, str] = MappingProxyType(
    {
        "subject_token": "invalid_request",  # RFC 8693 section 2.2.2
        "actor_token": "invalid_request",
        "assertion": "invalid_grant",  # RFC 7523 section 3.1
        "client_assertion": "invalid_client",  # RFC 7523 section 3.2
    }
)


def error_of_denial(denial: PodAuthError, source: CredentialSource) -> OAuthError:
    """Return the error for a denied caller; `source` is the parameter that had its token.

    As with the responses of a middleware it says which kind of denial this is, and no more: a token that is not
    accepted looks the same whether it is forged, for another audience, or sent from elsewhere than its pod.
    """
    if denial.retryable:
        headers = {"Retry-After": str(denial.retry_after)}
        return OAuthError("temporarily_unavailable", denial.detail, status=denial.status, headers=headers)
    if isinstance(denial, TargetNotGranted):
        return OAuthError("invalid_target", "No token is issued for this audience or resource.")
    if isinstance(denial, ScopeNotGranted):
        return OAuthError("invalid_scope", "A scope is not granted.")
    if isinstance(denial, NotAllowed):
        return OAuthError("unauthorized_client", "The caller is not allowed here.")
    error = _REJECTED[source]
    return OAuthError(error, f"The {source} is not accepted here.", status=401 if error == "invalid_client" else 400)
