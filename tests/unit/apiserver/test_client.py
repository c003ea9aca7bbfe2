"""The calls to the API server: what they return, what is retried and for how long."""

from __future__ import annotations

import json
import socket
import threading
import time as real_time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from kubernetes.client import Configuration

from podproof._apiserver.client import ATTEMPT_TIMEOUT, BACKOFF, APIServerClient
from podproof._apiserver.connection import Connection, load_configuration
from podproof._apiserver.permissions import CREATE_TOKENREVIEWS, GET_PODS
from podproof._apiserver.response import MAX_RESPONSE, APIResponse, ConnectionFailed
from podproof._token.jwt import read_claims
from podproof.errors import Unavailable
from podproof.testing import Cluster
from tests.support.fake_api import NOW, Clock, token

DEADLINE = NOW + 5


@dataclass
class RecordingClient:
    """Calls the emulated API server, and records its pauses instead of making them."""

    cluster: Cluster
    time: Clock
    attempt_timeout: float = ATTEMPT_TIMEOUT
    pauses: list[float] = field(default_factory=list)
    loads: int = 0

    def __post_init__(self) -> None:
        self.kubeconfig = self.cluster.kubeconfig_for("default/bob")
        self.client = APIServerClient(
            load=self.load,
            attempt_timeout=self.attempt_timeout,
            monotonic=self.time,
            sleep=self.pauses.append,
            uniform=lambda _, most: most,
        )

    def load(self, configuration: Configuration) -> None:
        self.loads += 1
        load_configuration(configuration, environ={"KUBECONFIG": str(self.kubeconfig)})

    def review(self, seconds: float = 5) -> Any:
        return self.client.review_token("token", ["bob"], self.time() + seconds)["status"]


@pytest.fixture
def recording(cluster: Cluster, time: Clock) -> Iterator[RecordingClient]:
    cluster.grant("default/bob", verbs=["create"], resources=["tokenreviews"])
    cluster.grant("default/bob", verbs=["get"], resources=["pods"])
    recording = RecordingClient(cluster, time)
    yield recording
    recording.client.close()


@pytest.fixture
def impatient(recording: RecordingClient) -> Iterator[RecordingClient]:
    """Return a client whose attempts are short."""
    impatient = RecordingClient(recording.cluster, recording.time, attempt_timeout=0.75)
    yield impatient
    impatient.client.close()


def soon() -> float:
    return real_time.monotonic() + 5


def client_for(kubeconfig: Path, impersonate: str | None = None) -> APIServerClient:
    load = partial(load_configuration, environ={"KUBECONFIG": str(kubeconfig)})
    return APIServerClient(load=load, impersonate=impersonate)


@pytest.fixture
def client(cluster: Cluster) -> Iterator[APIServerClient]:
    client = client_for(cluster.kubeconfig)
    yield client
    client.close()


def test_a_token_is_reviewed_for_our_audiences(cluster: Cluster, recording: RecordingClient) -> None:
    alice = cluster.pod("default/alice-pod", service_account="alice")
    review = recording.client.review_token(alice.token("bob"), ["carol", "bob"], DEADLINE)
    assert review["status"]["authenticated"]
    assert review["status"]["audiences"] == ["bob"]
    assert review["status"]["user"]["username"] == "system:serviceaccount:default:alice"
    assert "authenticated" not in recording.client.review_token(alice.token("bob"), ["carol"], DEADLINE)["status"]


def test_a_pod_is_read_as_json(cluster: Cluster, recording: RecordingClient) -> None:
    alice = cluster.pod("default/alice-pod", service_account="alice")
    assert recording.client.read_pod("default", "alice-pod", DEADLINE) == alice.json()
    assert recording.client.read_pod("default", "nobody", DEADLINE) is None


@pytest.mark.parametrize("name", ["a?b", "a#b", "a%2fb", "a b", "\xe4"])
def test_a_name_is_one_segment_of_the_path(cluster: Cluster, recording: RecordingClient, name: str) -> None:
    recording.client.read_pod("default", name, DEADLINE)
    assert (cluster.requests[-1].resource, cluster.requests[-1].name) == ("pods", name)


@pytest.mark.trap(13)
def test_a_permission_is_looked_up(cluster: Cluster, recording: RecordingClient) -> None:
    assert recording.client.is_allowed(CREATE_TOKENREVIEWS, DEADLINE)
    assert not recording.client.is_allowed(GET_PODS._replace(verb="delete"), DEADLINE)


