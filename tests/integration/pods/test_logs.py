"""No log line holds a token."""

from __future__ import annotations

import pytest

from tests.integration.pods.actors import AppDeployment, CallerPod
from tests.integration.pods.kubectl import Kubectl


@pytest.mark.trap(33)
def test_no_log_holds_a_token_whether_allowed_or_denied(
    app: AppDeployment, alice: CallerPod, mallory: CallerPod, kubectl: Kubectl
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
            caller.send(app, token=sent)
    logs = kubectl.logs()
    assert "denied with" in "".join(logs.values())
    # Every JWT begins with `{"` in base64.
    assert [pod for pod, log in logs.items() if "eyJ" in log] == []
