from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest

from podproof._apiserver.client import APIServerClient
from podproof._authorization.policy import Decision
from podproof._authorization.rbac import RBAC
from podproof._request.setup import log_missing_permissions
from podproof.asgi import PodAuthMiddleware
from podproof.errors import ConfigurationError, NotAllowed, Overloaded, PodAuthError, Unavailable
from podproof.identity import Pod, PodIdentity, ServiceAccount
from podproof.testing import Cluster
from tests.support.fake_api import PEER, AuthenticatorFactory, Clock, token
from tests.support.middleware_client import MiddlewareClient

POD_UID = "authentication.kubernetes.io/pod-uid"
ALICE = PodIdentity(
    ServiceAccount("default", "alice", "account-uid"),
    Pod("default", "alice-pod", "pod-uid"),
    audience="bob",
    expires_at=0,
    groups=("system:serviceaccounts", "system:authenticated"),
    extra={POD_UID: ("pod-uid",)},
)
SECONDS = 10  # that a test waits at the most for another thread


@dataclass
class Reviewer:
    """Answers access reviews as it is told to, and keeps what it was asked."""

    status: object = field(default_factory=lambda: {"allowed": True})
    before: Callable[[], object] = lambda: None
    asked: list[Mapping[str, Any]] = field(default_factory=list)

    def review_access(self, spec: Mapping[str, Any], deadline: float) -> Mapping[str, Any]:
        self.asked.append(spec)
        self.before()
        if isinstance(self.status, Exception):
            raise self.status
        return {"kind": "SubjectAccessReview", "status": self.status}


@pytest.fixture
def reviewer() -> Reviewer:
    return Reviewer()


@pytest.fixture
def rbac(reviewer: Reviewer, time: Clock) -> Iterator[RBAC]:
    with closing(RBAC(cluster=reviewer, monotonic=time)) as made:
        yield made


def verdict(rbac: RBAC, method: str = "GET", path: str = "/invoices", identity: PodIdentity = ALICE) -> Decision:
    flight = rbac.check(identity, method, path)
    return True if flight is None else flight.result(SECONDS)


def test_the_question_is_who_and_which_path(rbac: RBAC, reviewer: Reviewer) -> None:
    assert verdict(rbac, "POST") is True
    assert reviewer.asked == [
        {
            "user": "system:serviceaccount:default:alice",
            "uid": "account-uid",
            "groups": ("system:serviceaccounts", "system:authenticated"),
            "extra": {POD_UID: ("pod-uid",)},
            "nonResourceAttributes": {"verb": "post", "path": "/invoices"},
        }
    ]


def test_a_prefix_goes_before_each_path(reviewer: Reviewer) -> None:
    with closing(RBAC(prefix="/bob", cluster=reviewer)) as rbac:
        assert verdict(rbac, path="/api/invoices") is True
    assert reviewer.asked[0]["nonResourceAttributes"]["path"] == "/bob/api/invoices"


@pytest.mark.parametrize(
    ("method", "verb"),
    [("GET", "get"), ("HEAD", "get"), ("POST", "create"), ("PUT", "update"), ("PATCH", "patch"), ("DELETE", "delete")],
)
def test_or_which_resource(reviewer: Reviewer, method: str, verb: str) -> None:
    resource = RBAC(resource="services/proxy", namespace="default", name="bob", cluster=reviewer)
    with closing(resource) as rbac:
        assert verdict(rbac, method, "/api/whatever") is True
    assert reviewer.asked[0]["resourceAttributes"] == {
        "verb": verb,
        "group": "",
        "resource": "services",
        "subresource": "proxy",
        "namespace": "default",
        "name": "bob",
    }
    assert "nonResourceAttributes" not in reviewer.asked[0]


def test_a_method_that_no_verb_stands_for_is_refused(reviewer: Reviewer) -> None:
    rbac = RBAC(resource="deployments", group="apps", cluster=reviewer)
    with pytest.raises(NotAllowed, match="no verb of Kubernetes stands for the method 'OPTIONS'"):
        rbac.check(ALICE, "OPTIONS", "/")


