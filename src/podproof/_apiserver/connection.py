"""One process's connections to the API server: configuration, connection pool, our credential, responses."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import urllib3
from kubernetes.client import ApiClient, Configuration
from kubernetes.config import ConfigException, load_kube_config
from kubernetes.config.incluster_config import SERVICE_HOST_ENV_NAME, InClusterConfigLoader
from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse

from podproof._apiserver.response import (
    APIResponse,
    ConnectionFailed,
    describe_error,
    parse_response,
    read_response,
    release,
)
from podproof._apiserver.timely_http import TIMELY_POOLS
from podproof._telemetry import metrics
from podproof._token.jwt import numeric_date, read_claims
from podproof._version import __version__
from podproof.errors import MalformedToken, Unavailable

CREDENTIAL_AGE = 1.0
"""Seconds for which our own credential is cached: the official client takes 0.1 ms to look it up."""

_BEARER = re.compile(r"bearer [\x21-\x7e]+", re.IGNORECASE)


class Endpoint(NamedTuple):
    """The API server's URL, whether its certificate is verified, and the proxy on the way (host and port), if any."""

    url: str
    verified: bool
    proxy: str | None


MOUNTED = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where the kubelet mounts a pod's own credential: `token`, `ca.crt`, `namespace`."""


def load_configuration(
    configuration: Configuration,
    environ: Mapping[str, str] = os.environ,
    mounted: Path = MOUNTED,
    context: str | None = None,
) -> None:
    """Fill in the API server's URL and our credential for it, as `kubectl` finds them.

    That is `KUBECONFIG` if it is set (its current context, or `context`), else the credential that is mounted in a
    pod, else `~/.kube/config`.

    Raises Unavailable if that one is missing or invalid.
    """
    named = environ.get("KUBECONFIG")
    in_pod = not named and environ.get(SERVICE_HOST_ENV_NAME)
    if in_pod:
        source = f"{mounted}/token and ca.crt"
    else:
        source = f"KUBECONFIG={named}" if named else f"KUBECONFIG and {SERVICE_HOST_ENV_NAME}, not set; ~/.kube/config"
    try:
        if in_pod:
            loader = InClusterConfigLoader(  # type: ignore[no-untyped-call]  # kubernetes has no types
                str(mounted / "token"), str(mounted / "ca.crt"), environ=environ
            )
            loader.load_and_set(configuration)  # type: ignore[no-untyped-call]  # kubernetes has no types
        else:
            load_kube_config(  # type: ignore[no-untyped-call]  # kubernetes has no types
                config_file=named or str(Path("~/.kube/config").expanduser()),
                context=context,
                client_configuration=configuration,
                persist_config=False,
            )
    except Exception as error:  # noqa: BLE001  what a broken kubeconfig raises is almost anything
        fix = (
            "mount the service account's token (automountServiceAccountToken)"
            if in_pod
            else "set KUBECONFIG to a kubeconfig"
        )
        raise Unavailable(
            f"no API server configuration found (looked for: {source}; {type(error).__name__}): {fix}"
        ) from None


def read_mounted_token(environ: Mapping[str, str] = os.environ, mounted: Path = MOUNTED) -> str | None:
    """Return the token that a pod calls the API server with, None where another credential is used, or none is there.

    It reads a local file and nothing else: no exec plugin, no connection.
    """
    if environ.get("KUBECONFIG") or not environ.get(SERVICE_HOST_ENV_NAME):
        return None
    try:
        return (mounted / "token").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None


