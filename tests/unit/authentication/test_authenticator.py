from __future__ import annotations

import gc
import logging
import threading

import pytest

from podproof._authentication.authenticator import MAX_REJECTIONS, Authenticator
from podproof.errors import (
    HostNetwork,
    MalformedCredential,
    NoAddressYet,
    NotAllowed,
    Overloaded,
    PodAuthError,
    PodGone,
    TokenReviewFailed,
    Unavailable,
    WrongAddress,
    WrongAudience,
)
from tests.support.fake_api import NOW, PEER, AuthenticatorFactory, Clock, FakeAPI, pod, review, token

ELSEWHERE = "10.1.2.99"
SECONDS = 10  # that a test waits at the most for another thread


def test_a_caller_is_identified_and_then_remembered(
    make_authenticator: AuthenticatorFactory, fake_api: FakeAPI
) -> None:
    authenticator = make_authenticator()
    assert authenticator.get_cached(token(), PEER) is None
    caller = authenticator.authenticate(token(), PEER)
    assert str(caller.service_account) == "default/alice"
    assert str(caller.pod) == "default/alice-pod"
    assert (caller.audience, caller.expires_at, caller.credential_id) == ("bob", NOW + 3600, "JTI=1")
    cached = authenticator.get_cached(token(), PEER)
    assert cached is not None
    assert cached.identity is caller
    assert (fake_api.reviews, fake_api.reads) == (1, 1)


@pytest.mark.trap(29)
@pytest.mark.parametrize("text", ["junk", token(aud=["eve"]), token(exp=NOW - 61), token(**{"kubernetes.io": None})])
def test_what_can_never_be_accepted_costs_the_api_server_nothing(
    make_authenticator: AuthenticatorFactory, fake_api: FakeAPI, text: str
) -> None:
    authenticator = make_authenticator()
    for _ in range(3):
        assert authenticator.get_cached(text, PEER) is None
        with pytest.raises(PodAuthError) as raised:
            authenticator.authenticate(text, PEER)
        assert raised.value.status == 401
    assert (fake_api.reviews, fake_api.reads) == (0, 0)


@pytest.mark.trap(1, 2)
def test_a_spelling_that_the_api_server_takes_for_a_known_token_is_neither_known_nor_asked_for(
    make_authenticator: AuthenticatorFactory, fake_api: FakeAPI
) -> None:
    authenticator = make_authenticator()
    authenticator.authenticate(token(), PEER)
    for spelling in (f" {token()}", f"{token()} ", f"{token()} junk", f"{token()}\xff"):
        assert authenticator.get_cached(spelling, PEER) is None
        with pytest.raises(MalformedCredential):
            authenticator.authenticate(spelling, PEER)
    assert (fake_api.reviews, fake_api.reads) == (1, 1)


@pytest.mark.trap(5)
def test_the_audience_is_ours_and_never_the_tokens(make_authenticator: AuthenticatorFactory, fake_api: FakeAPI) -> None:
    fake_api.review = review(audiences=["eve"])
    with pytest.raises(WrongAudience):
        make_authenticator().authenticate(token(aud=["eve"]), PEER)
    with pytest.raises(TokenReviewFailed):
        make_authenticator().authenticate(token(aud=["eve", "bob"]), PEER)
    assert fake_api.reviews == 1


@pytest.mark.trap(28)
def test_a_refused_token_is_remembered_for_a_while(
    make_authenticator: AuthenticatorFactory, fake_api: FakeAPI, time: Clock
) -> None:
    authenticator = make_authenticator(rejection_ttl=10)
    fake_api.review = review(authenticated=False)
    for _ in range(3):
        with pytest.raises(TokenReviewFailed):
            authenticator.get_cached(token(), PEER) or authenticator.authenticate(token(), PEER)
    assert fake_api.reviews == 1
    time.passes(10)
    fake_api.review = review()
    assert authenticator.get_cached(token(), PEER) is None
    assert authenticator.authenticate(token(), PEER)


@pytest.mark.trap(33)
def test_a_remembered_refusal_holds_no_frame_that_has_the_token(
    make_authenticator: AuthenticatorFactory, fake_api: FakeAPI
) -> None:
    authenticator = make_authenticator()
    fake_api.review = review(authenticated=False)
    with pytest.raises(TokenReviewFailed):
        authenticator.authenticate(token(), PEER)
    gc.collect()
    kept = [one for one in gc.get_objects() if type(one) is TokenReviewFailed]  # isinstance would wake lazy objects
    assert kept
    assert [one for one in kept if one.__traceback__ or one.__context__] == []


