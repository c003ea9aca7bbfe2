"""The same is true of every framework under every server."""

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
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from podproof.testing import Cluster
from tests.process.frameworks.matrix import SERVERS, Kind, table
from tests.support.server_process import ROOT, TIMEOUT_SECONDS, ServerProcess, ServerResponse, raw_request, run_server

ALICE, MALLORY = "127.0.0.2", "127.0.0.3"
KNOWN = {"service_account": "default/alice", "pod": "default/alice-pod"}


@dataclass(frozen=True)
class Bob:
    """One app behind one server, known by the Host header, and Alice's token for it."""

    server: ServerProcess
    host: str
    alice: str

    def get(
        self, path: str = "/whoami", *, source: str = ALICE, token: bool = True, headers: Mapping[str, str] = {}
    ) -> ServerResponse:
        """Get something, as Alice does unless told otherwise."""
        return self.server.get(source, self.alice if token else None, path, {"Host": self.host, **headers})

    def websocket(self, *, source: str = ALICE, token: bool = True) -> object:
        """Open a WebSocket, and return its first message."""
        headers = {"Authorization": f"Bearer {self.alice}"} if token else {}
        with (
            socket.create_connection(("127.0.0.1", self.server.port), TIMEOUT_SECONDS, (source, 0)) as connection,
            connect(f"ws://{self.host}/ws", sock=connection, additional_headers=headers, proxy=None) as websocket,
        ):
            return json.loads(websocket.recv(TIMEOUT_SECONDS))


def a_known_caller_is_told_to_the_app(bob: Bob) -> None:
    answer = bob.get()
    assert (answer.status, answer.json) == (200, KNOWN)


def from_another_address_the_token_is_of_no_use(bob: Bob) -> None:
    answer = bob.get(source=MALLORY)
    assert answer.status == 403
    assert answer.headers["www-authenticate"] == 'Bearer realm="bob", error="insufficient_scope"'
    assert answer.headers["content-type"] == "application/problem+json"


def without_a_token_there_is_a_bare_challenge(bob: Bob) -> None:
    answer = bob.get(token=False)
    assert (answer.status, answer.headers["www-authenticate"]) == (401, 'Bearer realm="bob"')


def what_is_no_token_is_refused(bob: Bob) -> None:
    answer = bob.get(token=False, headers={"Authorization": "Bearer not.a.token"})
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="bob", error="invalid_token"'


def two_authorization_headers_are_refused(bob: Bob) -> None:
    twice = [f"Authorization: Bearer {bob.alice}"] * 2
    assert b" 400 " in bob.server.send(ALICE, raw_request("/whoami", *twice, host=bob.host)).splitlines()[0]


def the_app_does_not_see_the_token(bob: Bob) -> None:
    answer = bob.get("/headers", headers={"X-Seen": "this one"})
    assert answer.status == 200
    assert "this one" in answer.json.values()
    assert "authorization" not in {name.lower() for name in answer.json}
    assert bob.alice not in answer.body.decode()


def no_header_makes_another_caller_of_us(bob: Bob) -> None:
    admin = "system:serviceaccount:default:admin"
    forged = dict.fromkeys(["Podproof.Identity", "Podproof-Identity", "Remote-User", "User", "X-Remote-User"], admin)
    assert bob.get(headers=forged).json == KNOWN
    assert bob.get(headers=forged, token=False).status == 401


def no_header_makes_another_address_of_ours(bob: Bob) -> None:
    forged = {"X-Forwarded-For": ALICE, "Forwarded": f"for={ALICE}", "X-Real-IP": ALICE, "Remote-Addr": ALICE}
    assert bob.get(source=MALLORY, headers=forged).status == 403


def a_health_check_needs_no_token(bob: Bob) -> None:
    assert bob.get("/healthz", source=MALLORY, token=False).status == 200


def only_the_very_path_is_open(bob: Bob) -> None:
    for path in ("/healthz/", "/healthz/../whoami", "/./healthz", "/whoami;/healthz"):
        assert bob.get(path, token=False).status == 401, path