@pytest.mark.parametrize("status", [None, [], {}, {"allowed": "true"}, {"allowed": None}])
def test_a_permission_needs_an_explicit_allowed(cluster: Cluster, recording: RecordingClient, status: object) -> None:
    cluster.mutate("selfsubjectaccessreviews", lambda review: review | {"status": status})
    assert not recording.client.is_allowed(GET_PODS, DEADLINE)


def test_a_permission_may_be_limited_to_a_namespace(cluster: Cluster) -> None:
    cluster.grant("default/bob", verbs=["get"], resources=["pods"], namespace="payments")
    client = client_for(cluster.kubeconfig_for("default/bob"))
    there = GET_PODS._replace(namespace="payments")
    assert (client.is_allowed(GET_PODS, soon()), client.is_allowed(there, soon())) == (False, True)
    assert (str(GET_PODS), str(there)) == ("get pods", "get pods in namespace payments")
    client.close()


def test_a_document_is_returned_with_the_servers_clock(client: APIServerClient) -> None:
    response = client.get("/version", soon())
    assert (response.status, response.document["gitVersion"]) == (200, "v1.36.0")
    clock = response.clock()
    assert clock is not None
    assert abs(clock - real_time.time()) < 10


def test_a_missing_object_is_a_404_response(cluster: Cluster, client: APIServerClient) -> None:
    assert client.get("/api/v1/namespaces/default/serviceaccounts/nobody", soon()).status == 404