def test_a_refusal_knows_whom_the_api_server_vouched_for(
    make_authenticator: AuthenticatorFactory, fake_api: FakeAPI
) -> None:
    fake_api.pod = None
    with pytest.raises(PodGone) as raised:
        make_authenticator().authenticate(token(), PEER)
    assert (raised.value.service_account, raised.value.pod) == ("default/alice", "default/alice-pod")


@pytest.mark.trap(21)
def test_a_stolen_token_is_refused_from_elsewhere_though_its_caller_is_known(
    make_authenticator: AuthenticatorFactory,
) -> None:
    authenticator = make_authenticator()
    authenticator.authenticate(token(), PEER)
    with pytest.raises(WrongAddress) as raised:
        authenticator.get_cached(token(), ELSEWHERE)
    assert (raised.value.service_account, raised.value.pod) == ("default/alice", "default/alice-pod")
    assert authenticator.get_cached(token(), PEER)


@pytest.mark.trap(18)
def test_from_the_wrong_place_the_pod_is_read_once_more_a_second_at_the_most(
    make_authenticator: AuthenticatorFactory, fake_api: FakeAPI, time: Clock
) -> None:
    authenticator = make_authenticator()
    authenticator.authenticate(token(), PEER)
    for _ in range(5):
        with pytest.raises(WrongAddress):
            authenticator.get_cached(token(), ELSEWHERE)
        with pytest.raises(WrongAddress):
            authenticator.authenticate(token(), ELSEWHERE)
    assert fake_api.reads == 1
    time.passes(1)
    assert authenticator.get_cached(token(), ELSEWHERE) is None
    for _ in range(5):
        with pytest.raises(WrongAddress):
            authenticator.authenticate(token(), ELSEWHERE)
    assert (fake_api.reads, fake_api.reviews) == (2, 1)


@pytest.mark.trap(18)
def test_an_address_that_came_late_is_seen(
    make_authenticator: AuthenticatorFactory, fake_api: FakeAPI, time: Clock
) -> None:
    authenticator = make_authenticator()
    fake_api.pod = pod(status={"phase": "Pending", "podIP": None, "podIPs": None})
    for _ in range(5):
        with pytest.raises(NoAddressYet):
            authenticator.authenticate(token(), PEER)
        with pytest.raises(NoAddressYet):
            authenticator.get_cached(token(), PEER)
    assert fake_api.reads == 1
    fake_api.pod = pod()
    time.passes(1)
    assert authenticator.get_cached(token(), PEER) is None
    assert authenticator.authenticate(token(), PEER).pod.addresses == (PEER,)
    assert authenticator.get_cached(token(), PEER)
    assert fake_api.reviews == 1


@pytest.mark.trap(21)
def test_an_address_given_to_another_pod_does_not_carry_the_old_identity(
    make_authenticator: AuthenticatorFactory, fake_api: FakeAPI, time: Clock
) -> None:
    authenticator = make_authenticator()
    authenticator.authenticate(token(), PEER)
    fake_api.pod = pod(status={"podIP": ELSEWHERE, "podIPs": [{"ip": ELSEWHERE}]})
    time.passes(1)
    assert authenticator.authenticate(token(), ELSEWHERE)
    with pytest.raises(WrongAddress):
        authenticator.get_cached(token(), PEER)


@pytest.mark.trap(14, 17)
@pytest.mark.parametrize("then", [None, pod(metadata={"uid": "another"}), pod(status={"phase": "Succeeded"})])
def test_a_pod_found_gone_when_it_is_read_anew_is_forgotten(
    make_authenticator: AuthenticatorFactory, fake_api: FakeAPI, time: Clock, then: dict[str, object] | None
) -> None:
    authenticator = make_authenticator()
    authenticator.authenticate(token(), PEER)
    fake_api.pod = then
    time.passes(1)
    for peer in (ELSEWHERE, PEER):
        with pytest.raises(PodAuthError) as raised:
            authenticator.get_cached(token(), peer) or authenticator.authenticate(token(), peer)
        assert raised.value.status == 401


