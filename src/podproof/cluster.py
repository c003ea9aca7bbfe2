"""The calls that podproof makes to the Kubernetes API server, on the official client's configuration and connections.

Answers are handed on as raw JSON: deciding is for other rooms. Whatever keeps an answer from us is `Unavailable`, with
a reason for the log that says what to mend and never holds a credential.
"""

from __future__ import annotations

import http.client
import io
import json
import math
import os
import random
import re
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from ssl import SSLCertVerificationError
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from urllib.parse import quote, urlsplit

import urllib3
from kubernetes.client import ApiClient, Configuration
from kubernetes.config import ConfigException, load_kube_config
from kubernetes.config.incluster_config import SERVICE_HOST_ENV_NAME, InClusterConfigLoader
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse

from podproof import __version__, claims, metrics
from podproof.errors import NotAToken, Unavailable
from podproof.process import OnePerProcess

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAX_ANSWER = 4 * 1024 * 1024
"""The longest answer read, in bytes. etcd holds no object above 1.5 MiB."""

ATTEMPTS = 3
BACKOFF = 0.1
"""Seconds that a first retry waits at the most; each further one up to twice as long."""

CREDENTIAL_AGE = 1.0
"""Seconds for which our own credential is not asked for again: the official client takes 0.1 ms to tell."""

_TRANSIENT = {429, 500, 502, 503, 504}
_JSON = re.compile(r"application/(?:[\w.-]+\+)?json(?:[ \t]*;.*)?", re.IGNORECASE)  # JWKS have a type of their own
_BEARER = re.compile(r"bearer [\x21-\x7e]+", re.IGNORECASE)


class Permission(NamedTuple):
    """One thing that RBAC may allow: a verb on a resource of an API group, in the whole cluster or one namespace."""

    verb: str
    group: str
    resource: str
    namespace: str = ""

    def __str__(self) -> str:
        where = f" in {self.namespace}" if self.namespace else ""
        return f"{self.verb} {self.resource}" + (f".{self.group}" if self.group else "") + where


CREATE_TOKENREVIEWS = Permission("create", "authentication.k8s.io", "tokenreviews")
GET_PODS = Permission("get", "", "pods")
CREATE_ACCESS_REVIEWS = Permission("create", "authorization.k8s.io", "subjectaccessreviews")
CREATE_SELF_REVIEWS = Permission("create", "authorization.k8s.io", "selfsubjectaccessreviews")


class Answer(NamedTuple):
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


class ClusterClient:
    """Asks the API server.

    `connections` is how many are kept open. `impersonate` is the username to act as: a service account's, which gets
    its groups too. A `deadline` is in seconds on the `monotonic` clock; transient failures are
    tried again within it, after a random pause. `load` fills in a Configuration: by default as `kubectl` would.
    """

    def __init__(
        self,
        *,
        connections: int = 8,
        impersonate: str | None = None,
        load: Callable[[Configuration], None] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._connections = OnePerProcess(
            lambda: _Connection(load or load_configuration, connections, impersonate, monotonic)
        )
        self._monotonic = monotonic
        self._sleep = sleep
        self._uniform = uniform

    def review_token(self, token: str, audiences: Sequence[str], deadline: float) -> Mapping[str, Any]:
        """Return the TokenReview (authentication.k8s.io/v1) of a token for our audiences."""
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": list(audiences)},
        }
        path = "/apis/authentication.k8s.io/v1/tokenreviews"
        with metrics.timed("tokenreviews"):
            return self._expect("TokenReview", self._ask("POST", path, CREATE_TOKENREVIEWS, deadline, body))

    def read_pod(self, namespace: str, name: str, deadline: float) -> Mapping[str, Any] | None:
        """Return a Pod (v1), read live from the API server's store, or None where there is none of that name."""
        path = f"/api/v1/namespaces/{quote(namespace, safe='')}/pods/{quote(name, safe='')}"
        with metrics.timed("pods"):
            answer = self._ask("GET", path, GET_PODS, deadline)
        if answer.status == HTTPStatus.NOT_FOUND:
            return None
        return self._expect("Pod", answer)

    def review_access(self, spec: Mapping[str, Any], deadline: float) -> Mapping[str, Any]:
        """Return the SubjectAccessReview (authorization.k8s.io/v1) of this spec."""
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        with metrics.timed("subjectaccessreviews"):
            return self._expect("SubjectAccessReview", self._ask("POST", path, CREATE_ACCESS_REVIEWS, deadline, body))

    def is_allowed(self, permission: Permission, deadline: float) -> bool:
        """Tell whether we have a permission, by a SelfSubjectAccessReview (authorization.k8s.io/v1)."""
        attributes = permission._asdict()
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        review = self._expect("SelfSubjectAccessReview", self._ask("POST", path, CREATE_SELF_REVIEWS, deadline, body))
        status = review.get("status")
        return isinstance(status, dict) and status.get("allowed") is True

    def get(self, path: str, deadline: float) -> Answer:
        """Read an object, a list or a document by its path; a 404 is an answer too."""
        return self._ask("GET", path, Permission("get", "", path), deadline)

    def endpoint(self) -> Endpoint:
        """Return where the API server is. Raises Unavailable where nothing tells us."""
        return self._connections.get().endpoint

    def own_token(self) -> str | None:
        """Return the bearer token that we call the API server with, None where there is none to be had now."""
        try:
            header = self._connections.get().credential().get("Authorization")
        except Unavailable:
            return None
        return header.partition(" ")[2] if header else None

    def close(self) -> None:
        """Close this process's connections; the next call opens new ones."""
        connection = self._connections.pop()
        if connection is not None:
            connection.pool.close()

    def _expect(self, kind: str, answer: Answer) -> Mapping[str, Any]:
        document = answer.document
        if answer.status not in (HTTPStatus.OK, HTTPStatus.CREATED) or document.get("kind") != kind:
            raise Unavailable(f"the API server answered {answer.status} where a {kind} was asked for")
        return document

    def _ask(
        self,
        method: str,
        path: str,
        permission: Permission,
        deadline: float,
        body: Mapping[str, Any] | None = None,
    ) -> Answer:
        """Make one call: up to ATTEMPTS times, and once more with our credential read anew."""
        renewed, failures = False, 0
        while True:
            connection = self._connections.get()
            try:
                answer = connection.send(method, path, body, deadline - self._monotonic())
            except _Trouble as trouble:
                reason, pause = str(trouble), None
            else:
                if answer.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
                    if renewed:
                        raise Unavailable(_explain_refusal(answer.status, permission))
                    renewed = True
                    self._connections.drop(connection)
                    continue
                if answer.status not in _TRANSIENT:
                    return answer
                reason, pause = f"it answered {answer.status}", answer.retry_after
            failures += 1
            if pause is None:
                pause = self._uniform(0, BACKOFF * 2 ** (failures - 1))
            if failures == ATTEMPTS or self._monotonic() + pause >= deadline:
                raise Unavailable(f"the API server did not help ({method} {path}): {reason}")
            self._sleep(pause)


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


