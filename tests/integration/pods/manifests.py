"""The manifests of the repository, with the namespace, image and names of this run."""

from __future__ import annotations

import copy
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

Document = dict[str, Any]

MANIFESTS = Path(__file__).parents[3] / "manifests"
AUDIENCE = "bob"
TOKEN_FILE = "/var/run/secrets/podproof/bob/token"


class Manifests:
    """The manifests of Alice, Bob and Bob's permissions, for one namespace."""

    def __init__(self, namespace: str, image: str) -> None:
        done = subprocess.run(["kubectl", "kustomize", str(MANIFESTS)], capture_output=True, text=True, check=True)
        self.documents: list[Document] = list(yaml.safe_load_all(done.stdout))
        for document in self.documents:
            if document["kind"].startswith("ClusterRole"):
                document["metadata"]["name"] += f"-{namespace}"  # other runs have theirs
            else:
                document["metadata"]["namespace"] = namespace
            if document["kind"] == "ClusterRoleBinding":
                document["roleRef"]["name"] += f"-{namespace}"
                document["subjects"][0]["namespace"] = namespace
            if document["kind"] == "Deployment":
                _container(document["spec"]["template"])["image"] = image

    def get(self, kind: str, app: str = "") -> Document:
        """Return a copy of the one document of a kind and an app."""
        [found] = [one for one in self.documents if one["kind"] == kind and app in one["metadata"]["name"]]
        return copy.deepcopy(found)

    def app(
        self,
        name: str,
        *,
        args: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
        service_account: str = "bob",
    ) -> list[Document]:
        """Return Bob's Service and Deployment under another name, with these settings."""
        service, deployment = self.get("Service", "bob"), self.get("Deployment", "bob")
        template = deployment["spec"]["template"]
        labels = {"app.kubernetes.io/name": name}
        service["metadata"]["name"] = deployment["metadata"]["name"] = name
        service["spec"]["selector"] = template["metadata"]["labels"] = labels
        deployment["spec"]["selector"]["matchLabels"] = labels
        template["spec"]["serviceAccountName"] = service_account
        container = _container(template)
        if args is not None:
            container |= {"command": ["python3", "-m", args[0]], "args": list(args[1:])}
        container["env"] += [{"name": key, "value": value} for key, value in (env or {}).items()]
        return [service, deployment]

    def caller(self, name: str, *, service_account: str = "alice", script: str = "", **spec: Any) -> Document:
        """Return a pod like Alice's that waits for commands, or runs a script and ends."""
        template = self.get("Deployment", "alice")["spec"]["template"]
        command = ["python3", "-c", script or "import signal; signal.pause()"]
        _container(template)["command"] = command
        template["spec"] |= {"serviceAccountName": service_account, "restartPolicy": "Never", **spec}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": template["spec"]}

    def service_account(self, name: str) -> Document:
        account = self.get("ServiceAccount", "alice")
        account["metadata"]["name"] = name
        return account

    def service(self, name: str) -> Document:
        service = self.get("Service")
        service["metadata"]["name"] = name
        return service


def _container(template: Document) -> Document:
    [container] = template["spec"]["containers"]
    found: Document = container
    return found