def test_an_api_server_away_when_a_pod_is_read_anew_loses_nobody(
    make_authenticator: AuthenticatorFactory, fake_api: FakeAPI, time: Clock
) -> None:
    authenticator = make_authenticator()
    authenticator.authenticate(token(), PEER)
    fake_api.pod = Unavailable("away")
    time.passes(1)
    with pytest.raises(Unavailable):
        authenticator.authenticate(token(), ELSEWHERE)
    assert authenticator.get_cached(token(), PEER)


def test_a_pod_read_anew_does_not_put_off_the_next_review(
    make_authenticator: AuthenticatorFactory, fake_api: FakeAPI, time: Clock
) -> None:
    authenticator = make_authenticator(cache_ttl=60)
    authenticator.authenticate(token(), PEER)
    for _ in range(59):
        time.passes(1)
        with pytest.raises(WrongAddress):
            authenticator.get_cached(token(), ELSEWHERE) or authenticator.authenticate(token(), ELSEWHERE)
    assert authenticator.get_cached(token(), PEER)
    time.passes(1)
    assert authenticator.get_cached(token(), PEER) is None
    assert (fake_api.reviews, fake_api.reads) == (1, 60)


@pytest.mark.trap(30)
@pytest.mark.parametrize(("lifetime", "remembered"), [(3600, 60), (30, 30)])
def test_an_acceptance_ends_after_its_time_and_with_the_token(
    make_authenticator: AuthenticatorFactory, time: Clock, lifetime: float, remembered: float
) -> None:
    authenticator, text = make_authenticator(cache_ttl=60), token(exp=NOW + lifetime)
    authenticator.authenticate(text, PEER)
    time.passes(remembered - 0.1)
    assert authenticator.get_cached(text, PEER)
    time.passes(0.1)
    assert authenticator.get_cached(text, PEER) is None


@pytest.mark.trap(48)
def test_a_token_expired_by_our_clock_is_for_the_api_server_to_judge(
    make_authenticator: AuthenticatorFactory, fake_api: FakeAPI
) -> None:
    authenticator, text = make_authenticator(), token(exp=NOW - 30)
    assert authenticator.authenticate(text, PEER)
    assert authenticator.get_cached(text, PEER) is None
    fake_api.review = review(authenticated=False)
    with pytest.raises(TokenReviewFailed):
        authenticator.authenticate(text, PEER)


@pytest.mark.trap(31)
@pytest.mark.parametrize(("lifetime", "left"), [(3600, 3600), (0.5, 0.5), (0, 60), (-30, 30)])
def test_a_caller_stays_connected_until_its_token_expires(
    make_authenticator: AuthenticatorFactory, lifetime: float, left: float
) -> None:
    authenticator = make_authenticator()
    result = authenticator.start(token(exp=NOW + lifetime), PEER).result(SECONDS)
    assert authenticator.check_peer(result, PEER).ends_at == NOW + left


@pytest.mark.trap(20)
def test_a_pod_on_the_host_network_is_refused_unless_asked_for(
    make_authenticator: AuthenticatorFactory, fake_api: FakeAPI
) -> None:
    fake_api.pod = pod(spec={"hostNetwork": True})
    authenticator = make_authenticator()
    for _ in range(2):
        with pytest.raises(HostNetwork):
            authenticator.get_cached(token(), PEER) or authenticator.authenticate(token(), PEER)
    assert make_authenticator(host_network=True).authenticate(token(), PEER).pod.host_network


def test_where_addresses_are_not_compared_a_token_is_enough(
    make_authenticator: AuthenticatorFactory, fake_api: FakeAPI
) -> None:
    fake_api.pod = pod(spec={"hostNetwork": True})
    authenticator = make_authenticator(source_address="off")
    assert authenticator.authenticate(token(), None)
    assert authenticator.get_cached(token(), None)


def test_who_is_not_on_the_list_is_refused(make_authenticator: AuthenticatorFactory) -> None:
    assert make_authenticator(allow=["default/al*"]).authenticate(token(), PEER)
    with pytest.raises(NotAllowed) as raised:
        make_authenticator(allow=["payments/*"]).authenticate(token(), PEER)
    assert raised.value.pod == "default/alice-pod"


@pytest.mark.parametrize("trouble", [Unavailable("away"), RuntimeError("s3cret"), KeyError("s3cret")])
def test_our_trouble_is_503_says_nothing_of_the_token_and_is_not_remembered(
    make_authenticator: AuthenticatorFactory, fake_api: FakeAPI, trouble: Exception
) -> None:
    authenticator = make_authenticator()
    fake_api.review = trouble
    with pytest.raises(Unavailable) as raised:
        authenticator.authenticate(token(), PEER)
    assert "s3cret" not in str(raised.value)
    assert authenticator.get_cached(token(), PEER) is None
    fake_api.review = review()
    assert authenticator.authenticate(token(), PEER)


