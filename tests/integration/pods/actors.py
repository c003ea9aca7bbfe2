"""The actors: pods that send requests, and apps behind a Service that receive them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.integration.pods.kubectl import Kubectl
from tests.integration.pods.manifests import TOKEN_FILE

_HTTP, _WEBSOCKET = (Path(__file__).with_name(f"inside_{kind}.py").read_text() for kind in ("http", "websocket"))


@dataclass(frozen=True)
class AppDeployment:
    """A Deployment of an app with podproof, behind a Service of the same name."""

    kubectl: Kubectl
    name: str

    @property
    def host(self) -> str:
        """The address of its Service: not every cluster has a DNS."""
        host: str = self.kubectl.get("service", self.name)["spec"]["clusterIP"]
        return host

    @property
    def address(self) -> str:
        """The address of its pod."""
        selector = f"app.kubernetes.io/name={self.name}"
        return self.kubectl("get", "pods", "--selector", selector, "--output", "jsonpath={.items[0].status.podIP}")

    def log_lines(self, *words: str) -> list[str]:
        """Return the lines of its log that have all of these words."""
        lines = self.kubectl("logs", f"deployment/{self.name}").splitlines()
        return [line for line in lines if all(word in line for word in words)]


@dataclass(frozen=True)
class PodResponse:
    """A response as a pod received it; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: str

    @property
    def status_and_challenge(self) -> tuple[int, str | None]:
        """The status and the WWW-Authenticate header."""
        return self.status, self.headers.get("www-authenticate")

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class CallerPod:
    """A pod that sends requests."""

    kubectl: Kubectl
    name: str

    def __str__(self) -> str:
        return f"{self.kubectl.namespace}/{self.name}"

    @property
    def object(self) -> dict[str, Any]:
        return self.kubectl.get("pod", self.name)

    @property
    def address(self) -> str:
        address: str = self.object["status"]["podIP"]
        return address

    def token(self) -> str:
        """Return the token that the kubelet has mounted in this pod."""
        return self.run("cat", TOKEN_FILE)

    def run(self, *command: str, stdin: str = "") -> str:
        return self.kubectl("exec", "--stdin", self.name, "--", *command, stdin=stdin)

    def send(
        self,
        to: AppDeployment | str,
        path: str = "/whoami",
        *,
        token: str | None,
        method: str = "GET",
        body: str | None = None,
        headers: Mapping[str, str] | None = None,
        source: str | None = None,
    ) -> PodResponse:
        """Send a request from this pod to an app's Service or to a pod's address, from the address `source` if given.

        The method WEBSOCKET opens a WebSocket; the body is then its first message.
        """
        host, port = (to.host, 80) if isinstance(to, AppDeployment) else (to, 8080)
        sent = dict(headers or {}) | ({"Authorization": f"Bearer {token}"} if token is not None else {})
        request = {"host": host, "port": port, "method": method, "path": path, "body": body, "headers": sent}
        script = _WEBSOCKET if method == "WEBSOCKET" else _HTTP
        # On standard input: the arguments of a process, and the API server's log of them, must not hold a token.
        response = self.run("python3", "-c", script, stdin=json.dumps(request | {"source": source}))
        return PodResponse(**json.loads(response))

    def delete(self) -> None:
        """Delete the pod, and wait until it is gone."""
        self.kubectl("delete", "pod", self.name)
