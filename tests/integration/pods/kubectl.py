"""`kubectl` in one namespace, and waiting for a condition."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import yaml

_T = TypeVar("_T")


@dataclass(frozen=True)
class Kubectl:
    """Runs kubectl in a namespace."""

    namespace: str

    def __call__(self, *arguments: str, stdin: str = "") -> str:
        command = ["kubectl", "--namespace", self.namespace, *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=180, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
        return done.stdout

    def apply(self, *documents: Mapping[str, Any]) -> None:
        self("apply", "--filename", "-", stdin=yaml.safe_dump_all(documents))

    def get(self, kind: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self("get", kind, name, "--output", "json"))
        return found

    def wait_for(self, *pods: str) -> None:
        """Wait until these pods are ready."""
        self("wait", "--for", "condition=Ready", "--timeout", "120s", *(f"pod/{name}" for name in pods))

    def logs(self) -> dict[str, str]:
        """Return the log of each started pod of the Deployments in this namespace."""
        selector = ("--selector", "app.kubernetes.io/name", "--field-selector", "status.phase!=Pending")
        pods = self("get", "pods", *selector, "--output", "jsonpath={.items[*].metadata.name}").split()
        return {pod: self("logs", pod) for pod in pods}

    def issue_token(
        self, service_account: str, audience: str, *, bound_to: Mapping[str, Any] | None = None, lifetime: int = 600
    ) -> str:
        """Return a token from the TokenRequest API, bound to a pod or to none; `lifetime` in seconds."""
        path = f"/api/v1/namespaces/{self.namespace}/serviceaccounts/{service_account}/token"
        spec: dict[str, Any] = {"audiences": [audience], "expirationSeconds": lifetime}
        if bound_to is not None:
            metadata = bound_to["metadata"]
            pod = {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]}
            spec["boundObjectRef"] = pod
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        response = json.loads(self("create", "--raw", path, "--filename", "-", stdin=json.dumps(request)))
        token: str = response["status"]["token"]
        return token


def eventually(look: Callable[[], _T], *, good: Callable[[_T], object] = bool, within: float = 60) -> _T:
    """Return the value of `look` as soon as it is good; fail with the last value after `within` seconds."""
    end = time.monotonic() + within
    while True:
        value = look()
        if good(value):
            return value
        assert time.monotonic() < end, f"not within {within} s; the last value was {value!r:.2000}"
        time.sleep(0.25)
