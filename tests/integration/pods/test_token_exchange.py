"""Alice trades her token at a bridge; a service without permissions knows her pod by what she got."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from urllib.parse import urlencode

import jwt
import pytest
import yaml

from podproof import ServiceAccount
from podproof.cli.manifests import render_manifests
from podproof.exchange.token_request import JWT_BEARER
from tests.integration.pods.actors import CallerPod, PodResponse
from tests.integration.pods.kubectl import Kubectl, eventually
from tests.integration.pods.manifests import Manifests

BRIDGE = """
import pathlib, uvicorn
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from podproof.exchange import Grant, TokenExchange
keys = pathlib.Path("/dev/shm/keys")
keys.mkdir()
pem = generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
(keys / "1.pem").write_bytes(pem)
(keys / "1.pairwise").write_bytes(b"a secret of this test, of more than 32 bytes")
grants = [
    Grant(audience="ledger", allow=["*/alice"], introspect=["*/mallory"]),
    Grant(audience="partner", allow=["*/alice"], subject="pairwise"),
]
exchange = TokenExchange(issuer="http://bridge", keys=keys, grants=grants, audience="bob")
uvicorn.run(exchange, host="0.0.0.0", port=8080, proxy_headers=False)
"""
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture(scope="module")
def bridge(deployed: None, kubectl: Kubectl, manifests: Manifests, mallory: CallerPod) -> Iterator[str]:
    """Return the address of the bridge, once it responds."""
    account = ServiceAccount(kubectl.namespace, "bridge")
    roles = [*yaml.safe_load_all(render_manifests(None, account, [], exchange=True, only="rbac"))]
    kubectl.apply(
        *roles,
        manifests.service_account("bridge"),
        manifests.caller("bridge", service_account="bridge", script=BRIDGE, automountServiceAccountToken=True),
    )
    kubectl.wait_for("bridge")
    address = CallerPod(kubectl, "bridge").address

    def responds() -> bool:
        try:
            return mallory.send(address, "/jwks.json", token=None).status == 200
        except RuntimeError:  # connection refused: it is not up yet
            return False

    eventually(responds)
    yield address
    for role in roles:
        kubectl("delete", role["kind"], role["metadata"]["name"])


def trade(bridge: str, sender: CallerPod, token: str, audience: str = "ledger") -> PodResponse:
    body = urlencode({"grant_type": JWT_BEARER, "assertion": token, "audience": audience})
    return sender.send(bridge, "/token", token=None, method="POST", body=body, headers=FORM)


def test_alice_is_known_by_her_pod_to_a_service_without_permissions(
    bridge: str, alice: CallerPod, mallory: CallerPod
) -> None:
    keys = jwt.PyJWKSet.from_dict(mallory.send(bridge, "/jwks.json", token=None).json())
    subjects = {}
    for audience in ("ledger", "partner"):
        issued = trade(bridge, alice, alice.token(), audience).json()["access_token"]
        key = keys[jwt.get_unverified_header(issued)["kid"]]
        claims = jwt.decode(issued, key, algorithms=["ES256"], audience=audience, issuer="http://bridge")
        subjects[audience] = claims["sub"]
        if audience == "ledger":
            assert claims["kubernetes.io"]["pod"]["name"] == alice.name
            assert claims["kubernetes.io"]["pod"]["uid"] == alice.object["metadata"]["uid"]
        else:
            assert "kubernetes.io" not in claims
    assert subjects["ledger"] == f"system:serviceaccount:{alice.kubectl.namespace}:alice"
    assert subjects["partner"] != subjects["ledger"]


def test_alices_projected_token_gets_nothing_from_mallorys_address(
    bridge: str, alice: CallerPod, mallory: CallerPod
) -> None:
    response = trade(bridge, mallory, alice.token())
    assert (response.status, response.json()["error"]) == (400, "invalid_grant")


def test_a_deleted_pods_token_is_inactive_within_two_seconds(
    bridge: str, mallory: CallerPod, new_caller: Callable[..., CallerPod]
) -> None:
    short_lived = new_caller("alice-short-lived", terminationGracePeriodSeconds=1)
    issued = trade(bridge, short_lived, short_lived.token()).json()["access_token"]
    asking = mallory.token()

    def is_active() -> bool:
        body = urlencode({"token": issued})
        response = mallory.send(bridge, "/introspect", token=asking, method="POST", body=body, headers=FORM)
        return bool(response.json()["active"])

    assert is_active()
    short_lived.delete()
    time.sleep(1)  # a call from a pod takes most of the second one
    assert not is_active()
