from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import requests
from werkzeug import Request, Response
from werkzeug.serving import make_server

from podproof.cli import call as call_module
from podproof.cli import main
from podproof.cli.call import CallOptions, make_call
from podproof.cli.errors import CommandError
from podproof.cli.finding import Finding, Level
from podproof.cli.report import format_findings
from podproof.testing import Cluster
from podproof.wsgi import PodAuthMiddleware


@contextmanager
def serve(app: Any) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@Request.application
def echo(request: Request) -> Response:
    """Return all that a careless app might send back, and what would change a terminal's state."""
    return Response(f"\x1b[31m{request.method} {request.headers.get('Authorization')}\n")


@pytest.fixture
def server(cluster: Cluster) -> Iterator[str]:
    cluster.service_account("default/bob")
    app = PodAuthMiddleware(echo, audience="bob", keep_authorization=True, timeout=1)
    with serve(app) as url:
        yield url


@pytest.fixture
def call(tmp_path: Path) -> Callable[..., list[Finding]]:
    def make(url: str, token: str, **options: Any) -> list[Finding]:
        (tmp_path / "token").write_text(token)
        path = str(tmp_path / "token")
        findings = list(make_call(CallOptions(url, path=path, **options), time.time()))
        text = format_findings(findings)
        assert not any(part in text for part in token.split("."))
        return findings

    return make


def alice_token(cluster: Cluster, audience: str = "bob", address: str = "127.0.0.1") -> str:
    return cluster.pod("default/alice-1", service_account="alice", addresses=(address,)).token(audience)


def test_an_allowed_call_shows_the_token_and_the_response(
    cluster: Cluster, server: str, call: Callable[..., list[Finding]]
) -> None:
    token, response = call(f"{server}/whoami", alice_token(cluster), method="POST")
    assert (token.level, token.message[:9]) == (Level.OK, "for bob, ")
    assert token.message.endswith(" left, bound to pod default/alice-1")
    assert (response.level, response.message) == (
        Level.OK,
        "200 OK: the caller is allowed\n?[31mPOST Bearer TOKEN",
    )


def test_a_token_for_another_audience_is_explained(
    cluster: Cluster, server: str, call: Callable[..., list[Finding]]
) -> None:
    response = call(server, alice_token(cluster, "carol"))[-1]
    assert response.level is Level.FAIL
    assert response.message.startswith("401 Unauthorized: ")
    assert "(request id " in response.message
    assert "The server's audience is bob, and the token is for carol (wrong-audience)." in response.message
    assert response.fix == "podproof manifests --only caller --caller NAMESPACE/NAME --audience bob"


def test_a_server_with_another_header_is_called_with_that(cluster: Cluster, call: Callable[..., list[Finding]]) -> None:
    cluster.service_account("default/bob")
    with serve(PodAuthMiddleware(echo, audience="bob", header="X-Pod-Authorization")) as server:
        token = alice_token(cluster)
        assert call(server, token, header="X-Pod-Authorization")[-1].level is Level.OK
        response = call(server, token)[-1]
    assert "removed the Authorization header, or the server takes tokens in another one" in response.message
    assert "--header" in response.fix
    with pytest.raises(CommandError, match="invalid header 'Host'"):
        call(server, token, header="Host")


def test_a_token_that_is_not_bound_to_a_pod_is_explained(
    cluster: Cluster, server: str, call: Callable[..., list[Finding]]
) -> None:
    token, response = call(server, cluster.service_account("default/alice").token("bob"))
    assert (token.level, response.level) == (Level.WARN, Level.FAIL)
    assert "(not-pod-bound)" in token.message
    assert "The token is rejected" in response.message
    assert "podproof inspect" in response.fix


def test_a_wrong_address_is_explained(cluster: Cluster, server: str, call: Callable[..., list[Finding]]) -> None:
    response = call(server, alice_token(cluster, address="10.1.0.6"))[-1]
    assert response.message.startswith("403 Forbidden")
    assert "(wrong-address)" in response.message
    assert "PODPROOF_ALLOW" in response.fix


def test_an_unavailable_api_server_is_explained(
    cluster: Cluster, server: str, call: Callable[..., list[Finding]]
) -> None:
    cluster.fail(500)
    response = call(server, alice_token(cluster))[-1]
    assert response.message.startswith("503 Service Unavailable")
    assert "does not reach the API server" in response.message


def respond(status: int, headers: Mapping[str, str] = {}, body: str = "") -> Any:
    return Request.application(lambda _: Response(body, status, headers))


PROBLEM = "application/problem+json"


