"""While the API server is away: who is known stays, for `max_outage`, and nobody else comes in. In each mode."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
from prometheus_client import REGISTRY

from podproof._authentication.cached_identity import CachedIdentity
from podproof._authentication.jwk import SigningKey
from podproof._authentication.outage import PATIENCE, RETRY_INTERVAL
from podproof._authentication.pod_view import ALL_NAMESPACES
from podproof._authentication.pods import read_record
from podproof.errors import InvalidToken, NotAllowed, PodGone, Unavailable, WrongAddress
from podproof.testing import Cluster
from tests.support.fake_api import NOW, PEER, Clock, pod
from tests.support.middleware_client import MiddlewareClient
from tests.support.modes import MODES, ModeEnv
from tests.unit.authentication.test_modes import Make, make  # noqa: F401  a fixture

ELSEWHERE = "10.1.2.99"
KEYS = [("keys", "lookup"), ("keys", "watch")]

MakeEnv = Callable[..., ModeEnv]


@pytest.fixture(params=MODES, ids="-".join)
def mode(request: pytest.FixtureRequest) -> tuple[str, str]:
    return cast("tuple[str, str]", request.param)


@pytest.fixture
def make_env(mode: tuple[str, str], time: Clock) -> Iterator[MakeEnv]:
    made: list[ModeEnv] = []

    def make_one(**given: object) -> ModeEnv:
        made.append(ModeEnv(*mode, time, given))
        return made[-1]

    yield make_one
    for env in made:
        env.authenticator.close()


def test_a_known_caller_stays_for_max_outage_and_no_longer(make_env: MakeEnv) -> None:
    env = make_env()
    token = env.token()
    env.authenticator.authenticate(token, PEER)
    env.go_away()
    for _ in range(89):
        env.passes(10)
        assert env.authenticator.authenticate(token, PEER).display_name == "default/alice"
    env.passes(11)
    with pytest.raises(Unavailable, match="away"):
        env.authenticator.authenticate(token, PEER)


def test_a_known_caller_stays_no_longer_than_its_token(make_env: MakeEnv) -> None:
    env = make_env()
    token = env.token(exp=NOW + 300)
    env.authenticator.authenticate(token, PEER)
    env.go_away()
    env.passes(299)
    assert env.authenticator.authenticate(token, PEER)
    env.passes(1)
    with pytest.raises(Unavailable):
        env.authenticator.authenticate(token, PEER)


def test_with_max_outage_0_a_known_caller_ends_when_it_is_due(make_env: MakeEnv) -> None:
    env = make_env(max_outage=0)
    token = env.token()
    env.authenticator.authenticate(token, PEER)
    env.go_away()
    env.passes(121)
    with pytest.raises(Unavailable):
        env.authenticator.authenticate(token, PEER)


def test_an_unknown_caller_is_503(make_env: MakeEnv) -> None:
    env = make_env()
    env.authenticator.authenticate(env.token(), PEER)
    env.go_away()
    env.passes(121)
    other = {"namespace": "default", "serviceaccount": {"name": "alice", "uid": "account-uid"}}
    token = env.token(**{"kubernetes.io": other | {"pod": {"name": "new-pod", "uid": "new"}}})
    with pytest.raises(Unavailable):
        env.authenticator.authenticate(token, PEER)


def test_a_rotated_token_of_a_known_pod_is_accepted_if_the_keys_say_so(make_env: MakeEnv) -> None:
    env = make_env()
    env.authenticator.authenticate(env.token(), PEER)
    env.go_away()
    env.passes(121)
    if env.verify == "review":  # only the API server could say whose token it is
        with pytest.raises(Unavailable):
            env.authenticator.authenticate(env.token(), PEER)
    else:
        for _ in range(3):
            assert env.authenticator.authenticate(env.token(), PEER).display_name == "default/alice"
            env.passes(250)


def test_from_another_address_a_known_caller_is_denied(make_env: MakeEnv) -> None:
    env = make_env()
    token = env.token()
    env.authenticator.authenticate(token, PEER)
    env.go_away()
    for _ in range(3):
        env.passes(121)
        assert env.authenticator.authenticate(token, PEER)
        with pytest.raises((WrongAddress, Unavailable)):
            env.authenticator.authenticate(token, ELSEWHERE)


def test_the_api_server_is_asked_for_known_callers_each_5_s_and_no_more(make_env: MakeEnv) -> None:
    env = make_env()
    tokens = [env.token() for _ in range(20)]
    for token in tokens:
        env.authenticator.authenticate(token, PEER)
    env.go_away()
    env.passes(121)
    calls = env.calls
    for second in range(60):
        for token in tokens:
            assert env.authenticator.authenticate(token, PEER)
        env.passes(1)
        assert env.calls - calls <= 1 + second / RETRY_INTERVAL


@pytest.mark.parametrize("mode", [("review", "lookup")], ids="-".join)
def test_no_known_caller_waits_long_for_an_api_server_that_hangs(make_env: MakeEnv) -> None:
    env = make_env(max_reviews=2)
    tokens = [env.token() for _ in range(300)]
    for token in tokens:
        env.authenticator.authenticate(token, PEER)
    env.passes(60)
    may_respond, asked = threading.Event(), threading.Semaphore(0)

    def before() -> None:
        asked.release()
        may_respond.wait(10)
        raise Unavailable("timed out")

    env.api.before = before
    waiting = [env.authenticator.start(token, PEER) for token in tokens[:50]]
    assert all(asked.acquire(timeout=10) for _ in range(2))
    env.passes(PATIENCE + 0.1)
    at_once = [env.authenticator.start(token, PEER) for token in tokens[50:]]
    assert all(future.done() for future in at_once)
    may_respond.set()
    results = [future.result(10) for future in (*waiting, *at_once)]
    assert [one for one in results if not (isinstance(one, CachedIdentity) and one.stale)] == []
    assert env.api.reviews <= 300 + 3


@pytest.mark.parametrize("mode", [("keys", "watch")], ids="-".join)
def test_with_an_old_view_pods_are_read_as_long_as_the_api_server_answers(make_env: MakeEnv) -> None:
    env = make_env()
    token = env.token()
    env.authenticator.authenticate(token, PEER)
    assert env.api.reads == 0
    env.watching = False
    env.passes(121)
    env.authenticator.authenticate(token, PEER)
    env.authenticator.authenticate(env.token(), PEER)
    assert (env.api.reviews, env.api.reads) == (0, 2)
    env.api.pod = None
    with pytest.raises(PodGone):
        env.authenticator.authenticate(env.token(), PEER)
    cached = env.authenticator.get_cached(token, PEER)
    assert cached is not None
    assert not cached.stale


def test_what_has_changed_counts_within_5_s_of_its_return(make_env: MakeEnv) -> None:
    env = make_env()
    token = env.token()
    env.authenticator.authenticate(token, PEER)
    env.go_away()
    env.passes(121)
    assert env.authenticator.authenticate(token, PEER)
    env.come_back()
    env.api.pod = None
    env.view.replace(ALL_NAMESPACES, [])
    env.passes(RETRY_INTERVAL)
    # The one that asks does not wait, but for those after it.
    assert any(is_denied(env, token) for _ in range(1000))


def is_denied(env: ModeEnv, token: str) -> bool:
    env.passes(RETRY_INTERVAL)
    try:
        env.authenticator.authenticate(token, PEER)
    except InvalidToken:
        return True
    return False


def test_after_an_outage_callers_are_not_stale(make_env: MakeEnv) -> None:
    env = make_env()
    token = env.token()
    env.authenticator.authenticate(token, PEER)
    env.go_away()
    env.passes(121)
    env.authenticator.authenticate(token, PEER)
    stale = env.authenticator.get_cached(token, PEER)
    assert stale is not None
    assert stale.stale
    env.come_back()
    for _ in range(1000):
        env.passes(RETRY_INTERVAL)
        env.authenticator.authenticate(token, PEER)
        cached = env.authenticator.get_cached(token, PEER)
        if cached is not None and not cached.stale:
            break
    else:
        pytest.fail("it stays stale")


def test_failures_about_unknown_callers_are_no_outage(make_env: MakeEnv) -> None:
    env = make_env()
    token = env.token()
    env.authenticator.authenticate(token, PEER)
    before = env.api.review, env.api.pod
    env.api.review = env.api.pod = Unavailable("about one token only")
    stranger = env.token(sub="x", **{"kubernetes.io": {"pod": {"name": "x", "uid": "x"}}})
    with pytest.raises((Unavailable, InvalidToken)):
        env.authenticator.authenticate(stranger, PEER)
    env.api.review, env.api.pod = before
    env.api.pod = None
    env.view.remove(ALL_NAMESPACES, read_record(pod()))
    env.passes(121)
    with pytest.raises(InvalidToken):
        env.authenticator.authenticate(token, PEER)


def test_the_allow_list_counts_in_an_outage(make_env: MakeEnv) -> None:
    env = make_env(allow=["default/bob"])
    env.go_away()
    env.passes(121)
    with pytest.raises((NotAllowed, Unavailable)):
        env.authenticator.authenticate(env.token(), PEER)


@pytest.mark.parametrize("middleware", ["wsgi", "asgi"])
def test_the_decision_log_and_a_metric_say_who_is_stale(
    make_env: MakeEnv, middleware: str, caplog: pytest.LogCaptureFixture
) -> None:
    env = make_env()
    client = MiddlewareClient(middleware, env.authenticator, lambda: None)
    token = {"Authorization": f"Bearer {env.token()}"}
    before = REGISTRY.get_sample_value("podproof_stale_pods_total") or 0
    with caplog.at_level(logging.INFO, "podproof.audit"):
        assert client(headers=token).status == 200
        env.go_away()
        env.passes(121)
        for _ in range(2):
            assert client(headers=token).status == 200
        env.come_back()
    records: list[Any] = [one for one in caplog.records if one.name == "podproof.audit"]
    assert [one.stale for one in records] == [None, True, True]
    assert [one.getMessage().endswith(" stale]") for one in records] == [False, True, True]
    assert REGISTRY.get_sample_value("podproof_stale_pods_total") == before + 1


@pytest.mark.parametrize("mode", [("review", "watch"), ("keys", "watch")], ids="-".join)
@pytest.mark.parametrize("change", [None, {"uid": "another"}, {"phase": "Failed"}, {"account": "mallory"}])
def test_what_the_view_has_seen_counts_at_once(make_env: MakeEnv, change: dict[str, str] | None) -> None:
    env = make_env(cache_ttl=3600)
    token = env.token()
    env.authenticator.authenticate(token, PEER)
    env.passes(1)
    match change:
        case None:
            env.view.remove(ALL_NAMESPACES, read_record(pod()))
        case {"uid": uid}:
            env.view.put(ALL_NAMESPACES, read_record(pod(metadata={"uid": uid})))
        case {"phase": phase}:
            env.view.put(ALL_NAMESPACES, read_record(pod(status={"phase": phase})))
        case {"account": account}:
            env.view.put(ALL_NAMESPACES, read_record(pod(spec={"serviceAccountName": account})))
    env.go_away()  # so that nothing but the view can know
    assert env.authenticator.get_cached(token, PEER) is None
    with pytest.raises((InvalidToken, Unavailable)) as raised:
        env.authenticator.authenticate(token, PEER)
    assert isinstance(raised.value, InvalidToken) is (env.verify == "keys")


@pytest.mark.parametrize("mode", [("keys", "watch")], ids="-".join)
def test_a_pod_of_the_view_is_known_though_it_has_not_called_before(make_env: MakeEnv) -> None:
    env = make_env()
    env.authenticator.authenticate(env.token(), PEER)  # so that there are keys
    env.view.put(ALL_NAMESPACES, read_record(pod(metadata={"name": "new-pod", "uid": "new"})))
    private = {"namespace": "default", "serviceaccount": {"name": "alice", "uid": "account-uid"}}
    token = env.token(**{"kubernetes.io": private | {"pod": {"name": "new-pod", "uid": "new"}}})
    env.go_away()
    env.passes(121)
    assert str(env.authenticator.authenticate(token, PEER).pod) == "default/new-pod"


@pytest.mark.parametrize("mode", KEYS, ids="-".join)
def test_a_rotated_token_costs_one_signature_check_no_call_and_no_thread(
    make_env: MakeEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = make_env()
    env.authenticator.authenticate(env.token(), PEER)
    calls, checks = env.calls, 0
    verify = SigningKey.verify

    def count_checks(*given: Any) -> bool:
        nonlocal checks
        checks += 1
        return verify(*given)

    monkeypatch.setattr(SigningKey, "verify", count_checks)
    monkeypatch.setattr(env.authenticator, "_submit", None)
    env.passes(30)
    ids = [env.authenticator.authenticate(env.token(), PEER).credential_id for _ in range(10)]
    assert len(set(ids)) == 10
    assert (checks, env.calls) == (10, calls)
    forged = env.token()[:-8] + "AAAAAAAA"
    for _ in range(3):
        with pytest.raises(InvalidToken):
            env.authenticator.authenticate(forged, PEER)
    assert checks == 11


@pytest.mark.parametrize("mode", KEYS, ids="-".join)
def test_forgeries_from_one_address_are_not_checked_without_end(make_env: MakeEnv) -> None:
    env = make_env()
    env.authenticator.authenticate(env.token(), PEER)
    denials = []
    for _ in range(30):
        with pytest.raises((InvalidToken, Unavailable)) as raised:
            env.authenticator.authenticate(env.token()[:-8] + "AAAAAAAA", PEER)
        denials.append(raised.value.status)
    assert denials == [401] * 20 + [503] * 10


@pytest.mark.parametrize("mode", [("keys", "lookup")], ids="-".join)
def test_what_is_known_of_a_pod_is_read_again_for_another_address_and_after_cache_ttl(make_env: MakeEnv) -> None:
    env = make_env(cache_ttl=60)
    env.authenticator.authenticate(env.token(), PEER)
    env.passes(59)
    env.authenticator.authenticate(env.token(), PEER)
    assert env.api.reads == 1
    env.passes(1.1)
    env.authenticator.authenticate(env.token(), PEER)
    assert env.api.reads == 2
    env.api.pod = pod(status={"podIP": ELSEWHERE, "podIPs": [{"ip": ELSEWHERE}]})
    assert env.authenticator.authenticate(env.token(), ELSEWHERE).pod.addresses == (ELSEWHERE,)


@pytest.mark.parametrize("mode", [("keys", "lookup")], ids="-".join)
@pytest.mark.parametrize(
    "private", [{"serviceaccount": {"name": "eve", "uid": "x"}}, {"pod": {"name": "a", "uid": "pod-uid"}}]
)
def test_a_known_pod_of_another_name_or_account_is_read(make_env: MakeEnv, private: dict[str, object]) -> None:
    env = make_env()
    env.authenticator.authenticate(env.token(), PEER)
    claims: dict[str, object] = {"namespace": "default", "pod": {"name": "alice-pod", "uid": "pod-uid"}}
    claims |= {"serviceaccount": {"name": "alice", "uid": "account-uid"}} | private
    account = cast("dict[str, str]", claims["serviceaccount"])["name"]
    with pytest.raises((PodGone, InvalidToken, Unavailable)):
        env.authenticator.authenticate(
            env.token(sub=f"system:serviceaccount:default:{account}", **{"kubernetes.io": claims}), PEER
        )
    assert env.api.reads == 2


@pytest.mark.parametrize("fault", ["refuse", "hang", "html", "truncated", 500])
@pytest.mark.parametrize("mode", [("review", "lookup"), ("keys", "lookup")], ids="-".join)
def test_on_any_fault_a_known_caller_stays_and_a_new_one_is_503(
    cluster: Cluster,
    make: Make,  # noqa: F811  a fixture
    mode: tuple[str, str],
    fault: Any,
) -> None:
    alice = cluster.pod("default/alice-pod", service_account="alice", addresses=[PEER])
    new = cluster.pod("default/new-pod", service_account="new", addresses=[PEER])
    authenticator = make(*mode, cache_ttl=0, max_outage=900, timeout=0.4 if fault == "hang" else 5)
    token = alice.token("bob")
    authenticator.authenticate(token, PEER)
    cluster.fail(fault)
    for _ in range(3):
        assert authenticator.authenticate(token, PEER).display_name == "default/alice"
    with pytest.raises(Unavailable):
        authenticator.authenticate(new.token("bob"), PEER)
