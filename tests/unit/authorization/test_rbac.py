from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

import anyio
import pytest
from werkzeug.test import Client

from podproof import wsgi
from podproof._authentication.authenticator import Authenticator
from podproof._authorization.access_reviews import AccessReviews
from podproof._authorization.policy import Decision
from podproof._authorization.rbac import RBAC
from podproof._cache.fork_local import ForkLocal
from podproof._cache.review_threads import MAX_PENDING_PER_THREAD, ReviewThreads, review_threads
from podproof._request.setup import build_authenticator
from podproof.asgi import PodAuthMiddleware
from podproof.errors import ConfigurationError, NotAllowed, Overloaded, Unavailable
from podproof.identity import Pod, PodIdentity, ServiceAccount
from podproof.options import Options
from podproof.testing import Cluster
from tests.support.fake_api import NOW, PEER, AuthenticatorFactory, Clock, FakeAPI, token
from tests.support.middleware_client import MiddlewareClient
from tests.support.startup import wait_for_startup_check

POD_UID = "authentication.kubernetes.io/pod-uid"
ALICE = PodIdentity(
    ServiceAccount("default", "alice", "account-uid"),
    Pod("default", "alice-pod", "pod-uid"),
    audience="bob",
    expires_at=0,
    groups=("system:serviceaccounts", "system:authenticated"),
    extra={POD_UID: ("pod-uid",)},
)
SECONDS = 10  # that a test waits at most for another thread


@dataclass
class FakeReviewer:
    """Responds to access reviews as a test says, and keeps the specs that were asked for."""

    status: object = field(default_factory=lambda: {"allowed": True})
    before: Callable[[], object] = lambda: None
    specs: list[Mapping[str, Any]] = field(default_factory=list)
    deadlines: list[float] = field(default_factory=list)

    def review_access(self, spec: Mapping[str, Any], deadline: float) -> Mapping[str, Any]:
        self.specs.append(spec)
        self.deadlines.append(deadline)
        self.before()
        if isinstance(self.status, Exception):
            raise self.status
        return {"kind": "SubjectAccessReview", "status": self.status}


@pytest.fixture
def reviewer() -> FakeReviewer:
    return FakeReviewer()


class MakeReviews(Protocol):
    def __call__(self, *, reviews: int = 8, denied_ttl: float = 10, **rbac: Any) -> AccessReviews:
        """Return the access reviews of an RBAC policy."""


@pytest.fixture
def make_reviews(reviewer: FakeReviewer, time: Clock) -> Iterator[MakeReviews]:
    made: list[ForkLocal[ReviewThreads]] = []

    def make(*, reviews: int = 8, denied_ttl: float = 10, **rbac: Any) -> AccessReviews:
        made.append(review_threads(reviews))
        return AccessReviews(
            RBAC(**rbac),
            reviewer,
            made[-1],
            allowed_ttl=60,
            allowed_size=1000,
            denied_ttl=denied_ttl,
            denied_size=1000,
            monotonic=time,
        )

    yield make
    for threads in made:
        threads.get().shutdown()


@pytest.fixture
def rbac(make_reviews: MakeReviews) -> AccessReviews:
    return make_reviews()


def check(rbac: AccessReviews, method: str, path: str, identity: PodIdentity = ALICE) -> Future[Decision] | None:
    return rbac.check(identity, method, path, rbac._monotonic() + 5)


def decide(
    rbac: AccessReviews, method: str = "GET", path: str = "/invoices", identity: PodIdentity = ALICE
) -> Decision:
    future = check(rbac, method, path, identity)
    return True if future is None else future.result(SECONDS)


def test_a_review_is_about_the_caller_the_verb_and_the_path(rbac: AccessReviews, reviewer: FakeReviewer) -> None:
    assert decide(rbac, "POST") is True
    assert reviewer.specs == [
        {
            "user": "system:serviceaccount:default:alice",
            "uid": "account-uid",
            "groups": ("system:serviceaccounts", "system:authenticated"),
            "extra": {POD_UID: ("pod-uid",)},
            "nonResourceAttributes": {"verb": "post", "path": "/invoices"},
        }
    ]


