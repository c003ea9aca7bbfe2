"""Who takes part: callers, which are pods to act in, and Bobs, which are apps behind a Service."""

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
class Bob:
    """An app that wants to know its callers."""

    kubectl: Kubectl
    name: str

    @property
    def host(self) -> str:
        """The Service's address: not every cluster here has a DNS."""
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
class Answer:
    """What came back; the names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: str

    @property
    def told(self) -> tuple[int, str | None]:
        """The status, and the challenge that goes with it."""
        return self.status, self.headers.get("www-authenticate")

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Caller:
    """A pod in which one can act."""

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
        """Return the token that the kubelet has mounted here."""
        return self.run("cat", TOKEN_FILE)

    def run(self, *command: str, stdin: str = "") -> str:
        return self.kubectl("exec", "--stdin", self.name, "--", *command, stdin=stdin)

    def send(
        self,
        to: Bob | str,
        path: str = "/whoami",
        *,
        token: str | None,
        method: str = "GET",
        body: str | None = None,
        headers: Mapping[str, str] | None = None,
        source: str | None = None,
    ) -> Answer:
        """Send a request from here, to a Bob's Service or to a pod's address; `source` is the address to send it from.

        A method of WEBSOCKET opens one, and takes its first message for the answer's body.
        """
        host, port = (to.host, 80) if isinstance(to, Bob) else (to, 8080)
        sent = dict(headers or {}) | ({"Authorization": f"Bearer {token}"} if token is not None else {})
        asked = {"host": host, "port": port, "method": method, "path": path, "body": body, "headers": sent}
        script = _WEBSOCKET if method == "WEBSOCKET" else _HTTP
        # By standard input: a process's arguments, and the API server's log of them, are no place for a token.
        answer = self.run("python3", "-c", script, stdin=json.dumps(asked | {"source": source}))
        return Answer(**json.loads(answer))

    def leave(self) -> None:
        """Be deleted, and wait until the pod is gone."""
        self.kubectl("delete", "pod", self.name)