@pytest.mark.parametrize(
    "path",
    ["/api", "/api/invoices", "/apis/x", "/openapi", "/version", "/healthz", "/.well-known/x", "/openid/v1/jwks"],
)
def test_what_a_cluster_lets_everybody_read_is_not_asked_for(rbac: RBAC, reviewer: Reviewer, path: str) -> None:
    with pytest.raises(NotAllowed, match=r'RBAC\(prefix="/bob"\)'):
        rbac.check(ALICE, "GET", path)
    assert reviewer.asked == []
    assert verdict(rbac, path="/apiary") is True


@pytest.mark.parametrize(
    ("status", "denied"),
    [({"allowed": False}, True), ({"allowed": False, "denied": True}, True), ({"allowed": True}, False)],
)
def test_a_permission_is_remembered_for_a_minute_and_a_refusal_for_ten_seconds(
    rbac: RBAC, reviewer: Reviewer, time: Clock, status: object, denied: bool
) -> None:
    reviewer.status = status
    first = verdict(rbac)
    assert isinstance(first, NotAllowed) is denied
    time.passes(9.9 if denied else 59.9)
    if denied:
        with pytest.raises(NotAllowed, match="RBAC does not allow system:serviceaccount:default:alice: verb='get'"):
            verdict(rbac)
    else:
        assert verdict(rbac) is True
    assert len(reviewer.asked) == 1
    time.passes(0.2)
    verdict(rbac)
    assert len(reviewer.asked) == 2


def test_each_caller_method_and_path_is_a_question_of_its_own(rbac: RBAC, reviewer: Reviewer) -> None:
    other_pod = PodIdentity(
        ALICE.service_account, ALICE.pod, "bob", 0, groups=ALICE.groups, extra={POD_UID: ("other",)}
    )
    other_account = PodIdentity(
        ServiceAccount("default", "alice", "made-anew"), ALICE.pod, "bob", 0, groups=ALICE.groups
    )
    for _ in range(2):
        for identity in (ALICE, other_pod, other_account):
            for method, path in (("GET", "/a"), ("PUT", "/a"), ("GET", "/a/b")):
                verdict(rbac, method, path, identity)
    assert len(reviewer.asked) == 9


@pytest.mark.trap(27)
def test_all_who_ask_the_same_at_the_same_time_share_one_question(rbac: RBAC, reviewer: Reviewer) -> None:
    begin = threading.Event()
    reviewer.before = lambda: begin.wait(SECONDS)
    flights = [rbac.check(ALICE, "GET", "/a") for _ in range(5)]
    begin.set()
    assert [flight.result(SECONDS) for flight in flights if flight is not None] == [True] * 5
    assert len(reviewer.asked) == 1


def test_too_many_questions_are_our_trouble(reviewer: Reviewer) -> None:
    begin = threading.Event()
    reviewer.before = lambda: begin.wait(SECONDS)
    with closing(RBAC(reviews=1, cluster=reviewer)) as rbac:
        flights = [rbac.check(ALICE, "GET", f"/{number}") for number in range(17)]
        with pytest.raises(Overloaded):
            rbac.check(ALICE, "GET", "/one-more")
        begin.set()
        assert all(flight is not None and flight.result(SECONDS) is True for flight in flights)


@pytest.mark.parametrize(
    "status", [None, {}, {"allowed": "true"}, [], Unavailable("away"), RuntimeError("s3cret")], ids=repr
)
def test_no_answer_is_no_verdict_and_is_not_remembered(rbac: RBAC, reviewer: Reviewer, status: object) -> None:
    reviewer.status = status
    trouble = verdict(rbac)
    assert isinstance(trouble, Unavailable)
    assert "s3cret" not in str(trouble)
    reviewer.status = {"allowed": True}
    assert verdict(rbac) is True


def test_a_question_that_has_waited_too_long_is_not_asked(reviewer: Reviewer, time: Clock) -> None:
    begin = threading.Event()
    reviewer.before = lambda: begin.wait(SECONDS)
    with closing(RBAC(reviews=1, timeout=5, cluster=reviewer, monotonic=time)) as rbac:
        first, second = (rbac.check(ALICE, "GET", path) for path in ("/a", "/b"))
        time.passes(5)
        begin.set()
        assert first is not None
        assert first.result(SECONDS) is True
        assert second is not None
        assert isinstance(second.result(SECONDS), Unavailable)
    assert len(reviewer.asked) == 1