def test_a_prefix_goes_before_each_path(make_reviews: MakeReviews, reviewer: FakeReviewer) -> None:
    assert decide(make_reviews(prefix="/bob"), path="/api/invoices") is True
    assert reviewer.specs[0]["nonResourceAttributes"]["path"] == "/bob/api/invoices"


@pytest.mark.parametrize(
    ("method", "verb"),
    [("GET", "get"), ("HEAD", "get"), ("POST", "create"), ("PUT", "update"), ("PATCH", "patch"), ("DELETE", "delete")],
)
def test_a_resource_is_reviewed_for_every_path(
    make_reviews: MakeReviews, reviewer: FakeReviewer, method: str, verb: str
) -> None:
    rbac = make_reviews(resource="services/proxy", namespace="default", name="bob")
    assert decide(rbac, method, "/api/whatever") is True
    assert reviewer.specs[0]["resourceAttributes"] == {
        "verb": verb,
        "group": "",
        "resource": "services",
        "subresource": "proxy",
        "namespace": "default",
        "name": "bob",
    }
    assert "nonResourceAttributes" not in reviewer.specs[0]


def test_a_method_without_a_kubernetes_verb_is_denied(make_reviews: MakeReviews) -> None:
    rbac = make_reviews(resource="deployments", group="apps")
    with pytest.raises(NotAllowed, match="no Kubernetes verb corresponds to the method 'OPTIONS'"):
        check(rbac, "OPTIONS", "/")


@pytest.mark.parametrize(
    "path",
    ["/api", "/api/invoices", "/apis/x", "/openapi", "/version", "/healthz", "/.well-known/x", "/openid/v1/jwks"],
)
def test_paths_that_every_service_account_may_read_are_denied_without_a_review(
    rbac: AccessReviews, reviewer: FakeReviewer, path: str
) -> None:
    with pytest.raises(NotAllowed, match=r'RBAC\(prefix="/bob"\)'):
        check(rbac, "GET", path)
    assert reviewer.specs == []
    assert decide(rbac, path="/apiary") is True


@pytest.mark.parametrize(
    ("status", "denied"),
    [({"allowed": False}, True), ({"allowed": False, "denied": True}, True), ({"allowed": True}, False)],
)
def test_a_permission_is_cached_for_a_minute_and_a_denial_for_ten_seconds(
    rbac: AccessReviews, reviewer: FakeReviewer, time: Clock, status: object, denied: bool
) -> None:
    reviewer.status = status
    first = decide(rbac)
    assert isinstance(first, NotAllowed) is denied
    time.passes(9.9 if denied else 59.9)
    if denied:
        with pytest.raises(NotAllowed, match="RBAC does not allow system:serviceaccount:default:alice: verb='get'"):
            decide(rbac)
    else:
        assert decide(rbac) is True
    assert len(reviewer.specs) == 1
    time.passes(0.2)
    decide(rbac)
    assert len(reviewer.specs) == 2


def test_each_caller_method_and_path_has_a_review_of_its_own(rbac: AccessReviews, reviewer: FakeReviewer) -> None:
    other_pod = PodIdentity(
        ALICE.service_account, ALICE.pod, "bob", 0, groups=ALICE.groups, extra={POD_UID: ("other",)}
    )
    other_account = PodIdentity(
        ServiceAccount("default", "alice", "recreated"), ALICE.pod, "bob", 0, groups=ALICE.groups
    )
    for _ in range(2):
        for identity in (ALICE, other_pod, other_account):
            for method, path in (("GET", "/a"), ("PUT", "/a"), ("GET", "/a/b")):
                decide(rbac, method, path, identity)
    assert len(reviewer.specs) == 9


@pytest.mark.trap(27)
def test_equal_requests_at_the_same_time_share_one_review(rbac: AccessReviews, reviewer: FakeReviewer) -> None:
    begin = threading.Event()
    reviewer.before = lambda: begin.wait(SECONDS)
    futures = [check(rbac, "GET", "/a") for _ in range(5)]
    begin.set()
    assert [future.result(SECONDS) for future in futures if future is not None] == [True] * 5
    assert len(reviewer.specs) == 1


