"""One process's connection to the API server: its configuration, its pool, our credential, and what comes back."""

from __future__ import annotations

import http.client
import io
import json
import math
import os
import re
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from ssl import SSLCertVerificationError
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from urllib.parse import urlsplit

import urllib3
from kubernetes.client import ApiClient, Configuration
from kubernetes.config import ConfigException, load_kube_config
from kubernetes.config.incluster_config import SERVICE_HOST_ENV_NAME, InClusterConfigLoader
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse

from podproof._telemetry import metrics
from podproof._token.jwt import numeric_date, read_claims
from podproof._version import __version__
from podproof.errors import MalformedToken, Unavailable

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAX_RESPONSE = 4 * 1024 * 1024
"""The longest answer read, in bytes. etcd holds no object above 1.5 MiB."""

CREDENTIAL_AGE = 1.0
"""Seconds for which our own credential is not asked for again: the official client takes 0.1 ms to tell."""

_JSON = re.compile(r"application/(?:[\w.-]+\+)?json(?:[ \t]*;.*)?", re.IGNORECASE)  # JWKS have a type of their own
_BEARER = re.compile(r"bearer [\x21-\x7e]+", re.IGNORECASE)


class APIResponse(NamedTuple):
    """What the API server answered: a JSON object, empty where an error has none.

    `retry_after` is in seconds, None where it does not tell; `date` is its clock, an HTTP-date.
    """

    status: int
    document: Mapping[str, Any]
    retry_after: float | None
    date: str

    def clock(self) -> float | None:
        """Return the server's clock (RFC 9110 section 5.6.7) in Unix seconds, None where it does not tell."""
        try:
            return parsedate_to_datetime(self.date).timestamp()
        except ValueError:
            return None


class Endpoint(NamedTuple):
    """Where the API server is called, whether its certificate is checked, and the proxy on the way, if any."""

    url: str
    verified: bool
    proxy: str | None


MOUNTED = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where the kubelet mounts a pod's own credential: `token`, `ca.crt`, `namespace`."""


def load_configuration(
    configuration: Configuration, environ: Mapping[str, str] = os.environ, mounted: Path = MOUNTED
) -> None:
    """Fill in where the API server is and our credential for it, as `kubectl` finds them.

    That is `KUBECONFIG` where it is set (its current context), else the credential that is mounted in a pod, else
    `~/.kube/config`.

    Raises kubernetes.config.ConfigException.
    """
    named = environ.get("KUBECONFIG")
    if not named and environ.get(SERVICE_HOST_ENV_NAME):
        loader = InClusterConfigLoader(  # type: ignore[no-untyped-call]
            str(mounted / "token"), str(mounted / "ca.crt"), environ=environ
        )
        loader.load_and_set(configuration)  # type: ignore[no-untyped-call]
        return
    path = named or str(Path("~/.kube/config").expanduser())
    load_kube_config(  # type: ignore[no-untyped-call]
        config_file=path, client_configuration=configuration, persist_config=False
    )


class ConnectionFailed(Exception):
    """A call did not come through; `str()` says how, and holds nothing that was sent."""


