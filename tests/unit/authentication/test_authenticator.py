from __future__ import annotations

import gc
import logging
import threading

import pytest

from podproof._authentication.authenticator import MAX_REJECTIONS, REJECTION_WINDOW, WITHOUT_ADDRESSES, Authenticator
from podproof._cache.review_threads import MAX_PENDING_PER_THREAD
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
from tests.support.modes import AUTO, LOOKING_UP, MODES, REVIEWING, Mode

ELSEWHERE = "10.1.2.99"
pytestmark = pytest.mark.modes(*MODES)

SECONDS = 10  # that a test waits at most for another thread


def test_an_authenticated_caller_is_cached(
    make_authenticator: AuthenticatorFactory, fake_api: FakeAPI, mode: Mode
) -> None:
    authenticator = make_authenticator()
    assert authenticator.get_cached(token(jti="1"), PEER) is None
    caller = authenticator.authenticate(token(jti="1"), PEER)
    assert str(caller.service_account) == "default/alice"
    assert str(caller.pod) == "default/alice-pod"
    assert (caller.audience, caller.expires_at, caller.credential_id) == ("bob", NOW + 3600, "JTI=1")
    cached = authenticator.get_cached(token(jti="1"), PEER)
    assert cached is not None
    assert cached.identity is caller
    assert (fake_api.reviews, fake_api.reads) == mode.calls(1, 1)


