from __future__ import annotations

import datetime as dt
import json
import socket
import time as real_time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import urllib3
from kubernetes.client import Configuration
from kubernetes.config.incluster_config import InClusterConfigLoader

from podproof._apiserver import connection as room
from podproof._apiserver.client import APIServerClient
from podproof._apiserver.connection import MAX_RESPONSE, load_configuration
from podproof._apiserver.permissions import CREATE_TOKENREVIEWS, GET_PODS
from podproof.errors import Unavailable
from podproof.testing import Cluster
from podproof.testing.certificates import authority
from tests.support.fake_api import NOW, Clock

DEADLINE = NOW + 5


@dataclass
class Bob:
    """A client of the emulated cluster whose pauses take no time, and are written down."""

    cluster: Cluster
    time: Clock
    pauses: list[float] = field(default_factory=list)
    loads: int = 0

    def __post_init__(self) -> None:
        self.client = APIServerClient(
            load=self.load, monotonic=self.time, sleep=self.sleep, uniform=lambda _, most: most
        )

    def load(self, configuration: Configuration) -> None:
        self.loads += 1
        load_configuration(configuration, environ={"KUBECONFIG": str(self.cluster.kubeconfig_for("default/bob"))})

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)

    def review(self, seconds: float = 5) -> Any:
        return self.client.review_token("token", ["bob"], self.time() + seconds)["status"]


@pytest.fixture
def bob(cluster: Cluster, time: Clock) -> Iterator[Bob]:
    cluster.grant("default/bob", verbs=["create"], resources=["tokenreviews"])
    cluster.grant("default/bob", verbs=["get"], resources=["pods"])
    bob = Bob(cluster, time)
    yield bob
    bob.client.close()


def test_a_token_is_reviewed_for_our_audiences(cluster: Cluster, bob: Bob) -> None:
    alice = cluster.pod("default/alice-pod", service_account="alice")
    review = bob.client.review_token(alice.token("bob"), ["carol", "bob"], DEADLINE)
    assert review["status"]["authenticated"]
    assert review["status"]["audiences"] == ["bob"]
    assert review["status"]["user"]["username"] == "system:serviceaccount:default:alice"
    assert "authenticated" not in bob.client.review_token(alice.token("bob"), ["carol"], DEADLINE)["status"]


def test_a_pod_is_read_as_json(cluster: Cluster, bob: Bob) -> None:
    alice = cluster.pod("default/alice-pod", service_account="alice")
    assert bob.client.read_pod("default", "alice-pod", DEADLINE) == alice.json()
    assert bob.client.read_pod("default", "nobody", DEADLINE) is None


@pytest.mark.parametrize("name", ["a?b", "a#b", "a%2fb", "a b", "\xe4"])
def test_a_name_is_one_segment_of_the_path(cluster: Cluster, bob: Bob, name: str) -> None:
    bob.client.read_pod("default", name, DEADLINE)
    assert (cluster.requests[-1].resource, cluster.requests[-1].name) == ("pods", name)


def test_an_api_server_may_be_below_a_path(cluster: Cluster) -> None:
    def load(configuration: Configuration) -> None:
        load_configuration(configuration, environ={"KUBECONFIG": str(cluster.kubeconfig)})
        configuration.host += "/k8s/clusters/c-1"

    client = APIServerClient(load=load)
    with pytest.raises(Unavailable, match="404"):
        client.get("/version", real_time.monotonic() + 5)
    assert cluster.requests[-1].path == "/k8s/clusters/c-1/version"
    client.close()


def test_an_api_server_may_be_behind_a_proxy() -> None:
    with Cluster(tls=False) as cluster:  # who reads whole URLs, as a proxy has to

        def load(configuration: Configuration) -> None:
            configuration.host, configuration.proxy = "http://api.example:6443", cluster.url

        client = APIServerClient(load=load)
        assert client.get("/version", real_time.monotonic() + 5).document["major"] == "1"
        client.close()


