"""The caller as the MCP SDK has its users: an `AuthenticatedUser` with an `AccessToken`."""

from __future__ import annotations

from mcp.server.auth.middleware.auth_context import auth_context_var
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken

from podproof._request.context import CurrentRequest
from podproof.identity import PodIdentity


class CallerUser(AuthenticatedUser):
    """The caller of one request, by which the SDK knows whose session it is.

    The SDK runs a tool in a task of the session, with a copy of the request's context. The access token is None once
    the request has ended, as the caller is.
    """

    def __init__(self, request: CurrentRequest, identity: PodIdentity) -> None:
        # What the SDK has as attributes is made when it is asked for.
        self._request = request
        self._identity = identity
        self._token: AccessToken | None = None

    @property
    def username(self) -> str:  # type: ignore[override]  # as below
        """The caller's service account."""
        return str(self._identity.service_account)

    @property
    def scopes(self) -> list[str]:  # type: ignore[override]  # as below
        """The scopes of the caller's access token."""
        return _scopes(self._identity)

    @property
    def access_token(self) -> AccessToken | None:  # type: ignore[override]  # the SDK's own accessor returns it as it is
        """The caller's access token, without the token itself."""
        if self._request.identity is None:
            return None
        self._token = self._token or access_token(self._identity)
        return self._token


def access_token(identity: PodIdentity) -> AccessToken:
    """Return the SDK's access token for a caller: the client is its service account, the subject its pod's UID.

    It does not hold the bearer token: the app must not see that. Of a token that an exchange has issued, it has the
    scopes, the subject, and who acts for it.
    """
    account, pod = identity.service_account, identity.pod
    return AccessToken(
        token="",
        client_id=str(account),
        scopes=_scopes(identity),
        expires_at=int(identity.expires_at),
        resource=identity.audience,
        subject=pod.uid,
        claims={
            "sub": identity.extra.get("sub", (account.username,))[0],
            **({"act": {"sub": identity.extra["act.sub"][0]}} if "act.sub" in identity.extra else {}),
            "aud": [identity.audience],
            "kubernetes.io": {
                "namespace": account.namespace,
                "pod": {"name": pod.name, "uid": pod.uid},
                "serviceaccount": {"name": account.name, "uid": account.uid},
            },
        },
    )


def _scopes(identity: PodIdentity) -> list[str]:
    return [*identity.scopes, *identity.extra.get("scope", ())]


def current_access_token() -> AccessToken | None:
    """Return the access token of the current request's caller, None for an anonymous one."""
    user = auth_context_var.get()
    return user.access_token if isinstance(user, CallerUser) else None
