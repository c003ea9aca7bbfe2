from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext

import pytest

from podproof._authentication.claims import check_claims
from podproof._token.jwt import read_claims
from podproof.errors import Expired, InvalidToken, MalformedToken, NotPodBound, WrongAudience, WrongIssuer
from tests.support.fake_api import ALICE, NOW, TokenFactory, segment, token

HEADER, SIGNATURE = segment(b"{}"), segment(b"signature")


def expiry_of(
    changes: Mapping[str, object], *, audiences: tuple[str, ...] = ("bob",), issuers: tuple[str, ...] = ()
) -> float:
    return check_claims(read_claims(token(**changes)), audiences=audiences, issuers=issuers, now=NOW)


def test_a_tokens_claims_are_read() -> None:
    assert read_claims(token()) == ALICE


def test_tokens_of_a_factory_are_distinct_and_as_long_as_real_ones() -> None:
    make_token = TokenFactory()
    first, second = make_token(issued_at=1000), make_token(issued_at=1000)
    assert first != second
    assert 1000 < len(first) < 1500
    assert check_claims(read_claims(first), audiences=["bob"], issuers=[], now=1000) == 4600


@pytest.mark.trap(29)
@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "..",
        "a.b",
        f"{HEADER}.{segment(b'{}')}",
        f"{HEADER}.{segment(b'{}')}.{SIGNATURE}.{SIGNATURE}",
        f"{HEADER}..{SIGNATURE}",
        f"{HEADER}.{segment(b'')}.{SIGNATURE}",
        f"{HEADER}.{segment(b'not json')}.{SIGNATURE}",
        f"{HEADER}.{segment(b'[]')}.{SIGNATURE}",
        f"{HEADER}.{segment(b'null')}.{SIGNATURE}",
        f"{HEADER}.{segment(b'{} {}')}.{SIGNATURE}",
        f"{HEADER}.{segment(bytes([0x7B, 0x22, 0xFF, 0x22, 0x3A, 0x31, 0x7D]))}.{SIGNATURE}",
        f"{HEADER}.{segment(b'[' * 5000)}.{SIGNATURE}",
        f"{HEADER}.{segment(b'9' * 5000)}.{SIGNATURE}",
        "eyJhbGciOiJub25lIn0.eyJ.",
    ],
)
def test_text_that_is_not_a_json_web_token_is_rejected(text: str) -> None:
    with pytest.raises(MalformedToken):
        read_claims(text)


@pytest.mark.trap(2)
@pytest.mark.parametrize(
    "respell",
    [
        lambda text: text + "=",
        lambda text: text + "==",
        lambda text: text.replace(".", "=.", 1),
        lambda text: " " + text,
        lambda text: text + "\n",
        lambda text: text + ".",
        # `{}` is e30: its last character's two low bits are not part of the value.
        lambda text: text.replace("e30.", "e31.", 1),
        lambda text: text.replace("e30.", "e33.", 1),
        lambda text: text.replace("e30.", "e3.", 1),
        lambda text: text.replace("e30.", "e300A.", 1),
        lambda text: text.replace("e30.", "e3\u0660.", 1),
        lambda text: text.replace("e30.", "e3+.", 1),
    ],
)
def test_another_spelling_of_a_token_is_rejected(respell: Callable[[str], str]) -> None:
    text = f"e30.{token().partition('.')[2]}"
    assert read_claims(text)
    with pytest.raises(MalformedToken):
        read_claims(respell(text))


@pytest.mark.parametrize("aud", ["bob", ["bob"], ["carol", "bob"], ["bob", None]])
def test_a_token_for_one_of_our_audiences_passes(aud: object) -> None:
    assert expiry_of({"aud": aud}) == NOW + 3600
    assert expiry_of({"aud": aud}, audiences=("dave", "bob")) == NOW + 3600


@pytest.mark.trap(29)
@pytest.mark.parametrize(
    "aud", [None, "", [], "bobby", ["eve"], ["BOB"], ["bob "], 7, {"bob": 1}, [["bob"]], [None, {}]]
)
def test_a_token_for_other_audiences_is_rejected_without_a_review(aud: object) -> None:
    with pytest.raises(WrongAudience, match="not issued for bob or carol"):
        expiry_of({"aud": aud}, audiences=("bob", "carol"))


@pytest.mark.trap(29)
@pytest.mark.parametrize("iss", [None, "", "https://eve", 7, ["https://kubernetes.default.svc"]])
def test_a_token_of_another_issuer_is_rejected_without_a_review(iss: object) -> None:
    assert expiry_of({"iss": iss})
    with pytest.raises(WrongIssuer):
        expiry_of({"iss": iss}, issuers=("https://kubernetes.default.svc", "https://new"))


def test_one_of_several_issuers_is_enough() -> None:
    assert expiry_of({}, issuers=("https://new", "https://kubernetes.default.svc"))


@pytest.mark.trap(48)
@pytest.mark.parametrize(("seconds", "accepted"), [(60, True), (60.5, False)])
def test_clocks_may_differ_by_a_minute_at_both_ends_of_a_tokens_lifetime(seconds: float, accepted: bool) -> None:
    for changes in ({"exp": NOW - seconds}, {"nbf": NOW + seconds}):
        with nullcontext() if accepted else pytest.raises(Expired, match=r"expired|begins"):
            assert expiry_of(changes)


def test_nbf_may_be_missing() -> None:
    assert expiry_of({"nbf": None})


@pytest.mark.parametrize("value", [None, "soon", True, [], {}, -1, 1e300, 10**400, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["exp", "nbf"])
def test_a_time_claim_that_is_not_a_time_is_rejected(name: str, value: object) -> None:
    text = json.dumps(ALICE | {name: value})
    with pytest.raises(MalformedToken, match=f"{name} claim"):
        check_claims(json.loads(text), audiences=["bob"], issuers=(), now=NOW)


@pytest.mark.trap(12)
@pytest.mark.parametrize("claim", [None, [], "pod", {}, {"pod": None}, {"pod": "alice-pod"}, {"secret": {"name": "s"}}])
def test_a_token_bound_to_no_pod_is_rejected_without_a_review(claim: object) -> None:
    with pytest.raises(NotPodBound, match="projected volume"):
        expiry_of({"kubernetes.io": claim})


@pytest.mark.trap(33)
@pytest.mark.parametrize("name", ["aud", "iss", "exp", "nbf", "kubernetes.io"])
def test_no_reason_quotes_a_claim(name: str) -> None:
    with pytest.raises(InvalidToken) as raised:
        expiry_of({name: "s3cret"}, issuers=("https://kubernetes.default.svc",))
    assert "s3cret" not in str(raised.value)
