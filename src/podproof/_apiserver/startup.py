"""What is checked once a process: our permissions, the audiences, and that no trusted network is that of the pods."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address

from podproof._apiserver.permissions import GET_NAMESPACES, Permission
from podproof._apiserver.protocols import PermissionReader
from podproof._token.jwt import read_claims
from podproof.errors import ConfigurationError, MalformedToken, Unavailable

log = logging.getLogger("podproof")


def own_pod_addresses() -> list[str]:
    """Return the addresses of the pod that this process is in, by its host name, none outside a pod.

    The kubelet writes that name and the pod's addresses into /etc/hosts.
    """
    if "KUBERNETES_SERVICE_HOST" not in os.environ:
        return []
    try:
        found = socket.getaddrinfo(socket.gethostname(), None, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return [str(address[0]).partition("%")[0] for *_, address in found]


class StartupCheck:
    """The checks of one middleware. They run in a thread of their own, so that no request waits for them.

    `timeout` is in seconds, for all permissions together. `own_addresses` returns those of our pod.
    """

    def __init__(
        self,
        client: PermissionReader,
        *,
        audiences: Sequence[str],
        permissions: Sequence[Permission],
        timeout: float,
        trusted_proxies: Sequence[IPv4Network | IPv6Network] = (),
        own_addresses: Callable[[], Sequence[str]] = own_pod_addresses,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._audiences = audiences
        self._permissions = permissions
        self._timeout = timeout
        self._trusted_proxies = trusted_proxies
        self._own_addresses = own_addresses
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
        """Log an error for each permission that is missing, and for an audience that is the API server's own.

        And a warning for a trusted network that our own pod is in.
        """
        if self._trusted_proxies:
            warn_of_own_network(self._own_addresses(), self._trusted_proxies)
        try:
            check_audiences(self._audiences, self._client.own_token())
        except ConfigurationError as error:
            self._error = error
            log.error("%s", error)
        log_missing_permissions(self._client, self._permissions, self._monotonic() + self._timeout)


def warn_of_own_network(own_addresses: Sequence[str], trusted: Sequence[IPv4Network | IPv6Network]) -> None:
    """Warn of a trusted network, of more than one address, that contains one of our own: other pods may be in it."""
    for address in map(ip_address, own_addresses):
        for network in trusted:
            if address in network and network.num_addresses > 1 and not address.is_loopback:
                log.warning(
                    "trusted_proxies contains %s, this app's own address, in %s: every pod in that network can claim "
                    "to be at any address; name only the proxies' own addresses",
                    address,
                    network,
                )
                return


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
            "%s: this app's service account may not %s; it needs a ClusterRole with this "
            "permission, bound by a ClusterRoleBinding (a RoleBinding is not enough)",
            "requests get 503 where a rule has namespace_labels"
            if permission == GET_NAMESPACES
            else "no caller can be authenticated",
            permission,
        )