@pytest.mark.trap(33)
def test_unforeseen_trouble_is_told_by_its_kind_and_place(
    make_authenticator: AuthenticatorFactory, fake_api: FakeAPI
) -> None:
    fake_api.review = ZeroDivisionError("s3cret")
    with pytest.raises(Unavailable, match=r"an unexpected ZeroDivisionError in review_token, line \d+$"):
        make_authenticator().authenticate(token(), PEER)


@pytest.mark.trap(27)
def test_who_gives_up_leaves_the_answer_for_the_others(
    make_authenticator: AuthenticatorFactory, fake_api: FakeAPI
) -> None:
    answer = threading.Event()
    fake_api.before = lambda: answer.wait(SECONDS)
    authenticator = make_authenticator(timeout=0.05)
    with pytest.raises(Unavailable, match=r"no response from the API server within 0\.05 s"):
        authenticator.authenticate(token(), PEER)
    others = authenticator.start(token(), PEER)
    answer.set()
    assert authenticator.check_peer(others.result(SECONDS), PEER)
    assert authenticator.get_cached(token(), PEER)
    assert fake_api.reviews == 1


@pytest.mark.trap(27)
def test_a_failure_is_shared_by_all_who_wait_for_it(
    make_authenticator: AuthenticatorFactory, fake_api: FakeAPI
) -> None:
    answer = threading.Event()
    fake_api.before = lambda: answer.wait(SECONDS)
    fake_api.review = Unavailable("away")
    authenticator = make_authenticator()
    waiting = [authenticator.start(token(), PEER) for _ in range(20)]
    answer.set()
    for flight in waiting:
        with pytest.raises(Unavailable):
            authenticator.check_peer(flight.result(SECONDS), PEER)
    assert fake_api.reviews == 1


def test_who_has_waited_too_long_in_the_queue_costs_the_api_server_nothing(
    make_authenticator: AuthenticatorFactory, fake_api: FakeAPI, time: Clock
) -> None:
    answer = threading.Event()
    fake_api.before = lambda: answer.wait(SECONDS)
    authenticator = make_authenticator(max_reviews=1, timeout=5)
    first, second = (
        authenticator.start(token(jti="1"), PEER),
        authenticator.start(token(jti="2"), PEER),
    )
    time.passes(5)
    answer.set()
    assert authenticator.check_peer(first.result(SECONDS), PEER)
    with pytest.raises(Unavailable, match="no thread was free"):
        authenticator.check_peer(second.result(SECONDS), PEER)
    assert fake_api.reviews == 1


@pytest.mark.trap(29)
def test_a_flood_of_forgeries_is_answered_with_503_and_known_callers_from_memory(
    make_authenticator: AuthenticatorFactory, fake_api: FakeAPI
) -> None:
    authenticator = make_authenticator(max_reviews=1)
    authenticator.authenticate(token(), PEER)
    answer = threading.Event()
    fake_api.before = lambda: answer.wait(SECONDS)
    waiting = [authenticator.start(token(jti=str(number)), PEER) for number in range(17)]
    with pytest.raises(Overloaded):
        authenticator.authenticate(token(jti="one too many"), PEER)
    assert authenticator.get_cached(token(), PEER)
    answer.set()
    for flight in waiting:
        flight.result(SECONDS)


def refuse_many(authenticator: Authenticator, fake_api: FakeAPI, many: int = MAX_REJECTIONS) -> None:
    """Have the API server refuse so many tokens that come from Alice's address."""
    vouching, fake_api.review = fake_api.review, review(authenticated=False)
    for number in range(many):
        with pytest.raises(TokenReviewFailed):
            authenticator.authenticate(token(jti=f"forged {number}"), PEER)
    fake_api.review = vouching


