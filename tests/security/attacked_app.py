"""The app under attack: called in this process through each entry point, on an emulated cluster kept between tests."""

from __future__ import annotations

import asyncio
import io
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Self

from kubernetes.client import Configuration

from podproof import asgi, mcp, wsgi
from podproof._apiserver.client import APIServerClient
from podproof._apiserver.connection import load_configuration
from podproof._authentication.authenticator import Authenticator
from podproof._request.context import IDENTITY
from podproof._request.setup import build_mode
from podproof.errors import PodAuthError
from podproof.identity import PodIdentity
from podproof.options import Options
from podproof.testing import Cluster, EmulatedPod
from podproof.testing._emulator.tokens import signing_key
from tests.security.reference_model import BoundPod, is_allowed
from tests.support.leak_detector import LeakDetector
from tests.support.modes import DEFAULT, MODES, Mode
from tests.support.watch_marker import WatchMarker

ALICE, MALLORY, LOCAL = "127.0.0.2", "127.0.0.3", "127.0.0.1"
DUAL_STACK = ("10.1.2.3", "fd00::1:2")
"""The addresses of a pod on a dual-stack network."""

ENTRY_POINTS = ("wsgi", "asgi", "websocket")
DOCUMENTED_STATUSES = {200, 400, 401, 403, 503}

Headers = Sequence[tuple[bytes, bytes]]
Sent = tuple[int, list[tuple[str, str]], bytes]
LoadConfiguration = Callable[[Configuration], None]


class AttackResult(NamedTuple):
    """The response; and what the caller does not see: `caller` as the app saw it, the code and reason in the log."""

    status: int
    headers: dict[str, str]
    body: bytes
    caller: str | None
    code: str
    reason: str

    @property
    def allowed(self) -> bool:
        return self.status < 400


@dataclass
class OffsetClock:
    """The real monotonic clock plus an offset; a sleep is recorded and added to the offset."""

    offset: float = 0.0
    sleeps: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return time.monotonic() + self.offset

    def advance(self, seconds: float) -> None:
        self.offset += seconds

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.advance(seconds)


class AttackEnv:
    """A cluster with the pods of Alice and Mallory, and the apps under attack."""

    def __init__(self) -> None:
        self.cluster = Cluster()
        self.runner = asyncio.Runner()
        self._stack, self._apps = ExitStack(), ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(self.cluster)
        self._stack.callback(self.runner.close)
        self.cluster.grant("default/bob", verbs=["create"], resources=["tokenreviews"])
        self.cluster.grant("default/bob", verbs=["get", "list", "watch"], resources=["pods"])
        self.alice = self.cluster.pod("default/alice-pod", service_account="alice", addresses=[ALICE])
        self.mallory = self.cluster.pod("default/mallory-pod", service_account="mallory", addresses=[MALLORY])
        self.dual = self.cluster.pod("default/dual-pod", service_account="dual", addresses=[*DUAL_STACK])
        self.token = self.alice.token("bob", lifetime=86400)
        self._marker = self.cluster.pod("default/marker")
        self.pod_addresses = {
            BoundPod("default", "alice", "alice-pod", self.alice.uid): ALICE,
            BoundPod("default", "mallory", "mallory-pod", self.mallory.uid): MALLORY,
        }
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def close_apps(self) -> None:
        """Close the apps that were made, with their threads."""
        self._apps.close()

    def model_allows(self, headers: Sequence[bytes], peer: str | None) -> bool:
        """Return True if the reference model allows these Authorization headers from this address."""
        key, now = signing_key().public_key(), time.time()
        return is_allowed(headers, peer, self.pod_addresses, key=key, audience="bob", now=now)

    def make_app(
        self,
        leak_detector: LeakDetector,
        clock: OffsetClock | None = None,
        load: LoadConfiguration | None = None,
        max_rejections: int = sys.maxsize,
        *,
        mode: Mode = DEFAULT,
        **options: object,
    ) -> AttackedApp:
        """Return an app with these options and caches of its own, by default with a working kubeconfig.

        By default rejected tokens are neither cached nor counted: after 20 their address would be answered with 503.
        """
        environ = {"KUBECONFIG": str(self.cluster.kubeconfig_for("default/bob"))}
        load = load or partial(load_configuration, environ=environ)
        app = AttackedApp(
            self.runner,
            leak_detector,
            clock or OffsetClock(),
            load,
            mode.options | options,
            max_rejections=max_rejections,
            marker=self._marker if mode.pods == "watch" else None,
        )
        self._apps.callback(app.close)
        return app

    def make_apps(self, leak_detector: LeakDetector, **options: Any) -> AttackedApps:
        """Return such an app in each mode."""
        return AttackedApps({mode: self.make_app(leak_detector, mode=mode, **options) for mode in MODES})