def test_too_many_pending_reviews_are_503(make_reviews: MakeReviews, reviewer: FakeReviewer) -> None:
    begin = threading.Event()
    reviewer.before = lambda: begin.wait(SECONDS)
    rbac = make_reviews(reviews=1)
    futures = [check(rbac, "GET", f"/{number}") for number in range(MAX_PENDING_PER_THREAD // 2)]
    with pytest.raises(Overloaded):
        check(rbac, "GET", "/one-more")
    begin.set()
    assert all(future is not None and future.result(SECONDS) is True for future in futures)


@pytest.mark.parametrize(
    "status", [None, {}, {"allowed": "true"}, [], Unavailable("away"), RuntimeError("s3cret")], ids=repr
)
def test_a_failure_is_503_and_is_not_cached(rbac: AccessReviews, reviewer: FakeReviewer, status: object) -> None:
    reviewer.status = status
    failure = decide(rbac)
    assert isinstance(failure, Unavailable)
    assert "s3cret" not in str(failure)
    reviewer.status = {"allowed": True}
    assert decide(rbac) is True


@pytest.mark.parametrize("timeout", [None, 3])
def test_a_review_that_would_begin_after_its_deadline_is_not_made(
    make_reviews: MakeReviews, reviewer: FakeReviewer, time: Clock, timeout: float | None
) -> None:
    asked, begin = threading.Event(), threading.Event()

    def before() -> None:
        asked.set()
        begin.wait(SECONDS)

    reviewer.before = before
    rbac = make_reviews(reviews=1, timeout=timeout)
    first, second = (check(rbac, "GET", path) for path in ("/a", "/b"))
    assert asked.wait(SECONDS)
    time.passes(timeout or 5)
    begin.set()
    assert first is not None
    assert first.result(SECONDS) is True
    assert second is not None
    assert isinstance(second.result(SECONDS), Unavailable)
    assert len(reviewer.specs) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prefix": "bob"}, "invalid RBAC prefix 'bob': expected a plain path"),
        ({"prefix": "/"}, "invalid RBAC prefix '/'"),
        ({"prefix": "/bob/"}, "invalid RBAC prefix '/bob/'"),
        ({"prefix": "/bob/*"}, r"invalid RBAC prefix '/bob/\*'"),
        ({"prefix": "/bob", "resource": "services"}, "cannot be combined with resource"),
        ({"namespace": "default"}, "need a resource"),
    ],
)
def test_invalid_or_contradicting_arguments_are_configuration_errors(arguments: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        RBAC(**arguments)  # type: ignore[arg-type]  # each is a string


def test_a_middleware_caches_allowed_and_denied_access_reviews(
    make_client: Callable[..., MiddlewareClient], reviewer: FakeReviewer
) -> None:
    client = make_client(policy=RBAC(reviewer=reviewer))
    assert [client("/invoices").status for _ in range(3)] == [200] * 3
    reviewer.status = {"allowed": False}
    denied = [client("/reports") for _ in range(3)]
    assert [response.status for response in denied] == [403] * 3
    assert denied[0].headers["Content-Type"] == "application/problem+json"
    assert [spec["nonResourceAttributes"]["path"] for spec in reviewer.specs] == ["/invoices", "/reports"]
    reviewer.status = Unavailable("away")
    away = client("/others")
    assert (away.status, away.headers["Retry-After"]) == (503, "1")


def test_a_middlewares_settings_are_those_of_its_access_reviews(
    make_client: Callable[..., MiddlewareClient], reviewer: FakeReviewer, time: Clock
) -> None:
    client = make_client(policy=RBAC(reviewer=reviewer), cache_ttl=5, rejection_ttl=2)
    for path, allowed, seconds in (("/a", True, 5), ("/b", False, 2)):
        reviewer.status = {"allowed": allowed}
        reviewer.specs.clear()
        client(path)
        time.passes(seconds - 0.1)
        client(path)
        assert len(reviewer.specs) == 1
        time.passes(0.1)
        client(path)
        assert len(reviewer.specs) == 2


def test_authentication_and_authorization_share_one_deadline(
    make_client: Callable[..., MiddlewareClient], reviewer: FakeReviewer, fake_api: FakeAPI, time: Clock
) -> None:
    fake_api.before = lambda: time.passes(0.9)
    client = make_client(policy=RBAC(reviewer=reviewer), timeout=1)
    assert client("/a").status == 200
    assert reviewer.deadlines == [NOW + 1]


def status(client: Client, pod: Any, path: str = "/", method: str = "GET") -> int:
    environ = {"REMOTE_ADDR": "127.0.0.1"}
    with client.open(path, method=method, headers=pod.headers("bob"), environ_overrides=environ) as response:
        return response.status_code


def ok(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok"]


@pytest.fixture
def rbac_client() -> Iterator[Client]:
    """Give a client of an app whose policy is RBAC, with one thread that calls the API server."""
    authenticator = build_authenticator(Options(audience=("bob",), policy="rbac", max_reviews=1))
    yield Client(wsgi.PodAuthMiddleware(ok, authenticator=authenticator))
    wait_for_startup_check()
    authenticator.close()


def test_access_reviews_share_the_threads_and_client_of_token_reviews(cluster: Cluster, rbac_client: Client) -> None:
    caller = cluster.pod("default/caller", service_account="caller", addresses=["127.0.0.1"])
    cluster.grant("default/caller", verbs=["get"], non_resource_urls=["/"])
    before = {*threading.enumerate()}
    assert status(rbac_client, caller) == 200
    wait_for_startup_check()
    started = [thread.name for thread in threading.enumerate() if thread not in before]
    assert [name for name in started if name.startswith("podproof")] == ["podproof_0"]
    assert (cluster.count("tokenreviews"), cluster.count("subjectaccessreviews")) == (1, 1)


def test_a_review_that_takes_too_long_is_503(
    make_client: Callable[..., MiddlewareClient], reviewer: FakeReviewer
) -> None:
    begin = threading.Event()
    reviewer.before = lambda: begin.wait(SECONDS)
    try:
        assert make_client(policy=RBAC(reviewer=reviewer), timeout=0.05)("/a").status == 503
    finally:
        begin.set()


@pytest.mark.anyio
async def test_the_event_loop_runs_while_a_review_is_pending(
    make_authenticator: AuthenticatorFactory, reviewer: FakeReviewer
) -> None:
    begin = threading.Event()
    reviewer.before = lambda: begin.wait(SECONDS)
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        sent.append(scope["user"])

    async def never() -> Any:
        await anyio.sleep_forever()

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "websocket",
        "path": "/ws",
        "headers": [(b"authorization", f"Bearer {token()}".encode())],
        "client": (PEER, 4711),
    }
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(
            PodAuthMiddleware(app, authenticator=make_authenticator(policy=RBAC(reviewer=reviewer))), scope, never, send
        )
        while not reviewer.specs:  # which needs this loop to run
            await anyio.lowlevel.checkpoint()
        assert sent == []
        begin.set()
    assert str(sent[0].service_account) == "default/alice"
    assert reviewer.specs[0]["nonResourceAttributes"] == {"verb": "get", "path": "/ws"}


def test_a_cluster_role_allows_its_callers(cluster: Cluster) -> None:
    alice = cluster.pod("default/alice-pod", service_account="alice", addresses=["127.0.0.1"])
    authenticator = build_authenticator(Options(audience=("bob",), policy="rbac", rejection_ttl=0))
    client = Client(wsgi.PodAuthMiddleware(ok, authenticator=authenticator))
    assert status(client, alice, "/invoices") == 403
    cluster.grant("default/alice", verbs=["get"], non_resource_urls=["/invoices", "/invoices/*"])
    assert status(client, alice, "/invoices") == 200
    assert status(client, alice, "/invoices", "POST") == 403
    authenticator.close()


@pytest.mark.trap(13)
@pytest.mark.parametrize("policy", ["rbac", RBAC(prefix="/bob")])
def test_a_missing_permission_for_access_reviews_is_logged_and_every_request_is_503(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, policy: Any
) -> None:
    cluster.grant("default/bob", verbs=["create"], resources=["tokenreviews"])
    cluster.grant("default/bob", verbs=["get"], resources=["pods"])
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig_for("default/bob")))
    alice = cluster.pod("default/alice-pod", service_account="alice", addresses=["127.0.0.1"])
    authenticator: Authenticator = build_authenticator(Options(audience=("bob",), policy=policy))
    client = Client(wsgi.PodAuthMiddleware(ok, authenticator=authenticator))
    assert status(client, alice) == 503
    wait_for_startup_check()
    authenticator.close()
    missing = "may not create subjectaccessreviews.authorization.k8s.io"
    assert sum(missing in message for message in caplog.messages) == 1
