"""The path that is judged is the path that is routed: every framework, behind what every server makes of a target.

Each server is started with each root, and responds with what it makes of many spellings; then each framework is driven
with that, in-process, behind the middleware. What must hold is told by the handler that has run.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypercorn.middleware.dispatcher import AsyncioDispatcherMiddleware
from starlette.applications import Starlette
from starlette.routing import Mount
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from podproof import Rule
from podproof._authentication.authenticator import Authenticator
from podproof.options import Options
from tests.process.frameworks.routed_apps import (
    ASGI,
    RAN,
    WSGI,
    RoutedApp,
    Wrap,
    asgi_middleware,
    wsgi_middleware,
)
from tests.support.fake_api import Clock, FakeAPI, authenticator_for, token
from tests.support.server_process import raw_request, run_server

pytestmark = pytest.mark.usefixtures("without_coverage")

SPELLINGS = (
    *("/admin", "/admin/", "/admin//", "//admin", "///admin", "/./admin", "/admin/.", "/admin/..", "/x/../admin"),
    *("/admin/./", "/admin/below", "/admin/below/", "/admin//below", "/admin/x", "/adminx", "/admin.", "/admin-x"),
    *("/ADMIN", "/Admin", "/%61dmin", "/adm%69n", "/adm%69n/", "/admin%2f", "/admin%2F", "/admin%20", "/admin%00"),
    *("/admin%0a", "/admin%5c", "/admin%3b", "/admin%3f", "/admin%23", "/admin%25", "/admin%252f", "/adm%ffin"),
    *(
        "/adm\xffin",
        "/admin\xe9",
        "/adm%c0%afin",
        "/admin;",
        "/admin;a=b",
        "/admin;/",
        "/;/admin",
        "/admin?x",
        "/admin/?",
    ),
    *("/admin#x", "/admin#/public/page", "/public/#/admin", "/public/?/../admin", "/admin,", "/admin\\", "\\admin"),
    *(
        "/public",
        "/public/",
        "/public//",
        "/public/page",
        "/public/page/",
        "/public//page",
        "/public/x/y",
        "/publicity",
    ),
    *("/public/../admin", "/public/./../admin", "/public/%2e%2e/admin", "/public%2f..%2fadmin", "/public/..%2fadmin"),
    *("/public/..;/admin", "/public;/admin", "/public/..\\admin", "/public\\..\\admin", "/public/.", "/public/.."),
    *("/public//admin", "/public///..//admin", "/PUBLIC/page", "/%70ublic/page", "/public/%61dmin", "/public/adm%69n"),
    *(
        "/healthz",
        "/healthz/",
        "/healthz//",
        "/healthz/admin",
        "/healthz/../admin",
        "/healthz;/admin",
        "/healthz%2fadmin",
    ),
    *("/tree", "/tree/", "/tree/x", "/", "//", "/.", "/..", "", "*", "admin", "public/page", "./admin", "x/admin"),
    # The root: at the start, twice, in the middle, at the end, of a longer segment, in other forms.
    *(
        "/api",
        "/api/",
        "/api//",
        "/api/admin",
        "/api/admin/",
        "/api//admin",
        "//api/admin",
        "/api/./admin",
        "/api/../admin",
    ),
    *(
        "/apiadmin",
        "/api.admin",
        "/apix/admin",
        "/xapi/admin",
        "/x/api/admin",
        "/x/apiadmin",
        "/admin/api",
        "/admin/api/",
    ),
    *(
        "/api/api/admin",
        "/api/apiadmin",
        "/apiapi/admin",
        "/api/x/api/admin",
        "/API/admin",
        "/%61pi/admin",
        "/api%2fadmin",
    ),
    *(
        "/api;/admin",
        "/api/%61dmin",
        "/public/api/admin",
        "/public/api/admin/",
        "/public/apiadmin",
        "/public/api//admin",
    ),
    *(
        "/public/api",
        "/public/api/",
        "/public/api/api/admin",
        "/public/xapi/admin",
        "/api/public/api/admin",
        "/api/public",
    ),
    *("/api/public/", "/api/public/page", "/apipublic/page", "/apipublic/api/admin", "/api/healthz", "/api/healthz/"),
    *(
        "/healthz/api/admin",
        "/healthzapi/admin",
        "/api/healthz/api/admin",
        "/api/tree",
        "/api/tree/",
        "/api/admin/below",
    ),
    *("/admin/api/below", "/x/api/admin/below", "/api/public/../admin", "/api/admin;x", "/api/adm%ffin"),
    # Targets in absolute form (RFC 9112 section 3.2.2).
    *(
        "http://bob",
        "http://bob/",
        "http://bob/admin",
        "http://bob/admin/",
        "http://bob//admin",
        "http://bob/public/page",
    ),
    *("http://bob/public/../admin", "http://bob/api/admin", "http://bob/public/api/admin", "http://bob/apiadmin"),
    *("http://bob/x/api/admin", "http://admin/public/page", "http:/admin", "http:admin", "https://bob/admin"),
    *("http://bob/public/#/../admin", "http://bob/healthz", "http://bob/healthz/api/admin", "/http://bob/admin"),
)

SHORT = [spelling for spelling in SPELLINGS if "%" not in spelling and spelling.isascii()]

_BIND = ["--bind", "127.0.0.1:{port}"]
_ASGI = "tests.process.frameworks.path_recorder:asgi"
_WSGI = "tests.process.frameworks.path_recorder:wsgi"
_UVICORN = ["-m", "uvicorn", "--lifespan", "off", "--port", "{port}"]
_GUNICORN = ["-m", "gunicorn", "--no-control-socket", *_BIND]
_GRANIAN = ["-m", "granian", "--port", "{port}", "--interface"]


class PathServer(NamedTuple):
    """A server as it is started, the app's name last; `root_option` comes before a root, or is in the environment."""

    name: str
    command: Sequence[str]
    root_option: str | None