@pytest.mark.parametrize(
    ("app", "message"),
    [
        (respond(404, body="no such page"), "404 NOT FOUND, not from podproof: another server or the app itself"),
        (respond(401, {"WWW-Authenticate": "Basic"}), "401 UNAUTHORIZED, not from podproof"),
        (respond(403, {"Content-Type": PROBLEM}, "[]"), "403 FORBIDDEN, not from podproof"),
        (respond(403, {"Content-Type": PROBLEM}, "{"), "403 FORBIDDEN, not from podproof"),
        (respond(401, {"WWW-Authenticate": 'Bearer realm="bob"'}), "401 UNAUTHORIZED\nThe server received no token"),
        (respond(400, {"Content-Type": PROBLEM}, '{"detail": "once"}'), "400 BAD REQUEST: once\nThe server does not"),
    ],
)
def test_other_responses_are_explained(
    app: Any, message: str, cluster: Cluster, call: Callable[..., list[Finding]]
) -> None:
    with serve(app) as url:
        response = call(url, alice_token(cluster))[-1]
    assert response.level is Level.FAIL
    assert message in response.message


def test_a_redirect_is_shown(cluster: Cluster, call: Callable[..., list[Finding]]) -> None:
    @Request.application
    def app(request: Request) -> Response:
        return Response(status=307, headers={"Location": "/new"}) if request.path == "/" else Response("here")

    with serve(app) as url:
        _, redirect, response = call(url, alice_token(cluster))
    assert (redirect.message, response.message) == (
        f"redirected to {url}/new",
        "200 OK: the caller is allowed\nhere",
    )


def test_a_missing_token_is_reported_and_nothing_is_sent() -> None:
    (finding,) = make_call(CallOptions("http://127.0.0.1:9/", path="/nowhere"), time.time())
    assert (finding.level, finding.subject) == (Level.FAIL, "token")
    assert "serviceAccountToken:" in finding.fix


def test_the_only_mounted_token_is_sent_without_an_audience(cluster: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "var/run/secrets/podproof/bob/token"
    file.parent.mkdir(parents=True)
    file.write_text(alice_token(cluster))
    with serve(echo) as url:
        token, _ = make_call(CallOptions(url), time.time(), tmp_path)
    assert token.message.startswith("for bob, ")
    (tmp_path / "var/run/secrets/podproof/carol").mkdir()
    (tmp_path / "var/run/secrets/podproof/carol/token").write_text("")
    with pytest.raises(CommandError, match="choose one with --audience bob or carol"):
        list(make_call(CallOptions("http://bob"), time.time(), tmp_path))


@pytest.mark.parametrize("url", ["bob", "ftp://bob", "http://", "http:///x"])
def test_an_invalid_url_is_an_error(url: str) -> None:
    with pytest.raises(CommandError, match="invalid URL"):
        list(make_call(CallOptions(url), time.time()))


def test_an_invalid_audience_is_an_error() -> None:
    with pytest.raises(CommandError, match="audience"):
        list(make_call(CallOptions("http://bob", audience="a/b"), time.time()))


def test_a_refused_connection_is_explained(cluster: Cluster, call: Callable[..., list[Finding]]) -> None:
    with serve(echo) as url:
        pass
    response = call(url, alice_token(cluster))[-1]
    assert response.message == "the connection was refused: no server listens at this address and port"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (requests.ConnectionError("NameResolutionError('bob')"), "the name bob cannot be resolved"),
        (requests.exceptions.ProxyError(), "the proxy cannot be reached"),
        (requests.exceptions.SSLError(), "certificate is not accepted"),
        (requests.ConnectTimeout(), "no connection within 3 s; a NetworkPolicy may block it"),
        (requests.ReadTimeout(), "sent no response within 3 s"),
        (requests.TooManyRedirects("secret"), "the request failed with TooManyRedirects"),
    ],
)
def test_each_failure_of_a_request_is_explained(error: Exception, message: str) -> None:
    finding = call_module._explain_failure(CallOptions("https://user:secret@bob:8443/x", timeout=3), error)
    assert message in finding.message
    assert "secret" not in finding.message + finding.fix


def test_a_proxy_for_the_url_is_reported(
    cluster: Cluster, call: Callable[..., list[Finding]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(echo) as proxy:
        monkeypatch.setenv("http_proxy", proxy)
        monkeypatch.setenv("no_proxy", "")
        monkeypatch.setenv("NO_PROXY", "")
        finding = call(proxy, alice_token(cluster))[1]
        assert (finding.level, finding.subject) == (Level.WARN, "proxy")
        monkeypatch.setenv("no_proxy", finding.fix.partition("=")[2])
        token = cluster.pod("default/alice-2", service_account="alice").token("bob")
        assert [finding.subject for finding in call(proxy, token)] == ["token", "response"]


def test_the_command_prints_the_findings(
    cluster: Cluster, server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "token").write_text(alice_token(cluster))
    arguments = ["call", "--token-file", str(tmp_path / "token"), "--audience", "bob", server]
    assert main(arguments) == 0
    assert capsys.readouterr().out.splitlines()[1:4] == [
        "ok    response  200 OK: the caller is allowed",
        "                ?[31mGET Bearer TOKEN",
        "",
    ]
    assert main([*arguments, "--header", "X-Pod-Authorization"]) == 2
    capsys.readouterr()
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["status"] == "ok"