def test_a_response_without_a_valid_date_is_used(client: APIServerClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("email.utils.formatdate", lambda *_, **__: "some time today")
    response = client.get("/version", soon())
    assert (response.status, response.clock()) == (200, None)


def test_a_client_may_impersonate_a_service_account(cluster: Cluster) -> None:
    cluster.grant("default/bob", verbs=["get"], resources=["pods"])
    for name, allowed in (("bob", True), ("alice", False)):
        client = client_for(cluster.kubeconfig, f"system:serviceaccount:default:{name}")
        assert client.is_allowed(GET_PODS, soon()) is allowed
        client.close()


def test_one_connection_serves_many_calls(cluster: Cluster, recording: RecordingClient) -> None:
    for _ in range(5):
        recording.review()
        recording.client.read_pod("default", "nobody", DEADLINE)
    pool = recording.client._connections.get().pool
    assert (pool.num_requests, pool.num_connections) == (10, 1)


def test_a_closed_client_opens_new_connections(recording: RecordingClient) -> None:
    recording.client.close()
    recording.review()
    recording.client.close()
    recording.review()
    assert recording.loads == 2


@pytest.mark.trap(7)
@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_transient_failure_is_retried_after_a_growing_random_pause(
    cluster: Cluster, recording: RecordingClient, status: int
) -> None:
    cluster.fail(status, times=2)
    assert recording.review() is not None
    assert recording.pauses == [0.1, 0.2]


@pytest.mark.trap(7)
def test_a_lasting_failure_ends_after_three_attempts(cluster: Cluster, recording: RecordingClient) -> None:
    cluster.fail(500)
    with pytest.raises(Unavailable, match=r"status 500$"):
        recording.review()
    assert cluster.count("tokenreviews") == 3


def test_retry_after_sets_the_pause(cluster: Cluster, recording: RecordingClient) -> None:
    cluster.fail(429, times=1, retry_after=2)
    recording.review()
    assert recording.pauses == [2]


@pytest.mark.trap(7)
def test_a_pause_beyond_the_deadline_is_not_waited_for(cluster: Cluster, recording: RecordingClient) -> None:
    cluster.fail(429, retry_after=5)
    with pytest.raises(Unavailable, match=r"status 429$"):
        recording.review()
    assert recording.pauses == []
    assert cluster.count("tokenreviews") == 1


def test_after_the_deadline_no_request_is_sent(cluster: Cluster, recording: RecordingClient) -> None:
    with pytest.raises(Unavailable, match="no time left"):
        recording.review(0)
    assert cluster.requests == []


@pytest.mark.parametrize("status", [400, 404, 409, 422, 307])
def test_any_other_status_is_not_retried(cluster: Cluster, recording: RecordingClient, status: int) -> None:
    cluster.fail(status)
    with pytest.raises(
        Unavailable, match=f"^unexpected API server response: expected a TokenReview, got status {status}$"
    ):
        recording.review()
    assert cluster.count("tokenreviews") == 1


@pytest.mark.trap(8)
@pytest.mark.parametrize("status", [401, 403])
def test_our_own_credential_is_reloaded_once_when_it_is_rejected(
    cluster: Cluster, recording: RecordingClient, status: int
) -> None:
    cluster.fail(status, times=1)
    recording.review()
    assert recording.loads == 2
    assert recording.pauses == []


@pytest.mark.trap(8)
def test_a_rejection_of_our_own_credential_is_unavailable_and_not_a_rejected_token(
    cluster: Cluster, recording: RecordingClient
) -> None:
    cluster.fail(401)
    with pytest.raises(Unavailable, match=r"does not accept our own credential \(401\)"):
        recording.review()
    assert cluster.count("tokenreviews") == 2


@pytest.mark.trap(8)
def test_a_missing_permission_is_named(cluster: Cluster, time: Clock) -> None:
    client = RecordingClient(cluster, time).client
    with pytest.raises(Unavailable, match=r"forbids us to create tokenreviews\.authentication\.k8s\.io \(403\)"):
        client.review_token("token", ["bob"], DEADLINE)
    with pytest.raises(Unavailable, match=r"forbids us to get pods \(403\).*ClusterRoleBinding"):
        client.read_pod("default", "alice-pod", DEADLINE)
    client.close()


def test_the_issuer_is_that_of_our_own_bound_token_else_the_one_that_is_published(
    recording: RecordingClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = recording.client
    own = read_claims(client.own_token() or "")["iss"]
    assert client.issuer(DEADLINE) == own
    from_a_secret = token(iss="kubernetes/serviceaccount", **{"kubernetes.io": None})
    of_a_person = token(iss="https://idp.example", **{"kubernetes.io": None})
    for other in (None, "opaque", token(iss=None), from_a_secret, of_a_person):
        monkeypatch.setattr(client, "own_token", lambda other=other: other)
        assert client.issuer(DEADLINE) == own
    monkeypatch.setattr(client, "_call", lambda *_: APIResponse(200, {"issuer": 7}, None, ""))
    with pytest.raises(Unavailable, match="expected its OpenID configuration with an issuer"):
        client.issuer(DEADLINE)


def test_the_signing_keys_are_read_by_what_every_service_account_may_do(
    cluster: Cluster, recording: RecordingClient
) -> None:
    (key,) = recording.client.signing_keys(DEADLINE)["keys"]
    assert (key["kty"], key["use"]) == ("RSA", "sig")


@pytest.mark.trap(8)
def test_the_role_that_reads_signing_keys_is_named_where_it_is_missing(
    cluster: Cluster, recording: RecordingClient
) -> None:
    cluster.fail(403)
    with pytest.raises(Unavailable, match=r"get /openid/v1/jwks \(403\).*system:service-account-issuer-discovery"):
        recording.client.signing_keys(DEADLINE)


def test_another_response_than_a_jwk_set_is_unavailable(cluster: Cluster, recording: RecordingClient) -> None:
    cluster.fail(404)
    with pytest.raises(Unavailable, match=r"expected a JWK Set, got status 404$"):
        recording.client.signing_keys(DEADLINE)


def test_a_rejected_credential_uses_up_none_of_the_three_attempts(cluster: Cluster, recording: RecordingClient) -> None:
    cluster.fail(500, times=2)
    cluster.fail(401, times=1)
    assert recording.review() is not None
    cluster.fail(500)
    cluster.fail(401, times=1)
    with pytest.raises(Unavailable, match=r"status 500$"):
        recording.review()
    assert cluster.count("tokenreviews") == 4 + 4


@pytest.mark.parametrize("fault", ["close", "reset", "cut", "html", "truncated"])
def test_a_broken_response_is_retried(cluster: Cluster, recording: RecordingClient, fault: Any) -> None:
    cluster.fail(fault, times=1)
    assert recording.review() is not None
    assert len(recording.pauses) == 1


def test_a_server_that_was_down_is_used_again(cluster: Cluster, recording: RecordingClient) -> None:
    recording.review()
    cluster.fail("refuse")
    with pytest.raises(Unavailable, match="connection failed with"):
        recording.review()
    cluster.heal()
    assert recording.review() is not None


@pytest.mark.trap(47)
@pytest.mark.parametrize("fault", ["silent", "hang", "drip-headers", "drip-body"])
def test_a_server_that_hangs_or_drips_holds_a_call_no_longer_than_its_deadline(cluster: Cluster, fault: Any) -> None:
    load = partial(load_configuration, environ={"KUBECONFIG": str(cluster.kubeconfig)})
    client = APIServerClient(load=load)
    cluster.fail(fault)
    begun = real_time.monotonic()
    with pytest.raises(Unavailable, match=r"^API server request failed .*: (?:connection failed|no time left)"):
        client.review_token("token", ["bob"], begun + 0.3)
    assert 0.2 < real_time.monotonic() - begun < 1.5
    client.close()


def review_at_once(recording: RecordingClient, calls: int) -> list[float]:
    """Make so many calls at the same time, each on a connection of its own; return how long each took."""
    together = threading.Barrier(calls)

    def review() -> float:
        together.wait()
        begun = real_time.monotonic()
        assert recording.review() is not None
        return real_time.monotonic() - begun

    with ThreadPoolExecutor(calls) as threads:
        return [future.result() for future in [threads.submit(review) for _ in range(calls)]]


def put_dead_connections(client: APIServerClient) -> list[socket.socket]:
    """Fill the pool with idle connections to a server that is gone without a sign; return their other ends."""
    pool = client._connections.get().pool
    connections: list[Any] = [pool._get_conn() for _ in range(8)]
    ends = []
    for connection in connections:
        connection.connect()  # which verifies the certificate
        connection.sock.close()
        connection.sock, end = socket.socketpair()
        ends.append(end)
        pool._put_conn(connection)
    return ends


@pytest.fixture
def dead_ends(impatient: RecordingClient) -> Iterator[list[socket.socket]]:
    ends = put_dead_connections(impatient.client)
    yield ends
    for end in ends:
        end.close()


@pytest.mark.trap(59)
@pytest.mark.parametrize("fault", ["hang", "drip-headers", "drip-body"])
def test_a_call_that_hangs_is_tried_again_on_a_new_connection(
    cluster: Cluster, impatient: RecordingClient, fault: Any
) -> None:
    cluster.fail(fault, times=1)
    begun = real_time.monotonic()
    assert impatient.review() is not None
    assert impatient.attempt_timeout <= real_time.monotonic() - begun < 3
    assert len(impatient.pauses) == 1


@pytest.mark.trap(59)
def test_a_pod_read_that_hangs_is_tried_again(cluster: Cluster, impatient: RecordingClient) -> None:
    pod = cluster.pod("default/alice-pod")
    cluster.fail("hang", times=2)
    assert impatient.client.read_pod("default", "alice-pod", DEADLINE) == pod.json()
    assert len(impatient.pauses) == 2


@pytest.mark.trap(59)
@pytest.mark.usefixtures("dead_ends")
def test_after_a_failover_one_call_loses_one_attempt_for_all_idle_connections(impatient: RecordingClient) -> None:
    for _ in range(9):
        assert impatient.review() is not None
    assert impatient.pauses == [BACKOFF]


@pytest.mark.trap(59)
@pytest.mark.usefixtures("dead_ends")
def test_after_a_failover_eight_calls_at_once_lose_one_attempt_each(impatient: RecordingClient) -> None:
    assert max(review_at_once(impatient, 8)) < 2 * impatient.attempt_timeout
    assert impatient.pauses == [BACKOFF] * 8


@pytest.mark.trap(59)
def test_an_idle_connection_that_breaks_when_it_is_used_costs_one_attempt(
    impatient: RecordingClient, dead_ends: list[socket.socket]
) -> None:
    def break_when_used(end: socket.socket) -> None:
        end.recv(1)
        end.close()

    server = threading.Thread(target=break_when_used, args=(dead_ends[-1],))  # the pool hands out the last one first
    server.start()
    for _ in range(9):
        assert impatient.review() is not None
    server.join()
    assert impatient.pauses == [BACKOFF]


@pytest.mark.trap(59)
def test_connections_that_work_are_kept_while_another_one_fails(cluster: Cluster, impatient: RecordingClient) -> None:
    connection = impatient.client._connections.get()
    first = connection.pool
    cluster.fail("close", times=1)
    assert impatient.review() is not None
    second = connection.pool
    assert second is not first
    connection._renew_pool(first)  # as another call does whose connection was from there
    assert connection.pool is second


@pytest.mark.trap(59)
@pytest.mark.parametrize(
    ("seconds", "shares"),
    [(5, [1.25, 1.25, 2.5]), (30, [1.25, 1.25, 27.5]), (2, [1, 0.5, 0.5]), (1, [0.5, 0.25, 0.25])],
)
def test_an_attempt_has_a_share_of_the_deadline_and_the_last_one_the_rest(
    recording: RecordingClient, time: Clock, monkeypatch: pytest.MonkeyPatch, seconds: float, shares: list[float]
) -> None:
    attempts: list[float] = []

    def hang(*request: Any) -> None:
        attempts.append(request[-1])
        time.passes(request[-1])
        raise ConnectionFailed("timeout")

    monkeypatch.setattr(Connection, "send", hang)
    with pytest.raises(Unavailable, match="timeout"):
        recording.review(seconds)
    assert attempts == pytest.approx(shares)


@pytest.mark.trap(59)
def test_a_hung_connection_costs_a_caller_no_more_than_a_second_and_a_half() -> None:
    assert ATTEMPT_TIMEOUT + BACKOFF < 1.5


def test_a_response_that_is_too_long_is_not_read_to_its_end(cluster: Cluster, recording: RecordingClient) -> None:
    cluster.fail("huge")
    with pytest.raises(Unavailable, match=f"response longer than {MAX_RESPONSE} bytes"):
        recording.review()


def test_a_new_certificate_of_the_same_authority_is_accepted(cluster: Cluster, recording: RecordingClient) -> None:
    recording.review()
    cluster.fail("new-certificate")
    assert recording.review() is not None


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"7", b"\xff", b"[" * 100_000])
def test_a_response_without_a_json_object_is_unusable(
    cluster: Cluster, recording: RecordingClient, content: bytes
) -> None:
    cluster.mutate("tokenreviews", lambda _: content)
    with pytest.raises(Unavailable, match="status 201 without a JSON object"):
        recording.review()


