from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from podproof._apiserver.client import APIServerClient
from podproof._apiserver.connection import load_configuration
from podproof.cli.doctor import diagnose
from podproof.cli.environment import Environment
from podproof.cli.finding import Finding
from podproof.identity import ServiceAccount
from podproof.testing import Cluster

MOUNTED = "var/run/secrets/kubernetes.io/serviceaccount"
TOKENS = "var/run/secrets/podproof"


@dataclass
class Scene:
    """A pod as its file tree, its environment and the cluster around it; a fault is seeded by changing one of them.

    `granted` are Bob's permissions, each resource with its verb, in one namespace or everywhere; `spec` and `metadata`
    are put over those of the pods that the API server shows.
    """

    cluster: Cluster
    root: Path
    environ: dict[str, str]
    side: str | None = None
    acting: str | None = None
    audience: str | None = None
    now: Callable[[], float] = time.time
    timeout: float = 5.0
    spec: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    granted: dict[str, str] = field(default_factory=lambda: {"tokenreviews": "create", "pods": "get"})
    namespace: str | None = None

    def write(self, path: str, text: str) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def run(self, *command: str, pid: int = 1) -> None:
        self.write(f"proc/{pid}/cmdline", "\0".join(command) + "\0")

    def project(self, audience: str, token: str) -> Path:
        """Mount a token as the kubelet does: by a link, so that all of a volume changes at once."""
        folder = self.root / TOKENS / audience
        self.write(f"{TOKENS}/{audience}/..data/token", token)
        link = folder / "token"
        link.unlink(missing_ok=True)
        link.symlink_to("..data/token")
        return link

    def findings(self) -> list[Finding]:
        for resource, verb in self.granted.items():
            self.cluster.grant("default/bob", verbs=[verb], resources=[resource], namespace=self.namespace)
        acting = ServiceAccount(*self.acting.split("/")) if self.acting else None
        load = partial(load_configuration, environ=self.environ, mounted=self.root / MOUNTED)
        own = APIServerClient(load=load, sleep=lambda _: None)
        app = APIServerClient(load=load, sleep=lambda _: None, impersonate=acting.username) if acting else own
        facts = Environment(own, app, self.environ, acting, self.audience, self.root, self.timeout, self.now)
        try:
            return list(diagnose(facts, self.side))
        finally:
            own.close()
            app.close()


def bob_in_his_pod(cluster: Cluster, root: Path) -> Scene:
    """Give a Bob with whom nothing is wrong."""
    host, port = cluster.url.removeprefix("https://").split(":")
    environ = {
        "KUBERNETES_SERVICE_HOST": host,
        "KUBERNETES_SERVICE_PORT": port,
        "HOSTNAME": "bob-1",
        "PODPROOF_AUDIENCE": "bob",
        "PODPROOF_TRUSTED_PROXIES": "10.9.0.7",
    }
    scene = Scene(cluster, root, environ)
    cluster.mount(root / MOUNTED, "default/bob")
    scene.write("etc/hosts", "# by the kubelet\n127.0.0.1\tlocalhost\n10.1.0.5\tbob-1\nno-address bob-1\n\n")
    scene.run("/usr/bin/python3", "-m", "uvicorn", "--host=0.0.0.0", "--no-proxy-headers", "bob:app")
    scene.run("sh", "-c", "sleep 1", pid=9)
    return scene


def alice_in_her_pod(cluster: Cluster, root: Path) -> Scene:
    """Give an Alice with whom nothing is wrong, and who has nothing to ask the API server."""
    scene = Scene(cluster, root, {"HOSTNAME": "alice-1", "KUBERNETES_SERVICE_HOST": "10.96.0.1"})
    pod = cluster.pod("default/alice-1", service_account="alice", addresses=("10.1.0.6",))
    scene.project("bob", pod.token("bob"))
    return scene


def from_outside(cluster: Cluster, root: Path) -> Scene:
    """Give an administrator who looks at Bob and Alice, with whom nothing is wrong, from a machine of his own."""
    scene = Scene(cluster, root, {"KUBECONFIG": str(cluster.kubeconfig)}, acting="default/bob")
    scene.write(str(cluster.kubeconfig).lstrip("/"), "the doctor looks whether it is there; the client reads it")
    for name, address in (("bob", "10.1.0.5"), ("alice", "10.1.0.6")):
        cluster.pod(f"default/{name}-1", service_account=name, addresses=(address,))
    cluster.mutate("pods", lambda answer: {**answer, "items": [_filled_in(pod, scene) for pod in answer["items"]]})
    return scene


def _filled_in(pod: dict[str, Any], scene: Scene) -> dict[str, Any]:
    spec = {"bob": BOB, "alice": ALICE}[pod["spec"]["serviceAccountName"]]
    return {**pod, "metadata": pod["metadata"] | scene.metadata, "spec": {**pod["spec"], **spec, **scene.spec}}


BOB: dict[str, Any] = {
    "containers": [
        {
            "name": "app",
            "command": ["uvicorn", "--host=0.0.0.0"],
            "args": ["--no-proxy-headers", "bob:app"],
            "env": [
                {"name": "PODPROOF_AUDIENCE", "value": "bob"},
                {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "bob", "key": "secret"}}},
            ],
            "volumeMounts": [{"name": "api", "mountPath": f"/{MOUNTED}"}],
        }
    ]
}
ALICE: dict[str, Any] = {
    "containers": [{"name": "app", "volumeMounts": [{"name": "token", "mountPath": f"/{TOKENS}/bob"}]}],
    "volumes": [
        {"name": "api", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}, {"configMap": {}}]}},
        {"name": "token", "projected": {"sources": [{"serviceAccountToken": {"audience": "bob", "path": "token"}}]}},
        {"name": "data", "emptyDir": {}},
    ],
}