ASGI_SERVERS = (
    PathServer("uvicorn, h11", [*_UVICORN, "--http", "h11", _ASGI], "--root-path"),
    PathServer("uvicorn, httptools", [*_UVICORN, "--http", "httptools", _ASGI], "--root-path"),
    PathServer("hypercorn", ["-m", "hypercorn", *_BIND, _ASGI], "--root-path"),
    PathServer("granian, asgi", [*_GRANIAN, "asgi", _ASGI], "--url-path-prefix"),
    PathServer("gunicorn, asgi", [*_GUNICORN, "--worker-class", "asgi", _ASGI], "--root-path"),
)
WSGI_SERVERS = (
    PathServer("gunicorn, sync", [*_GUNICORN, _WSGI], "SCRIPT_NAME"),
    PathServer("granian, wsgi", [*_GRANIAN, "wsgi", _WSGI], "--url-path-prefix"),
    PathServer("hypercorn, wsgi", ["-m", "hypercorn", *_BIND, f"wsgi:{_WSGI}"], "--root-path"),
    PathServer("waitress", ["-m", "waitress", "--listen", "127.0.0.1:{port}", _WSGI], "--url-prefix"),
    PathServer("Werkzeug", ["-m", "tests.process.frameworks.path_recorder", "{port}"], None),
)
ROOTS = ("", "/api", "/api/")
MOUNT = "/m"
ALICE = f"Bearer {token()}"

Target = tuple[str, Mapping[str, Any]]
"""A spelling, and what a server has made of it: the part of a scope or an environ that routers read."""


def recorded(server: PathServer, root: str, folder: Path, spellings: Sequence[str]) -> list[Target]:
    """Return what a server makes of each target that it accepts."""
    command, environ = [*server.command], {}
    if root and server.root_option == "SCRIPT_NAME":
        environ["SCRIPT_NAME"] = root
    elif root and server.root_option is not None:
        command[-1:-1] = [server.root_option, root]
    found: list[Target] = []
    with run_server(command, folder, **environ) as running:
        for spelling in spellings:
            with suppress(OSError):
                received = running.send("127.0.0.1", raw_request(spelling))
                seen = re.search(rb"\{.*\}", received)
                if received.startswith(b"HTTP/1.1 200") and seen:
                    found.append((spelling, json.loads(seen[0])))
    return found


class Promise(NamedTuple):
    """Options, the caller (None for an anonymous request), and whether a handler may run for that caller."""

    name: str
    exempt: Sequence[str]
    rules: Sequence[tuple[str, str]]
    caller: str | None
    may_run: Callable[[str], bool]

    def authenticator(self, prefix: str) -> Authenticator:
        """Return what knows the caller as Alice: a known one costs no review in a thread."""
        rules = [
            Rule(
                path if path == "/*" else prefix + path,
                allow=["default/alice" if account == self.caller else f"default/{account}"],
            )
            for path, account in self.rules
        ]
        given = {"audience": "bob", "source_address": "off", "exempt": [prefix + path for path in self.exempt]}
        return authenticator_for(FakeAPI(), Options.read(given | {"rules": rules}, {}), now=Clock(), monotonic=Clock())