def test_after_the_end_it_can_begin_anew(rbac: RBAC) -> None:
    rbac.close()
    assert verdict(rbac) is True
    rbac.close()
    rbac.close()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"prefix": "bob"}, "prefix was given 'bob'"),
        ({"prefix": "/"}, "prefix was given '/'"),
        ({"prefix": "/bob/"}, "prefix was given '/bob/'"),
        ({"prefix": "/bob/*"}, r"prefix was given '/bob/\*'"),
        ({"prefix": "/bob", "resource": "services"}, "a prefix was given, and a resource"),
        ({"namespace": "default"}, "and no resource"),
    ],
)
def test_what_makes_no_sense_is_an_error(given: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        RBAC(**given)  # type: ignore[arg-type]  # each is a text


def test_a_middleware_asks_and_remembers(
    make_client: Callable[..., MiddlewareClient], rbac: RBAC, reviewer: Reviewer
) -> None:
    app = make_client(policy=rbac)
    assert [app("/invoices").status for _ in range(3)] == [200] * 3
    reviewer.status = {"allowed": False}
    refused = [app("/reports") for _ in range(3)]
    assert [answer.status for answer in refused] == [403] * 3
    assert refused[0].headers["Content-Type"] == "application/problem+json"
    assert [spec["nonResourceAttributes"]["path"] for spec in reviewer.asked] == ["/invoices", "/reports"]
    reviewer.status = Unavailable("away")
    away = app("/others")
    assert (away.status, away.headers["Retry-After"]) == (503, "1")


def test_a_review_that_takes_too_long_is_our_trouble(
    make_client: Callable[..., MiddlewareClient], rbac: RBAC, reviewer: Reviewer
) -> None:
    begin = threading.Event()
    reviewer.before = lambda: begin.wait(SECONDS)
    try:
        assert make_client(policy=rbac, timeout=0.05)("/a").status == 503
    finally:
        begin.set()


@pytest.mark.anyio
async def test_an_event_loop_goes_on_while_a_review_is_under_way(
    make_authenticator: AuthenticatorFactory, rbac: RBAC, reviewer: Reviewer
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
        tasks.start_soon(PodAuthMiddleware(app, authenticator=make_authenticator(policy=rbac)), scope, never, send)
        while not reviewer.asked:  # which needs this loop to run
            await anyio.lowlevel.checkpoint()
        assert sent == []
        begin.set()
    assert str(sent[0].service_account) == "default/alice"
    assert reviewer.asked[0]["nonResourceAttributes"] == {"verb": "get", "path": "/ws"}


def test_a_cluster_role_lets_a_caller_in(make_client: Callable[..., MiddlewareClient], cluster: Cluster) -> None:
    alice = cluster.pod("default/alice-pod", service_account="alice")
    with closing(RBAC(denied_ttl=0)) as rbac:
        identity = PodIdentity(
            ServiceAccount("default", "alice"), Pod("default", "alice-pod", alice.uid), "bob", 0, groups=ALICE.groups
        )
        assert isinstance(verdict(rbac, identity=identity), NotAllowed)
        cluster.grant("default/alice", verbs=["get"], non_resource_urls=["/invoices", "/invoices/*"])
        assert verdict(rbac, identity=identity) is True
        assert isinstance(verdict(rbac, "POST", identity=identity), NotAllowed)


def test_without_our_permission_it_is_our_trouble(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig_for("default/bob")))
    with closing(RBAC()) as rbac:
        trouble = verdict(rbac)
    assert isinstance(trouble, PodAuthError)
    assert trouble.status == 503
    assert "forbids us to create subjectaccessreviews.authorization.k8s.io" in str(trouble)


@pytest.mark.trap(13)
@pytest.mark.parametrize("rbac", [True, False])
def test_the_permission_it_needs_is_asked_for_at_start(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, rbac: bool
) -> None:
    cluster.grant("default/bob", verbs=["create"], resources=["tokenreviews"])
    cluster.grant("default/bob", verbs=["get"], resources=["pods"])
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig_for("default/bob")))
    with closing(APIServerClient()) as client:
        log_missing_permissions(client, 5, rbac=rbac)
    said = [
        message for message in caplog.messages if "may not create subjectaccessreviews.authorization.k8s.io" in message
    ]
    assert len(said) == rbac == len(caplog.messages)