class Connection:
    """One process's way to the API server: its configuration, its connection pool, our credential."""

    def __init__(
        self,
        load: Callable[[Configuration], None],
        connections: int,
        impersonate: str | None,
        monotonic: Callable[[], float],
    ) -> None:
        configuration = Configuration()
        try:
            load(configuration)
            configuration.connection_pool_maxsize = connections
            configuration.retries = False  # urllib3 would try four times, each with the whole timeout
            manager: urllib3.PoolManager = ApiClient(configuration).rest_client.pool_manager
            manager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
            # The one pool that there will be: the manager would look for it anew on each call.
            self.pool: urllib3.HTTPConnectionPool = manager.connection_from_url(configuration.host)
        except Exception as error:  # noqa: BLE001  what a broken kubeconfig raises is almost anything
            raise Unavailable(
                f"no way to the API server is configured ({type(error).__name__}): in a pod, mount the service "
                "account's token (automountServiceAccountToken); elsewhere set KUBECONFIG"
            ) from None
        self._configuration = configuration
        self._proxy = getattr(manager, "proxy", None)
        # A proxy is told the whole URL (RFC 9112 section 3.2.2), unless it only hands on what is encrypted.
        whole = self._proxy is not None and configuration.host.startswith("http:")
        self._base = configuration.host if whole else urlsplit(configuration.host).path
        self._authorization: str | None = None
        self._recent: dict[str, str] = {}
        self._ask_again_at = -math.inf
        self._monotonic = monotonic
        # The keys are of a type of their own, and refused (406) to who does not ask for it.
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
        """Send one request and read its answer, all within `seconds`.

        Raises ConnectionFailed.
        """
        if seconds <= 0:
            raise ConnectionFailed("there was no time left")
        headers = self._headers | self._recent_credential()
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            response = self.pool.urlopen(
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
                _give_back(response)
        except (HTTPError, OSError, ValueError) as error:
            # The type alone: the text may quote what was sent.
            raise ConnectionFailed(f"the connection failed with {_kind(error)}") from None
        return _parse_response(response, data)

    def _recent_credential(self) -> dict[str, str]:
        now = self._monotonic()
        if now >= self._ask_again_at:
            self._recent = self.credential()
            self._ask_again_at = now + CREDENTIAL_AGE  # only now: other threads take what is there
        return self._recent

    def credential(self) -> dict[str, str]:
        """Return our Authorization header; a file that is empty or gone for a moment leaves the one we have."""
        try:
            settings: Mapping[str, Any] = self._configuration.auth_settings()
        except (ConfigException, OSError):
            settings = {}
        value = str(settings.get("BearerToken", {}).get("value") or "").strip()
        if _BEARER.fullmatch(value):
            if value != self._authorization:
                _note_end(value.partition(" ")[2])
            self._authorization = value
        return {"Authorization": self._authorization} if self._authorization else {}


def _note_end(own_token: str) -> None:
    with suppress(MalformedToken):
        metrics.own_token_end.set(numeric_date(read_claims(own_token), "exp"))


def _read(response: BaseHTTPResponse) -> bytes:
    """Read a body of up to MAX_ANSWER bytes."""
    data = bytearray()
    while chunk := response.read1(65536):
        data += chunk
        if len(data) > MAX_RESPONSE:
            raise ConnectionFailed(f"its answer is longer than {MAX_RESPONSE} bytes")
    return bytes(data)


def _give_back(response: BaseHTTPResponse) -> None:
    """Keep the connection if its answer was read to the end, close it else."""
    if response.closed:
        response.release_conn()
    else:
        response.close()


def _parse_response(response: BaseHTTPResponse, data: bytes) -> APIResponse:
    pause = response.headers.get("Retry-After", "")
    retry_after = float(pause) if pause.isascii() and pause.isdigit() else None
    try:
        # A proxy's page is no answer, whatever it holds.
        document = json.loads(data) if _JSON.fullmatch(response.headers.get("Content-Type", "")) else None
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        if response.status < HTTPStatus.BAD_REQUEST:
            raise ConnectionFailed(f"it answered {response.status} with something that is not a JSON object")
        document = {}
    if response.status == HTTPStatus.NOT_FOUND and document.get("kind") != "Status":
        raise ConnectionFailed("it answered 404 and is no API server, by its answer's form")
    return APIResponse(response.status, document, retry_after, response.headers.get("Date", ""))


def _kind(error: BaseException) -> str:
    """Name an error, and the one that it wraps."""
    inner = getattr(error, "reason", None) or error.__cause__ or error.__context__
    if isinstance(inner, SSLCertVerificationError):
        return f"{type(inner).__name__}: {inner.verify_message}"  # OpenSSL's words on the server's certificate
    return type(error).__name__ + (f" ({type(inner).__name__})" if isinstance(inner, BaseException) else "")


class _TimelyIO(io.RawIOBase):
    """What comes in until a socket's timeout, which in the socket itself begins anew with every byte.

    A server that drips bytes would hold us for ever.
    """

    def __init__(self, raw: io.RawIOBase, sock: socket.socket) -> None:
        self._raw = raw
        self._sock = sock
        self._end = time.monotonic() + cast("float", sock.gettimeout())

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._sock.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _TimelyResponse(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_TimelyIO(self.fp.detach(), sock))


class _HTTPConnection(HTTPConnection):
    response_class = _TimelyResponse


class _HTTPSConnection(HTTPSConnection):
    response_class = _TimelyResponse


class _HTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection
