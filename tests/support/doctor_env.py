"""`DoctorEnv`: everything that the doctor examines, on an emulated cluster and a directory as a pod's file tree."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from podproof._apiserver.client import APIServerClient
from podproof._apiserver.connection import load_configuration
from podproof._apiserver.response import APIResponse
from podproof.cli.doctor import diagnose
from podproof.cli.environment import Environment
from podproof.cli.finding import Finding
from podproof.identity import ServiceAccount
from podproof.testing import Cluster

CREDENTIAL_DIRECTORY = "var/run/secrets/kubernetes.io/serviceaccount"
TOKEN_DIRECTORY = "var/run/secrets/podproof"


@dataclass
class DoctorEnv:
    """A place to run the doctor: file tree, environment variables and cluster. Tests change one of them.

    `permissions` are Bob's, each resource with its verb, in one namespace or in the whole cluster. `spec` and
    `metadata` are merged into those of the pods that the API server returns. `documents` are objects of
    kinds that the emulated cluster does not have, by their path below the namespace.
    """

    cluster: Cluster
    root: Path
    variables: dict[str, str]
    side: str | None = None
    acting_as: str | None = None
    audience: str | None = None
    now: Callable[[], float] = time.time
    timeout: float = 5.0
    spec: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    documents: dict[str, dict[str, Any]] = field(default_factory=dict)
    permissions: dict[str, str] = field(default_factory=lambda: {"tokenreviews": "create", "pods": "get"})
    namespace: str | None = None

    def write(self, path: str, text: str) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def start_process(self, *command: str, pid: int = 1) -> None:
        """Write what /proc shows of a process with this command line."""
        self.write(f"proc/{pid}/cmdline", "\0".join(command) + "\0")

    def mount_token(self, audience: str, token: str) -> Path:
        """Write a token as the kubelet does: by a symbolic link, so that a volume changes atomically."""
        directory = self.root / TOKEN_DIRECTORY / audience
        self.write(f"{TOKEN_DIRECTORY}/{audience}/..data/token", token)
        link = directory / "token"
        link.unlink(missing_ok=True)
        link.symlink_to("..data/token")
        return link

    def findings(self) -> list[Finding]:
        """Run the doctor."""
        for resource, verb in self.permissions.items():
            self.cluster.grant("default/bob", verbs=[verb], resources=[resource], namespace=self.namespace)
        acting_as = ServiceAccount(*self.acting_as.split("/")) if self.acting_as else None
        clients = []

        def connect(username: str | None) -> APIServerClient:
            load = partial(load_configuration, environ=self.variables, mounted=self.root / CREDENTIAL_DIRECTORY)
            clients.append(_Client(self.documents, load=load, sleep=lambda _: None, impersonate=username))
            return clients[-1]

        environment = Environment(
            connect, self.variables, acting_as, self.audience, self.root, self.timeout, now=self.now
        )
        try:
            return list(diagnose(environment, self.side))
        finally:
            for client in clients:
                client.close()


class _Client(APIServerClient):
    def __init__(self, documents: dict[str, dict[str, Any]], **options: Any) -> None:
        super().__init__(**options)
        self._documents = documents

    def get(self, path: str, deadline: float) -> APIResponse:
        response = super().get(path, deadline)
        document = self._documents.get(path.removeprefix("/api/v1/namespaces/default/"))
        return response if document is None else response._replace(status=200, document=document)


def in_server_pod(cluster: Cluster, root: Path) -> DoctorEnv:
    """Return Bob's pod, a server without faults."""
    host, port = cluster.url.removeprefix("https://").split(":")
    variables = {
        "KUBERNETES_SERVICE_HOST": host,
        "KUBERNETES_SERVICE_PORT": port,
        "HOSTNAME": "bob-1",
        "PODPROOF_AUDIENCE": "bob",
        "PODPROOF_TRUSTED_PROXIES": "10.9.0.7",
    }
    doctor_env = DoctorEnv(cluster, root, variables)
    cluster.mount(root / CREDENTIAL_DIRECTORY, "default/bob")
    doctor_env.write("etc/hosts", "# by the kubelet\n127.0.0.1\tlocalhost\n10.1.0.5\tbob-1\nno-address bob-1\n\n")
    doctor_env.start_process("/usr/bin/python3", "-m", "uvicorn", "--host=0.0.0.0", "--no-proxy-headers", "bob:app")
    doctor_env.start_process("sh", "-c", "sleep 1", pid=9)
    return doctor_env


def in_caller_pod(cluster: Cluster, root: Path) -> DoctorEnv:
    """Return Alice's pod, a caller without faults and without a credential for the API server."""
    doctor_env = DoctorEnv(cluster, root, {"HOSTNAME": "alice-1", "KUBERNETES_SERVICE_HOST": "10.96.0.1"})
    pod = cluster.pod("default/alice-1", service_account="alice", addresses=("10.1.0.6",))
    doctor_env.mount_token("bob", pod.token("bob"))
    return doctor_env


def outside_cluster(cluster: Cluster, root: Path) -> DoctorEnv:
    """Return an administrator's machine, from which Bob's and Alice's pods are examined; both are without faults."""
    doctor_env = DoctorEnv(cluster, root, {"KUBECONFIG": str(cluster.kubeconfig)}, acting_as="default/bob")
    for name, address in (("bob", "10.1.0.5"), ("alice", "10.1.0.6")):
        cluster.pod(f"default/{name}-1", service_account=name, addresses=(address,))
    cluster.mutate("pods", lambda response: _merge_all(response, doctor_env))
    return doctor_env


def _merge_all(response: dict[str, Any], doctor_env: DoctorEnv) -> dict[str, Any]:
    """Return a list of pods with their specs, and an event of a watch as it is."""
    if "items" not in response:
        return response
    return {**response, "items": [_merge(pod, doctor_env) for pod in response["items"]]}


def _merge(pod: dict[str, Any], doctor_env: DoctorEnv) -> dict[str, Any]:
    spec = {"bob": BOB_SPEC, "alice": ALICE_SPEC}[pod["spec"]["serviceAccountName"]]
    return {
        **pod,
        "metadata": pod["metadata"] | doctor_env.metadata,
        "spec": {**pod["spec"], **spec, **doctor_env.spec},
    }


BOB_SPEC: dict[str, Any] = {
    "containers": [
        {
            "name": "app",
            "command": ["uvicorn", "--host=0.0.0.0"],
            "args": ["--no-proxy-headers", "bob:app"],
            "env": [
                {"name": "PODPROOF_AUDIENCE", "value": "bob"},
                {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "bob", "key": "secret"}}},
            ],
            "volumeMounts": [{"name": "api", "mountPath": f"/{CREDENTIAL_DIRECTORY}"}],
        }
    ]
}
ALICE_SPEC: dict[str, Any] = {
    "containers": [{"name": "app", "volumeMounts": [{"name": "token", "mountPath": f"/{TOKEN_DIRECTORY}/bob"}]}],
    "volumes": [
        {"name": "api", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}, {"configMap": {}}]}},
        {"name": "token", "projected": {"sources": [{"serviceAccountToken": {"audience": "bob", "path": "token"}}]}},
        {"name": "data", "emptyDir": {}},
    ],
}
