"""The options of an exchange, as arguments and in the environment; discovery documents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

import podproof.exchange
from podproof.errors import ConfigurationError
from podproof.exchange import Grant, TokenExchange
from podproof.exchange.options import ExchangeOptions
from podproof.identity import Pod, PodIdentity, ServiceAccount
from podproof.testing import Cluster, EmulatedPod
from tests.support.exchange_client import ISSUER, LEDGER, ExchangeClient, write_keys
from tests.support.fake_api import NOW, PEER, token
from tests.unit.exchange.conftest import MakeExchange

GIVEN: dict[str, Any] = {"issuer": ISSUER, "keys": "/keys", "grants": [LEDGER]}


def test_options_are_read_from_the_environment_too() -> None:
    environ = {
        "PODPROOF_EXCHANGE_ISSUER": ISSUER,
        "PODPROOF_EXCHANGE_KEYS": "/keys",
        "PODPROOF_EXCHANGE_GRANTS_FILE": "/grants.yaml",
        "PODPROOF_EXCHANGE_LIFETIME": "60",
        "PODPROOF_EXCHANGE_SUBJECT": "pairwise",
        "PODPROOF_EXCHANGE_PAIRWISE_SECRET": "2.pairwise",
        "PODPROOF_EXCHANGE_USER_ISSUERS": "https://a=/a.json, https://b=https://b/jwks?x=y",
        "PODPROOF_EXCHANGE_DPOP": "required",
        "PODPROOF_EXCHANGE_NONCE": "true",
        "PODPROOF_EXCHANGE_URLS": "http://bridge, https://bridge.default.svc",
        "PODPROOF_EXCHANGE_PORT_80_TCP": "tcp://10.0.0.1:80",  # of a Service called podproof-exchange
        "PODPROOF_AUDIENCE": "bridge",
    }
    options = ExchangeOptions.read({}, environ)
    assert options == ExchangeOptions(
        issuer=ISSUER,
        keys=Path("/keys"),
        grants_file=Path("/grants.yaml"),
        lifetime=60,
        subject="pairwise",
        pairwise_secret="2.pairwise",
        user_issuers={"https://a": "/a.json", "https://b": "https://b/jwks?x=y"},
        dpop="required",
        nonce=True,
        urls=("http://bridge", "https://bridge.default.svc"),
    )
    assert ExchangeOptions.read({"grants": [LEDGER], "lifetime": 90}, environ).grants == (LEDGER,)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"issuer": None}, "no issuer was given, nor PODPROOF_EXCHANGE_ISSUER: expected a URL"),
        ({"keys": None}, "no keys was given"),
        ({"grants": None}, "expected one of grants and grants_file"),
        ({"grants_file": "/x"}, "expected one of grants and grants_file"),
        ({"issuer": "bridge"}, "invalid issuer 'bridge': expected a URL without a query"),
        ({"issuer": f"{ISSUER}/"}, "invalid issuer"),
        ({"issuer": f"{ISSUER}?x"}, "invalid issuer"),
        ({"issuer": "https://a b"}, "invalid issuer"),
        ({"keys": ""}, "invalid keys ''"),
        ({"grants": ["x"]}, "invalid grants ['x']: expected a list of podproof.exchange.Grant"),
        ({"lifetime": 901}, "invalid lifetime 901: expected seconds between 30 and 900"),
        ({"subject": "x" * 100}, f"invalid subject '{'x' * 79}…"),
        ({"pairwise_secret": "a/b"}, "invalid pairwise_secret 'a/b'"),
        ({"user_issuers": {"https://idp": "http://idp"}}, "invalid user_issuers"),
        ({"dpop": "never"}, "invalid dpop 'never'"),
        ({"nonce": "perhaps"}, "invalid nonce 'perhaps': expected true or false"),
        ({"urls": ["bridge"]}, "invalid urls ['bridge']"),
        ({"user_issuers": "https://idp"}, "invalid user_issuers"),
    ],
)
def test_an_invalid_option_says_what_is_expected(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        ExchangeOptions.read(GIVEN | given, {})
    assert message in str(raised.value)


def test_an_unknown_variable_stops_the_start() -> None:
    with pytest.raises(ConfigurationError, match="unknown option PODPROOF_EXCHANGE_ISSUERS: expected one of"):
        ExchangeOptions.read(GIVEN, {"PODPROOF_EXCHANGE_ISSUERS": "x"})


@pytest.mark.parametrize("option", [{"exempt": ["/token"]}, {"optional": True}])
def test_options_that_let_callers_pass_cannot_be_used(make_exchange: MakeExchange, option: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match=f"{next(iter(option))} cannot be used here"):
        make_exchange(option)


def test_the_discovery_documents_name_the_endpoints(exchange: ExchangeClient) -> None:
    document = exchange.get("/.well-known/oauth-authorization-server")
    assert document == exchange.get("/.well-known/openid-configuration")
    assert document["issuer"] == ISSUER
    for name, path in (
        ("token_endpoint", "/token"),
        ("jwks_uri", "/jwks.json"),
        ("introspection_endpoint", "/introspect"),
    ):
        assert document[name] == f"{ISSUER}{path}"


def test_an_exchange_can_be_mounted_in_an_app(cluster: Cluster, podproof_caller: EmulatedPod, tmp_path: Path) -> None:
    grants = [Grant(audience="ledger", allow=["default/caller"])]
    exchange = TokenExchange(issuer=ISSUER, keys=write_keys(tmp_path / "keys"), grants=grants, audience="bridge")
    form = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": podproof_caller.token("bridge")}
    client = TestClient(Starlette(routes=[Mount("/bridge", exchange)]), client=podproof_caller.peer)
    try:
        assert client.post("/bridge/token", data=form).status_code == 200
        assert cluster.count("pods") >= 1
    finally:
        exchange.close()


class Stub:
    """An authenticator of a user's own."""

    def authenticate(self, token: str, peer: str | None) -> PodIdentity:
        return PodIdentity(ServiceAccount("default", "alice"), Pod("default", "alice-pod", "uid"), "bob", NOW + 60)


def test_an_authenticator_of_ones_own_decides_and_knows_no_pods(make_exchange: MakeExchange, tmp_path: Path) -> None:
    client = make_exchange()
    client.app = TokenExchange(
        issuer=ISSUER,
        keys=tmp_path / "keys",
        grants=[LEDGER],
        authenticator=Stub(),
        audience="bob",
        now=client.clock,
        monotonic=client.clock,
    )
    issued = client.issue(peer=PEER)
    assert client.claims(issued)["exp"] == NOW + 60
    assert client.introspect(issued).status_code == 503
    client.app.close()
    assert token()


def test_the_door_has_its_names() -> None:
    assert dir(podproof.exchange) == ["Grant", "TokenExchange"]
    with pytest.raises(AttributeError, match="has no attribute 'Other'"):
        podproof.exchange.Other  # noqa: B018
