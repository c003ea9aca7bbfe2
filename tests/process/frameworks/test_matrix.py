"""Every framework behaves the same under every server."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from podproof.testing import Cluster
from tests.process.frameworks.matrix import SERVERS, Kind, table
from tests.support.modes import Mode, modes_in_turn
from tests.support.server_process import ROOT, TIMEOUT_SECONDS, ServerProcess, WireResponse, raw_request, run_server

ALICE, MALLORY = "127.0.0.2", "127.0.0.3"
CALLER = {"service_account": "default/alice", "pod": "default/alice-pod"}


@dataclass(frozen=True)
class FrameworkApp:
    """One app behind one server, selected by the Host header, and Alice's token for it."""

    kind: Kind
    server: ServerProcess
    host: str
    token: str

    def get(
        self, path: str = "/whoami", *, source: str = ALICE, anonymous: bool = False, headers: Mapping[str, str] = {}
    ) -> WireResponse:
        """Send a GET request, by default from Alice's address with her token."""
        return self.server.get(source, None if anonymous else self.token, path, {"Host": self.host, **headers})

    def websocket(self, *, source: str = ALICE, anonymous: bool = False) -> object:
        """Open a WebSocket, and return its only message as JSON."""
        headers = {} if anonymous else {"Authorization": f"Bearer {self.token}"}
        with (
            socket.create_connection(("127.0.0.1", self.server.port), TIMEOUT_SECONDS, (source, 0)) as connection,
            connect(f"ws://{self.host}/ws", sock=connection, additional_headers=headers, proxy=None) as websocket,
        ):
            message = websocket.recv(TIMEOUT_SECONDS)
            if self.kind.ends_by_two_closes:
                with pytest.raises(ConnectionClosed):
                    websocket.recv(TIMEOUT_SECONDS)
            return json.loads(message)


def the_app_gets_the_caller(app: FrameworkApp) -> None:
    response = app.get()
    assert (response.status, response.json) == (200, CALLER)


def a_token_from_another_address_is_denied(app: FrameworkApp) -> None:
    response = app.get(source=MALLORY)
    assert response.status == 403
    assert response.headers["www-authenticate"] == 'Bearer realm="bob", error="insufficient_scope"'
    assert response.headers["content-type"] == "application/problem+json"


def a_request_without_a_token_gets_a_bare_challenge(app: FrameworkApp) -> None:
    response = app.get(anonymous=True)
    assert (response.status, response.headers["www-authenticate"]) == (401, 'Bearer realm="bob"')


def a_malformed_token_is_rejected(app: FrameworkApp) -> None:
    response = app.get(anonymous=True, headers={"Authorization": "Bearer not.a.token"})
    assert response.status == 401
    assert response.headers["www-authenticate"] == 'Bearer realm="bob", error="invalid_token"'


def two_authorization_headers_are_denied(app: FrameworkApp) -> None:
    twice = [f"Authorization: Bearer {app.token}"] * 2
    assert b" 400 " in app.server.send(ALICE, raw_request("/whoami", *twice, host=app.host)).splitlines()[0]


def the_app_does_not_see_the_token(app: FrameworkApp) -> None:
    response = app.get("/headers", headers={"X-Test": "this one"})
    assert response.status == 200
    assert "this one" in response.json.values()
    assert "authorization" not in {name.lower() for name in response.json}
    assert app.token not in response.body.decode()


def no_header_changes_the_caller(app: FrameworkApp) -> None:
    admin = "system:serviceaccount:default:admin"
    forged = dict.fromkeys(["Podproof.Identity", "Podproof-Identity", "Remote-User", "User", "X-Remote-User"], admin)
    assert app.get(headers=forged).json == CALLER
    assert app.get(headers=forged, anonymous=True).status == 401


def no_header_changes_the_peer_address(app: FrameworkApp) -> None:
    forged = {"X-Forwarded-For": ALICE, "Forwarded": f"for={ALICE}", "X-Real-IP": ALICE, "Remote-Addr": ALICE}
    assert app.get(source=MALLORY, headers=forged).status == 403


def a_health_check_needs_no_token(app: FrameworkApp) -> None:
    assert app.get("/healthz", source=MALLORY, anonymous=True).status == 200


def only_the_exact_path_is_exempt(app: FrameworkApp) -> None:
    for path in ("/healthz/", "/healthz/../whoami", "/./healthz", "/whoami;/healthz"):
        assert app.get(path, anonymous=True).status == 401, path


def only_callers_learn_that_a_path_does_not_exist(app: FrameworkApp) -> None:
    assert app.get("/nowhere").status == 404
    assert app.get("/nowhere", anonymous=True).status == 401


