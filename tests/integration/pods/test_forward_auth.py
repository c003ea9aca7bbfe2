"""An app in another language behind Caddy, as `podproof manifests --forward-auth` prints it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from podproof import ServiceAccount
from podproof.cli.manifests import render_manifests
from tests.integration.pods.actors import AppDeployment, CallerPod
from tests.integration.pods.kubectl import Kubectl, eventually
from tests.integration.pods.manifests import AUDIENCE, Document, Manifests

APP = Path(__file__).with_name("inside_app.py").read_text()


def adapted(document: Document, manifests: Manifests) -> Document:
    """Return a document as an operator would change it: the images, which are all the tests' own, and the app."""
    if document["kind"] == "Deployment":
        spec = document["spec"]["template"]["spec"]
        [alice] = manifests.caller("any")["spec"]["containers"]
        for container in spec["containers"]:
            container |= {name: alice[name] for name in ("image", "imagePullPolicy") if name in alice}
        app, proxy, podproof = spec["containers"]
        app["command"] = ["python3", "-c", APP]
        proxy["command"] = ["sh", "-c", f"PATH=$PATH:/opt/app/bin; exec {' '.join(proxy['command'])}"]
        podproof["command"][0] = "python3"
    return document


@pytest.fixture(scope="module")
def shop(deployed: None, kubectl: Kubectl, manifests: Manifests) -> Iterator[AppDeployment]:
    account, alice = (ServiceAccount(kubectl.namespace, name) for name in ("shop", "alice"))
    known = kubectl("api-versions").split()  # Kubernetes before 1.21 has no policy/v1
    rendered = [
        render_manifests(AUDIENCE, account, [alice], forward_auth="caddy", only="rbac"),
        render_manifests(AUDIENCE, account, [alice], forward_auth="caddy", only="server"),
    ]
    documents = [one for text in rendered for one in yaml.safe_load_all(text) if one["apiVersion"] in known]
    kubectl.apply(*(adapted(one, manifests) for one in documents))
    kubectl("rollout", "status", "deployment/shop", "--timeout", "120s")
    yield AppDeployment(kubectl, "shop")
    for one in documents:
        kubectl("delete", one["kind"], one["metadata"]["name"], "--wait=false")


def test_the_app_is_told_that_alice_calls_and_does_not_see_her_token(shop: AppDeployment, alice: CallerPod) -> None:
    forged = {"X-Podproof-Pod": "kube-system/root", "X_Podproof_Pod": "kube-system/root"}
    token = alice.token()
    response = eventually(lambda: alice.send(shop, token=token, headers=forged), good=lambda one: one.status == 200)
    told = response.json()
    assert told["x-podproof-pod"] == str(alice)
    assert told["x-podproof-pod-uid"] == alice.object["metadata"]["uid"]
    assert told["x-podproof-service-account"] == f"{alice.kubectl.namespace}/alice"
    assert "kube-system/root" not in response.body
    assert "authorization" not in told


def test_mallory_gets_nothing(shop: AppDeployment, alice: CallerPod, mallory: CallerPod) -> None:
    token = alice.token()
    eventually(lambda: alice.send(shop, token=token).status, good=lambda status: status == 200)
    stolen = {"X-Forwarded-For": alice.address, "Forwarded": f"for={alice.address}"}
    assert mallory.send(shop, token=token, headers=stolen).status == 403
    assert mallory.send(shop, token=mallory.token()).status == 403  # not in PODPROOF_ALLOW
    assert mallory.send(shop, token=None).status_and_challenge == (401, f'Bearer realm="{AUDIENCE}"')
    asked = {"X-Forwarded-Method": "GET", "X-Forwarded-Uri": "/", "X-Forwarded-For": alice.address}
    assert mallory.send(shop.address, "/", token=token, headers=asked).status == 403  # podproof itself