ADMIN = (("/admin", "admin"), ("/admin/*", "admin"), ("/tree/*", "admin"), ("/*", "wide"))


def is_admins(ran: str) -> bool:
    return ran in {"admin", "below", "tree", "/admin", "/admin/"} or ran.startswith(("/admin/", "/tree/"))


PROMISES = (
    Promise(
        "without a token only exempt handlers run",
        ["/public/*", "/healthz"],
        [("/*", "wide")],
        None,
        lambda ran: ran in {"page", "health"} or ran.startswith("/public/"),
    ),
    Promise(
        "an exempt path of the whole tree opens the handlers below it only",
        ["/public/page", "/admin/*", "/tree/*"],
        [("/*", "wide")],
        None,
        lambda ran: ran in {"page", "below", "tree"} or ran.startswith(("/admin/", "/tree/")),
    ),
    Promise("a wider rule reaches no handler of a narrower one", [], ADMIN, "wide", lambda ran: not is_admins(ran)),
    Promise("a rule reaches no other's handler", [], ADMIN, "admin", is_admins),
    Promise(
        "a rule for what is below reaches nothing above",
        [],
        [("/admin/*", "below"), ("/*", "wide")],
        "below",
        lambda ran: ran == "below" or ran.startswith("/admin/"),
    ),
    Promise(
        "an exact rule reaches nothing below",
        [],
        [("/admin", "exact"), ("/*", "wide")],
        "exact",
        lambda ran: ran in {"admin", "/admin/"},
    ),
)


def drive_asgi(app: Any, targets: Sequence[Target], caller: str | None) -> list[list[str]]:
    """Return which handlers run for each target."""

    async def drive() -> list[list[str]]:
        return [await call_asgi(app, seen, caller) for _, seen in targets]

    return asyncio.run(drive())


async def call_asgi(app: Any, seen: Mapping[str, Any], caller: str | None) -> list[str]:
    RAN.clear()
    credential = [] if caller is None else [(b"authorization", ALICE.encode())]
    raw = seen["raw_path"]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "query_string": b"",
        "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 50000),
        "headers": [(b"host", b"bob"), *credential],
        **seen,
        "raw_path": None if raw is None else raw.encode("latin-1"),
    }

    messages = [{"type": "http.request", "body": b"", "more_body": False}]
    responded = asyncio.Event()

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        await responded.wait()
        return {"type": "http.disconnect"}  # Quart waits for it before it returns

    async def send(message: Mapping[str, Any]) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body"):
            responded.set()

    with suppress(Exception):  # a framework may fail on what is no path: no handler has run
        await app(scope, receive, send)
    return [*RAN]


def drive_wsgi(app: Any, targets: Sequence[Target], caller: str | None) -> list[list[str]]:
    return [call_wsgi(app, seen, caller) for _, seen in targets]


def call_wsgi(app: Any, seen: Mapping[str, Any], caller: str | None) -> list[str]:
    RAN.clear()
    environ = {
        "REQUEST_METHOD": "GET",
        "QUERY_STRING": "",
        "SERVER_NAME": "bob",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "bob",
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        **seen,
    }
    if caller is not None:
        environ["HTTP_AUTHORIZATION"] = ALICE
    with suppress(Exception):  # see call_asgi
        body = app(environ, lambda *_: lambda _: None)
        list(body)
        getattr(body, "close", lambda: None)()
    return [*RAN]


@contextmanager
def without_logs() -> Iterator[None]:
    """Keep the tens of thousands of decisions out of the logs."""
    logging.disable()
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


Mounts = Mapping[str, tuple[str, Callable[[RoutedApp, Wrap], Any]]]
"""How an app is mounted: the path before those of the options, and what builds it."""

UNMOUNTED: Mounts = {"": ("", lambda app, wrap: app.build(wrap))}
ASGI_MOUNTS: Mounts = {
    "inside Starlette's Mount": ("", lambda app, wrap: Starlette(routes=[Mount(MOUNT, app.build(wrap))])),
    "around Starlette's Mount": (
        MOUNT,
        lambda app, wrap: wrap(Starlette(routes=[Mount(MOUNT, app.build(lambda inner: inner))])),
    ),
    "inside hypercorn's dispatcher": ("", lambda app, wrap: AsyncioDispatcherMiddleware({MOUNT: app.build(wrap)})),
    "around hypercorn's dispatcher": (
        MOUNT,
        lambda app, wrap: wrap(AsyncioDispatcherMiddleware({MOUNT: app.build(lambda inner: inner)})),
    ),
}
WSGI_MOUNTS: Mounts = {
    "inside Werkzeug's dispatcher": (
        "",
        lambda app, wrap: DispatcherMiddleware(lambda *_: [], {MOUNT: app.build(wrap)}),
    ),
    "around Werkzeug's dispatcher": (
        MOUNT,
        lambda app, wrap: wrap(DispatcherMiddleware(lambda *_: [], {MOUNT: app.build(lambda inner: inner)})),
    ),
}