def test_our_credential_is_asked_for_again_after_a_second(cluster: Cluster, bob: Bob, time: Clock) -> None:
    asked: list[object] = []

    def load(configuration: Configuration) -> None:
        bob.load(configuration)
        configuration.refresh_api_key_hook = asked.append  # type: ignore[assignment]  # it has no type of its own

    client = APIServerClient(load=load, monotonic=time)
    for seconds, times in ((0, 1), (0.9, 1), (0.1, 2), (0.9, 2)):
        time.passes(seconds)
        client.get("/version", time() + 5)
        assert len(asked) == times
    client.close()


@pytest.mark.trap(13)
def test_a_permission_is_looked_up(cluster: Cluster, bob: Bob) -> None:
    assert bob.client.is_allowed(CREATE_TOKENREVIEWS, DEADLINE)
    assert not bob.client.is_allowed(GET_PODS._replace(verb="delete"), DEADLINE)


def test_one_connection_serves_many_calls(cluster: Cluster, bob: Bob) -> None:
    for _ in range(5):
        bob.review()
        bob.client.read_pod("default", "nobody", DEADLINE)
    pool = bob.client._connections.get().pool
    assert (pool.num_requests, pool.num_connections) == (10, 1)


def test_a_client_that_was_closed_connects_anew(bob: Bob) -> None:
    bob.client.close()
    bob.review()
    bob.client.close()
    bob.review()
    assert bob.loads == 2


@pytest.mark.trap(46)
def test_in_a_pod_our_mounted_token_goes_with_every_call(cluster: Cluster, tmp_path: Path) -> None:
    mounted = cluster.mount(tmp_path, "default/bob")
    host, _, port = cluster.url.removeprefix("https://").partition(":")
    environ = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
    cluster.grant("default/bob", verbs=["create"], resources=["tokenreviews"])
    client = APIServerClient(load=partial(load_configuration, environ=environ, mounted=mounted))
    client.review_token("token", ["bob"], real_time.monotonic() + 5)
    assert [one.user for one in cluster.requests] == ["system:serviceaccount:default:bob"]
    assert client.own_token() == (mounted / "token").read_text()
    client.close()