@pytest.mark.trap(29)
def test_where_much_was_refused_of_late_no_other_token_is_asked_about(
    make_authenticator: AuthenticatorFactory, fake_api: FakeAPI, time: Clock
) -> None:
    authenticator = make_authenticator(rejection_ttl=10)
    authenticator.authenticate(token(), PEER)
    refuse_many(authenticator, fake_api)
    time.passes(9.9)
    with pytest.raises(Overloaded, match=f"20 tokens from {PEER} were rejected"):
        authenticator.start(
            token(jti="new"), PEER, authenticator.monotonic() + 5
        )  # at once: it takes no place in the queue from anybody
    assert authenticator.get_cached(token(), PEER)
    assert fake_api.reviews == 1 + MAX_REJECTIONS
    time.passes(0.1)
    assert authenticator.authenticate(token(jti="new"), PEER)


@pytest.mark.trap(29)
def test_those_who_wait_while_much_is_refused_are_not_asked_about_either(
    make_authenticator: AuthenticatorFactory, fake_api: FakeAPI
) -> None:
    answer = threading.Event()
    fake_api.before = lambda: answer.wait(SECONDS)
    fake_api.review = review(authenticated=False)
    authenticator = make_authenticator(max_reviews=2)
    flights = [authenticator.start(token(jti=f"forged {number}"), PEER) for number in range(34)]
    answer.set()
    outcomes = [flight.result(SECONDS) for flight in flights]
    refused = sum(isinstance(outcome, TokenReviewFailed) for outcome in outcomes)
    assert refused in (MAX_REJECTIONS, MAX_REJECTIONS + 1)  # one more may be under way, two at a time
    assert all(isinstance(outcome, TokenReviewFailed | Overloaded) for outcome in outcomes)


@pytest.mark.trap(29)
def test_a_flood_of_forgeries_from_one_address_is_nobody_elses_trouble(
    make_authenticator: AuthenticatorFactory, fake_api: FakeAPI
) -> None:
    authenticator = make_authenticator()
    refuse_many(authenticator, fake_api)
    fake_api.pod = pod(status={"podIP": ELSEWHERE, "podIPs": [{"ip": ELSEWHERE}]})
    assert authenticator.authenticate(token(), ELSEWHERE)


def test_a_few_refused_tokens_keep_nobody_out(make_authenticator: AuthenticatorFactory, fake_api: FakeAPI) -> None:
    authenticator = make_authenticator()
    refuse_many(authenticator, fake_api, MAX_REJECTIONS - 1)
    assert authenticator.authenticate(token(), PEER)


def test_what_the_api_server_could_not_say_is_held_against_no_address(
    make_authenticator: AuthenticatorFactory, fake_api: FakeAPI
) -> None:
    authenticator = make_authenticator()
    fake_api.review = Unavailable("away")
    for number in range(2 * MAX_REJECTIONS):
        with pytest.raises(Unavailable, match="away"):
            authenticator.authenticate(token(jti=f"{number}"), PEER)
    fake_api.review = review()
    assert authenticator.authenticate(token(), PEER)


def test_where_addresses_are_not_compared_none_is_held_responsible(
    make_authenticator: AuthenticatorFactory, fake_api: FakeAPI
) -> None:
    authenticator = make_authenticator(source_address="off")
    fake_api.review = review(authenticated=False)
    for number in range(2 * MAX_REJECTIONS):
        with pytest.raises(TokenReviewFailed):
            authenticator.authenticate(token(jti=f"{number}"), None)


@pytest.mark.trap(28)
def test_refused_tokens_push_no_accepted_one_out(make_authenticator: AuthenticatorFactory, fake_api: FakeAPI) -> None:
    authenticator = make_authenticator(cache_size=2, rejection_size=2)
    authenticator.authenticate(token(), PEER)
    fake_api.review = review(authenticated=False)
    for number in range(20):
        with pytest.raises(TokenReviewFailed):
            authenticator.authenticate(token(jti=str(number)), PEER)
    assert authenticator.get_cached(token(), PEER)
    assert authenticator.get_cached(token(jti="0"), PEER) is None
    with pytest.raises(TokenReviewFailed):
        authenticator.get_cached(token(jti="19"), PEER)


def test_an_authenticator_can_be_closed_and_used_again(make_authenticator: AuthenticatorFactory) -> None:
    authenticator = make_authenticator()
    authenticator.close()
    assert authenticator.authenticate(token(), PEER)
    authenticator.close()
    assert authenticator.get_cached(token(), PEER) is None
    assert authenticator.authenticate(token(), PEER)


@pytest.mark.trap(33)
def test_nothing_is_logged_by_the_core_but_by_those_who_answer(
    make_authenticator: AuthenticatorFactory, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        make_authenticator().authenticate(token(), PEER)
    assert caplog.records == []
