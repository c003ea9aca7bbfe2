"""Pods on the host network have the node's address, which identifies the node and no pod."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.integration.pods.actors import AppDeployment, CallerPod


@pytest.fixture(scope="module")
def host_network_pod(new_caller: Callable[..., CallerPod]) -> CallerPod:
    return new_caller("host-network-pod", hostNetwork=True)


@pytest.mark.trap(20)
def test_a_pod_on_the_host_network_is_denied(app: AppDeployment, host_network_pod: CallerPod) -> None:
    assert host_network_pod.send(app, token=host_network_pod.token()).status == 403
    assert app.log_lines("403 host-network", f"pod={host_network_pod}")


def test_a_stolen_token_is_denied_from_the_node(
    app: AppDeployment, host_network_pod: CallerPod, alice: CallerPod
) -> None:
    assert host_network_pod.send(app, token=alice.token()).status == 403
    assert app.log_lines("403 wrong-address", f"pod={alice}")


def test_a_pod_on_the_host_network_is_allowed_with_the_option(
    find_app: Callable[[str], AppDeployment], host_network_pod: CallerPod, mallory: CallerPod
) -> None:
    app = find_app("bob-host-network")
    # To the pod's address, and from the node's main one: through a Service, or with no source address given, the node
    # calls its own pods from the address that it has on the pod network.
    response = host_network_pod.send(app.address, token=host_network_pod.token(), source=host_network_pod.address)
    assert response.status == 200
    assert response.json()["pod"] == str(host_network_pod)
    assert mallory.send(app.address, token=host_network_pod.token()).status == 403
