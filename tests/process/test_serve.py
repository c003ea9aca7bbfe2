"""`podproof serve exchange` as a process: probes, metrics, its log, and the end of a pod."""

from __future__ import annotations

import json
import runpy
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlencode

import pytest
import requests
from starlette.testclient import TestClient
from werkzeug.serving import make_server

from podproof import TokenClient, current_caller
from podproof._token.proof_key import ProofKey
from podproof.cli import main
from podproof.exchange.wsgi import IssuedTokenMiddleware
from podproof.testing import Cluster, EmulatedPod
from tests.support.exchange_client import write_keys
from tests.support.server_process import ROOT, ServerProcess, WireResponse, run_server

ALICE = "127.0.0.2"
LEDGER = "127.0.0.3"
MALLORY = "127.0.0.4"
GRANTS = """\
grants:
  - {audience: ledger, allow: [default/alice], introspect: [default/ledger]}
  - {audience: books, allow: [default/alice]}
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster() as cluster:
        bridge = "default/bridge"
        cluster.grant(bridge, verbs=["create"], resources=["tokenreviews"])
        cluster.grant(bridge, verbs=["get", "list", "watch"], resources=["pods"])
        yield cluster


@pytest.fixture(scope="module")
def alice(cluster: Cluster) -> EmulatedPod:
    return cluster.pod("default/alice-pod", service_account="alice", addresses=[ALICE])


@pytest.fixture(scope="module")
def ledger(cluster: Cluster) -> EmulatedPod:
    return cluster.pod("default/ledger-pod", service_account="ledger", addresses=[LEDGER])


@pytest.fixture(scope="module")
def here(cluster: Cluster) -> EmulatedPod:
    """Return another pod of Alice's, at the address that requests come from by themselves."""
    return cluster.pod("default/here", service_account="alice", addresses=["127.0.0.1"])