@pytest.mark.trap(29)
@pytest.mark.parametrize("text", ["junk", token(aud=["eve"]), token(exp=NOW - 61), token(**{"kubernetes.io": None})])
def test_a_token_that_could_never_be_accepted_costs_no_api_call(
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
def test_another_spelling_of_a_cached_token_is_denied_without_an_api_call(
    make_authenticator: AuthenticatorFactory, fake_api: FakeAPI, mode: Mode
) -> None:
    authenticator = make_authenticator()
    authenticator.authenticate(token(), PEER)
    for spelling in (f" {token()}", f"{token()} ", f"{token()} junk", f"{token()}\xff"):
        assert authenticator.get_cached(spelling, PEER) is None
        with pytest.raises(MalformedCredential):
            authenticator.authenticate(spelling, PEER)
    assert (fake_api.reviews, fake_api.reads) == mode.calls(1, 1)


@pytest.mark.modes(*REVIEWING)
@pytest.mark.trap(5)
def test_the_reviewed_audiences_are_ours_not_the_tokens(
    make_authenticator: AuthenticatorFactory, fake_api: FakeAPI
) -> None:
    fake_api.review = review(audiences=["eve"])
    with pytest.raises(WrongAudience):
        make_authenticator().authenticate(token(aud=["eve"]), PEER)
    with pytest.raises(TokenReviewFailed):
        make_authenticator().authenticate(token(aud=["eve", "bob"]), PEER)
    assert fake_api.reviews == 1


@pytest.mark.modes(*REVIEWING)
@pytest.mark.trap(28)
def test_a_rejected_token_is_cached_for_rejection_ttl(
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


@pytest.mark.modes(*REVIEWING)
@pytest.mark.trap(33)
def test_a_cached_denial_keeps_no_frame_that_has_the_token(
    make_authenticator: AuthenticatorFactory, fake_api: FakeAPI
) -> None:
    authenticator = make_authenticator()
    fake_api.review = review(authenticated=False)
    with pytest.raises(TokenReviewFailed):
        authenticator.authenticate(token(), PEER)
    gc.collect()
    cached = [one for one in gc.get_objects() if type(one) is TokenReviewFailed]  # isinstance would wake lazy objects
    assert cached
    assert [one for one in cached if one.__traceback__ or one.__context__] == []


def test_a_denial_names_the_authenticated_service_account_and_pod(
    make_authenticator: AuthenticatorFactory, fake_api: FakeAPI
) -> None:
    fake_api.pod = None
    with pytest.raises(PodGone) as raised:
        make_authenticator().authenticate(token(), PEER)
    assert (raised.value.service_account, raised.value.pod) == ("default/alice", "default/alice-pod")


@pytest.mark.trap(21)
def test_a_stolen_token_is_denied_from_another_address_while_its_caller_is_cached(
    make_authenticator: AuthenticatorFactory,
) -> None:
    authenticator = make_authenticator()
    authenticator.authenticate(token(), PEER)
    with pytest.raises(WrongAddress) as raised:
        authenticator.get_cached(token(), ELSEWHERE)
    assert (raised.value.service_account, raised.value.pod) == ("default/alice", "default/alice-pod")
    assert authenticator.get_cached(token(), PEER)


@pytest.mark.trap(18)
def test_requests_from_a_wrong_address_read_the_pod_at_most_once_per_second(
    make_authenticator: AuthenticatorFactory, fake_api: FakeAPI, time: Clock, mode: Mode
) -> None:
    authenticator = make_authenticator()
    authenticator.authenticate(token(), PEER)
    for _ in range(5):
        with pytest.raises(WrongAddress):
            authenticator.get_cached(token(), ELSEWHERE)
        with pytest.raises(WrongAddress):
            authenticator.authenticate(token(), ELSEWHERE)
    assert fake_api.reads == mode.calls(0, 1)[1]
    time.passes(1)
    assert authenticator.get_cached(token(), ELSEWHERE) is None
    for _ in range(5):
        with pytest.raises(WrongAddress):
            authenticator.authenticate(token(), ELSEWHERE)
    assert (fake_api.reviews, fake_api.reads) == mode.calls(1, 2)


@pytest.mark.modes(*LOOKING_UP)  # a watch says so at once: test_pod_view.py
@pytest.mark.trap(18)
def test_an_address_that_the_pod_got_later_is_accepted(
    make_authenticator: AuthenticatorFactory, fake_api: FakeAPI, time: Clock, mode: Mode
) -> None:
    authenticator = make_authenticator()
    fake_api.pod = pod(status={"phase": "Pending", "podIP": None, "podIPs": None})
    for _ in range(5):
        with pytest.raises(NoAddressYet):
            authenticator.authenticate(token(), PEER)
        with pytest.raises(NoAddressYet):
            authenticator.get_cached(token(), PEER)
    assert fake_api.reads == mode.calls(0, 1)[1]
    fake_api.pod = pod()
    time.passes(1)
    assert authenticator.get_cached(token(), PEER) is None
    assert authenticator.authenticate(token(), PEER).pod.addresses == (PEER,)
    assert authenticator.get_cached(token(), PEER)
    assert fake_api.reviews == mode.calls(1, 0)[0]


@pytest.mark.trap(21)
def test_an_address_that_the_pod_no_longer_has_is_denied(
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
def test_a_pod_that_is_gone_at_a_second_read_is_removed_from_the_cache(
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


@pytest.mark.modes(*LOOKING_UP)  # a view is not read from the API server
def test_an_api_server_failure_at_a_second_read_keeps_the_cached_caller(
    make_authenticator: AuthenticatorFactory, fake_api: FakeAPI, time: Clock
) -> None:
    authenticator = make_authenticator()
    authenticator.authenticate(token(), PEER)
    fake_api.pod = Unavailable("away")
    time.passes(1)
    with pytest.raises(Unavailable):
        authenticator.authenticate(token(), ELSEWHERE)
    assert authenticator.get_cached(token(), PEER)


@pytest.mark.modes(*REVIEWING, Mode("keys", "lookup"))  # by keys and a view, the token is verified with each read
def test_a_second_read_of_a_pod_does_not_delay_the_next_review(
    make_authenticator: AuthenticatorFactory, fake_api: FakeAPI, time: Clock, mode: Mode
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
    assert (fake_api.reviews, fake_api.reads) == mode.calls(1, 60)


@pytest.mark.trap(30)
@pytest.mark.parametrize(("lifetime", "cached_for"), [(3600, 60), (30, 30)])
def test_a_caller_is_cached_for_cache_ttl_and_never_beyond_its_token(
    make_authenticator: AuthenticatorFactory, time: Clock, lifetime: float, cached_for: float
) -> None:
    authenticator, text = make_authenticator(cache_ttl=60), token(exp=NOW + lifetime)
    authenticator.authenticate(text, PEER)
    time.passes(cached_for - 0.1)
    assert authenticator.get_cached(text, PEER)
    time.passes(0.1)
    assert authenticator.get_cached(text, PEER) is None


@pytest.mark.modes(*REVIEWING)
@pytest.mark.trap(48)
def test_a_token_expired_within_the_clock_skew_is_reviewed(
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
def test_a_pod_on_the_host_network_is_denied_unless_the_option_accepts_it(
    make_authenticator: AuthenticatorFactory, fake_api: FakeAPI
) -> None:
    fake_api.pod = pod(spec={"hostNetwork": True})
    authenticator = make_authenticator()
    for _ in range(2):
        with pytest.raises(HostNetwork):
            authenticator.get_cached(token(), PEER) or authenticator.authenticate(token(), PEER)
    assert make_authenticator(host_network=True).authenticate(token(), PEER).pod.host_network


def test_with_source_address_off_a_token_is_enough(make_authenticator: AuthenticatorFactory, fake_api: FakeAPI) -> None:
    fake_api.pod = pod(spec={"hostNetwork": True})
    authenticator = make_authenticator(source_address="off")
    assert authenticator.authenticate(token(), None)
    assert authenticator.get_cached(token(), None)


def test_a_service_account_that_is_not_on_the_allow_list_is_denied(make_authenticator: AuthenticatorFactory) -> None:
    assert make_authenticator(allow=["default/al*"]).authenticate(token(), PEER)
    with pytest.raises(NotAllowed) as raised:
        make_authenticator(allow=["payments/*"]).authenticate(token(), PEER)
    assert raised.value.pod == "default/alice-pod"


@pytest.mark.modes(*REVIEWING)
@pytest.mark.parametrize("failure", [Unavailable("away"), RuntimeError("s3cret"), KeyError("s3cret")])
def test_an_api_server_failure_is_503_without_token_text_and_is_not_cached(
    make_authenticator: AuthenticatorFactory, fake_api: FakeAPI, failure: Exception
) -> None:
    authenticator = make_authenticator()
    fake_api.review = failure
    with pytest.raises(Unavailable) as raised:
        authenticator.authenticate(token(), PEER)
    assert "s3cret" not in str(raised.value)
    assert authenticator.get_cached(token(), PEER) is None
    fake_api.review = review()
    assert authenticator.authenticate(token(), PEER)


@pytest.mark.modes(*REVIEWING)
@pytest.mark.trap(33)
def test_an_unexpected_exception_is_named_by_its_class_and_line(
    make_authenticator: AuthenticatorFactory, fake_api: FakeAPI
) -> None:
    fake_api.review = ZeroDivisionError("s3cret")
    with pytest.raises(Unavailable, match=r"an unexpected ZeroDivisionError in review_token, line \d+$"):
        make_authenticator().authenticate(token(), PEER)


@pytest.mark.modes(*REVIEWING)
@pytest.mark.trap(27)
def test_a_request_that_times_out_leaves_the_review_to_the_others(
    make_authenticator: AuthenticatorFactory, fake_api: FakeAPI
) -> None:
    may_respond = threading.Event()
    fake_api.before = lambda: may_respond.wait(SECONDS)
    authenticator = make_authenticator(timeout=0.05)
    with pytest.raises(Unavailable, match=r"no response within 0\.05 s"):
        authenticator.authenticate(token(), PEER)
    other = authenticator.start(token(), PEER)
    may_respond.set()
    assert authenticator.check_peer(other.result(SECONDS), PEER)
    assert authenticator.get_cached(token(), PEER)
    assert fake_api.reviews == 1


@pytest.mark.modes(*REVIEWING)
@pytest.mark.trap(27)
def test_a_failure_is_shared_by_all_that_wait_for_it(
    make_authenticator: AuthenticatorFactory, fake_api: FakeAPI
) -> None:
    may_respond = threading.Event()
    fake_api.before = lambda: may_respond.wait(SECONDS)
    fake_api.review = Unavailable("away")
    authenticator = make_authenticator()
    waiting = [authenticator.start(token(), PEER) for _ in range(20)]
    may_respond.set()
    for future in waiting:
        with pytest.raises(Unavailable):
            authenticator.check_peer(future.result(SECONDS), PEER)
    assert fake_api.reviews == 1


@pytest.mark.modes(*REVIEWING)
def test_a_review_still_queued_at_its_deadline_costs_no_api_call(
    make_authenticator: AuthenticatorFactory, fake_api: FakeAPI, time: Clock
) -> None:
    asked, may_respond = threading.Event(), threading.Event()

    def before() -> None:
        asked.set()
        may_respond.wait(SECONDS)

    fake_api.before = before
    authenticator = make_authenticator(max_reviews=1, timeout=5)
    first, second = (
        authenticator.start(token(jti="1"), PEER),
        authenticator.start(token(jti="2"), PEER),
    )
    assert asked.wait(SECONDS)
    time.passes(5)
    may_respond.set()
    assert authenticator.check_peer(first.result(SECONDS), PEER)
    with pytest.raises(Unavailable, match="no thread was free"):
        authenticator.check_peer(second.result(SECONDS), PEER)
    assert fake_api.reviews == 1


@pytest.mark.modes(*REVIEWING)
@pytest.mark.trap(29)
def test_in_a_flood_of_forgeries_unknown_tokens_are_503_and_cached_callers_are_served(
    make_authenticator: AuthenticatorFactory, fake_api: FakeAPI
) -> None:
    authenticator = make_authenticator(max_reviews=1)
    authenticator.authenticate(token(), PEER)
    may_respond = threading.Event()
    fake_api.before = lambda: may_respond.wait(SECONDS)
    waiting = [authenticator.start(token(jti=str(number)), PEER) for number in range(MAX_PENDING_PER_THREAD // 2)]
    with pytest.raises(Overloaded):
        authenticator.authenticate(token(jti="one too many"), PEER)
    assert authenticator.get_cached(token(), PEER)
    may_respond.set()
    for future in waiting:
        future.result(SECONDS)


def reject_many(authenticator: Authenticator, fake_api: FakeAPI, many: int = MAX_REJECTIONS) -> None:
    """Have the API server reject so many tokens from Alice's address."""
    review_before, fake_api.review = fake_api.review, review(authenticated=False)
    for number in range(many):
        with pytest.raises(TokenReviewFailed):
            authenticator.authenticate(token(jti=f"forged {number}"), PEER)
    fake_api.review = review_before


@pytest.mark.modes(*REVIEWING)
@pytest.mark.trap(29, 58)
@pytest.mark.parametrize("rejection_ttl", [0, 1, 10, 60])
def test_after_20_rejected_tokens_from_an_address_no_other_token_from_there_is_reviewed(
    make_authenticator: AuthenticatorFactory, fake_api: FakeAPI, time: Clock, rejection_ttl: float
) -> None:
    authenticator = make_authenticator(rejection_ttl=rejection_ttl)
    authenticator.authenticate(token(), PEER)
    reject_many(authenticator, fake_api)
    time.passes(REJECTION_WINDOW - 0.1)
    with pytest.raises(Overloaded, match=f"20 tokens from {PEER} were rejected"):
        authenticator.start(token(jti="new"), PEER, authenticator.monotonic() + 5)  # at once, not in the queue
    assert authenticator.get_cached(token(), PEER)
    assert fake_api.reviews == 1 + MAX_REJECTIONS
    time.passes(0.1)
    assert authenticator.authenticate(token(jti="new"), PEER)


@pytest.mark.modes(*REVIEWING)
@pytest.mark.trap(29)
def test_tokens_already_queued_when_the_limit_is_reached_are_not_reviewed(
    make_authenticator: AuthenticatorFactory, fake_api: FakeAPI
) -> None:
    may_respond = threading.Event()
    fake_api.before = lambda: may_respond.wait(SECONDS)
    fake_api.review = review(authenticated=False)
    authenticator = make_authenticator(max_reviews=2)
    futures = [authenticator.start(token(jti=f"forged {number}"), PEER) for number in range(34)]
    may_respond.set()
    results = [future.result(SECONDS) for future in futures]
    rejected = sum(isinstance(result, TokenReviewFailed) for result in results)
    assert rejected in (MAX_REJECTIONS, MAX_REJECTIONS + 1)  # one more may be under way, two at a time
    assert all(isinstance(result, TokenReviewFailed | Overloaded) for result in results)


@pytest.mark.modes(*REVIEWING)
@pytest.mark.trap(29)
def test_rejected_tokens_from_one_address_do_not_affect_other_addresses(
    make_authenticator: AuthenticatorFactory, fake_api: FakeAPI
) -> None:
    authenticator = make_authenticator()
    reject_many(authenticator, fake_api)
    fake_api.pod = pod(status={"podIP": ELSEWHERE, "podIPs": [{"ip": ELSEWHERE}]})
    assert authenticator.authenticate(token(), ELSEWHERE)


@pytest.mark.modes(*REVIEWING)
def test_fewer_than_20_rejected_tokens_do_not_limit_an_address(
    make_authenticator: AuthenticatorFactory, fake_api: FakeAPI
) -> None:
    authenticator = make_authenticator()
    reject_many(authenticator, fake_api, MAX_REJECTIONS - 1)
    assert authenticator.authenticate(token(), PEER)


@pytest.mark.modes(*REVIEWING)
def test_api_server_failures_do_not_count_as_rejected_tokens(
    make_authenticator: AuthenticatorFactory, fake_api: FakeAPI
) -> None:
    authenticator = make_authenticator()
    fake_api.review = Unavailable("away")
    for number in range(2 * MAX_REJECTIONS):
        with pytest.raises(Unavailable, match="away"):
            authenticator.authenticate(token(jti=f"{number}"), PEER)
    fake_api.review = review()
    assert authenticator.authenticate(token(), PEER)


@pytest.mark.modes(*REVIEWING)
@pytest.mark.trap(58)
def test_where_addresses_are_not_compared_rejections_are_counted_for_all_together(
    make_authenticator: AuthenticatorFactory, fake_api: FakeAPI, time: Clock
) -> None:
    authenticator = make_authenticator(source_address="off")
    vouching, fake_api.review = fake_api.review, review(authenticated=False)
    for number in range(WITHOUT_ADDRESSES * MAX_REJECTIONS):
        with pytest.raises(TokenReviewFailed):
            authenticator.authenticate(token(jti=f"{number}"), None)
    for number in range(200):
        with pytest.raises(Overloaded, match="100 tokens from all callers were rejected"):
            authenticator.authenticate(token(jti=f"further {number}"), None)
    assert fake_api.reviews == WITHOUT_ADDRESSES * MAX_REJECTIONS
    time.passes(REJECTION_WINDOW)
    fake_api.review = vouching
    assert authenticator.authenticate(token(), None)


@pytest.mark.modes(*REVIEWING)
@pytest.mark.trap(58)
def test_rejections_of_an_ipv6_network_are_counted_together(
    make_authenticator: AuthenticatorFactory, fake_api: FakeAPI
) -> None:
    authenticator = make_authenticator()
    fake_api.review = review(authenticated=False)
    for number in range(MAX_REJECTIONS):
        with pytest.raises(TokenReviewFailed):
            authenticator.authenticate(token(jti=f"{number}"), f"fd00:0:0:1::{number:x}")
    with pytest.raises(Overloaded, match="20 tokens from fd00:0:0:1::/64 were rejected"):
        authenticator.authenticate(token(jti="another"), "fd00:0:0:1:ffff::1")
    with pytest.raises(TokenReviewFailed):
        authenticator.authenticate(token(jti="elsewhere"), "fd00:0:0:2::1")


@pytest.mark.modes(*REVIEWING)
@pytest.mark.trap(28)
def test_rejected_tokens_do_not_evict_accepted_ones(
    make_authenticator: AuthenticatorFactory, fake_api: FakeAPI
) -> None:
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


@pytest.mark.modes(*REVIEWING)  # by keys it is, which costs no call
def test_a_caller_that_was_cached_meanwhile_is_not_reviewed_again(
    make_authenticator: AuthenticatorFactory, fake_api: FakeAPI, mode: Mode
) -> None:
    authenticator = make_authenticator()
    alice = authenticator.authenticate(token(), PEER)
    result = authenticator.start(token(), PEER).result(SECONDS)
    assert authenticator.check_peer(result, PEER).identity is alice
    assert (fake_api.reviews, fake_api.reads) == mode.calls(1, 1)


@pytest.mark.trap(1)
def test_a_token_that_no_header_can_hold_is_denied(make_authenticator: AuthenticatorFactory) -> None:
    with pytest.raises(MalformedCredential, match="no header can hold"):
        make_authenticator().authenticate("\u20ac", PEER)


@pytest.mark.trap(33)
def test_an_authenticator_logs_nothing_itself_but_which_mode_it_has_taken(
    make_authenticator: AuthenticatorFactory, mode: Mode, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        make_authenticator().authenticate(token(), PEER)
    taken = ["tokens are verified by the signing keys of their issuer"] if mode == AUTO else []
    assert caplog.messages == taken
