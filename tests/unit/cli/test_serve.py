"""`podproof serve`, in this process: what it hands to the server."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from podproof.cli import main
from podproof.testing import Cluster, EmulatedPod
from tests.support.exchange_client import write_keys

GRANTS = "grants: [{audience: ledger, allow: [default/caller]}]"


@pytest.fixture
def arguments(cluster: Cluster, tmp_path: Path) -> list[str]:
    (tmp_path / "grants.yaml").write_text(GRANTS)
    keys = write_keys(tmp_path / "keys")
    return [
        *("serve", "exchange", "--issuer", "http://bridge", "--audience", "bridge"),
        *("--keys", str(keys), "--grants", str(tmp_path / "grants.yaml"), "--port", "8443"),
        *("--tls-certificate", "tls.crt", "--tls-key", "tls.key"),
    ]


def test_the_server_gets_the_app_and_believes_no_forwarded_address(
    arguments: list[str], podproof_caller: EmulatedPod, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: dict[str, Any] = {}
    monkeypatch.setattr("uvicorn.run", lambda app, **more: served.update(more, app=app))
    assert main(arguments) == 0
    assert served["port"] == 8443
    assert (served["ssl_certfile"], served["ssl_keyfile"]) == ("tls.crt", "tls.key")
    assert (served["proxy_headers"], served["access_log"], served["lifespan"]) == (False, False, "on")
    assert logging.getLogger().level == logging.INFO
    with TestClient(served["app"].app, client=podproof_caller.peer) as client:
        form = {
            "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
            "assertion": podproof_caller.token("bridge"),
        }
        assert client.post("/token", data=form).status_code == 200
        assert [client.get(path).status_code for path in ("/livez", "/readyz", "/metrics/", "/jwks.json")] == [200] * 4


def test_forward_auth_takes_every_request_of_a_trusted_proxy(
    podproof_caller: EmulatedPod, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[Any] = []
    monkeypatch.setattr("uvicorn.run", lambda app, **_: served.append(app))
    given = ("--proxy", "nginx", "--audience", "bob", "--trusted-proxies", "10.9.0.1")
    assert main(["serve", "forward-auth", *given]) == 0
    [app] = served
    asked = {"X-Original-URI": "/orders", "X-Original-Method": "GET", "X-Forwarded-For": podproof_caller.peer[0]}
    with TestClient(app.app, client=("10.9.0.1", 4711)) as proxy:
        assert proxy.get("/livez", headers=asked).status_code == 401
        response = proxy.get("/livez", headers=asked | podproof_caller.headers("bob"))
        assert (response.status_code, response.headers["x-podproof-service-account"]) == (200, "default/caller")
    with TestClient(app.app, client=("10.9.0.2", 4711)) as other:
        assert other.get("/livez").text == "live\n"


@pytest.mark.parametrize("variable", ["PODPROOF_EXCHANGE_LIFETIME", "PODPROOF_DRAIN_MAX"])
def test_an_invalid_option_is_explained(
    arguments: list[str], variable: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, "soon")
    assert main(arguments) == 1
    assert f"podproof serve: invalid {variable} 'soon'" in capsys.readouterr().err
