"""Attacks on tokens that are verified by keys: each is denied, or asked by review; none is accepted by the keys."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import cast

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from podproof._authentication.authenticator import Authenticator
from podproof._authentication.pod_view import ALL_NAMESPACES, PodView
from podproof._authentication.pods import read_record
from podproof._authentication.token_review import ReviewedToken
from podproof._token.jwt import decode_segment
from podproof.errors import InvalidToken
from podproof.options import Options
from tests.security.attacked_app import ENTRY_POINTS, AttackedApp, AttackEnv
from tests.security.in_app_doors import DOORS, in_app_doors
from tests.security.jwt_attacks import (
    CLAIMS,
    KEY_TYPES,
    KINDS,
    ORDERS,
    PUBLIC_JWKS,
    WEAK_KEYS,
    Vectors,
    attacks,
    genuine,
    raw,
)
from tests.support.fake_api import PEER, Clock, FakeAPI, pod, review, segment
from tests.support.key_verifier import REVIEWED, FakeSource, Verifying
from tests.support.leak_detector import LeakDetector
from tests.support.modes import AUTO, Mode, parts_in_mode
from tests.support.signed_tokens import ALGORITHMS, make_key, signed_token


@pytest.fixture(scope="module")
def verifying() -> Verifying:
    """Return a verifier that has keys of every type, and keys that it must not use."""
    weak = [jwk | {"kid": name} for name, jwk in WEAK_KEYS.items()]
    return Verifying(Clock(), FakeSource({"keys": [*PUBLIC_JWKS["keys"], *weak]}))


def outcome(verifying: Verifying, leak_detector: LeakDetector, token: str) -> ReviewedToken | InvalidToken:
    """Return what comes of a token; REVIEWED if it was asked by review. Its error must not quote it."""
    leak_detector.add_secret(token.encode("utf-8", "replace"))
    try:
        return verifying.verify(token)
    except InvalidToken as denial:
        leak_detector.add_error(denial)
        return denial


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_no_attack_is_accepted_by_the_keys(
    verifying: Verifying,
    leak_detector: LeakDetector,
    record_property: Callable[[str, object], None],
    kind: Callable[[], Vectors],
) -> None:
    tried = attacks(kind)
    for attack in tried:
        result = outcome(verifying, leak_detector, attack.token)
        if attack.expected is None:
            assert result is REVIEWED, attack
        else:
            assert isinstance(result, attack.expected), (attack, result)
    assert len(tried) > 5
    record_property("cases", len(tried))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_tokens_that_attacks_are_made_of_are_accepted(verifying: Verifying, algorithm: str) -> None:
    kid = "RS256" if algorithm.startswith("RS") else algorithm
    assert verifying.verify(genuine(algorithm, kid=kid)) is not REVIEWED


@pytest.mark.parametrize("algorithm", ORDERS)
def test_the_other_signature_of_the_same_number_is_the_same_caller(verifying: Verifying, algorithm: str) -> None:
    """(r, s) and (r, n-s) are both valid (SEC 1 section 4.1.4): two spellings, which must not be two identities."""
    token = genuine(algorithm)
    signed, _, signature = token.rpartition(".")
    key = cast("ec.EllipticCurvePrivateKey", make_key(algorithm))
    numbers = signed_numbers(token, (key.curve.key_size + 7) // 8)
    other = f"{signed}.{segment(raw(key, numbers[0], ORDERS[algorithm] - numbers[1]))}"
    assert other.rpartition(".")[2] != signature
    assert verifying.verify(other) == verifying.verify(token)


def signed_numbers(token: str, size: int) -> tuple[int, int]:
    data = decode_segment(token.rpartition(".")[2])
    return int.from_bytes(data[:size]), int.from_bytes(data[size:])


@given(data=st.data(), algorithm=st.sampled_from(KEY_TYPES))
def test_a_token_with_one_changed_character_is_not_accepted_by_the_keys(
    verifying: Verifying, leak_detector: LeakDetector, data: st.DataObject, algorithm: str
) -> None:
    token = signed_token(algorithm, claims=CLAIMS)
    where = data.draw(st.integers(0, len(token) - 1))
    character = data.draw(st.sampled_from("ABCXYZabcxyz019-_.=+/ \n\0\u0660"))
    other = token[:where] + character + token[where + 1 :]
    if other != token:
        result = outcome(verifying, leak_detector, other)
        assert result is REVIEWED or isinstance(result, InvalidToken)


@pytest.fixture(scope="module", params=[Mode("keys", "watch"), AUTO], ids=str)
def app(
    request: pytest.FixtureRequest,
    attack_env: AttackEnv,
    leak_detector: LeakDetector,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[AttackedApp]:
    """Return an app with every door, on an authenticator with keys of every type, whose reviews authenticate nobody."""
    time, weak = Clock(), [jwk | {"kid": name} for name, jwk in WEAK_KEYS.items()]
    view = PodView(monotonic=time, now=time)
    view.replace(ALL_NAMESPACES, [read_record(pod())])
    api, source = FakeAPI(review(authenticated=False)), FakeSource({"keys": [*PUBLIC_JWKS["keys"], *weak]})
    options = Options.read({"audience": "bob", "rejection_ttl": 0}, {})
    verifier, pods = parts_in_mode(request.param.verify, api, source, view, options, time=time)
    app = attack_env.make_app(leak_detector)
    app.replace_authenticator(
        Authenticator(options, verifier, pods, max_rejections=sys.maxsize, now=time, monotonic=time)
    )
    with in_app_doors(app.authenticator, app.record_caller, tmp_path_factory.mktemp("db")) as (wsgi_apps, asgi_apps):
        app.add_apps(wsgi_apps, asgi_apps)
        yield app


MIDDLEWARES = (*ENTRY_POINTS, "mcp")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_no_attack_gets_through_a_door(
    app: AttackedApp, kind: Callable[[], Vectors], record_property: Callable[[str, object], None]
) -> None:
    """Each attack tries one of the doors, in each mode; the kinds begin at different ones."""
    tried = attacks(kind)
    doors = (*MIDDLEWARES, *DOORS)
    for number, attack in enumerate(tried, KINDS.index(kind)):
        result = app.send_token(doors[number % len(doors)], attack.token.encode("utf-8", "replace"), PEER)
        assert result.status in (400, 401), (attack, result)
    record_property("cases", len(tried))


@pytest.mark.parametrize("door", [*MIDDLEWARES, *DOORS])
def test_each_door_lets_the_tokens_in_that_attacks_are_made_of(app: AttackedApp, door: str) -> None:
    assert [app.send_token(door, genuine(algorithm), PEER).allowed for algorithm in KEY_TYPES] == [True] * len(
        KEY_TYPES
    )


def test_there_are_at_least_300_attacks() -> None:
    assert len({attack.token for kind in KINDS for attack in attacks(kind)}) >= 300
