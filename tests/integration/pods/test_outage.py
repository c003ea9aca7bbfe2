"""The API server is away, or gets another signing key, while a pod calls: every token that it sends is a new one."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from tests.integration.contract import Access
from tests.integration.pods.actors import AppDeployment, CallerPod
from tests.integration.pods.api_server import APIServerProcess
from tests.integration.pods.kubectl import Kubectl, eventually
from tests.integration.pods.manifests import Manifests

SCRIPT = Path(__file__).with_name("inside_outage.py").read_text()
OUTAGE = 60  # seconds
LIFE = 6  # seconds for which each token is sent
FAR = 4_000_000_000.0


@dataclass
class Load:
    """A pod that sends the tokens of a plan to apps, by their pods' addresses: endpoints come and go in an outage."""

    pod: CallerPod
    apps: list[AppDeployment]
    tokens: dict[str, tuple[float, float, str]] = field(default_factory=dict)
    end: float = FAR

    def issue(self, lifetime: int) -> str:
        """Return a token as the kubelet mounts it in this pod."""
        return self.pod.kubectl.issue_token("alice", "bob", bound_to=self.pod.object, lifetime=lifetime)

    def write_plan(self) -> None:
        urls = [f"http://{app.address}:8080/whoami" for app in self.apps]
        plan = json.dumps({"urls": urls, "tokens": self.tokens, "end": self.end})
        self.pod.run("sh", "-c", "cat > /dev/shm/new && mv /dev/shm/new /dev/shm/plan.json", stdin=plan)

    def results(self) -> dict[str, list[set[str]]]:
        """Wait for the end, and return by token which responses it got from each app."""
        eventually(lambda: self.pod.object["status"]["phase"], good=lambda phase: phase == "Succeeded", within=120)
        by_app = json.loads(self.pod.kubectl("logs", self.pod.name)).values()
        outcomes = [[key.split() for key in one] for one in by_app]
        return {name: [{status for sent, status in one if sent == name} for one in outcomes] for name in self.tokens}


@pytest.fixture
def api_server(real: Access, kubectl: Kubectl, new_caller: Callable[..., CallerPod]) -> Iterator[APIServerProcess]:
    """Return the API server's process, and wait at the end until the cluster is as it was.

    Its nodes count as dead at first, and its other components wait longer and longer before they try again.
    """
    process = APIServerProcess.find(kubectl, real)
    yield process
    back = time.time()
    eventually(lambda: renewed_at(kubectl), good=lambda renewed: renewed > back)
    kubectl("wait", "--for", "condition=Ready", "--timeout", "60s", "node", "--all")
    kubectl("wait", "--for", "condition=Available", "--timeout", "60s", "deployment", "--all")
    new_caller("after-it").delete()
    assert process.is_unchanged()


def renewed_at(kubectl: Kubectl) -> float:
    """Return when the kubelet has last said that its node is alive, in Unix seconds."""
    leases = json.loads(kubectl("get", "leases", "--namespace", "kube-node-lease", "--output", "json"))["items"]
    return min(datetime.fromisoformat(lease["spec"]["renewTime"]).timestamp() for lease in leases)


@pytest.fixture
def start_load(
    new_caller: Callable[..., CallerPod], find_app: Callable[[str], AppDeployment], kubectl: Kubectl
) -> Callable[..., Load]:
    """Return a function that starts a pod, which calls apps with one token until its plan says otherwise."""

    def start(name: str, *apps: str) -> Load:
        load = Load(new_caller(name, script=SCRIPT), [find_app(app) for app in apps])
        load.tokens["known-0"] = (0, FAR, load.issue(600))
        load.write_plan()
        for app in load.apps:
            assert load.pod.send(app.address, token=load.tokens["known-0"][2]).status == 200
        return load

    return start


@pytest.fixture(scope="module")
def with_old_view(deployed: None, kubectl: Kubectl, manifests: Manifests) -> str:
    """Return the name of an app whose view of the pods is too old for it after some seconds of an outage."""
    env = {"PODPROOF_VERIFY": "keys", "PODPROOF_MAX_STALENESS": "10"}
    kubectl.apply(*manifests.app("bob-old-view", env=env, service_account="bob-keys"))
    return "bob-old-view"


def test_with_keys_another_signing_key_denies_no_caller(
    api_server: APIServerProcess, start_load: Callable[..., Load], tmp_path: Path, real: Access
) -> None:
    load = start_load("caller-rotation", "bob-keys")
    first = jwt.get_unverified_header(load.tokens["known-0"][2])["kid"]
    with api_server.signing_with(*write_key(tmp_path)):
        for number in range(1, 4):
            token = load.issue(600 + number)
            assert jwt.get_unverified_header(token)["kid"] != first
            now = time.time()
            load.tokens = {name: (begin, min(end, now), one) for name, (begin, end, one) in load.tokens.items()}
            load.tokens[f"known-{number}"] = (now, FAR, token)
            load.write_plan()
            time.sleep(LIFE)
        load.end = 0
        load.write_plan()
        results = load.results()
        published = real.admin.get(f"{real.url}/openid/v1/jwks", timeout=10).json()["keys"]
    assert first in [key["kid"] for key in published]
    assert len(published) == 2
    assert results == {name: [{"200"}] for name in load.tokens}


def write_key(directory: Path) -> tuple[Path, Path]:
    """Write a new RSA key; return the files of its private and its public half."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private, public = directory / "second.key", directory / "second.pub"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


def test_with_keys_an_outage_loses_no_known_caller_and_lets_no_unknown_one_in(
    api_server: APIServerProcess, start_load: Callable[..., Load], with_old_view: str
) -> None:
    """The API server answers nothing at first, and then refuses connections."""
    load = start_load("caller-outage", "bob-keys", with_old_view)
    rotated = {f"known-{number}": load.issue(600 + number) for number in range(1, OUTAGE // LIFE + 3)}
    known = load.tokens["known-0"][2]
    key = load_pem_private_key(api_server.signing_key.read_bytes(), None)
    unknown = {f"unknown-{number}": another_pod_s(known, key) for number in range(OUTAGE // LIFE - 1)}
    forged = another_pod_s(known, rsa.generate_private_key(public_exponent=65537, key_size=2048))
    begin = time.time() + 5
    load.tokens["known-0"] = (0, begin, known)
    for tokens in (rotated, unknown):
        for number, (name, token) in enumerate(tokens.items()):
            load.tokens[name] = (begin + number * LIFE, begin + (number + 1) * LIFE, token)
    load.tokens["forged"] = (begin, begin + OUTAGE - LIFE, forged)
    load.end = begin + (OUTAGE // LIFE + 2) * LIFE
    load.write_plan()

    time.sleep(begin - time.time() - 1)
    with api_server.frozen():
        time.sleep(OUTAGE / 2)
        with api_server.killed():
            time.sleep(begin + OUTAGE - time.time())

    results = load.results()
    expected = {"known": {"200"}, "unknown": {"503"}, "forged": {"401"}}
    assert results == {name: [expected[name.partition("-")[0]]] * 2 for name in load.tokens}


def another_pod_s(token: str, key: Any) -> str:
    """Return the token of a pod that nobody has seen yet, signed with this key under the name of the cluster's."""
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    claims["kubernetes.io"]["pod"] = {"name": "newborn", "uid": str(uuid4())}
    return jwt.encode(claims, key, "RS256", headers={"kid": jwt.get_unverified_header(token)["kid"]})