def the_app_gets_the_body(app: FrameworkApp) -> None:
    headers = {"Host": app.host, "Content-Type": "text/plain"}
    response = app.server.request("POST", ALICE, "/echo", headers, token=app.token, body=b"pods" * 50_000)
    assert (response.status, response.body) == (200, b"pods" * 50_000)


def a_websocket_gets_its_caller(app: FrameworkApp) -> None:
    assert app.websocket() == CALLER


def a_websocket_from_another_address_is_denied(app: FrameworkApp) -> None:
    with pytest.raises(InvalidStatus) as raised:
        app.websocket(source=MALLORY)
    assert raised.value.response.status_code == 403


def a_websocket_without_a_token_is_denied(app: FrameworkApp, *, has_denial_response: bool) -> None:
    with pytest.raises(InvalidStatus) as raised:
        app.websocket(anonymous=True)
    response = raised.value.response
    # Without the extension, all that a server can say is 403.
    assert response.status_code == (401 if has_denial_response else 403)
    assert response.headers.get("WWW-Authenticate") == ('Bearer realm="bob"' if has_denial_response else None)


def a_peer_address_that_a_middleware_took_from_a_header_is_denied(app: FrameworkApp, *, reason: str) -> None:
    for forged in ({"X-Forwarded-For": ALICE}, {"Forwarded": f"for={ALICE}"}):
        assert app.get(f"/{app.host}", source=MALLORY, headers=forged).status == 403
    line = re.compile(rf"403 {reason}.*'/{app.host}'")
    end = time.monotonic() + TIMEOUT_SECONDS
    while not line.search(app.server.log.read_text()):  # Litestar writes the log in a thread of its own
        assert time.monotonic() < end, app.server.log.read_text()


HTTP: Sequence[Callable[[FrameworkApp], None]] = (
    the_app_gets_the_caller,
    a_token_from_another_address_is_denied,
    a_request_without_a_token_gets_a_bare_challenge,
    a_malformed_token_is_rejected,
    two_authorization_headers_are_denied,
    the_app_does_not_see_the_token,
    no_header_changes_the_caller,
    no_header_changes_the_peer_address,
    a_health_check_needs_no_token,
    only_the_exact_path_is_exempt,
    only_callers_learn_that_a_path_does_not_exist,
    the_app_gets_the_body,
)


OF_THE_WHOLE_APP = {only_the_exact_path_is_exempt, only_callers_learn_that_a_path_does_not_exist}


def expectations(kind: Kind) -> Iterator[tuple[str, Callable[[FrameworkApp], None]]]:
    """Yield each expectation of a kind of server, with the host of the app that it is about."""
    for framework in kind.frameworks:
        websocket = (
            a_websocket_gets_its_caller,
            a_websocket_from_another_address_is_denied,
            partial(a_websocket_without_a_token_is_denied, has_denial_response=kind.has_denial_response),
        )
        for expectation in (*HTTP, *(websocket if kind.has_websockets(framework) else ())):
            yield framework.lower(), expectation
    for door in kind.doors:
        denial = partial(
            a_websocket_without_a_token_is_denied,
            has_denial_response=kind.has_denial_response and door.has_denial_response,
        )
        websocket = (a_websocket_gets_its_caller, a_websocket_from_another_address_is_denied, denial)
        for expectation in (*HTTP, *(websocket if door.websockets else ())):
            if not (door.routes and expectation in OF_THE_WHOLE_APP):
                yield door.host, expectation
    for host, reason in kind.proxies.items():
        yield host, partial(a_peer_address_that_a_middleware_took_from_a_header_is_denied, reason=reason)


@pytest.mark.parametrize(("kind", "mode"), modes_in_turn(SERVERS, name=lambda kind: kind.name))
@pytest.mark.trap(23, 34, 36, 37, 38, 39)
def test_every_framework_behaves_the_same_under_this_server(
    kind: Kind, mode: Mode, cluster: Cluster, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    alice = cluster.pod("default/alice-pod", service_account="alice", addresses=[ALICE]).token("bob")
    environ = {"PODPROOF_AUDIENCE": "bob", "FORWARDED_ALLOW_IPS": "", "KUBECONFIG": str(cluster.kubeconfig)}
    environ |= mode.environ
    with run_server(kind.command, tmp_path, **environ) as server:
        for host, expectation in expectations(kind):
            with subtests.test(getattr(expectation, "func", expectation).__name__, host=host):
                expectation(FrameworkApp(kind, server, host, alice))


def test_the_documentation_has_the_table_of_servers_and_frameworks() -> None:
    assert table() in (ROOT / "docs/frameworks.md").read_text()