class _Trouble(Exception):
    """A call did not come through; `str()` says how, and holds nothing that was sent."""


class _Connection:
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

    def send(self, method: str, path: str, body: Mapping[str, Any] | None, seconds: float) -> Answer:
        """Send one request and read its answer, all within `seconds`.

        Raises _Trouble.
        """
        if seconds <= 0:
            raise _Trouble("there was no time left")
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
            raise _Trouble(f"the connection failed with {_kind(error)}") from None
        return _answer(response, data)

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
    with suppress(NotAToken):
        metrics.own_token_end.set(claims.numeric_date(claims.read(own_token), "exp"))


def _read(response: BaseHTTPResponse) -> bytes:
    """Read a body of up to MAX_ANSWER bytes."""
    data = bytearray()
    while chunk := response.read1(65536):
        data += chunk
        if len(data) > MAX_ANSWER:
            raise _Trouble(f"its answer is longer than {MAX_ANSWER} bytes")
    return bytes(data)


def _give_back(response: BaseHTTPResponse) -> None:
    """Keep the connection if its answer was read to the end, close it else."""
    if response.closed:
        response.release_conn()
    else:
        response.close()


def _answer(response: BaseHTTPResponse, data: bytes) -> Answer:
    pause = response.headers.get("Retry-After", "")
    retry_after = float(pause) if pause.isascii() and pause.isdigit() else None
    try:
        # A proxy's page is no answer, whatever it holds.
        document = json.loads(data) if _JSON.fullmatch(response.headers.get("Content-Type", "")) else None
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        if response.status < HTTPStatus.BAD_REQUEST:
            raise _Trouble(f"it answered {response.status} with something that is not a JSON object")
        document = {}
    if response.status == HTTPStatus.NOT_FOUND and document.get("kind") != "Status":
        raise _Trouble("it answered 404 and is no API server, by its answer's form")
    return Answer(response.status, document, retry_after, response.headers.get("Date", ""))


def _kind(error: BaseException) -> str:
    """Name an error, and the one that it wraps."""
    inner = getattr(error, "reason", None) or error.__cause__ or error.__context__
    if isinstance(inner, SSLCertVerificationError):
        return f"{type(inner).__name__}: {inner.verify_message}"  # OpenSSL's words on the server's certificate
    return type(error).__name__ + (f" ({type(inner).__name__})" if isinstance(inner, BaseException) else "")


def _explain_refusal(status: int, permission: Permission) -> str:
    if status == HTTPStatus.UNAUTHORIZED:
        return (
            "the API server does not accept our own credential (401): "
            "is this app's service account token still mounted, and fresh?"
        )
    return (
        f"the API server forbids us to {permission} (403): this app's service account needs a ClusterRole with it, "
        "bound by a ClusterRoleBinding"
    )


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