@pytest.fixture(scope="module")
def exchange(
    cluster: Cluster, alice: EmulatedPod, ledger: EmulatedPod, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("serve")
    (folder / "grants.yaml").write_text(GRANTS)
    keys = write_keys(folder / "keys")
    command = ["-m", "podproof", "serve", "exchange", "--host", "127.0.0.1", "--port", "{port}"]
    command += ["--issuer", "http://127.0.0.1:{port}", "--audience", "bridge"]
    environ = {
        "KUBECONFIG": str(cluster.kubeconfig_for("default/bridge")),
        "PODPROOF_EXCHANGE_KEYS": str(keys),
        "PODPROOF_EXCHANGE_GRANTS_FILE": str(folder / "grants.yaml"),
        "PODPROOF_EXCHANGE_NONCE": "true",
    }
    with run_server(command, folder, **environ) as server:
        yield server


def post(server: ServerProcess, source: str, path: str, *, token: str | None = None, **form: str) -> WireResponse:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    return server.request("POST", source, path, headers, token=token, body=urlencode(form).encode())


def trade(server: ServerProcess, source: str, assertion: str, audience: str = "ledger") -> WireResponse:
    form = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": assertion, "audience": audience}
    return post(server, source, "/token", **form)


def test_a_pod_gets_a_token_and_its_deletion_is_known_within_two_seconds(
    exchange: ServerProcess, cluster: Cluster, ledger: EmulatedPod
) -> None:
    short = cluster.pod("default/short-lived", service_account="alice", addresses=["127.0.0.5"])
    issued = trade(exchange, "127.0.0.5", short.token("bridge")).json["access_token"]
    asking = ledger.token("bridge")
    assert post(exchange, LEDGER, "/introspect", token=asking).status == 400
    assert introspect(exchange, asking, issued) is True
    short.remove()
    end = time.monotonic() + 2
    while introspect(exchange, asking, issued):
        assert time.monotonic() < end


def introspect(server: ServerProcess, asking: str, issued: str) -> object:
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Authorization": f"Bearer {asking}"}
    body = urlencode({"token": issued}).encode()
    return server.request("POST", LEDGER, "/introspect", headers, body=body).json["active"]


def test_a_stolen_token_and_forwarded_addresses_get_nothing(exchange: ServerProcess, alice: EmulatedPod) -> None:
    stolen = alice.token("bridge")
    assert trade(exchange, MALLORY, stolen).status == 400
    form = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": stolen}
    headers = {"Content-Type": "application/x-www-form-urlencoded", "X-Forwarded-For": ALICE}
    assert exchange.request("POST", MALLORY, "/token", headers, body=urlencode(form).encode()).status == 400
    assert trade(exchange, ALICE, stolen).status == 200


def pod_name(_: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    caller = current_caller()
    return [str(caller and caller.pod).encode()]


def test_what_a_client_trades_there_lets_it_into_a_service_and_no_thief(
    exchange: ServerProcess, cluster: Cluster, tmp_path: Path
) -> None:
    caller = cluster.pod("default/caller", service_account="alice", addresses=["127.0.0.1"])
    (tmp_path / "token").write_text(caller.token("bridge"))
    serving = cluster.pod("default/ledger-here", service_account="ledger", addresses=["127.0.0.1"])
    (tmp_path / "ledger").write_text(serving.token("bridge"))
    app = IssuedTokenMiddleware(
        pod_name,
        issuer=f"http://127.0.0.1:{exchange.port}",
        audience="ledger",
        introspect=["/transfers"],
        token_file=tmp_path / "ledger",
    )
    service = make_server("127.0.0.1", 0, app, threaded=True)
    thread = Thread(target=service.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    url = f"http://127.0.0.1:{service.port}/accounts"
    bridge = f"http://127.0.0.1:{exchange.port}/token"
    try:
        with TokenClient("ledger", exchange=bridge, path=tmp_path / "token").session() as http:
            transfers = f"http://127.0.0.1:{service.port}/transfers"
            answers = [http.get(one, timeout=10) for one in (url, transfers, url)]
            assert [answer.text for answer in answers] == ["default/caller"] * 3
            caller.remove()
            end = time.monotonic() + 2
            while http.get(transfers, timeout=10).status_code != 401:
                assert time.monotonic() < end
            assert http.get(url, timeout=10).text == "default/caller"  # nobody is asked here
        sent = answers[-1].request.headers
        token = sent["Authorization"].removeprefix("DPoP ")
        for stolen in (
            {"Authorization": f"DPoP {token}", "DPoP": sent["DPoP"]},
            {"Authorization": f"DPoP {token}"},
            {"Authorization": f"Bearer {token}"},
            {"Authorization": f"DPoP {token}", "DPoP": ProofKey().prove("GET", url, token=token)},
        ):
            assert requests.get(url, headers=stolen, timeout=10).status_code == 401
    finally:
        service.shutdown()
        thread.join()
        service.server_close()


@pytest.fixture(params=["pyjwt_ledger", "authlib_ledger"])
def example(
    request: pytest.FixtureRequest, exchange: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], tuple[int, object]]:
    """Return what calls an example that verifies tokens without podproof, with a credential."""
    if request.param == "authlib_ledger":
        pytest.importorskip("authlib._joserfc_helpers", reason="Authlib before 1.7 has keys of its own")
    monkeypatch.setenv("ISSUER", f"http://127.0.0.1:{exchange.port}")
    app = runpy.run_path(str(ROOT / f"examples/{request.param}.py"))["app"]

    def call(credential: str) -> tuple[int, object]:
        headers = {"Authorization": credential}
        if request.param == "pyjwt_ledger":
            response: Any = TestClient(app).get("/whoami", headers=headers)
            return response.status_code, response.json() if response.status_code == 200 else None
        response = app.test_client().get("/whoami", headers=headers)
        return response.status_code, response.json if response.status_code == 200 else None

    return call


def test_nothing_of_podproof_is_needed_to_verify_a_token(
    exchange: ServerProcess, alice: EmulatedPod, example: Callable[[str], tuple[int, object]], tmp_path: Path
) -> None:
    projected = alice.token("bridge")
    issued, other = (trade(exchange, ALICE, projected, name).json["access_token"] for name in ("ledger", "books"))
    assert example(f"Bearer {issued}") == (
        200,
        {"sub": "system:serviceaccount:default:alice", "pod": "alice-pod"},
    )
    for credential in (
        f"Bearer {other}",
        f"Bearer {projected}",
        f"Bearer {issued[:-8]}{issued[-8:][::-1]}",
        f"Bearer {issued.rpartition('.')[0]}.",
        f"DPoP {issued}",
        "Bearer x",
        "Bearer",
        "",
    ):
        assert example(credential) == (401, None)


def test_the_examples_without_proofs_take_no_token_that_is_bound_to_a_key(
    exchange: ServerProcess, here: EmulatedPod, example: Callable[[str], tuple[int, object]], tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(here.token("bridge"))
    bridge = f"http://127.0.0.1:{exchange.port}/token"
    bound = TokenClient("ledger", exchange=bridge, path=tmp_path / "token").token()
    assert example(f"Bearer {bound}") == (401, None)


@pytest.mark.parametrize("name", ["pyjwt_ledger", "authlib_ledger"])
def test_an_example_is_under_forty_lines(name: str) -> None:
    assert len((ROOT / f"examples/{name}.py").read_text().splitlines()) < 40


def test_probes_and_metrics_stand_beside_it(exchange: ServerProcess, alice: EmulatedPod) -> None:
    assert trade(exchange, ALICE, alice.token("bridge")).status == 200
    for path, text in (
        ("/livez", b"live"),
        ("/readyz", b"ready"),
        ("/metrics/", b'podproof_issued_tokens_total{audience="ledger"}'),
        ("/jwks.json", b"ES256"),
        ("/.well-known/openid-configuration", b'"token_endpoint":"http://127.0.0.1:'),
    ):
        response = exchange.get(MALLORY, None, path)
        assert (response.status, text in response.body) == (200, True)
        assert "server" not in response.headers


def test_its_log_is_json_and_has_no_token(exchange: ServerProcess, alice: EmulatedPod) -> None:
    projected = alice.token("bridge")
    issued = trade(exchange, ALICE, projected).json["access_token"]
    assert trade(exchange, MALLORY, projected).status == 400
    text = exchange.log.read_text()
    records = [json.loads(line) for line in text.splitlines()]
    assert {"allowed", "issued", "denied"} <= {record.get("decision") for record in records}
    for secret in (projected, issued, projected.rpartition(".")[2], issued.rpartition(".")[2], "PRIVATE KEY"):
        assert secret not in text


def test_an_invalid_option_ends_it_with_a_message(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:

    assert main(["serve", "exchange", "--issuer", "bridge", "--keys", str(tmp_path), "--audience", "bridge"]) == 1
    assert "podproof serve: invalid issuer 'bridge'" in capsys.readouterr().err
