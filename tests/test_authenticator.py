from __future__ import annotations

import gc
import logging
import threading

import pytest

from podproof.authenticator import MOST_REFUSALS, Authenticator
from podproof.errors import (
    HostNetwork,
    MalformedCredential,
    NoAddressYet,
    NotAllowed,
    OtherAudience,
    Overloaded,
    PodAuthError,
    PodGone,
    Rejected,
    Unavailable,
    WrongAddress,
)
from tests.answers import API, NOW, PEER, Clock, Door, pod, review, token

ELSEWHERE = "10.1.2.99"
SECONDS = 10  # that a test waits at the most for another thread


def test_a_caller_is_identified_and_then_remembered(door: Door, api: API) -> None:
    authenticator = door()
    assert authenticator.recall(token(), PEER) is None
    caller = authenticator.identify(token(), PEER)
    assert str(caller.service_account) == "default/alice"
    assert str(caller.pod) == "default/alice-pod"
    assert (caller.audience, caller.expires_at, caller.credential_id) == ("bob", NOW + 3600, "JTI=1")
    assert authenticator.recall(token(), PEER) is caller
    assert (api.reviews, api.reads) == (1, 1)


@pytest.mark.trap(29)
@pytest.mark.parametrize("text", ["junk", token(aud=["eve"]), token(exp=NOW - 61), token(**{"kubernetes.io": None})])
def test_what_can_never_be_accepted_costs_the_api_server_nothing(door: Door, api: API, text: str) -> None:
    authenticator = door()
    for _ in range(3):
        assert authenticator.recall(text, PEER) is None
        with pytest.raises(PodAuthError) as raised:
            authenticator.identify(text, PEER)
        assert raised.value.status == 401
    assert (api.reviews, api.reads) == (0, 0)


@pytest.mark.trap(1, 2)
def test_a_spelling_that_the_api_server_takes_for_a_known_token_is_neither_known_nor_asked_for(
    door: Door, api: API
) -> None:
    authenticator = door()
    authenticator.identify(token(), PEER)
    for spelling in (f" {token()}", f"{token()} ", f"{token()} junk", f"{token()}\xff"):
        assert authenticator.recall(spelling, PEER) is None
        with pytest.raises(MalformedCredential):
            authenticator.identify(spelling, PEER)
    assert (api.reviews, api.reads) == (1, 1)


@pytest.mark.trap(5)
def test_the_audience_is_ours_and_never_the_tokens(door: Door, api: API) -> None:
    api.review = review(audiences=["eve"])
    with pytest.raises(OtherAudience):
        door().identify(token(aud=["eve"]), PEER)
    with pytest.raises(Rejected):
        door().identify(token(aud=["eve", "bob"]), PEER)
    assert api.reviews == 1


@pytest.mark.trap(28)
def test_a_refused_token_is_remembered_for_a_while(door: Door, api: API, time: Clock) -> None:
    authenticator = door(rejection_ttl=10)
    api.review = review(authenticated=False)
    for _ in range(3):
        with pytest.raises(Rejected):
            authenticator.recall(token(), PEER) or authenticator.identify(token(), PEER)
    assert api.reviews == 1
    time.passes(10)
    api.review = review()
    assert authenticator.recall(token(), PEER) is None
    assert authenticator.identify(token(), PEER)


@pytest.mark.trap(33)
def test_a_remembered_refusal_holds_no_frame_that_has_the_token(door: Door, api: API) -> None:
    authenticator = door()
    api.review = review(authenticated=False)
    with pytest.raises(Rejected):
        authenticator.identify(token(), PEER)
    gc.collect()
    kept = [one for one in gc.get_objects() if type(one) is Rejected]  # isinstance would wake lazy objects
    assert kept
    assert [one for one in kept if one.__traceback__ or one.__context__] == []


def test_a_refusal_knows_whom_the_api_server_vouched_for(door: Door, api: API) -> None:
    api.pod = None
    with pytest.raises(PodGone) as raised:
        door().identify(token(), PEER)
    assert (raised.value.service_account, raised.value.pod) == ("default/alice", "default/alice-pod")


@pytest.mark.trap(21)
def test_a_stolen_token_is_refused_from_elsewhere_though_its_caller_is_known(door: Door) -> None:
    authenticator = door()
    authenticator.identify(token(), PEER)
    with pytest.raises(WrongAddress) as raised:
        authenticator.recall(token(), ELSEWHERE)
    assert (raised.value.service_account, raised.value.pod) == ("default/alice", "default/alice-pod")
    assert authenticator.recall(token(), PEER)


