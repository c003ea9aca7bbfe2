"""Bob, asked through each of his doors in this process, on an emulated cluster that goes on between tests."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Self

from kubernetes.client import Configuration

from podproof import asgi, wsgi
from podproof._apiserver.client import APIServerClient
from podproof._apiserver.connection import load_configuration
from podproof._authentication.authenticator import Authenticator
from podproof._authentication.pods import PodLookup
from podproof._authentication.token_review import TokenReviewVerifier
from podproof._request.context import IDENTITY
from podproof.errors import PodAuthError
from podproof.identity import PodIdentity
from podproof.options import Options
from podproof.testing import Cluster
from podproof.testing._emulator.tokens import signing_key
from tests.security.reference_model import Bound, is_welcome
from tests.support.leak_detector import Ears

ALICE, MALLORY, LOCAL = "127.0.0.2", "127.0.0.3", "127.0.0.1"
TWO = ("10.1.2.3", "fd00::1:2")  # the addresses of a pod on a dual-stack network
DOORS = ("wsgi", "asgi", "websocket")
DOCUMENTED = {200, 400, 401, 403, 503}

Headers = Sequence[tuple[bytes, bytes]]
Load = Callable[[Configuration], None]


class Reply(NamedTuple):
    """What a caller gets, and it does not: the `caller` that the app was told, and what is in the books."""

    status: int
    headers: dict[str, str]
    body: bytes
    caller: str | None
    code: str
    reason: str

    @property
    def accepted(self) -> bool:
        return self.status < 400


@dataclass
class Clock:
    """Time that runs on by itself, and when somebody would sleep."""

    ahead: float = 0.0
    slept: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return time.monotonic() + self.ahead

    def passes(self, seconds: float) -> None:
        self.ahead += seconds

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.passes(seconds)


class World:
    """A cluster, its pods, and any number of Bobs."""

    def __init__(self) -> None:
        self.cluster = Cluster()
        self._stack = ExitStack()
        self.runner = asyncio.Runner()

    def __enter__(self) -> Self:
        self._stack.enter_context(self.cluster)
        self._stack.callback(self.runner.close)
        self.cluster.grant("default/bob", verbs=["create"], resources=["tokenreviews"])
        self.cluster.grant("default/bob", verbs=["get"], resources=["pods"])
        self.alice = self.cluster.pod("default/alice-pod", service_account="alice", addresses=[ALICE])
        self.mallory = self.cluster.pod("default/mallory-pod", service_account="mallory", addresses=[MALLORY])
        self.dual = self.cluster.pod("default/dual-pod", service_account="dual", addresses=[*TWO])
        self.token = self.alice.token("bob", lifetime=86400)
        self.homes = {
            Bound("default", "alice", "alice-pod", self.alice.uid): ALICE,
            Bound("default", "mallory", "mallory-pod", self.mallory.uid): MALLORY,
        }
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def welcomes(self, headers: Sequence[bytes], peer: str | None) -> bool:
        """Tell what the model says of Authorization headers that come from an address."""
        return is_welcome(headers, peer, self.homes, key=signing_key().public_key(), audience="bob", now=time.time())

    def bob(
        self,
        ears: Ears,
        clock: Clock | None = None,
        load: Callable[[Configuration], None] | None = None,
        **given: object,
    ) -> Bob:
        """Return a Bob with these options and a memory of his own, by default with a kubeconfig that is good.

        By default he forgets refusals at once: after 20 from one address he would hear no other from there.
        """
        environ = {"KUBECONFIG": str(self.cluster.kubeconfig_for("default/bob"))}
        load = load or partial(load_configuration, environ=environ)
        bob = Bob(self.runner, ears, clock or Clock(), load, given)
        self._stack.callback(bob.close)
        return bob


class Bob:
    """An app behind both middlewares, with one authenticator for all of its doors."""

    def __init__(
        self,
        runner: asyncio.Runner,
        ears: Ears,
        clock: Clock,
        load: Load,
        given: dict[str, object],
    ) -> None:
        self._ears = ears
        self._runner = runner
        self.client = APIServerClient(load=load, monotonic=clock, sleep=clock.sleep)
        options = Options.read({"audience": "bob", "rejection_ttl": 0} | given, {})
        verifier, pods = TokenReviewVerifier(self.client, options.audience), PodLookup(self.client)
        self.authenticator = Authenticator(options, verifier, pods, monotonic=clock)
        self._told: list[PodIdentity | None] = []
        self._wsgi = wsgi.PodAuthMiddleware(self._wsgi_app, authenticator=self.authenticator)
        self._asgi = asgi.PodAuthMiddleware(self._asgi_app, authenticator=self.authenticator)

    def close(self) -> None:
        self.authenticator.close()
        self.client.close()

    def ask(
        self, door: str, headers: Headers, peer: str | None = ALICE, *, path: str = "/", secrets: Iterable[bytes] = ()
    ) -> Reply:
        """Send a request to one of the DOORS: whatever comes back is documented, and nothing is heard of secrets.

        The values of Authorization headers are among the secrets.
        """
        for secret in [*secrets, *(value for name, value in headers if name == b"authorization")]:
            self._ears.keep(secret)
        self._told.clear()
        self._ears.decisions.clear()
        try:
            through = self._through_wsgi if door == "wsgi" else partial(self._through_asgi, door)
            status, given, body = through(headers, peer, path)
        except BaseException as error:
            self._ears.hear_error(error)
            raise
        finally:
            self._ears.check()
        assert status in DOCUMENTED
        assert bool(self._told) == (status == 200)
        names = {name.lower(): value for name, value in given}
        told = "".join(f"{name}: {value}" for name, value in given)
        assert told.isascii()
        assert told.isprintable()
        if status != 200:
            assert set(json.loads(body)) == {"type", "title", "status", "detail", "request_id"}
            assert ("www-authenticate" in names, "retry-after" in names) == (status < 500, status == 503)
        identity = self._told[0] if self._told else None
        [(code, reason)] = self._ears.decisions
        return Reply(status, names, body, str(identity.pod) if identity else None, code, reason)

    def bring(self, door: str, token: str | bytes, peer: str | None = ALICE) -> Reply:
        """Bring a token to one of the DOORS."""
        text = token.encode() if isinstance(token, str) else token
        return self.ask(door, [(b"authorization", b"Bearer " + text)], peer)

    def identify(self, token: str, peer: str | None = ALICE) -> PodIdentity | PodAuthError:
        """Ask the authenticator itself, and hear what it raises."""
        self._ears.keep(token)
        try:
            return self.authenticator.authenticate(token, peer)
        except PodAuthError as refusal:
            self._ears.hear_error(refusal)
            return refusal
        finally:
            self._ears.check()

    def _through_wsgi(self, headers: Headers, peer: str | None, path: str) -> tuple[int, list[tuple[str, str]], bytes]:
        environ: dict[str, Any] = {"REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": path, "RAW_URI": path}
        if peer is not None:
            environ["REMOTE_ADDR"] = peer
        for name, value in headers:
            key, text = "HTTP_" + name.decode().upper().replace("-", "_"), value.decode("latin-1")
            environ[key] = f"{environ[key]},{text}" if key in environ else text  # as gunicorn does
        started: list[tuple[int, list[tuple[str, str]]]] = []

        def start_response(status: str, given: list[tuple[str, str]], *_: object) -> Callable[[bytes], None]:
            started.append((int(status[:3]), given))
            return lambda _: None

        body = self._wsgi(environ, start_response)
        content = b"".join(body)
        if hasattr(body, "close"):
            body.close()
        [(status, given)] = started
        return status, given, content

    def _through_asgi(
        self, door: str, headers: Headers, peer: str | None, path: str
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        scope: dict[str, Any] = {
            "type": "http" if door == "asgi" else door,
            "method": "GET",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [*headers],
            "client": None if peer is None else (peer, 4711),
            "extensions": {"websocket.http.response": {}},
        }
        if door == "websocket":
            del scope["method"]
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": b""} if door == "asgi" else {"type": "websocket.connect"}

        async def send(message: Any) -> None:
            sent.append(message)

        self._runner.run(self._asgi(scope, receive, send))
        if sent[0]["type"] == "websocket.accept":
            return 200, [], b""
        start, body = sent
        given = [(name.decode(), value.decode()) for name, value in start["headers"]]
        return start["status"], given, body["body"]

    def _wsgi_app(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        self._tell(environ)
        start_response("200 OK", [])
        return [b""]

    async def _asgi_app(self, scope: Any, receive: Any, send: Any) -> None:
        self._tell(scope)
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def _tell(self, request: dict[str, Any]) -> None:
        self._ears.hear(repr(request))  # what an app, or its error page, might print
        self._told.append(request[IDENTITY])
