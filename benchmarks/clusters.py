"""Clusters to measure on: a real one, and an emulated one, which `python -m benchmarks.clusters TOKENS` serves."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TextIO, cast
from urllib.parse import urlsplit

from kubernetes.client import ApiClient, Configuration
from kubernetes.config import load_kube_config

from benchmarks import AUDIENCE
from podproof._apiserver.connection import load_configuration
from podproof.testing import Cluster


@dataclass(frozen=True, slots=True)
class ClusterAccess:
    """How to reach a cluster, and tokens of one of its pods, for `bob`.

    `mounted` is the directory of a credential as a pod has it, None where there is a kubeconfig only. `process` is that
    of an emulated API server, None of a real one.
    """

    kubeconfig: str
    tokens: Sequence[str]
    mounted: str | None = None
    process: int | None = None

    def load(self, configuration: Configuration) -> None:
        """Fill in a configuration as podproof does: as in a pod, if there is a mounted credential."""
        if self.mounted is None:
            load_configuration(configuration, environ={"KUBECONFIG": self.kubeconfig})
            return
        url = urlsplit(client_configuration(self.kubeconfig).host)
        environ = {"KUBERNETES_SERVICE_HOST": str(url.hostname), "KUBERNETES_SERVICE_PORT": str(url.port)}
        load_configuration(configuration, environ=environ, mounted=Path(self.mounted))


def client_configuration(kubeconfig: str) -> Configuration:
    """Return the official client's configuration."""
    configuration = Configuration()
    load_kube_config(config_file=kubeconfig, client_configuration=configuration)  # type: ignore[no-untyped-call]
    return configuration


@contextmanager
def emulated_cluster(tokens: int) -> Iterator[ClusterAccess]:
    """Run an emulated cluster that has issued so many tokens."""
    command = [sys.executable, "-m", "benchmarks.clusters", str(tokens)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        described, hold = cast("TextIO", process.stdout), cast("TextIO", process.stdin)
        with hold:  # the process ends when this is closed
            yield ClusterAccess(**json.loads(described.readline()), process=process.pid)


@contextmanager
def real_cluster(kubeconfig: str, tokens: int) -> Iterator[ClusterAccess]:
    """Create a pod that is never scheduled, in a namespace that is deleted afterwards, and so many tokens of it."""
    api, namespace = BareAPI(kubeconfig), f"podproof-benchmarks-{secrets.token_hex(4)}"
    core, inside = "/api/v1/namespaces", f"/api/v1/namespaces/{namespace}"
    api.call("POST", core, {"metadata": {"name": namespace}})
    try:
        api.call("POST", f"{inside}/serviceaccounts", {"metadata": {"name": "alice"}})
        spec = {
            "serviceAccountName": "alice",
            "schedulerName": "none",
            "automountServiceAccountToken": False,
            "containers": [{"name": "app", "image": "none"}],
        }
        pod = api.call("POST", f"{inside}/pods", {"metadata": {"name": "alice"}, "spec": spec})
        bound = {"apiVersion": "v1", "kind": "Pod", "name": "alice", "uid": pod["metadata"]["uid"]}
        path = f"{inside}/serviceaccounts/alice/token"
        issued = []
        for number in range(tokens):
            # Before Kubernetes 1.30 a token has no ID: two of the same second that expire together are equal.
            spec = {"audiences": [AUDIENCE], "expirationSeconds": 3600 + number, "boundObjectRef": bound}
            issued.append(api.call("POST", path, {"spec": spec})["status"]["token"])
        yield ClusterAccess(kubeconfig, issued)
    finally:
        api.call("DELETE", f"{core}/{namespace}")


class BareAPI:
    """Calls the API server with urllib3 alone: nothing is checked, no deadline, no retry."""

    def __init__(self, kubeconfig: str) -> None:
        configuration = client_configuration(kubeconfig)
        self._host = configuration.host
        self._pool = ApiClient(configuration).rest_client.pool_manager
        credential = configuration.auth_settings().get("BearerToken", {}).get("value")
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": credential} if credential else {})

    def authenticate(self, token: str) -> str:
        """Return the name of the service account that the token's pod runs as."""
        review = self.call(
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
        pod = self.call("GET", f"/api/v1/namespaces/{namespace}/pods/{name}")
        account: str = pod["spec"]["serviceAccountName"]
        return account

    def call(self, method: str, path: str, body: object = None) -> Any:
        """Return the response's JSON. Raises RuntimeError for a failure."""
        data = None if body is None else json.dumps(body)
        response = self._pool.request(method, self._host + path, body=data, headers=self._headers)
        if response.status >= 400:
            raise RuntimeError(f"{method} {path}: {response.status}")
        return response.json()


def main() -> None:
    """Serve an emulated cluster until stdin ends; print how to reach it, with tokens of a pod at 127.0.0.1."""
    with Cluster() as cluster, TemporaryDirectory() as directory:
        cluster.grant("default/bob", verbs=["create"], resources=["tokenreviews"])
        cluster.grant("default/bob", verbs=["get", "list", "watch"], resources=["pods"])
        pod = cluster.pod("default/alice-7d4b9c6f5-x2x9k", service_account="alice")
        tokens = [pod.token(audience=AUDIENCE) for _ in range(int(sys.argv[1]))]
        described = {
            "kubeconfig": str(cluster.kubeconfig_for("default/bob")),
            "mounted": str(cluster.mount(directory, "default/bob")),
            "tokens": tokens,
        }
        print(json.dumps(described), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