@pytest.mark.trap(18)
def test_from_the_wrong_place_the_pod_is_read_once_more_a_second_at_the_most(door: Door, api: API, time: Clock) -> None:
    authenticator = door()
    authenticator.identify(token(), PEER)
    for _ in range(5):
        with pytest.raises(WrongAddress):
            authenticator.recall(token(), ELSEWHERE)
        with pytest.raises(WrongAddress):
            authenticator.identify(token(), ELSEWHERE)
    assert api.reads == 1
    time.passes(1)
    assert authenticator.recall(token(), ELSEWHERE) is None
    for _ in range(5):
        with pytest.raises(WrongAddress):
            authenticator.identify(token(), ELSEWHERE)
    assert (api.reads, api.reviews) == (2, 1)


@pytest.mark.trap(18)
def test_an_address_that_came_late_is_seen(door: Door, api: API, time: Clock) -> None:
    authenticator = door()
    api.pod = pod(status={"phase": "Pending", "podIP": None, "podIPs": None})
    for _ in range(5):
        with pytest.raises(NoAddressYet):
            authenticator.identify(token(), PEER)
        with pytest.raises(NoAddressYet):
            authenticator.recall(token(), PEER)
    assert api.reads == 1
    api.pod = pod()
    time.passes(1)
    assert authenticator.recall(token(), PEER) is None
    assert authenticator.identify(token(), PEER).pod.addresses == (PEER,)
    assert authenticator.recall(token(), PEER)
    assert api.reviews == 1


@pytest.mark.trap(21)
def test_an_address_given_to_another_pod_does_not_carry_the_old_identity(door: Door, api: API, time: Clock) -> None:
    authenticator = door()
    authenticator.identify(token(), PEER)
    api.pod = pod(status={"podIP": ELSEWHERE, "podIPs": [{"ip": ELSEWHERE}]})
    time.passes(1)
    assert authenticator.identify(token(), ELSEWHERE)
    with pytest.raises(WrongAddress):
        authenticator.recall(token(), PEER)


@pytest.mark.trap(14, 17)
@pytest.mark.parametrize("then", [None, pod(metadata={"uid": "another"}), pod(status={"phase": "Succeeded"})])
def test_a_pod_found_gone_when_it_is_read_anew_is_forgotten(
    door: Door, api: API, time: Clock, then: dict[str, object] | None
) -> None:
    authenticator = door()
    authenticator.identify(token(), PEER)
    api.pod = then
    time.passes(1)
    for peer in (ELSEWHERE, PEER):
        with pytest.raises(PodAuthError) as raised:
            authenticator.recall(token(), peer) or authenticator.identify(token(), peer)
        assert raised.value.status == 401


def test_an_api_server_away_when_a_pod_is_read_anew_loses_nobody(door: Door, api: API, time: Clock) -> None:
    authenticator = door()
    authenticator.identify(token(), PEER)
    api.pod = Unavailable("away")
    time.passes(1)
    with pytest.raises(Unavailable):
        authenticator.identify(token(), ELSEWHERE)
    assert authenticator.recall(token(), PEER)


def test_a_pod_read_anew_does_not_put_off_the_next_review(door: Door, api: API, time: Clock) -> None:
    authenticator = door(cache_ttl=60)
    authenticator.identify(token(), PEER)
    for _ in range(59):
        time.passes(1)
        with pytest.raises(WrongAddress):
            authenticator.recall(token(), ELSEWHERE) or authenticator.identify(token(), ELSEWHERE)
    assert authenticator.recall(token(), PEER)
    time.passes(1)
    assert authenticator.recall(token(), PEER) is None
    assert (api.reviews, api.reads) == (1, 60)


@pytest.mark.trap(30)
@pytest.mark.parametrize(("lifetime", "remembered"), [(3600, 60), (30, 30)])
def test_an_acceptance_ends_after_its_time_and_with_the_token(
    door: Door, time: Clock, lifetime: float, remembered: float
) -> None:
    authenticator, text = door(cache_ttl=60), token(exp=NOW + lifetime)
    authenticator.identify(text, PEER)
    time.passes(remembered - 0.1)
    assert authenticator.recall(text, PEER)
    time.passes(0.1)
    assert authenticator.recall(text, PEER) is None


@pytest.mark.trap(48)
def test_a_token_expired_by_our_clock_is_for_the_api_server_to_judge(door: Door, api: API) -> None:
    authenticator, text = door(), token(exp=NOW - 30)
    assert authenticator.identify(text, PEER)
    assert authenticator.recall(text, PEER) is None
    api.review = review(authenticated=False)
    with pytest.raises(Rejected):
        authenticator.identify(text, PEER)


