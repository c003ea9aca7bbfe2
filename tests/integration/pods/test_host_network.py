"""Pods on the host network share the node's address, which is proof of the node alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.integration.pods.actors import Bob, Caller


@pytest.fixture(scope="module")
def hosted(new_caller: Callable[..., Caller]) -> Caller:
    return new_caller("hosted", hostNetwork=True)


@pytest.mark.trap(20)
def test_a_pod_on_the_host_network_is_refused(bob: Bob, hosted: Caller) -> None:
    assert hosted.send(bob, token=hosted.token()).status == 403
    assert bob.log_lines("403 host-network", f"pod={hosted}")


def test_a_stolen_token_from_the_node_is_refused(bob: Bob, hosted: Caller, alice: Caller) -> None:
    assert hosted.send(bob, token=alice.token()).status == 403
    assert bob.log_lines("403 wrong-address", f"pod={alice}")


def test_a_pod_on_the_host_network_is_known_where_that_is_wanted(
    find_bob: Callable[[str], Bob], hosted: Caller, mallory: Caller
) -> None:
    bob = find_bob("bob-host-network")
    # By the pod's address and from the node's main one: by a Service, or by a route of its own choice, the node calls a
    # pod that it runs itself from the address it has on the pods' network.
    answer = hosted.send(bob.address, token=hosted.token(), source=hosted.address)
    assert answer.status == 200
    assert answer.json()["pod"] == str(hosted)
    assert mallory.send(bob.address, token=hosted.token()).status == 403