@pytest.mark.parametrize("content", [{}, {"kind": "Status"}, {"kind": "PodList"}])
def test_an_object_of_another_kind_is_unusable(cluster: Cluster, recording: RecordingClient, content: object) -> None:
    cluster.pod("default/alice-pod")
    cluster.mutate("pods", lambda _: content)
    with pytest.raises(Unavailable, match="expected a Pod, got status 200"):
        recording.client.read_pod("default", "alice-pod", DEADLINE)


def test_a_404_that_is_not_the_api_servers_does_not_mean_that_a_pod_is_gone(
    cluster: Cluster, recording: RecordingClient
) -> None:
    cluster.mutate("pods", lambda _: b"<html>")
    with pytest.raises(Unavailable, match="status 404 without a Status object: not from an API server"):
        recording.client.read_pod("default", "nobody", DEADLINE)


NOT_FOUND: Mapping[str, object] = {
    "kind": "Status",
    "reason": "NotFound",
    "code": 404,
    "details": {"kind": "pods", "name": "alice-pod"},
}


@pytest.mark.trap(60)
@pytest.mark.parametrize(
    "changes",
    [
        {"reason": None},
        {"reason": "Expired"},
        {"details": None},
        {"details": {}},
        {"details": []},
        {"details": "pods"},
        *({"details": {"kind": kind, "name": "alice-pod"}} for kind in (None, "namespaces", "podtemplates", "Pod")),
        *({"details": {"kind": "pods", "name": name}} for name in (None, "alice", "mallory-pod", ["alice-pod"])),
        {"details": {"kind": "pods", "name": "alice-pod", "group": "metrics.k8s.io"}},
    ],
    ids=str,
)
def test_a_404_about_anything_but_the_pod_does_not_mean_that_it_is_gone(
    cluster: Cluster, recording: RecordingClient, changes: Mapping[str, object]
) -> None:
    cluster.mutate("pods", lambda _: NOT_FOUND)
    assert recording.client.read_pod("default", "alice-pod", DEADLINE) is None
    cluster.mutate("pods", lambda _: {**NOT_FOUND, **changes})
    with pytest.raises(Unavailable, match="a 404 that is not about the pod default/alice-pod"):
        recording.client.read_pod("default", "alice-pod", DEADLINE)