def mounted(spellings: Sequence[str]) -> list[str]:
    """Return spellings for an app that is mounted: below the mount, with it at other places, and those as they are."""
    below = [MOUNT + spelling for spelling in spellings if spelling.startswith("/")]
    elsewhere = [
        place + spelling
        for place in ("/x/m", "/mx", "/m/x/m", "/m/m", "/api/m", "/m/api/m", "/apim", "/m/", "/public/m", "/m/public/m")
        for spelling in ("/admin", "/admin/", "/public/page", "/healthz", "/x/m/admin", "/public/../admin", "admin")
    ]
    return [*below, *elsewhere, *spellings]


class Proved(NamedTuple):
    """The targets that all promises were checked with, as JSON, and the handlers that have run for them."""

    targets: set[str]
    reached: set[str]


PROVED: dict[tuple[str, bool], Proved] = {}
"""What this process has proved, by kind and whether the apps were mounted: servers make the same of most spellings."""


def check_promises(kind: str, mounts: Mounts, targets: Sequence[Target]) -> set[str]:
    """Drive each framework with each target, for each promise; return which handlers have run in which framework."""
    wrap_with, drive = (wsgi_middleware, drive_wsgi) if kind == "wsgi" else (asgi_middleware, drive_asgi)
    proved = PROVED.setdefault((kind, mounts is not UNMOUNTED), Proved(set(), set()))
    reached, broken = proved.reached, []
    by_json = {json.dumps(seen, sort_keys=True): (spelling, seen) for spelling, seen in targets}
    distinct = [target for text, target in by_json.items() if text not in proved.targets]
    with without_logs():
        for routed in WSGI if kind == "wsgi" else ASGI:
            with routed.around():
                for mount, (prefix, build) in mounts.items():
                    for promise in PROMISES:
                        authenticator = promise.authenticator(prefix)
                        app = build(routed, wrap_with(authenticator=authenticator))
                        for target, handlers in zip(distinct, drive(app, distinct, promise.caller), strict=True):
                            reached |= {f"{routed.name}: {ran}" for ran in handlers}
                            # What the last handler has seen of a mount differs: below one, the named ones count.
                            if not all(promise.may_run(ran) for ran in handlers if not (mount and ran.startswith("/"))):
                                broken.append((routed.name, mount, promise.name, *target, handlers))
                        authenticator.close()
    assert not broken, "\n".join(map(str, broken))
    proved.targets.update(by_json)
    return reached


@pytest.mark.parametrize(
    ("server", "root"),
    [
        pytest.param(server, root, id=f"{server.name}-{root}")
        for server in (*ASGI_SERVERS, *WSGI_SERVERS)
        for root in (ROOTS if server.root_option else [""])
    ],
)
@pytest.mark.trap(49, 50)
def test_no_handler_runs_under_an_exemption_or_a_rule_of_another(server: PathServer, root: str, tmp_path: Path) -> None:
    kind = "asgi" if server in ASGI_SERVERS else "wsgi"
    reached = check_promises(kind, UNMOUNTED, recorded(server, root, tmp_path, SPELLINGS))
    if not root:
        names = [routed.name for routed in (ASGI if kind == "asgi" else WSGI)]
        plain = {f"{name}: {handler}" for name in names for handler in ("admin", "page", "health")}
        assert plain <= reached  # else this would prove nothing


@pytest.mark.parametrize("root", ["", "/api"])
@pytest.mark.parametrize("server", [ASGI_SERVERS[0], ASGI_SERVERS[2], WSGI_SERVERS[0]], ids=lambda server: server.name)
@pytest.mark.trap(49, 50)
def test_no_mount_changes_that(server: PathServer, root: str, tmp_path: Path) -> None:
    kind = "asgi" if server in ASGI_SERVERS else "wsgi"
    mounts = ASGI_MOUNTS if kind == "asgi" else WSGI_MOUNTS
    assert check_promises(kind, mounts, recorded(server, root, tmp_path, mounted(SHORT)))


def test_the_spellings_are_many_and_differ() -> None:
    assert len(set(SPELLINGS)) == len(SPELLINGS) > 150
