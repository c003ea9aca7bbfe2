"""The API server of debkube, as a process here: it is stopped, killed, and started with other signing keys."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from tests.integration.contract import Access
from tests.integration.pods.kubectl import Kubectl, eventually

_SIGNING_KEY = "--service-account-signing-key-file="
_PUBLIC_KEY = "--service-account-key-file="


@dataclass(frozen=True)
class APIServerProcess:
    """A kube-apiserver; `directory` is where debkube keeps its keys, logs, and the IDs of its processes."""

    directory: Path
    access: Access
    command: list[str]

    @classmethod
    def find(cls, kubectl: Kubectl, access: Access) -> APIServerProcess:
        """Return the API server that runs; skip the test on a cluster that is not debkube."""
        if kubectl("config", "current-context").strip() != "debkube":
            pytest.skip("only debkube's API server is a process here")
        directory = Path(os.environ["KUBECONFIG"]).parent
        command = _command(int((directory / "kube-apiserver.pid").read_text()))
        return cls(directory, access, command)

    @property
    def pid(self) -> int:
        return int((self.directory / "kube-apiserver.pid").read_text())

    @property
    def signing_key(self) -> Path:
        """The file of the private key that signs tokens."""
        [name] = [word.removeprefix(_SIGNING_KEY) for word in self.command if word.startswith(_SIGNING_KEY)]
        return self.directory / "pki" / name

    def is_unchanged(self) -> bool:
        """Return True if an API server runs as the first one did."""
        return _command(self.pid) == self.command

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop the process as it is: connections stay open, and nothing answers on them."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)  # or another one that runs instead by now
            self._wait_until_ready()

    @contextmanager
    def killed(self) -> Iterator[None]:
        """Kill the process: connections are refused until it runs again."""
        self._kill()
        try:
            yield
        finally:
            self._start(self.command)

    @contextmanager
    def signing_with(self, private: Path, public: Path) -> Iterator[None]:
        """Restart the API server with a second key, which signs; tokens of the first one stay valid meanwhile."""
        signing = [f"{_SIGNING_KEY}{private}" if word.startswith(_SIGNING_KEY) else word for word in self.command]
        self._kill()
        try:
            self._start([*signing, f"{_PUBLIC_KEY}{public}"])
            yield
        finally:
            self._kill()
            self._start(self.command)

    def _kill(self) -> None:
        """End the process at once: after a SIGTERM it would wait a minute for its watches."""
        pid = self.pid
        if _command(pid):
            os.kill(pid, signal.SIGKILL)
        # A process has no command line any more before its last thread closes its sockets.
        eventually(lambda: not _command(pid) and not self._is_listening())

    def _start(self, command: list[str]) -> None:
        """Start the API server as debkube does: a daemon in its directory, whose ID is in a file."""
        script = 'echo $$ > ../kube-apiserver.pid && exec "$@"'
        with (self.directory / "log/kube-apiserver.log").open("ab") as log:
            subprocess.run(
                ["setsid", "--fork", "sh", "-c", script, "sh", *command],
                cwd=self.directory / "pki",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                check=True,
            )
        self._wait_until_ready()

    def _is_listening(self) -> bool:
        parts = urlsplit(self.access.url)
        try:
            socket.create_connection((parts.hostname, parts.port or 443), timeout=5).close()
        except OSError:
            return False
        return True

    def _wait_until_ready(self) -> None:
        eventually(self._is_ready)

    def _is_ready(self) -> bool:
        try:
            return self.access.admin.get(f"{self.access.url}/readyz", timeout=5).ok
        except requests.RequestException:
            return False


def _command(pid: int) -> list[str]:
    """Return the command line of a process, empty once it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]
    except OSError:
        return []
