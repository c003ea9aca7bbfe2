"""What is checked once a process: our permissions on the API server, and that no audience is the API server's own."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence

from podproof._apiserver.permissions import Permission
from podproof._apiserver.protocols import PermissionReader
from podproof._token.jwt import read_claims
from podproof.errors import ConfigurationError, MalformedToken, Unavailable

log = logging.getLogger("podproof")


class StartupCheck:
    """The checks of one middleware. They run in a thread of their own, so that no request waits for them.

    `timeout` is in seconds, for all permissions together.
    """

    def __init__(
        self,
        client: PermissionReader,
        *,
        audiences: Sequence[str],
        permissions: Sequence[Permission],
        timeout: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._audiences = audiences
        self._permissions = permissions
        self._timeout = timeout
        self._monotonic = monotonic
        self._begun: dict[int, object] = {}
        self._error: ConfigurationError | None = None

    def begin(self) -> None:
        """Start the checks, at the first call in a process: never before a fork."""
        mine = object()
        if self._begun.setdefault(os.getpid(), mine) is mine:
            threading.Thread(target=self.run, name="podproof-startup", daemon=True).start()

    def raise_if_failed(self) -> None:
        """Raise Unavailable if the checks have found an audience that is the API server's own."""
        if self._error is not None:
            raise Unavailable(str(self._error))

    def run(self) -> None:
        """Log an error for each permission that is missing, and for an audience that is the API server's own."""
        try:
            check_audiences(self._audiences, self._client.own_token())
        except ConfigurationError as error:
            self._error = error
            log.error("%s", error)
        log_missing_permissions(self._client, self._permissions, self._monotonic() + self._timeout)


def check_audiences(audiences: Sequence[str], own_token: str | None) -> None:
    """Deny an audience that our own token for the API server has: with such a token, this app could act as its caller.

    Raises ConfigurationError.
    """
    if own_token is None:
        return
    try:
        named = read_claims(own_token).get("aud")
    except MalformedToken:
        return
    theirs = named if isinstance(named, list) else [named]
    for audience in audiences:
        if audience in theirs:
            raise ConfigurationError(
                f"invalid audience {audience!r}, which is the API server's own: a caller's token for it would let this "
                'app act as the caller in the whole cluster; expected a name of this app alone, such as "bob"'
            )


def log_missing_permissions(client: PermissionReader, permissions: Sequence[Permission], deadline: float) -> None:
    """Log an error for each permission that we need and do not have. Blocks until the monotonic deadline at most."""
    try:
        missing = [one for one in permissions if not client.is_allowed(one, deadline)]
    except Unavailable as failure:
        log.error("missing RBAC permissions could not be looked for: %s", failure.reason)
        return
    for permission in missing:
        log.error(
            "no caller can be authenticated: this app's service account may not %s; it needs a ClusterRole with this "
            "permission, bound by a ClusterRoleBinding (a RoleBinding is not enough)",
            permission,
        )