class Connection:
    """One process's connections to the API server: configuration, connection pool, our credential."""

    def __init__(
        self,
        load: Callable[[Configuration], None],
        connections: int,
        impersonate: str | None,
        monotonic: Callable[[], float],
    ) -> None:
        configuration = Configuration()
        load(configuration)
        configuration.connection_pool_maxsize = connections
        configuration.retries = False  # urllib3 would try four times, each with the whole timeout
        self._manager = _make_pool_manager(configuration, TIMELY_POOLS)
        # Kept here: the manager would look it up on each call.
        self.pool: urllib3.HTTPConnectionPool = self._manager.connection_from_url(configuration.host)
        self._configuration = configuration
        self._proxy = getattr(self._manager, "proxy", None)
        # A proxy gets the whole URL (RFC 9112 section 3.2.2), unless it only forwards what is encrypted.
        whole = self._proxy is not None and configuration.host.startswith("http:")
        self._base = configuration.host if whole else urlsplit(configuration.host).path
        self._authorization: str | None = None
        self._credential: dict[str, str] = {}
        self._renew_at = -math.inf
        self._monotonic = monotonic
        # The API server's JWKS has a type of its own, and is denied with 406 to a request that does not accept it.
        self._headers = {
            "Accept": "application/json, application/jwk-set+json",
            "User-Agent": f"podproof/{__version__}",
        }
        if impersonate is not None:
            self._headers["Impersonate-User"] = impersonate

    @property
    def endpoint(self) -> Endpoint:
        url = self._configuration.host
        verified = bool(self._configuration.verify_ssl) and url.startswith("https:")
        # Host and port alone: a proxy's URL may hold a password.
        return Endpoint(url, verified, self._proxy.netloc if self._proxy else None)

    def send(self, method: str, path: str, body: Mapping[str, Any] | None, seconds: float) -> APIResponse:
        """Send one request and read its response, all within `seconds`.

        Raises ConnectionFailed.
        """
        if seconds <= 0:
            raise ConnectionFailed("no time left")
        pool = self.pool
        headers = self._headers | self._cached_credential()
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            response = pool.urlopen(
                method,
                self._base + path,
                body=None if body is None else json.dumps(body),
                headers=headers,
                timeout=urllib3.Timeout(total=seconds),
                redirect=False,  # a token must not follow
                retries=False,
                assert_same_host=False,  # a proxy's name is not the server's
                preload_content=False,
            )
            try:
                data = read_response(response)
            finally:
                release(response)
        except (HTTPError, OSError, ValueError) as error:
            # The type alone: the text may quote what was sent.
            self._renew_pool(pool)
            raise ConnectionFailed(f"connection failed with {describe_error(error)}") from None
        return parse_response(response, data)

    def make_pool(self, classes: Mapping[str, type[urllib3.HTTPConnectionPool]]) -> urllib3.HTTPConnectionPool:
        """Return a new pool of connections to the API server, of the class for its URL's scheme.

        Raises Unavailable.
        """
        return _make_pool_manager(self._configuration, classes).connection_from_url(self._configuration.host)

    def open(
        self, pool: urllib3.HTTPConnectionPool, path: str, *, connect_timeout: float, response_timeout: float
    ) -> BaseHTTPResponse:
        """Return the response to a GET as soon as its headers are there; its body is still to be read.

        The timeouts are in seconds: until the connection is made, and then until the headers come. Raises
        ConnectionFailed.
        """
        try:
            return pool.urlopen(
                "GET",
                self._base + path,
                headers=self._headers | self._cached_credential(),
                timeout=urllib3.Timeout(connect=connect_timeout, read=response_timeout),
                redirect=False,  # a token must not follow
                retries=False,
                assert_same_host=False,  # a proxy's name is not the server's
                preload_content=False,
            )
        except (HTTPError, OSError, ValueError) as error:
            raise ConnectionFailed(f"connection failed with {describe_error(error)}") from None

    def _renew_pool(self, failed: urllib3.HTTPConnectionPool) -> None:
        """Replace a pool in which a connection has failed.

        After a failover of the API server or a load balancer all idle connections may be dead without a sign of it:
        each would cost a caller an attempt. Requests under way keep their connections; urllib3 closes the old pool with
        the last of them.
        """
        if self.pool is failed:  # and not one that another thread has just made
            self._manager.clear()
            self.pool = self._manager.connection_from_url(self._configuration.host)

    def _cached_credential(self) -> dict[str, str]:
        now = self._monotonic()
        if now >= self._renew_at:
            self._credential = self.credential()
            self._renew_at = now + CREDENTIAL_AGE  # last: until then other threads use the cached one
        return self._credential

    def credential(self) -> dict[str, str]:
        """Return our Authorization header; while its file is empty or missing, the previous one."""
        try:
            settings = self._read_settings()
        except (ConfigException, OSError):
            settings = {}
        value = str(settings.get("BearerToken", {}).get("value") or "").strip()
        if _BEARER.fullmatch(value):
            if value != self._authorization:
                _export_expiry(value.partition(" ")[2])
            self._authorization = value
        return {"Authorization": self._authorization} if self._authorization else {}

    def _read_settings(self) -> Mapping[str, Any]:
        """Return the official client's settings, for which it reads the whole environment, as it is for its proxies."""
        try:
            return self._configuration.auth_settings()
        except KeyError:  # another thread has just removed a variable
            return self._configuration.auth_settings()


def _make_pool_manager(
    configuration: Configuration, classes: Mapping[str, type[urllib3.HTTPConnectionPool]]
) -> urllib3.PoolManager:
    """Return the official client's pool manager, with pools of ours by scheme. Raises Unavailable."""
    proxy = str(configuration.proxy or "").partition(":")[0]
    unsupported = Unavailable(f"unsupported API server proxy ({proxy}): expected http or https")
    socks = proxy.startswith("socks")
    try:
        manager: urllib3.PoolManager = ApiClient(configuration).rest_client.pool_manager
        replaced = manager.pool_classes_by_scheme
        manager.pool_classes_by_scheme = dict(classes)
        manager.connection_from_url(configuration.host)
    except Exception as error:  # noqa: BLE001  whatever the official client makes of a kubeconfig's values
        if socks:  # needs PySocks
            raise unsupported from None
        raise Unavailable(f"invalid API server configuration ({type(error).__name__}): check the kubeconfig") from None
    if replaced is not urllib3.poolmanager.pool_classes_by_scheme:
        raise unsupported  # the pools of a SOCKS manager are what uses the proxy: ours would connect past it
    return manager


def _export_expiry(own_token: str) -> None:
    with suppress(MalformedToken):
        metrics.own_token_end.set(numeric_date(read_claims(own_token), "exp"))
