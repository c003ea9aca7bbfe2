"""Clusters to measure on: an emulated one, in a process of its own, and a real one."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, cast
from urllib.parse import urlsplit

from kubernetes.client import ApiClient, Configuration
from kubernetes.config import load_kube_config

from benchmarks.fakes import AUDIENCE
from podproof._apiserver.connection import load_configuration


@dataclass(frozen=True, slots=True)
class Surroundings:
    """How a cluster is reached, and tokens for `bob` of one of its pods.

    `mounted` is where the credential lies as it does in a pod, None where the kubeconfig is all there is.
    """

    kubeconfig: str
    tokens: Sequence[str]
    mounted: str | None = None

    def load(self, configuration: Configuration) -> None:
        """Fill in a configuration as podproof does: in a pod, if there is a mounted credential."""
        if self.mounted is None:
            load_configuration(configuration, environ={"KUBECONFIG": self.kubeconfig})
            return
        url = urlsplit(configured(self.kubeconfig).host)
        environ = {"KUBERNETES_SERVICE_HOST": str(url.hostname), "KUBERNETES_SERVICE_PORT": str(url.port)}
        load_configuration(configuration, environ=environ, mounted=Path(self.mounted))


def configured(kubeconfig: str) -> Configuration:
    """Return the official client's configuration."""
    configuration = Configuration()
    load_kube_config(config_file=kubeconfig, client_configuration=configuration)  # type: ignore[no-untyped-call]
    return configuration


@contextmanager
def emulated_cluster(tokens: int) -> Iterator[Surroundings]:
    """Run an emulated cluster, which has issued so many tokens."""
    command = [sys.executable, "-m", "benchmarks.emulated", str(tokens)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        told, hold = cast("TextIO", process.stdout), cast("TextIO", process.stdin)
        with hold:  # the process ends when this is closed
            yield Surroundings(**json.loads(told.readline()))


@contextmanager
def real_cluster(kubeconfig: str, tokens: int) -> Iterator[Surroundings]:
    """Give the cluster, and so many tokens of a pod of its own there, which is never scheduled."""
    api, namespace = BareAPI(kubeconfig), f"podproof-benchmarks-{secrets.token_hex(4)}"
    core, inside = "/api/v1/namespaces", f"/api/v1/namespaces/{namespace}"
    api.ask("POST", core, {"metadata": {"name": namespace}})
    try:
        api.ask("POST", f"{inside}/serviceaccounts", {"metadata": {"name": "alice"}})
        spec = {
            "serviceAccountName": "alice",
            "schedulerName": "nobody",
            "automountServiceAccountToken": False,
            "containers": [{"name": "app", "image": "none"}],
        }
        pod = api.ask("POST", f"{inside}/pods", {"metadata": {"name": "alice"}, "spec": spec})
        bound = {"apiVersion": "v1", "kind": "Pod", "name": "alice", "uid": pod["metadata"]["uid"]}
        path = f"{inside}/serviceaccounts/alice/token"
        issued = []
        for number in range(tokens):
            # Before Kubernetes 1.30 a token has no ID: two of the same second are the same, if they expire together.
            spec = {"audiences": [AUDIENCE], "expirationSeconds": 3600 + number, "boundObjectRef": bound}
            issued.append(api.ask("POST", path, {"spec": spec})["status"]["token"])
        yield Surroundings(kubeconfig, issued)
    finally:
        api.ask("DELETE", f"{core}/{namespace}")


class BareAPI:
    """Asks the API server with urllib3 alone: no judgement of the answers, no deadline, no retry."""

    def __init__(self, kubeconfig: str) -> None:
        configuration = configured(kubeconfig)
        self._host = configuration.host
        self._pool = ApiClient(configuration).rest_client.pool_manager
        credential = configuration.auth_settings().get("BearerToken", {}).get("value")
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": credential} if credential else {})

    def identify(self, token: str) -> str:
        """Return the service account's name that the token's pod has."""
        review = self.ask(
            "POST",
            "/apis/authentication.k8s.io/v1/tokenreviews",
            {
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenReview",
                "spec": {"token": token, "audiences": [AUDIENCE]},
            },
        )
        user = review["status"]["user"]
        namespace = user["username"].split(":")[2]
        name = user["extra"]["authentication.kubernetes.io/pod-name"][0]
        pod = self.ask("GET", f"/api/v1/namespaces/{namespace}/pods/{name}")
        account: str = pod["spec"]["serviceAccountName"]
        return account

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """Return what the API server answers. Raises RuntimeError where that is a failure."""
        data = None if body is None else json.dumps(body)
        answer = self._pool.request(method, self._host + path, body=data, headers=self._headers)
        if answer.status >= 400:
            raise RuntimeError(f"{method} {path}: {answer.status}")
        return answer.json()
