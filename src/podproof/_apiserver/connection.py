"""One process's connections to the API server: configuration, connection pool, our credential, responses."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from ssl import SSLCertVerificationError
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import urllib3
from kubernetes.client import ApiClient, Configuration
from kubernetes.config import ConfigException, load_kube_config
from kubernetes.config.incluster_config import SERVICE_HOST_ENV_NAME, InClusterConfigLoader
from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse

from podproof._apiserver.timely_http import read_body, use_timely_pools
from podproof._telemetry import metrics
from podproof._token.jwt import numeric_date, read_claims
from podproof._version import __version__
from podproof.errors import MalformedToken, Unavailable

MAX_RESPONSE = 4 * 1024 * 1024
"""The longest response read, in bytes. etcd holds no object above 1.5 MiB."""

CREDENTIAL_AGE = 1.0
"""Seconds for which our own credential is cached: the official client takes 0.1 ms to look it up."""

# RFC 6839 section 3.1: a JWKS is application/jwk-set+json.
_JSON = re.compile(r"application/(?:[\w.-]+\+)?json(?:[ \t]*;.*)?", re.IGNORECASE)
_BEARER = re.compile(r"bearer [\x21-\x7e]+", re.IGNORECASE)


class APIResponse(NamedTuple):
    """A response of the API server: its JSON object, empty for an error without one.

    `retry_after` is in seconds, None without that header; `date` is the server's time, an HTTP-date.
    """

    status: int
    document: Mapping[str, Any]
    retry_after: float | None
    date: str

    def clock(self) -> float | None:
        """Return the server's time (RFC 9110 section 5.6.7) in Unix seconds, None without a valid Date header."""
        try:
            return parsedate_to_datetime(self.date).timestamp()
        except ValueError:
            return None


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


class ConnectionFailed(Exception):
    """A request got no usable response; `str()` says why, without anything that was sent."""


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
        self._manager = _make_pool_manager(configuration)
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
                data = _read(response)
            finally:
                _release(response)
        except (HTTPError, OSError, ValueError) as error:
            # The type alone: the text may quote what was sent.
            self._renew_pool(pool)
            raise ConnectionFailed(f"connection failed with {_describe(error)}") from None
        return _parse_response(response, data)

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
            settings: Mapping[str, Any] = self._configuration.auth_settings()
        except (ConfigException, OSError):
            settings = {}
        value = str(settings.get("BearerToken", {}).get("value") or "").strip()
        if _BEARER.fullmatch(value):
            if value != self._authorization:
                _export_expiry(value.partition(" ")[2])
            self._authorization = value
        return {"Authorization": self._authorization} if self._authorization else {}


def _make_pool_manager(configuration: Configuration) -> urllib3.PoolManager:
    """Return the official client's pool manager, with connections of ours in its pools. Raises Unavailable."""
    proxy = str(configuration.proxy or "").partition(":")[0]
    unsupported = Unavailable(f"unsupported API server proxy ({proxy}): expected http or https")
    socks = proxy.startswith("socks")
    try:
        manager: urllib3.PoolManager = ApiClient(configuration).rest_client.pool_manager
        replaced = manager.pool_classes_by_scheme
        use_timely_pools(manager)
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


def _read(response: BaseHTTPResponse) -> bytes:
    """Return the body. Raises ConnectionFailed for more than MAX_RESPONSE bytes."""
    data = read_body(response, MAX_RESPONSE)
    if data is None:
        raise ConnectionFailed(f"response longer than {MAX_RESPONSE} bytes")
    return data


def _release(response: BaseHTTPResponse) -> None:
    """Keep the connection if its response was read to the end, else close it."""
    if response.closed:
        response.release_conn()
    else:
        response.close()


def _parse_response(response: BaseHTTPResponse, data: bytes) -> APIResponse:
    pause = response.headers.get("Retry-After", "")
    retry_after = float(pause) if pause.isascii() and pause.isdigit() else None
    try:
        # Another type is a proxy's page, even if it parses.
        document = json.loads(data) if _JSON.fullmatch(response.headers.get("Content-Type", "")) else None
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        if response.status < HTTPStatus.BAD_REQUEST:
            raise ConnectionFailed(f"status {response.status} without a JSON object")
        document = {}
    if response.status == HTTPStatus.NOT_FOUND and document.get("kind") != "Status":
        raise ConnectionFailed("status 404 without a Status object: not from an API server")
    return APIResponse(response.status, document, retry_after, response.headers.get("Date", ""))


def _describe(error: BaseException) -> str:
    """Return the type of an error and of the one that it wraps."""
    inner = getattr(error, "reason", None) or error.__cause__ or error.__context__
    if isinstance(inner, SSLCertVerificationError):
        return f"{type(inner).__name__}: {inner.verify_message}"  # what OpenSSL says of the server's certificate
    return type(error).__name__ + (f" ({type(inner).__name__})" if isinstance(inner, BaseException) else "")