def a_path_that_is_not_there_is_no_secret_to_callers_alone(bob: Bob) -> None:
    assert bob.get("/nowhere").status == 404
    assert bob.get("/nowhere", token=False).status == 401


def a_body_comes_through(bob: Bob) -> None:
    headers = {"Host": bob.host, "Content-Type": "text/plain"}
    answer = bob.server.request("POST", ALICE, "/echo", headers, token=bob.alice, body=b"pods" * 50_000)
    assert (answer.status, answer.body) == (200, b"pods" * 50_000)


def a_websocket_has_its_caller_too(bob: Bob) -> None:
    assert bob.websocket() == KNOWN


def a_websocket_from_another_address_is_refused(bob: Bob) -> None:
    with pytest.raises(InvalidStatus) as refused:
        bob.websocket(source=MALLORY)
    assert refused.value.response.status_code == 403


def a_websocket_without_a_token_is_refused(bob: Bob, *, denials: bool) -> None:
    with pytest.raises(InvalidStatus) as refused:
        bob.websocket(token=False)
    answer = refused.value.response
    # Without the extension, all that a server can say is 403.
    assert answer.status_code == (401 if denials else 403)
    assert answer.headers.get("WWW-Authenticate") == ('Bearer realm="bob"' if denials else None)


def an_address_that_was_taken_from_a_header_is_not_believed(bob: Bob, *, reason: str) -> None:
    for forged in ({"X-Forwarded-For": ALICE}, {"Forwarded": f"for={ALICE}"}):
        assert bob.get(f"/{bob.host}", source=MALLORY, headers=forged).status == 403
    line = re.compile(rf"403 {reason}.*'/{bob.host}'")
    end = time.monotonic() + TIMEOUT_SECONDS
    while not line.search(bob.server.log.read_text()):  # Litestar has a thread of its own write the log
        assert time.monotonic() < end, bob.server.log.read_text()


HTTP: Sequence[Callable[[Bob], None]] = (
    a_known_caller_is_told_to_the_app,
    from_another_address_the_token_is_of_no_use,
    without_a_token_there_is_a_bare_challenge,
    what_is_no_token_is_refused,
    two_authorization_headers_are_refused,
    the_app_does_not_see_the_token,
    no_header_makes_another_caller_of_us,
    no_header_makes_another_address_of_ours,
    a_health_check_needs_no_token,
    only_the_very_path_is_open,
    a_path_that_is_not_there_is_no_secret_to_callers_alone,
    a_body_comes_through,
)


def checks(kind: Kind) -> Iterator[tuple[str, Callable[[Bob], None]]]:
    """Give each check of a kind of server, with the Bob that it is for."""
    for framework in kind.frameworks:
        websocket = (
            a_websocket_has_its_caller_too,
            a_websocket_from_another_address_is_refused,
            partial(a_websocket_without_a_token_is_refused, denials=kind.denials),
        )
        for check in (*HTTP, *(websocket if kind.speaks_websocket(framework) else ())):
            yield framework.lower(), check
    for host, reason in kind.proxies.items():
        yield host, partial(an_address_that_was_taken_from_a_header_is_not_believed, reason=reason)


@pytest.mark.parametrize("kind", SERVERS, ids=lambda kind: kind.name)
@pytest.mark.trap(23, 34, 36, 37, 38, 39)
def test_under_this_server_the_same_is_true_of_every_framework(
    kind: Kind, cluster: Cluster, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    alice = cluster.pod("default/alice-pod", service_account="alice", addresses=[ALICE]).token("bob")
    environ = {"PODPROOF_AUDIENCE": "bob", "FORWARDED_ALLOW_IPS": "", "KUBECONFIG": str(cluster.kubeconfig)}
    with run_server(kind.command, tmp_path, **environ) as server:
        for host, check in checks(kind):
            with subtests.test(getattr(check, "func", check).__name__, host=host):
                check(Bob(server, host, alice))


def test_the_documentation_has_the_table_of_what_is_run() -> None:
    assert table() in (ROOT / "docs/frameworks.md").read_text()
