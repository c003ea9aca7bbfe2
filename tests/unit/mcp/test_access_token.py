"""The caller as the SDK's user."""

from __future__ import annotations

from podproof._mcp.access_token import CallerUser
from podproof._request.context import CurrentRequest
from podproof.identity import Pod, PodIdentity, ServiceAccount

ALICE = PodIdentity(ServiceAccount("default", "alice"), Pod("default", "alice-pod", "pod-uid"), "bob", 0)


def test_the_caller_is_a_user_of_the_sdk_until_its_request_has_ended() -> None:
    request = CurrentRequest()
    request.identity = ALICE
    user = CallerUser(request, ALICE)
    assert (user.is_authenticated, user.display_name, user.username) == (True, "default/alice", "default/alice")
    token = user.access_token
    assert token is not None
    assert user.scopes == token.scopes == ["authenticated", "namespace:default", "serviceaccount:default/alice"]
    assert (token.client_id, token.subject, token.token) == ("default/alice", "pod-uid", "")
    assert user.access_token is token
    request.identity = None
    assert user.access_token is None
