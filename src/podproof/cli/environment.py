"""What the doctor examines: environment variables, files, the clock and the API server."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from podproof._token.jwt import read_claims
from podproof.cli import mounts
from podproof.errors import MalformedToken
from podproof.identity import ServiceAccount

if TYPE_CHECKING:
    from podproof._apiserver.client import APIServerClient


@dataclass(frozen=True)
class Environment:
    """The surroundings of one doctor run.

    `connect` returns a client of the API server: given None with our own credential, given a username impersonating
    that user. `acting_as` is the app's service account when the doctor runs outside of the app's pod. `audience` and
    `context` (of the kubeconfig) are those given on the command line, and so is `metrics_url`, where the app serves its
    metrics. The pod's files are read below `root`. `now` returns Unix seconds; `timeout` is in seconds and applies to
    each call to the API server.
    """

    connect: Callable[[str | None], APIServerClient]
    variables: Mapping[str, str]
    acting_as: ServiceAccount | None = None
    audience: str | None = None
    root: Path = Path("/")
    timeout: float = 5.0
    context: str | None = None
    metrics_url: str | None = None
    now: Callable[[], float] = time.time

    @cached_property
    def client(self) -> APIServerClient:
        """The client that calls the API server with our own credential."""
        return self.connect(None)

    @cached_property
    def app_client(self) -> APIServerClient:
        """The client that calls the API server as the app."""
        return self.connect(self.acting_as.username) if self.acting_as else self.client

    def deadline(self) -> float:
        """Return the deadline for a call that starts now, on the monotonic clock."""
        return time.monotonic() + self.timeout

    @property
    def in_pod(self) -> bool:
        """Whether the doctor runs in a pod."""
        return bool(self.variables.get("KUBERNETES_SERVICE_HOST"))

    @property
    def uses_mounted_credential(self) -> bool:
        """Whether our credential is the one that the kubelet mounts in a pod, not a kubeconfig's."""
        return self.in_pod and not self.variables.get("KUBECONFIG")

    @property
    def credential_directory(self) -> Path:
        """Where a pod's own credential for the API server is mounted."""
        return mounts.path_below(self.root, mounts.CREDENTIAL_DIRECTORY)

    @property
    def token_directory(self) -> Path:
        """Where `TokenClient` looks for the tokens that it sends."""
        return mounts.path_below(self.root, mounts.TOKEN_DIRECTORY)

    @property
    def token_files(self) -> list[Path]:
        """The callers' token files: those that exist, and the one that PODPROOF_TOKEN_FILE names."""
        return mounts.token_files(self.root, self.variables)

    @cached_property
    def credential_claims(self) -> Mapping[str, Any]:
        """The claims of our own bearer token; empty if the credential is something else."""
        token = self.client.own_token()
        try:
            return read_claims(token) if token else {}
        except MalformedToken:
            return {}

    @cached_property
    def app_account(self) -> ServiceAccount | None:
        """The app's service account, None if our credential is not a service account's."""
        if self.acting_as is not None:
            return self.acting_as
        try:
            return ServiceAccount.from_username(str(self.credential_claims.get("sub")))
        except ValueError:
            return None

    @property
    def app_name(self) -> str:
        """The app's service account as text."""
        return str(self.app_account) if self.app_account else "the kubeconfig's user"