@pytest.mark.trap(31)
@pytest.mark.parametrize(("lifetime", "left"), [(3600, 3600), (0.5, 0.5), (0, 60), (-30, 30)])
def test_a_caller_stays_connected_until_its_token_expires(door: Door, lifetime: float, left: float) -> None:
    authenticator = door()
    assert authenticator.seconds_left(authenticator.identify(token(exp=NOW + lifetime), PEER)) == left


@pytest.mark.trap(20)
def test_a_pod_on_the_host_network_is_refused_unless_asked_for(door: Door, api: API) -> None:
    api.pod = pod(spec={"hostNetwork": True})
    authenticator = door()
    for _ in range(2):
        with pytest.raises(HostNetwork):
            authenticator.recall(token(), PEER) or authenticator.identify(token(), PEER)
    assert door(host_network=True).identify(token(), PEER).pod.host_network


def test_where_addresses_are_not_compared_a_token_is_enough(door: Door, api: API) -> None:
    api.pod = pod(spec={"hostNetwork": True})
    authenticator = door(source_address="off")
    assert authenticator.identify(token(), None)
    assert authenticator.recall(token(), None)


def test_who_is_not_on_the_list_is_refused(door: Door) -> None:
    assert door(allow=["default/al*"]).identify(token(), PEER)
    with pytest.raises(NotAllowed) as raised:
        door(allow=["payments/*"]).identify(token(), PEER)
    assert raised.value.pod == "default/alice-pod"


@pytest.mark.parametrize("trouble", [Unavailable("away"), RuntimeError("s3cret"), KeyError("s3cret")])
def test_our_trouble_is_503_says_nothing_of_the_token_and_is_not_remembered(
    door: Door, api: API, trouble: Exception
) -> None:
    authenticator = door()
    api.review = trouble
    with pytest.raises(Unavailable) as raised:
        authenticator.identify(token(), PEER)
    assert "s3cret" not in str(raised.value)
    assert authenticator.recall(token(), PEER) is None
    api.review = review()
    assert authenticator.identify(token(), PEER)


@pytest.mark.trap(33)
def test_unforeseen_trouble_is_told_by_its_kind_and_place(door: Door, api: API) -> None:
    api.review = ZeroDivisionError("s3cret")
    with pytest.raises(Unavailable, match=r"an unexpected ZeroDivisionError in review_token, line \d+$"):
        door().identify(token(), PEER)


@pytest.mark.trap(27)
def test_who_gives_up_leaves_the_answer_for_the_others(door: Door, api: API) -> None:
    answer = threading.Event()
    api.before = lambda: answer.wait(SECONDS)
    authenticator = door(timeout=0.05)
    with pytest.raises(Unavailable, match=r"no answer within 0\.05 s"):
        authenticator.identify(token(), PEER)
    others = authenticator.ask(token(), PEER)
    answer.set()
    assert authenticator.conclude(others.result(SECONDS), PEER)
    assert authenticator.recall(token(), PEER)
    assert api.reviews == 1


@pytest.mark.trap(27)
def test_a_failure_is_shared_by_all_who_wait_for_it(door: Door, api: API) -> None:
    answer = threading.Event()
    api.before = lambda: answer.wait(SECONDS)
    api.review = Unavailable("away")
    authenticator = door()
    waiting = [authenticator.ask(token(), PEER) for _ in range(20)]
    answer.set()
    for flight in waiting:
        with pytest.raises(Unavailable):
            authenticator.conclude(flight.result(SECONDS), PEER)
    assert api.reviews == 1


def test_who_has_waited_too_long_in_the_queue_costs_the_api_server_nothing(door: Door, api: API, time: Clock) -> None:
    answer = threading.Event()
    api.before = lambda: answer.wait(SECONDS)
    authenticator = door(max_reviews=1, timeout=5)
    first, second = authenticator.ask(token(jti="1"), PEER), authenticator.ask(token(jti="2"), PEER)
    time.passes(5)
    answer.set()
    assert authenticator.conclude(first.result(SECONDS), PEER)
    with pytest.raises(Unavailable, match="no answer within 5 s"):
        authenticator.conclude(second.result(SECONDS), PEER)
    assert api.reviews == 1


@pytest.mark.trap(29)
def test_a_flood_of_forgeries_is_answered_with_503_and_known_callers_from_memory(door: Door, api: API) -> None:
    authenticator = door(max_reviews=1)
    authenticator.identify(token(), PEER)
    answer = threading.Event()
    api.before = lambda: answer.wait(SECONDS)
    waiting = [authenticator.ask(token(jti=str(number)), PEER) for number in range(17)]
    with pytest.raises(Overloaded):
        authenticator.identify(token(jti="one too many"), PEER)
    assert authenticator.recall(token(), PEER)
    answer.set()
    for flight in waiting:
        flight.result(SECONDS)


