"""Without a middleware around the app: each door denies what the middleware denies, with its status and its problem."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podproof.testing._emulator.tokens import parse
from tests.security import hostile_tokens
from tests.security.attacked_app import ALICE, MALLORY, AttackedApp, AttackEnv, AttackResult
from tests.security.in_app_doors import ASGI_DOORS, DOORS, WEBSOCKET_DOORS, in_app_doors
from tests.support.leak_detector import LeakDetector
from tests.support.modes import MODES, Mode

Case = list[tuple[bytes, bytes]]


@pytest.fixture(scope="module", params=MODES, ids=str)
def mode(request: pytest.FixtureRequest) -> Mode:
    mode: Mode = request.param
    return mode


@pytest.fixture(scope="module")
def app(
    mode: Mode, attack_env: AttackEnv, leak_detector: LeakDetector, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AttackedApp]:
    app = attack_env.make_app(leak_detector, mode=mode)
    with in_app_doors(app.authenticator, app.record_caller, tmp_path_factory.mktemp("db")) as (wsgi_apps, asgi_apps):
        app.add_apps(wsgi_apps, asgi_apps)
        yield app


def middleware_of(door: str) -> str:
    """Return the entry point of the middleware whose responses a door has."""
    return "websocket" if door in WEBSOCKET_DOORS else "asgi" if door in ASGI_DOORS else "wsgi"


def response_of(result: AttackResult) -> tuple[object, ...]:
    """Return what is the same in the response of each door, and what is logged."""
    problem = {} if result.allowed else json.loads(result.body)
    problem.pop("request_id", None)
    headers = {name: result.headers.get(name) for name in ("www-authenticate", "retry-after")}
    reason = re.sub(r"\d+ s ", "", result.reason or "")  # "expired 3600 s ago"
    return result.status, problem, headers, result.caller, result.code, reason


def assert_as_the_middleware(app: AttackedApp, door: str, headers: list[tuple[bytes, bytes]], peer: str | None) -> bool:
    expected = app.send(middleware_of(door), headers, peer)
    result = app.send(door, headers, peer)
    assert response_of(result) == response_of(expected)
    return result.allowed


def in_turn(cases: list[Case], door: str, mode: Mode) -> list[Case]:
    """Return a door's cases in one mode: each door has each case in one mode, each mode has it at one door or more."""
    return cases[(DOORS.index(door) + MODES.index(mode)) % len(MODES) :: len(MODES)]


@pytest.mark.parametrize("door", DOORS)
def test_a_door_denies_a_bad_credential_as_the_middleware_does(
    attack_env: AttackEnv, app: AttackedApp, mode: Mode, door: str, record_property: Callable[[str, object], None]
) -> None:
    token = attack_env.token.encode()
    cases: list[Case] = [
        [],
        *([(b"authorization", value)] for value in (b"", b"Bearer", b"Basic YTpi", b"Bearer a b", b"\xff", token)),
        *([(b"authorization", b"Bearer " + one)] for one in hostile_tokens.other_spellings(token)),
        [(b"authorization", b"Bearer " + attack_env.alice.token("carol").encode())],
        [(b"authorization", b"Bearer " + attack_env.alice.token("bob", lifetime=-3600).encode())],
        [(b"authorization", b"Bearer " + attack_env.cluster.forge(attack_env.token).encode())],
        [(b"authorization", b"Bearer " + token), (b"authorization", b"Bearer " + token)],
        [(b"authorization", b"Bearer " + token), (b"x-forwarded-for", ALICE.encode())],
        [(b"authorization", b"Bearer " + token), (b"x-real-ip", ALICE.encode())],
    ]
    cases = in_turn(cases, door, mode)
    assert [headers for headers in cases if assert_as_the_middleware(app, door, headers, ALICE)] == []
    good = [(b"authorization", b"Bearer " + token)]
    assert [peer for peer in (ALICE, MALLORY, None, "") if assert_as_the_middleware(app, door, good, peer)] == [ALICE]
    record_property("cases", len(cases) + 4)


@given(data=st.data(), door=st.sampled_from(DOORS))
@settings(max_examples=15)  # in each mode
def test_an_invalid_token_is_decided_as_by_the_middleware(
    attack_env: AttackEnv, app: AttackedApp, data: st.DataObject, door: str
) -> None:
    token = data.draw(hostile_tokens.invalid_tokens(attack_env.token))
    assert_as_the_middleware(app, door, [(b"authorization", b"Bearer " + token)], ALICE)


@pytest.mark.parametrize("door", DOORS)
def test_an_outage_of_the_api_server_is_a_503_of_a_door_where_it_has_to_be_asked(
    attack_env: AttackEnv, app: AttackedApp, mode: Mode, door: str
) -> None:
    assert app.send_token(door, attack_env.token).allowed
    attack_env.cluster.fail(500)
    try:
        token = attack_env.alice.token("bob").encode()
        allowed = assert_as_the_middleware(app, door, [(b"authorization", b"Bearer " + token)], ALICE)
        assert allowed == (mode.verify != "review")  # by keys, the next token of a known pod needs no call
    finally:
        attack_env.cluster.heal()


@pytest.fixture(scope="module")
def people_app(
    attack_env: AttackEnv, leak_detector: LeakDetector, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AttackedApp]:
    """Give an app that people use too; REST framework's class leaves them to the next one, of which there is none."""
    app = attack_env.make_app(leak_detector, other_credentials="pass")
    with in_app_doors(app.authenticator, app.record_caller, tmp_path_factory.mktemp("db")) as (wsgi_apps, asgi_apps):
        app.add_apps(wsgi_apps, asgi_apps)
        yield app


@pytest.mark.parametrize("door", [door for door in DOORS if door != "rest_framework"])
def test_what_is_not_of_the_cluster_passes_a_door_as_it_passes_the_middleware(
    attack_env: AttackEnv, people_app: AttackedApp, door: str, record_property: Callable[[str, object], None]
) -> None:
    token = attack_env.token.encode()
    claims = {**parse(attack_env.token).claims, "iss": "https://accounts.example.com"}
    other = attack_env.cluster.sign(claims).encode()
    passes = [b"Basic YTpi", b"Bearer opaque", b"Digest x", b"Bearer " + other]
    refused = [b"", b"Bearer", b"Bearer " + attack_env.cluster.forge(attack_env.token).encode(), b"Basic " + token]
    refused += [b"Bearer " + one for one in hostile_tokens.other_spellings(token)[DOORS.index(door) :: len(DOORS)]]
    for value in passes:
        assert assert_as_the_middleware(people_app, door, [(b"authorization", value)], ALICE), value
    for value in refused:
        assert_as_the_middleware(people_app, door, [(b"authorization", value)], ALICE)
    assert assert_as_the_middleware(people_app, door, [], ALICE)
    assert not assert_as_the_middleware(people_app, door, [(b"authorization", b"Bearer " + token)], MALLORY)
    record_property("cases", len(passes) + len(refused) + 2)