def test_what_kubeconfig_names_comes_before_what_is_mounted(cluster: Cluster, tmp_path: Path) -> None:
    environ = {"KUBECONFIG": str(cluster.kubeconfig), "KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    configuration = Configuration()
    load_configuration(configuration, environ=environ, mounted=tmp_path)
    assert configuration.host == cluster.url


def test_without_either_the_kubeconfig_of_ones_home_is_read(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".kube").mkdir()
    (tmp_path / ".kube" / "config").write_text(cluster.kubeconfig.read_text())
    configuration = Configuration()
    load_configuration(configuration, environ={})
    assert configuration.host == cluster.url


@pytest.mark.parametrize("content", [None, "", "just a word", "a: [", "{}", "{clusters: 7}", "\x00"])
def test_where_no_way_is_configured_a_call_says_so(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "kubeconfig"
    if content is not None:
        path.write_text(content)
    client = APIServerClient(load=partial(load_configuration, environ={"KUBECONFIG": str(path)}))
    with pytest.raises(Unavailable, match="set KUBECONFIG"):
        client.review_token("token", ["bob"], real_time.monotonic() + 5)
    assert client.own_token() is None


@pytest.fixture
def rotating(cluster: Cluster, tmp_path: Path) -> Iterator[tuple[APIServerClient, Path]]:
    """Give a client that reads its mounted token at each call, and the token's path."""
    mounted = cluster.mount(tmp_path, "default/bob")
    host, _, port = cluster.url.removeprefix("https://").partition(":")
    environ = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}

    def load(configuration: Configuration) -> None:
        paths = str(mounted / "token"), str(mounted / "ca.crt")
        loader = InClusterConfigLoader(*paths, environ=environ)  # type: ignore[no-untyped-call]  # the client's own
        loader._token_refresh_period = dt.timedelta(0)
        loader.load_and_set(configuration)  # type: ignore[no-untyped-call]  # the client's own

    client = APIServerClient(load=load)
    yield client, mounted / "token"
    client.close()


@pytest.mark.trap(41)
@pytest.mark.parametrize("content", [None, "", "\n", "  "])
def test_our_token_is_read_anew_and_kept_while_its_file_is_empty_or_gone(
    rotating: tuple[APIServerClient, Path], content: str | None
) -> None:
    client, path = rotating
    first = client.own_token()
    assert first == path.read_text()
    path.unlink()
    if content is not None:
        path.write_text(content)
    assert client.own_token() == first
    path.write_text("second\n")
    assert client.own_token() == "second"


def test_a_client_certificate_is_no_token(cluster: Cluster) -> None:
    def load(configuration: Configuration) -> None:
        configuration.host = cluster.url
        configuration.ssl_ca_cert = None
        configuration.verify_ssl = False

    client = APIServerClient(load=load)
    assert client.own_token() is None


@pytest.mark.trap(7)
@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_passing_failure_is_tried_again_after_a_growing_random_pause(cluster: Cluster, bob: Bob, status: int) -> None:
    cluster.fail(status, times=2)
    assert bob.review() is not None
    assert bob.pauses == [0.1, 0.2]


@pytest.mark.trap(7)
def test_a_failure_that_does_not_pass_ends_after_three_attempts(cluster: Cluster, bob: Bob) -> None:
    cluster.fail(500)
    with pytest.raises(Unavailable, match="it answered 500"):
        bob.review()
    assert cluster.count("tokenreviews") == 3


def test_the_server_may_say_how_long_to_wait(cluster: Cluster, bob: Bob) -> None:
    cluster.fail(429, times=1, retry_after=2)
    bob.review()
    assert bob.pauses == [2]


@pytest.mark.trap(7)
def test_nobody_waits_for_what_would_come_too_late(cluster: Cluster, bob: Bob) -> None:
    cluster.fail(429, retry_after=5)
    with pytest.raises(Unavailable, match="it answered 429"):
        bob.review()
    assert bob.pauses == []
    assert cluster.count("tokenreviews") == 1


def test_after_the_deadline_nobody_is_asked(cluster: Cluster, bob: Bob) -> None:
    with pytest.raises(Unavailable, match="no time left"):
        bob.review(0)
    assert cluster.requests == []


@pytest.mark.parametrize("status", [400, 404, 409, 422, 307])
def test_any_other_answer_is_final(cluster: Cluster, bob: Bob, status: int) -> None:
    cluster.fail(status)
    with pytest.raises(Unavailable, match=f"answered {status} where a TokenReview was asked for"):
        bob.review()
    assert cluster.count("tokenreviews") == 1


@pytest.mark.trap(8)
@pytest.mark.parametrize("status", [401, 403])
def test_our_own_credential_is_read_anew_once_when_it_is_refused(cluster: Cluster, bob: Bob, status: int) -> None:
    cluster.fail(status, times=1)
    bob.review()
    assert bob.loads == 2
    assert bob.pauses == []


@pytest.mark.trap(8)
def test_a_refusal_of_our_own_credential_is_no_word_on_the_callers(cluster: Cluster, bob: Bob) -> None:
    cluster.fail(401)
    with pytest.raises(Unavailable, match=r"does not accept our own credential \(401\)"):
        bob.review()
    assert cluster.count("tokenreviews") == 2


@pytest.mark.trap(8)
def test_a_missing_permission_is_named(cluster: Cluster, time: Clock) -> None:
    client = Bob(cluster, time).client
    with pytest.raises(Unavailable, match=r"forbids us to create tokenreviews\.authentication\.k8s\.io \(403\)"):
        client.review_token("token", ["bob"], DEADLINE)
    with pytest.raises(Unavailable, match=r"forbids us to get pods \(403\).*ClusterRoleBinding"):
        client.read_pod("default", "alice-pod", DEADLINE)
    client.close()


def test_a_refused_credential_uses_up_none_of_the_three_attempts(cluster: Cluster, bob: Bob) -> None:
    cluster.fail(500, times=2)
    cluster.fail(401, times=1)
    assert bob.review() is not None
    cluster.fail(500)
    cluster.fail(401, times=1)
    with pytest.raises(Unavailable, match="it answered 500"):
        bob.review()
    assert cluster.count("tokenreviews") == 4 + 4


@pytest.mark.parametrize("fault", ["close", "reset", "cut", "html", "truncated"])
def test_an_answer_that_does_not_come_through_is_asked_for_again(cluster: Cluster, bob: Bob, fault: Any) -> None:
    cluster.fail(fault, times=1)
    assert bob.review() is not None
    assert len(bob.pauses) == 1


def test_a_server_that_went_away_and_came_back_is_found(cluster: Cluster, bob: Bob) -> None:
    bob.review()
    cluster.fail("refuse")
    with pytest.raises(Unavailable, match="the connection failed with"):
        bob.review()
    cluster.heal()
    assert bob.review() is not None


@pytest.mark.trap(47)
@pytest.mark.parametrize("fault", ["deaf", "hang", "drip-headers", "drip-body"])
def test_a_server_that_hangs_or_drips_holds_nobody_beyond_the_deadline(cluster: Cluster, fault: Any) -> None:
    load = partial(load_configuration, environ={"KUBECONFIG": str(cluster.kubeconfig)})
    client = APIServerClient(load=load)
    cluster.fail(fault)
    begun = real_time.monotonic()
    with pytest.raises(Unavailable, match="did not help"):
        client.review_token("token", ["bob"], begun + 0.3)
    assert 0.2 < real_time.monotonic() - begun < 1.5
    client.close()


@pytest.mark.trap(47)
def test_what_is_there_when_the_time_is_up_is_not_read_any_more() -> None:
    here, there = socket.socketpair()
    with here, there, here.makefile("rb", buffering=0) as answer:
        there.send(b"HTTP/1.1 200 OK")
        here.settimeout(0)
        with pytest.raises(TimeoutError):
            room._TimelyIO(answer, here).readinto(bytearray(100))


@pytest.mark.trap(47)
def test_what_is_still_to_come_is_not_waited_for_beyond_the_time() -> None:
    here, there = socket.socketpair()
    with here, there, here.makefile("rb", buffering=0) as answer:
        here.settimeout(0.01)
        timely = room._TimelyIO(answer, here)
        here.settimeout(5)
        begun = real_time.monotonic()
        with pytest.raises(TimeoutError):
            timely.readinto(bytearray(100))
        assert real_time.monotonic() - begun < 4


def test_an_answer_without_end_is_not_read_to_it(cluster: Cluster, bob: Bob) -> None:
    cluster.fail("huge")
    with pytest.raises(Unavailable, match=f"longer than {MAX_RESPONSE} bytes"):
        bob.review()


def test_a_new_certificate_of_the_same_authority_is_fine(cluster: Cluster, bob: Bob) -> None:
    bob.review()
    cluster.fail("new-certificate")
    assert bob.review() is not None


@pytest.mark.parametrize("answer", [b"", b"[]", b"null", b"7", b"\xff", b"[" * 100_000])
def test_what_is_no_json_object_is_no_answer(cluster: Cluster, bob: Bob, answer: bytes) -> None:
    cluster.mutate("tokenreviews", lambda _: answer)
    with pytest.raises(Unavailable, match="not a JSON object"):
        bob.review()


@pytest.mark.parametrize("answer", [{}, {"kind": "Status"}, {"kind": "PodList"}])
def test_another_kind_than_the_one_asked_for_is_no_answer(cluster: Cluster, bob: Bob, answer: object) -> None:
    cluster.pod("default/alice-pod")
    cluster.mutate("pods", lambda _: answer)
    with pytest.raises(Unavailable, match="answered 200 where a Pod was asked for"):
        bob.client.read_pod("default", "alice-pod", DEADLINE)


def test_a_404_from_something_that_is_no_api_server_does_not_mean_that_a_pod_is_gone(
    cluster: Cluster, bob: Bob
) -> None:
    cluster.mutate("pods", lambda _: b"<html>")
    with pytest.raises(Unavailable, match="is no API server"):
        bob.client.read_pod("default", "nobody", DEADLINE)


@pytest.mark.parametrize("status", [None, [], {}, {"allowed": "true"}, {"allowed": None}])
def test_a_permission_is_had_only_if_it_is_said_to_be(cluster: Cluster, bob: Bob, status: object) -> None:
    cluster.mutate("selfsubjectaccessreviews", lambda answer: answer | {"status": status})
    assert not bob.client.is_allowed(GET_PODS, DEADLINE)


@pytest.mark.trap(33)
@pytest.mark.parametrize("fault", [401, 500, 422, "close", "html", "refuse", "foreign-certificate"])
def test_no_reason_holds_a_credential(cluster: Cluster, bob: Bob, fault: Any) -> None:
    ours = bob.client.own_token()
    assert ours is not None
    cluster.fail(fault)
    with pytest.raises(Unavailable) as raised:
        bob.client.review_token("s3cret-of-the-caller", ["bob"], DEADLINE)
    for text in (str(raised.value), repr(raised.value), json.dumps(str(vars(raised.value)))):
        assert "s3cret" not in text
        assert ours not in text


@pytest.mark.parametrize("date", ["", "some time today", "Mon, 99 Foo 2026 00:00:00 GMT"])
def test_a_server_need_not_tell_the_time(date: str) -> None:
    response = urllib3.HTTPResponse(headers={"Content-Type": "application/json", "Date": date}, status=200)
    assert room._parse_response(response, b"{}").clock() is None


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=utf-8", "application/jwk-set+json"])
def test_an_answer_is_json_by_its_type(kind: str) -> None:
    response = urllib3.HTTPResponse(headers={"Content-Type": kind}, status=200)
    assert room._parse_response(response, b'{"a": 1}').document == {"a": 1}


@pytest.mark.parametrize("kind", ["", "text/html", "text/plain", "application/jsonp", "application/json, text/html"])
def test_json_of_another_type_is_no_answer(kind: str) -> None:
    response = urllib3.HTTPResponse(headers={"Content-Type": kind}, status=200)
    with pytest.raises(room.ConnectionFailed, match="not a JSON object"):
        room._parse_response(response, b'{"a": 1}')


def test_a_new_authority_is_read_when_a_certificate_does_not_pass(cluster: Cluster, tmp_path: Path) -> None:
    mounted = cluster.mount(tmp_path, "default/bob")
    cluster.grant("default/bob", verbs=["create"], resources=["tokenreviews"])
    host, _, port = cluster.url.removeprefix("https://").partition(":")
    environ = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
    client = APIServerClient(load=partial(load_configuration, environ=environ, mounted=mounted), sleep=lambda _: None)
    (mounted / "ca.crt").write_text(authority("of before").pem)
    with pytest.raises(Unavailable, match="SSLCertVerificationError"):
        client.review_token("token", ["bob"], real_time.monotonic() + 5)
    (mounted / "ca.crt").write_text(cluster.ca_pem)
    assert client.review_token("token", ["bob"], real_time.monotonic() + 5)
    client.close()


@pytest.mark.parametrize("text", ["", "soon", "-1", "1.5", "\u0663", "Wed, 21 Oct 2026 07:28:00 GMT"])
def test_only_whole_seconds_say_how_long_to_wait(text: str) -> None:
    response = urllib3.HTTPResponse(headers={"Retry-After": text}, status=503)
    assert room._parse_response(response, b"{}").retry_after is None
