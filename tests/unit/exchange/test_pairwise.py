"""Pairwise subjects: stable for an audience, another one for each, reversible by the operator alone."""

from __future__ import annotations

from base64 import urlsafe_b64decode
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podproof.errors import ConfigurationError
from podproof.exchange import Grant
from podproof.exchange.key_directory import KeyFiles
from podproof.exchange.pairwise import BLOCK, MAX_IDENTIFIER, PairwiseSubjects, Subject, reverse_subject
from tests.support.exchange_client import SECRET, ExchangeClient, write_keys
from tests.unit.exchange.conftest import MakeExchange

ALICE = "system:serviceaccount:default:alice"
SECRETS = {"1.pairwise": SECRET, "2.pairwise": SECRET[::-1]}
GRANTS = [Grant(audience=name, allow=["*/*"], introspect=["*/*"]) for name in ("ledger", "partner")]


def subjects(current: str = "1.pairwise") -> PairwiseSubjects:
    return PairwiseSubjects(lambda: KeyFiles({}, SECRETS, current))


@pytest.fixture
def pairwise(make_exchange: MakeExchange) -> ExchangeClient:
    return make_exchange(subject="pairwise", grants=GRANTS)


def test_each_audience_sees_another_subject_which_stays_the_same(pairwise: ExchangeClient) -> None:
    claims = {name: pairwise.claims(pairwise.issue(audience=name), name) for name in ("ledger", "partner")}
    again = pairwise.claims(pairwise.issue())
    assert claims["ledger"]["sub"] == again["sub"]
    assert claims["ledger"]["sub"] != claims["partner"]["sub"]
    assert len(claims["ledger"]["sub"]) == 107


def test_two_audiences_have_nothing_to_compare(pairwise: ExchangeClient) -> None:
    ledger, partner = (pairwise.claims(pairwise.issue(audience=name), name) for name in ("ledger", "partner"))
    assert {name for name in ledger if ledger[name] == partner[name]} == {"iss", "iat", "exp"}
    assert not {"kubernetes.io", "act"} & {*ledger}
    assert "alice" not in str(ledger)


def test_a_short_name_and_a_long_one_have_subjects_of_one_length(pairwise: ExchangeClient) -> None:
    alice = pairwise.claims(pairwise.issue())
    long = subjects().make("service-account", "system:serviceaccount:default:a-longer-name", "ledger")
    assert len(alice["sub"]) == len(long)
    assert len(alice["client_id"]) == len(long)


def test_an_audience_of_ones_own_may_see_the_pod_too(make_exchange: MakeExchange) -> None:
    exchange = make_exchange(subject="pairwise", grants=[Grant(audience="ledger", allow=["*/*"], pod=True)])
    claims = exchange.claims(exchange.issue())
    assert claims["kubernetes.io"]["pod"]["name"] == "alice-pod"
    assert claims["sub"] == claims["client_id"] != ALICE


def test_a_grant_can_choose_for_its_audience(make_exchange: MakeExchange) -> None:
    ours = Grant(audience="ledger", allow=["*/*"])
    theirs = Grant(audience="partner", allow=["*/*"], subject="pairwise")
    hidden = Grant(audience="hidden", allow=["*/*"], pod=False)
    exchange = make_exchange(grants=[ours, theirs, hidden])
    assert exchange.claims(exchange.issue())["sub"] == ALICE
    assert exchange.claims(exchange.issue(audience="partner"), "partner")["sub"] != ALICE
    claims = exchange.claims(exchange.issue(audience="hidden"), "hidden")
    assert (claims["sub"], "kubernetes.io" in claims) == (ALICE, False)


def test_the_operator_reverses_a_subject(pairwise: ExchangeClient) -> None:
    subject = pairwise.claims(pairwise.issue())["sub"]
    assert reverse_subject(SECRETS, subject, "ledger") == Subject("service-account", ALICE, "1.pairwise")
    assert reverse_subject(SECRETS, subject, "partner") is None
    assert reverse_subject({"2.pairwise": SECRETS["2.pairwise"]}, subject, "ledger") is None


def test_ids_of_your_own_have_subjects_in_the_same_way(pairwise: ExchangeClient) -> None:
    subject = pairwise.app.pairwise("user-7", "ledger")
    assert subject == pairwise.app.pairwise("user-7", "ledger") != pairwise.app.pairwise("user-7", "partner")
    assert reverse_subject(SECRETS, subject, "ledger") == Subject("own", "user-7", "1.pairwise")


def test_the_same_text_of_two_kinds_is_two_subjects() -> None:
    made = {kind: subjects().make(kind, ALICE, "ledger") for kind in ("service-account", "user", "own")}
    assert len({*made.values()}) == 3


def test_a_new_secret_reverses_and_changes_no_subject_until_it_is_named(
    make_exchange: MakeExchange, tmp_path: Path
) -> None:
    keys = write_keys(tmp_path / "two", secrets=SECRETS)
    old, new = (
        make_exchange(keys=keys, subject="pairwise", grants=GRANTS, pairwise_secret=name).app.pairwise("u", "ledger")
        for name in SECRETS
    )
    assert old == subjects().make("own", "u", "ledger") != new
    assert [reverse_subject(SECRETS, one, "ledger") for one in (old, new)] == [
        Subject("own", "u", name) for name in SECRETS
    ]


@pytest.mark.parametrize("identifier", ["", "x" * (MAX_IDENTIFIER + 1)])
def test_an_id_that_is_empty_or_too_long_has_no_subject(identifier: str) -> None:
    with pytest.raises(ValueError, match="expected 1 to 1024 bytes"):
        subjects().make("own", identifier, "ledger")


@pytest.mark.parametrize("subject", ["", "x", "default/alice", "A" * 40, "\N{SNOWMAN}", "a=="])
def test_what_is_no_subject_of_ours_is_nobody(subject: str) -> None:
    assert reverse_subject(SECRETS, subject, "ledger") is None
    assert subjects().unseal(subject) is None


@given(st.text(min_size=1, max_size=200), st.text(max_size=20))
def test_each_identifier_comes_back(identifier: str, audience: str) -> None:
    made = subjects().make("user", identifier, audience)
    assert reverse_subject(SECRETS, made, audience) == Subject("user", identifier, "1.pairwise")
    assert (len(urlsafe_b64decode(made + "=" * (-len(made) % 4))) - 16) % BLOCK == 0


@given(st.binary(max_size=200))
def test_what_is_sealed_is_another_text_each_time_and_comes_back(data: bytes) -> None:
    first, second = subjects().seal(data), subjects("2.pairwise").seal(data)
    assert first != subjects().seal(data)
    assert [subjects().unseal(one) for one in (first, second)] == [data, data]


def test_without_a_secret_pairwise_subjects_stop_the_start(make_exchange: MakeExchange, tmp_path: Path) -> None:
    keys = write_keys(tmp_path / "none")
    for options in ({"subject": "pairwise"}, {"grants": [Grant(audience="a", allow=["*/*"], pod=False)]}):
        with pytest.raises(ConfigurationError, match="pairwise subjects need a secret"):
            make_exchange(keys=keys, **options)
    with pytest.raises(ConfigurationError, match="pairwise subjects need a secret"):
        make_exchange(keys=keys).app.pairwise("u", "ledger")
