"""What the doctor looks at: surroundings, files, the clock and the API server."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from podproof._apiserver.client import APIServerClient
from podproof._apiserver.connection import MOUNTED
from podproof._token.jwt import read_claims
from podproof.cli import mounts
from podproof.errors import MalformedToken
from podproof.identity import ServiceAccount


@dataclass(frozen=True)
class Environment:
    """Where the doctor is.

    `own` asks the API server as ourselves, `app` as the app: the same, unless the app is the service account `acting`.
    `audience` is the one given on the command line. Files are looked for below `root`. `now` gives Unix seconds,
    `timeout` is for one question to the API server.
    """

    own: APIServerClient
    app: APIServerClient
    environ: Mapping[str, str]
    acting: ServiceAccount | None = None
    audience: str | None = None
    root: Path = Path("/")
    timeout: float = 5.0
    now: Callable[[], float] = time.time

    def deadline(self) -> float:
        """Return when a question that is asked now must have been answered."""
        return time.monotonic() + self.timeout

    @property
    def in_pod(self) -> bool:
        """Whether the credential is the one that is mounted in a pod."""
        return bool(self.environ.get("KUBERNETES_SERVICE_HOST")) and not self.environ.get("KUBECONFIG")

    @property
    def mounted(self) -> Path:
        """Where a pod's own credential is mounted."""
        return mounts.below(self.root, MOUNTED)

    @property
    def folder(self) -> Path:
        """Where `TokenClient` looks for tokens to send to apps."""
        return mounts.below(self.root, mounts.TOKENS)

    @property
    def token_files(self) -> list[Path]:
        """The files of the tokens that are there to be sent to apps, and the one that is said to be there."""
        return mounts.token_files(self.root, self.environ)

    @cached_property
    def own_claims(self) -> Mapping[str, Any]:
        """The claims of the token that we call the API server with; none where that is no such token."""
        token = self.own.own_token()
        try:
            return read_claims(token) if token else {}
        except MalformedToken:
            return {}

    @cached_property
    def account(self) -> ServiceAccount | None:
        """The app's service account, None where we ask as somebody who is none."""
        if self.acting is not None:
            return self.acting
        try:
            return ServiceAccount.from_username(str(self.own_claims.get("sub")))
        except ValueError:
            return None

    @property
    def who(self) -> str:
        """The app, in words."""
        return str(self.account) if self.account else "the kubeconfig's user"