def refuse_many(authenticator: Authenticator, api: API, many: int = MOST_REFUSALS) -> None:
    """Have the API server refuse so many tokens that come from Alice's address."""
    vouching, api.review = api.review, review(authenticated=False)
    for number in range(many):
        with pytest.raises(Rejected):
            authenticator.identify(token(jti=f"forged {number}"), PEER)
    api.review = vouching


@pytest.mark.trap(29)
def test_where_much_was_refused_of_late_no_other_token_is_asked_about(door: Door, api: API, time: Clock) -> None:
    authenticator = door(rejection_ttl=10)
    authenticator.identify(token(), PEER)
    refuse_many(authenticator, api)
    time.passes(9.9)
    with pytest.raises(Overloaded, match=f"20 tokens from {PEER} were refused"):
        authenticator.ask(token(jti="new"), PEER)  # at once: it takes no place in the queue from anybody
    assert authenticator.recall(token(), PEER)
    assert api.reviews == 1 + MOST_REFUSALS
    time.passes(0.1)
    assert authenticator.identify(token(jti="new"), PEER)


@pytest.mark.trap(29)
def test_those_who_wait_while_much_is_refused_are_not_asked_about_either(door: Door, api: API) -> None:
    answer = threading.Event()
    api.before = lambda: answer.wait(SECONDS)
    api.review = review(authenticated=False)
    authenticator = door(max_reviews=2)
    flights = [authenticator.ask(token(jti=f"forged {number}"), PEER) for number in range(34)]
    answer.set()
    outcomes = [flight.result(SECONDS) for flight in flights]
    refused = sum(isinstance(outcome, Rejected) for outcome in outcomes)
    assert refused in (MOST_REFUSALS, MOST_REFUSALS + 1)  # one more may be under way, two at a time
    assert all(isinstance(outcome, Rejected | Overloaded) for outcome in outcomes)


@pytest.mark.trap(29)
def test_a_flood_of_forgeries_from_one_address_is_nobody_elses_trouble(door: Door, api: API) -> None:
    authenticator = door()
    refuse_many(authenticator, api)
    api.pod = pod(status={"podIP": ELSEWHERE, "podIPs": [{"ip": ELSEWHERE}]})
    assert authenticator.identify(token(), ELSEWHERE)


def test_a_few_refused_tokens_keep_nobody_out(door: Door, api: API) -> None:
    authenticator = door()
    refuse_many(authenticator, api, MOST_REFUSALS - 1)
    assert authenticator.identify(token(), PEER)


def test_what_the_api_server_could_not_say_is_held_against_no_address(door: Door, api: API) -> None:
    authenticator = door()
    api.review = Unavailable("away")
    for number in range(2 * MOST_REFUSALS):
        with pytest.raises(Unavailable, match="away"):
            authenticator.identify(token(jti=f"{number}"), PEER)
    api.review = review()
    assert authenticator.identify(token(), PEER)


def test_where_addresses_are_not_compared_none_is_held_responsible(door: Door, api: API) -> None:
    authenticator = door(source_address="off")
    api.review = review(authenticated=False)
    for number in range(2 * MOST_REFUSALS):
        with pytest.raises(Rejected):
            authenticator.identify(token(jti=f"{number}"), None)


@pytest.mark.trap(28)
def test_refused_tokens_push_no_accepted_one_out(door: Door, api: API) -> None:
    authenticator = door(cache_size=2, rejection_size=2)
    authenticator.identify(token(), PEER)
    api.review = review(authenticated=False)
    for number in range(20):
        with pytest.raises(Rejected):
            authenticator.identify(token(jti=str(number)), PEER)
    assert authenticator.recall(token(), PEER)
    assert authenticator.recall(token(jti="0"), PEER) is None
    with pytest.raises(Rejected):
        authenticator.recall(token(jti="19"), PEER)


def test_an_authenticator_can_be_closed_and_used_again(door: Door) -> None:
    authenticator = door()
    authenticator.close()
    assert authenticator.identify(token(), PEER)
    authenticator.close()
    assert authenticator.recall(token(), PEER) is None
    assert authenticator.identify(token(), PEER)


@pytest.mark.trap(33)
def test_nothing_is_logged_by_the_core_but_by_those_who_answer(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        door().identify(token(), PEER)
    assert caplog.records == []