class AttackedApp:
    """An app behind both middlewares, which share one authenticator.

    With a `marker`, pods are watched.
    """

    def __init__(
        self,
        runner: asyncio.Runner,
        leak_detector: LeakDetector,
        clock: OffsetClock,
        load: LoadConfiguration,
        given: dict[str, object],
        *,
        max_rejections: int,
        marker: EmulatedPod | None,
    ) -> None:
        self._leak_detector = leak_detector
        self._runner = runner
        self.client = APIServerClient(load=load, monotonic=clock, sleep=clock.sleep)
        options = Options.read({"audience": "bob", "rejection_ttl": 0} | given, {})
        changes: list[Callable[[str], None]] = []
        mode = build_mode(options, self.client, changes, monotonic=clock)
        self.authenticator = Authenticator(
            options,
            mode.verifier,
            mode.pods,
            issuer_reader=self.client,
            max_rejections=max_rejections,
            on_close=mode.close,
            monotonic=clock,
        )
        changes.append(self.authenticator.discard_pod)
        self._marker = None if marker is None else WatchMarker(marker, changes)
        self._callers: list[PodIdentity | None] = []
        self._wsgi_apps: dict[str, Any] = {}
        self._asgi_apps: dict[str, Any] = {}
        self._make_apps()

    def _make_apps(self) -> None:
        middleware = asgi.PodAuthMiddleware(self._asgi_app, authenticator=self.authenticator)
        mcp_middleware = mcp.PodAuthMiddleware(self._asgi_app, authenticator=self.authenticator)
        self._wsgi_apps["wsgi"] = wsgi.PodAuthMiddleware(self._wsgi_app, authenticator=self.authenticator)
        self._asgi_apps |= {"asgi": middleware, "websocket": middleware, "mcp": mcp_middleware}

    def replace_authenticator(self, authenticator: Authenticator) -> None:
        """Put another authenticator in the place of the app's own."""
        self.authenticator.close()
        self.authenticator = authenticator
        self._make_apps()

    def settle(self) -> None:
        """Wait until the watch, if there is one, has seen all changes of pods that were made before."""
        if self._marker is not None:
            self._marker.settle(self.authenticator.pods, self.authenticator.monotonic)

    def close(self) -> None:
        self.authenticator.close()
        self.client.close()

    def add_apps(self, wsgi_apps: dict[str, Any], asgi_apps: dict[str, Any]) -> None:
        """Add apps that authenticate by themselves, each as an entry point; those named "... websocket" are of such."""
        self._wsgi_apps |= wsgi_apps
        self._asgi_apps |= asgi_apps

    def send(
        self,
        entry_point: str,
        headers: Headers,
        peer: str | None = ALICE,
        *,
        path: str = "/",
        secrets: Iterable[bytes] = (),
    ) -> AttackResult:
        """Send a request through one of the ENTRY_POINTS.

        Whatever the response is, it is a documented one, and no secret is logged or shown. The values of Authorization
        headers are among the secrets.
        """
        for secret in [*secrets, *(value for name, value in headers if name == b"authorization")]:
            self._leak_detector.add_secret(secret)
        self._callers.clear()
        self._leak_detector.decisions.clear()
        try:
            send = partial(self._send_wsgi if entry_point in self._wsgi_apps else self._send_asgi, entry_point)
            status, response_headers, body = send(headers, peer, path)
        except BaseException as error:
            self._leak_detector.add_error(error)
            raise
        finally:
            self._leak_detector.assert_no_leak()
        assert status in DOCUMENTED_STATUSES
        assert bool(self._callers) == (status == 200)
        by_name = {name.lower(): value for name, value in response_headers}
        text = "".join(f"{name}: {value}" for name, value in response_headers)
        assert text.isascii()
        assert text.isprintable()
        if status != 200:
            assert set(json.loads(body)) == {"type", "title", "status", "detail", "request_id"}
            assert ("www-authenticate" in by_name, "retry-after" in by_name) == (status < 500, status == 503)
        identity = self._callers[0] if self._callers else None
        [(code, reason)] = self._leak_detector.decisions
        return AttackResult(status, by_name, body, str(identity.pod) if identity else None, code, reason)

    def send_token(self, entry_point: str, token: str | bytes, peer: str | None = ALICE) -> AttackResult:
        """Send a request with a token through one of the ENTRY_POINTS."""
        text = token.encode() if isinstance(token, str) else token
        return self.send(entry_point, [(b"authorization", b"Bearer " + text)], peer)

    def authenticate(self, token: str, peer: str | None = ALICE) -> PodIdentity | PodAuthError:
        """Call the authenticator without a middleware, and return the identity or the error."""
        self._leak_detector.add_secret(token)
        try:
            return self.authenticator.authenticate(token, peer)
        except PodAuthError as error:
            self._leak_detector.add_error(error)
            return error
        finally:
            self._leak_detector.assert_no_leak()

    def _send_wsgi(self, entry_point: str, headers: Headers, peer: str | None, path: str) -> Sent:
        return call_wsgi(self._wsgi_apps[entry_point], make_environ(headers, peer, path))

    def _send_asgi(self, entry_point: str, headers: Headers, peer: str | None, path: str) -> Sent:
        scope = make_scope(headers, peer, path)
        if entry_point.endswith("websocket"):
            scope["type"] = "websocket"
            del scope["method"]
        return call_asgi(self._runner, self._asgi_apps[entry_point], scope)

    def _wsgi_app(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        self.record_caller(environ)
        start_response("200 OK", [])
        return [b""]

    async def _asgi_app(self, scope: Any, receive: Any, send: Any) -> None:
        self.record_caller(scope)
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def record_caller(self, request: dict[str, Any]) -> None:
        """Keep the caller that an app sees in an environ or scope, and search all else in there for secrets."""
        self._callers.append(request[IDENTITY])
        options = self.authenticator.options
        exempt = request.get("PATH_INFO", request.get("path")) in options.exempt
        if exempt or (options.other_credentials == "pass" and request[IDENTITY] is None):
            return  # the header is the app's, and stays on the request
        self._leak_detector.add_output(repr(request))  # an app, or its error page, may print the whole request


ODD_CODES = {"malformed-token", "expired"}
"""Of denials by keys of what the API server reads in its way."""


class AttackedApps:
    """The same app in each mode: whatever is sent, their verdicts are the same.

    But for one kind of token, which `odd` says that this may be: one that the cluster's key has signed, with claims
    that no API server writes. Of these the API server reads some, such as null for a text or an `iat` to come; by keys
    they are denied. A member twice is denied in each mode, before anybody is asked. And only the API server looks the
    service account up: with a UID that is not that of the live one, a review denies, while keys wait for the end of its
    pods.
    """

    def __init__(self, by_mode: Mapping[Mode, AttackedApp]) -> None:
        self._by_mode = by_mode

    def in_turn(self, number: int) -> AttackedApps:
        """Return those of the first mode and of one other, by the number of a case: many cases meet each mode."""
        (first, app), *others = self._by_mode.items()
        return AttackedApps(dict([(first, app), others[number % len(others)]]))

    def send(
        self, entry_point: str, headers: Headers, peer: str | None = ALICE, *, path: str = "/", odd: bool = False
    ) -> AttackResult:
        """Send a request to the app in each mode through one of the ENTRY_POINTS; return the first result of all.

        The status is the same in each mode, and the caller that the app sees.
        """
        results = {mode: app.send(entry_point, headers, peer, path=path) for mode, app in self._by_mode.items()}
        first = next(iter(results.values()))
        for mode, result in results.items():
            same = (result.status, result.caller) == (first.status, first.caller)
            odd_denied = first.allowed and result.code in ODD_CODES
            odd_allowed = result.allowed and "service account UID" in (first.reason or "")
            assert same or (odd and mode.verify != "review" and (odd_denied or odd_allowed)), (mode, result, first)
        return first

    def send_token(
        self, entry_point: str, token: str | bytes, peer: str | None = ALICE, *, odd: bool = False
    ) -> AttackResult:
        """Send a request with a token to the app in each mode."""
        text = token.encode() if isinstance(token, str) else token
        return self.send(entry_point, [(b"authorization", b"Bearer " + text)], peer, odd=odd)

    def authenticate(self, token: str, *, odd: bool = False) -> PodIdentity | PodAuthError:
        """Call the authenticator of each mode for Alice, and return the identity or the error of the first one."""
        results = {mode: app.authenticate(token) for mode, app in self._by_mode.items()}
        first = next(iter(results.values()))
        for mode, result in results.items():
            if isinstance(result, PodIdentity):
                assert result == first, (mode, first)
            elif isinstance(first, PodIdentity):
                assert odd, (mode, result)
                assert mode.verify != "review"
                assert result.code in ODD_CODES
            else:
                assert result.status == first.status, (mode, result, first)
        return first


def make_environ(headers: Headers, peer: str | None, path: str) -> dict[str, Any]:
    """Return the WSGI environ of a GET request."""
    environ: dict[str, Any] = {"REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": path, "RAW_URI": path}
    environ |= {"SERVER_NAME": "bob", "SERVER_PORT": "80", "wsgi.url_scheme": "http", "wsgi.input": io.BytesIO()}
    if peer is not None:
        environ["REMOTE_ADDR"] = peer
    for name, value in headers:
        key, text = "HTTP_" + name.decode().upper().replace("-", "_"), value.decode("latin-1")
        environ[key] = f"{environ[key]},{text}" if key in environ else text  # as gunicorn does
    return environ


def call_wsgi(app: Any, environ: dict[str, Any]) -> Sent:
    """Return status, headers and body of an app's response."""
    started: list[tuple[int, list[tuple[str, str]]]] = []

    def start_response(status: str, given: list[tuple[str, str]], *_: object) -> Callable[[bytes], None]:
        started.append((int(status[:3]), given))
        return lambda _: None

    body = app(environ, start_response)
    content = b"".join(body)
    if hasattr(body, "close"):
        body.close()
    [(status, given)] = started
    return status, given, content


def make_scope(headers: Headers, peer: str | None, path: str) -> dict[str, Any]:
    """Return the ASGI scope of a GET request."""
    return {
        "type": "http",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [*headers],
        "client": None if peer is None else (peer, 4711),
        "extensions": {"websocket.http.response": {}},
    }


def call_asgi(runner: asyncio.Runner, app: Any, scope: dict[str, Any]) -> Sent:
    """Return status, headers and body of an app's response to a request or a WebSocket; 200 if that is accepted."""
    sent: list[Any] = []
    received: list[bool] = []

    async def receive() -> Any:
        if scope["type"] == "websocket":
            return {"type": "websocket.connect"}
        if not received:
            received.append(True)
            return {"type": "http.request", "body": b""}
        return await asyncio.Future[Any]()  # Django waits for a disconnect beside the response

    async def send(message: Any) -> None:
        sent.append(message)

    runner.run(app(scope, receive, send))
    if sent[0]["type"] == "websocket.accept":
        return 200, [], b""
    start, *bodies = sent
    given = [(name.decode(), value.decode()) for name, value in start["headers"]]
    return start["status"], given, b"".join(body["body"] for body in bodies)
