"""Deployments are rolled out anew while a pod calls them through their Services."""

from __future__ import annotations

import json
import secrets
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.integration.pods.actors import Bob, Caller
from tests.integration.pods.kubectl import Kubectl, eventually
from tests.integration.pods.manifests import Manifests

LOAD = Path(__file__).with_name("inside_load.py").read_text()
REPLICAS = 3
GAP = 3  # seconds

# By default gunicorn closes a connection that is idle for 2 s, uvicorn one for 5 s. On a busy machine that may be just
# when the next request is on its way, rollout or not.
GUNICORN = [
    *["gunicorn", "--bind=0.0.0.0:8080", "--threads=8", "--keep-alive=75"],
    *["--worker-tmp-dir=/dev/shm", "--no-control-socket", "examples.flask_bob:app"],
]
UVICORN = [
    *["uvicorn", "--host=0.0.0.0", "--port=8080", "--timeout-keep-alive=75"],
    *["--no-proxy-headers", "examples.starlette_bob:app"],
]
DRAINED = {"gunicorn": [*GUNICORN, "--config=python:podproof.drain.gunicorn"], "uvicorn": UVICORN}
# The middleware for uvicorn begins with the lifespan.
PLAIN = {"gunicorn": GUNICORN, "uvicorn": [*UVICORN, "--lifespan=off"]}


@pytest.mark.parametrize("server", DRAINED)
def test_a_rollout_under_load_fails_no_request_with_the_drain_and_some_without(
    server: str, alice: Caller, kubectl: Kubectl, manifests: Manifests, capsys: pytest.CaptureFixture[str]
) -> None:
    bobs = [Bob(kubectl, f"{server}-drained"), Bob(kubectl, f"{server}-plain")]
    for bob, args in zip(bobs, [DRAINED[server], PLAIN[server]], strict=True):
        service, deployment = manifests.bob(bob.name, args=args, env={"PODPROOF_DRAIN_GAP": str(GAP)})
        # All pods at once: less to wait for, and more to lose.
        deployment["spec"] |= {"replicas": REPLICAS, "strategy": {"rollingUpdate": {"maxSurge": "100%"}}}
        kubectl.apply(service, deployment)
    wait_for_rollouts(bobs)

    drained, plain = roll_out_under_load(bobs, alice)
    with capsys.disabled():
        print(f"\nRollout of {REPLICAS} replicas under {server}, gap {GAP} s:")
        for kind, outcomes in (("with the drain", drained), ("without", plain)):
            failed = {outcome: times for outcome, times in outcomes.items() if outcome != "200"}
            print(f"  {kind:15}{sum(failed.values()):4} of {outcomes.total()} requests failed {failed or ''}")
    assert {*drained} == {"200"}
    assert {*plain} > {"200"}


def roll_out_under_load(bobs: list[Bob], caller: Caller) -> list[Counter[str]]:
    """Roll the Bobs out anew. Return what came of the requests to each, until no server of before was left."""
    urls = [f"http://{bob.host}/whoami" for bob in bobs]
    stop = f"/dev/shm/{secrets.token_hex(4)}"
    asked = {"urls": urls, "stop": stop, "pause": 0.04, "seconds": 150}
    before = [pod for bob in bobs for pod in pods(bob)]
    with ThreadPoolExecutor() as background:
        load = background.submit(caller.run, "python3", "-c", LOAD, stdin=json.dumps(asked))
        try:
            caller.kubectl("rollout", "restart", *(f"deployment/{bob.name}" for bob in bobs))
            wait_for_rollouts(bobs)
            eventually(lambda: not any(serves(caller.kubectl, pod) for pod in before))
        finally:
            caller.run("touch", stop)
        outcomes = json.loads(load.result())
    return [Counter(outcomes[url]) for url in urls]


def wait_for_rollouts(bobs: list[Bob]) -> None:
    for bob in bobs:
        bob.kubectl("rollout", "status", f"deployment/{bob.name}", "--timeout", "120s")


def pods(bob: Bob) -> list[str]:
    selector = f"app.kubernetes.io/name={bob.name}"
    return bob.kubectl("get", "pods", "--selector", selector, "--output", "jsonpath={.items[*].metadata.name}").split()


def serves(kubectl: Kubectl, pod: str) -> bool:
    """Whether a pod's server has not ended; the pod itself may be there for long after that."""
    return "running" in kubectl("get", "pod", pod, "--ignore-not-found", "--output", "jsonpath={..state}")
