"""Rollouts of Deployments while a pod calls them through their Services."""

from __future__ import annotations

import json
import secrets
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.integration.pods.actors import AppDeployment, CallerPod
from tests.integration.pods.kubectl import Kubectl, eventually
from tests.integration.pods.manifests import Manifests

LOAD = Path(__file__).with_name("inside_load.py").read_text()
REPLICAS = 3
GAP = 3  # seconds

# By default gunicorn closes connections after 2 idle seconds, uvicorn after 5. On a busy machine a request may be
# on its way then, in a rollout or not.
GUNICORN = [
    *["gunicorn", "--bind=0.0.0.0:8080", "--threads=8", "--keep-alive=75"],
    *["--worker-tmp-dir=/dev/shm", "--no-control-socket", "examples.flask_bob:app"],
]
UVICORN = [
    *["uvicorn", "--host=0.0.0.0", "--port=8080", "--timeout-keep-alive=75"],
    *["--no-proxy-headers", "examples.starlette_bob:app"],
]
DRAINED = {"gunicorn": [*GUNICORN, "--config=python:podproof.drain.gunicorn"], "uvicorn": UVICORN}
# The drain for uvicorn starts with the lifespan.
PLAIN = {"gunicorn": GUNICORN, "uvicorn": [*UVICORN, "--lifespan=off"]}


@pytest.mark.parametrize("server", DRAINED)
def test_a_rollout_under_load_fails_no_request_with_the_drain_and_some_without(
    server: str, alice: CallerPod, kubectl: Kubectl, manifests: Manifests, capsys: pytest.CaptureFixture[str]
) -> None:
    apps = [AppDeployment(kubectl, f"{server}-drained"), AppDeployment(kubectl, f"{server}-plain")]
    for app, args in zip(apps, [DRAINED[server], PLAIN[server]], strict=True):
        service, deployment = manifests.app(app.name, args=args, env={"PODPROOF_DRAIN_GAP": str(GAP)})
        # All pods at once: a shorter test, with more requests at risk.
        deployment["spec"] |= {"replicas": REPLICAS, "strategy": {"rollingUpdate": {"maxSurge": "100%"}}}
        kubectl.apply(service, deployment)
    wait_for_rollouts(apps)

    drained, plain = roll_out_under_load(apps, alice)
    with capsys.disabled():
        print(f"\nRollout of {REPLICAS} replicas under {server}, gap {GAP} s:")
        for kind, outcomes in (("with the drain", drained), ("without", plain)):
            failed = {outcome: times for outcome, times in outcomes.items() if outcome != "200"}
            print(f"  {kind:15}{sum(failed.values()):4} of {outcomes.total()} requests failed {failed or ''}")
    assert {*drained} == {"200"}
    assert {*plain} > {"200"}


def roll_out_under_load(apps: list[AppDeployment], caller: CallerPod) -> list[Counter[str]]:
    """Restart these apps under load. Return the results of the requests to each until every old server has ended."""
    urls = [f"http://{app.host}/whoami" for app in apps]
    stop = f"/dev/shm/{secrets.token_hex(4)}"
    request = {"urls": urls, "stop": stop, "pause": 0.04, "seconds": 150}
    before = [pod for app in apps for pod in pods(app)]
    with ThreadPoolExecutor() as background:
        load = background.submit(caller.run, "python3", "-c", LOAD, stdin=json.dumps(request))
        try:
            caller.kubectl("rollout", "restart", *(f"deployment/{app.name}" for app in apps))
            wait_for_rollouts(apps)
            eventually(lambda: not any(is_running(caller.kubectl, pod) for pod in before))
        finally:
            caller.run("touch", stop)
        outcomes = json.loads(load.result())
    return [Counter(outcomes[url]) for url in urls]


def wait_for_rollouts(apps: list[AppDeployment]) -> None:
    for app in apps:
        app.kubectl("rollout", "status", f"deployment/{app.name}", "--timeout", "120s")


def pods(app: AppDeployment) -> list[str]:
    selector = f"app.kubernetes.io/name={app.name}"
    return app.kubectl("get", "pods", "--selector", selector, "--output", "jsonpath={.items[*].metadata.name}").split()


def is_running(kubectl: Kubectl, pod: str) -> bool:
    """Return True until a pod's server has ended; the pod object may exist much longer."""
    return "running" in kubectl("get", "pod", pod, "--ignore-not-found", "--output", "jsonpath={..state}")