def test_a_namespace_is_read_and_only_a_404_about_it_means_that_there_is_none(
    cluster: Cluster, recording: RecordingClient
) -> None:
    cluster.namespace("payments", labels={"env": "prod"})
    cluster.grant("default/bob", verbs=["get"], resources=["namespaces"])
    found = recording.client.read_namespace("payments", DEADLINE)
    assert found is not None
    assert found["metadata"]["labels"] == {"env": "prod", "kubernetes.io/metadata.name": "payments"}
    assert recording.client.read_namespace("nowhere", DEADLINE) is None
    cluster.mutate("namespaces", lambda status: {**status, "details": NOT_FOUND["details"]})
    with pytest.raises(Unavailable, match="a 404 that is not about the namespace nowhere"):
        recording.client.read_namespace("nowhere", DEADLINE)


@pytest.mark.trap(33)
@pytest.mark.parametrize("fault", [401, 500, 422, "close", "html", "refuse", "foreign-certificate"])
def test_no_reason_contains_a_credential(cluster: Cluster, recording: RecordingClient, fault: Any) -> None:
    ours = recording.client.own_token()
    assert ours is not None
    cluster.fail(fault)
    with pytest.raises(Unavailable) as raised:
        recording.client.review_token("s3cret-of-the-caller", ["bob"], DEADLINE)
    for text in (str(raised.value), repr(raised.value), json.dumps(str(vars(raised.value)))):
        assert "s3cret" not in text
        assert ours not in text
