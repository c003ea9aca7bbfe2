"""No log line holds a token."""

from __future__ import annotations

import pytest

from tests.integration.pods.actors import Bob, Caller
from tests.integration.pods.kubectl import Kubectl


@pytest.mark.trap(33)
def test_no_pod_s_log_holds_a_token_whatever_came_of_it(
    bob: Bob, alice: Caller, mallory: Caller, kubectl: Kubectl
) -> None:
    token = alice.token()
    others = [
        kubectl.issue_token("alice", "carol", bound_to=alice.object),
        kubectl.issue_token("alice", "bob"),
        token[:-8] + token[-8:][::-1],
        f"{token} {token}",
    ]
    for caller in (alice, mallory):
        for sent in (token, *others):
            caller.send(bob, token=sent)
    logs = kubectl.logs()
    assert "denied with" in "".join(logs.values())
    # Every JSON Web Token begins with a brace and a quote in base64.
    assert [pod for pod, log in logs.items() if "eyJ" in log] == []
