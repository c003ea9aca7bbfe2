"""Rules by the labels of the caller's namespace."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from podproof._authentication.custom import CustomAuthenticator
from podproof._authorization.namespace_labels import NamespaceLabels
from podproof._authorization.policy import Decision
from podproof._authorization.reloaded import CHECK_INTERVAL
from podproof._authorization.rules import Rule, Rules
from podproof._authorization.rules_file import RulesFile
from podproof._cache.review_threads import review_threads
from podproof._request.setup import build_authorize, build_namespace_labels
from podproof.asgi import PodAuthMiddleware
from podproof.errors import ConfigurationError, NotAllowed, PodAuthError, Unavailable
from podproof.exchange.asgi import IssuedTokenMiddleware
from podproof.identity import Owner, Pod, PodIdentity, ServiceAccount
from podproof.options import Options
from podproof.testing import Cluster, as_pod
from tests.support.fake_api import NOW, Clock, FakeAPI, namespace
from tests.support.middleware_client import MiddlewareClient
from tests.support.startup import wait_for_startup_check

SECONDS = 10.0
DEADLINE = NOW + 1000
POD = Pod("default", "alice-pod", "uid", labels={"team": "billing"}, owner=Owner("StatefulSet", "db", "apps"))
ALICE = PodIdentity(ServiceAccount("default", "alice"), POD, "bob", 0)
IN_PRODUCTION = Rule("/", allow=["*/*"], namespace_labels={"env": "prod"})
AWAY = Unavailable("the API server is away")


@pytest.fixture
def namespaces(fake_api: FakeAPI, time: Clock) -> Iterator[NamespaceLabels]:
    threads = review_threads(2)
    yield NamespaceLabels(lambda: fake_api, threads, ttl=60, size=10, missing_ttl=10, missing_size=10, monotonic=time)
    threads.get().shutdown()


def ask(namespaces: NamespaceLabels, *rules: Rule, method: str = "GET", path: str = "/") -> Future[Decision] | None:
    return Rules(rules, namespaces).check(ALICE, method, path, DEADLINE)


def denial(namespaces: NamespaceLabels, *rules: Rule, method: str = "GET", path: str = "/") -> PodAuthError | None:
    """Return why the rules deny Alice, None if they allow her."""
    try:
        future = ask(namespaces, *rules, method=method, path=path)
    except PodAuthError as error:
        return error
    decision = True if future is None else future.result(SECONDS)
    return None if decision is True else decision


@pytest.mark.parametrize(
    ("wanted", "labels", "allowed"),
    [
        ({"env": "prod"}, {"env": "prod"}, True),
        ({"env": "prod"}, {"env": "prod", "more": "x"}, True),
        ({"env": "prod", "tier": "1"}, {"env": "prod", "tier": "1"}, True),
        ({"kubernetes.io/metadata.name": "default"}, {}, True),
        ({"trusted": ""}, {"trusted": ""}, True),
        ({"env": "prod"}, {}, False),
        ({"env": "prod"}, {"env": "Prod"}, False),
        ({"env": "prod"}, {"env": ""}, False),
        ({"env": "prod"}, {"environment": "prod"}, False),
        ({"env": "prod", "tier": "1"}, {"env": "prod"}, False),
        ({"kubernetes.io/metadata.name": "payments"}, {}, False),
        ({"trusted": ""}, {}, False),
    ],
)
def test_a_namespace_needs_all_labels_of_a_rule_now_and_from_the_cache(
    namespaces: NamespaceLabels, fake_api: FakeAPI, wanted: dict[str, str], labels: dict[str, str], allowed: bool
) -> None:
    fake_api.namespace = namespace(**labels)
    for _ in range(2):
        found = denial(namespaces, Rule("/", allow=["*/*"], namespace_labels=wanted))
        assert (found is None) is allowed
        assert found is None or (isinstance(found, NotAllowed) and "namespace default does not have" in found.reason)
    assert fake_api.asked_namespaces == [("default", DEADLINE)]


@pytest.mark.parametrize(
    ("rules", "path"),
    [
        ([IN_PRODUCTION], "/other"),
        ([Rule("/", methods=["POST"], allow=["*/*"], namespace_labels={"env": "prod"})], "/"),
        ([Rule("/", allow=["payments/*"], namespace_labels={"env": "prod"})], "/"),
        ([Rule("/", allow=[], namespace_labels={"env": "prod"})], "/"),
        ([Rule("/", allow=["*/*"], labels={"team": "x"}, namespace_labels={"env": "prod"})], "/"),
        ([Rule("/", allow=["*/*"], owner="StatefulSet/x", namespace_labels={"env": "prod"})], "/"),
        ([Rule("/", allow=["payments/*"]), IN_PRODUCTION], "/"),
    ],
)
def test_a_namespace_is_read_only_where_the_rest_of_the_rule_allows_the_caller(
    namespaces: NamespaceLabels, fake_api: FakeAPI, rules: list[Rule], path: str
) -> None:
    assert isinstance(denial(namespaces, *rules, path=path), NotAllowed)
    assert denial(namespaces, Rule("/", allow=["default/alice"]), IN_PRODUCTION) is None
    assert fake_api.asked_namespaces == []


def test_all_parts_of_a_rule_together_allow_a_caller(namespaces: NamespaceLabels) -> None:
    rule = Rule(
        "/",
        methods=["GET"],
        allow=["default/*"],
        labels={"team": "billing"},
        owner="StatefulSet/db",
        namespace_labels={"env": "prod"},
    )
    assert denial(namespaces, rule) is None


def test_the_first_rule_for_a_path_decides_by_the_namespace_too(namespaces: NamespaceLabels, fake_api: FakeAPI) -> None:
    fake_api.namespace = namespace()
    assert isinstance(denial(namespaces, IN_PRODUCTION, Rule("/", allow=["*/*"])), NotAllowed)


def test_labels_are_believed_for_the_ttl_and_then_read_again(
    namespaces: NamespaceLabels, fake_api: FakeAPI, time: Clock
) -> None:
    assert denial(namespaces, IN_PRODUCTION) is None
    fake_api.namespace = namespace(env="test")
    time.passes(59.9)
    assert denial(namespaces, IN_PRODUCTION) is None
    time.passes(0.1)
    assert isinstance(denial(namespaces, IN_PRODUCTION), NotAllowed)
    fake_api.namespace = namespace(env="prod")
    time.passes(60)
    assert denial(namespaces, IN_PRODUCTION) is None
    assert len(fake_api.asked_namespaces) == 3


@pytest.mark.parametrize(
    "response",
    [
        AWAY,
        {},
        {"metadata": None},
        {"metadata": {"labels": None}},
        {"metadata": {"labels": ["env"]}},
        {"metadata": {"labels": {"env": None}}},
        RuntimeError("a fault in our own code"),
    ],
    ids=str,
)
def test_what_cannot_be_read_is_unavailable_and_is_not_cached(
    namespaces: NamespaceLabels, fake_api: FakeAPI, response: Any
) -> None:
    fake_api.namespace = response
    for _ in range(2):
        assert isinstance(denial(namespaces, IN_PRODUCTION), Unavailable)
    fake_api.namespace = namespace(env="prod")
    assert denial(namespaces, IN_PRODUCTION) is None


def test_labels_that_have_expired_are_not_believed_while_the_api_server_is_away(
    namespaces: NamespaceLabels, fake_api: FakeAPI, time: Clock
) -> None:
    assert denial(namespaces, IN_PRODUCTION) is None
    fake_api.namespace = AWAY
    time.passes(60)
    assert isinstance(denial(namespaces, IN_PRODUCTION), Unavailable)


def test_a_namespace_without_labels_has_none(namespaces: NamespaceLabels, fake_api: FakeAPI) -> None:
    fake_api.namespace = {"kind": "Namespace", "metadata": {"name": "default"}}
    assert isinstance(denial(namespaces, IN_PRODUCTION), NotAllowed)


def test_a_namespace_that_is_gone_is_denied_and_asked_for_again_later(
    namespaces: NamespaceLabels, fake_api: FakeAPI, time: Clock
) -> None:
    fake_api.namespace = None
    for _ in range(2):
        found = denial(namespaces, IN_PRODUCTION)
        assert isinstance(found, NotAllowed)
        assert found.reason == "there is no namespace default"
    assert len(fake_api.asked_namespaces) == 1
    fake_api.namespace = namespace(env="prod")
    time.passes(10)
    assert denial(namespaces, IN_PRODUCTION) is None


def test_requests_at_the_same_time_share_one_read_and_each_rule_decides_for_itself(
    namespaces: NamespaceLabels, fake_api: FakeAPI
) -> None:
    begin = threading.Event()
    fake_api.before = lambda: begin.wait(SECONDS)
    rules = [IN_PRODUCTION, Rule("/", allow=["*/*"], namespace_labels={"env": "test"})]
    futures = [ask(namespaces, rule) for rule in rules * 5]
    begin.set()
    decisions = [future.result(SECONDS) for future in futures if future is not None]
    assert [decision is True for decision in decisions] == [True, False] * 5
    assert len(fake_api.asked_namespaces) == 1


@pytest.mark.parametrize("labels", [{"env": "a b"}, {"": "x"}, {"env": 7}])
def test_what_no_label_can_be_is_an_error(labels: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^invalid namespace_labels .*: expected a label"):
        Rule("/", allow=["*/*"], namespace_labels=labels)


def test_a_rule_shows_its_namespace_labels() -> None:
    assert repr(IN_PRODUCTION).endswith("namespace_labels={'env': 'prod'})")


# A rules file


FOR_PRODUCTION = "rules: [{path: /, allow: ['*/*'], namespace_labels: {env: prod}}]\n"


def test_a_rules_file_may_begin_to_ask_for_a_namespace(
    tmp_path: Path, namespaces: NamespaceLabels, fake_api: FakeAPI, time: Clock
) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text("rules: [{path: /, allow: ['*/*']}]\n")
    rules = RulesFile(file, namespaces, monotonic=time, start=lambda work: work())
    assert rules.check(ALICE, "GET", "/", DEADLINE) is None
    file.write_text(FOR_PRODUCTION)
    time.passes(CHECK_INTERVAL)
    future = rules.check(ALICE, "GET", "/", DEADLINE)
    assert future is not None
    assert future.result(SECONDS) is True
    assert fake_api.asked_namespaces == [("default", DEADLINE)]


def test_namespace_labels_that_are_no_mapping_are_an_error_with_the_line(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text("rules:\n  - {path: /, allow: ['*/*'], namespace_labels: env=prod}\n")
    with pytest.raises(ConfigurationError, match="line 2: invalid namespace_labels: expected a mapping"):
        RulesFile(file)


# In a middleware


def test_a_middleware_reads_the_namespace_within_the_request_s_deadline(
    make_client: Callable[..., MiddlewareClient], fake_api: FakeAPI, time: Clock
) -> None:
    pauses = iter([0.9])
    fake_api.before = lambda: time.passes(next(pauses, 0))
    client = make_client(rules=[IN_PRODUCTION], timeout=1)
    assert client("/").status == 200
    assert fake_api.asked_namespaces == [("default", NOW + 1)]
    assert client("/").status == 200
    assert len(fake_api.asked_namespaces) == 1


def test_a_namespace_that_cannot_be_read_in_time_is_503(
    make_client: Callable[..., MiddlewareClient], fake_api: FakeAPI
) -> None:
    client = make_client(rules=[IN_PRODUCTION, Rule("/free", allow=["*/*"])], timeout=0.2)
    assert client("/free").status == 200
    begin = threading.Event()
    fake_api.before = lambda: begin.wait(SECONDS)
    try:
        assert client("/").status == 503
        assert client("/free").status == 200
    finally:
        begin.set()


def test_an_outage_is_503_and_other_labels_are_403(
    make_client: Callable[..., MiddlewareClient], fake_api: FakeAPI
) -> None:
    client = make_client(rules=[IN_PRODUCTION], cache_ttl=0)
    for found, status in ((AWAY, 503), (namespace(), 403), (None, 403)):
        fake_api.namespace = found
        assert client("/").status == status


def hello(_: Any) -> PlainTextResponse:
    return PlainTextResponse("hello")


def app(**options: Any) -> Starlette:
    made = Starlette(routes=[Route("/", hello)])
    made.add_middleware(PodAuthMiddleware, audience="bob", **options)
    return made


@pytest.mark.trap(13)
def test_without_the_permission_the_log_says_what_to_grant_and_requests_are_503(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.grant("default/bob", verbs=["create"], resources=["tokenreviews"])
    cluster.grant("default/bob", verbs=["get"], resources=["pods"])
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig_for("default/bob")))
    cluster.namespace("payments", labels={"env": "prod"})
    client = as_pod(TestClient(app(rules=[IN_PRODUCTION])), "payments/alice", cluster=cluster)
    assert client.get("/").status_code == 503
    wait_for_startup_check()
    missing = "requests get 503 where a rule has namespace_labels: this app's service account may not get namespaces"
    assert sum(message.startswith(missing) for message in caplog.messages) == 1
    assert "the API server forbids us to get namespaces (403): this app's service account needs a C" in caplog.text
    cluster.grant("default/bob", verbs=["get"], resources=["namespaces"])
    assert client.get("/").status_code == 200


@pytest.mark.parametrize("in_file", [False, True])
def test_labels_of_the_emulated_cluster_s_namespaces_decide(cluster: Cluster, tmp_path: Path, in_file: bool) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(FOR_PRODUCTION)
    options: dict[str, Any] = {"rules_file": file} if in_file else {"rules": [IN_PRODUCTION]}
    cluster.namespace("payments", labels={"env": "prod"})
    cluster.namespace("playground", labels={"env": "test"})
    for caller, status in (("payments/alice", 200), ("playground/alice", 403), ("default/alice", 403)):
        assert as_pod(TestClient(app(**options)), caller, cluster=cluster).get("/").status_code == status
    wait_for_startup_check()


class Stub:
    def authenticate(self, token: str, peer: str | None) -> PodIdentity:
        return ALICE


def test_an_authenticator_of_one_s_own_leaves_namespaces_to_the_api_server(cluster: Cluster) -> None:
    options = Options(audience=("bob",), rules=(IN_PRODUCTION,))
    authenticator = CustomAuthenticator(Stub(), options)
    authorize = build_authorize(options, authenticator, build_namespace_labels(options, authenticator))
    assert authorize is not None
    cluster.namespace("default", labels={"env": "prod"})
    future = authorize(ALICE, "GET", "/", authenticator.monotonic() + SECONDS)
    assert future is not None
    assert future.result(SECONDS) is True
    authenticator.threads.get().shutdown()


def test_the_namespaces_of_issued_tokens_may_be_another_cluster_s_and_are_not_read() -> None:
    with pytest.raises(ConfigurationError, match="rule \\* /: namespace_labels are not known of these callers"):
        IssuedTokenMiddleware(Starlette(), issuer="https://bridge", audience="bob", rules=[IN_PRODUCTION])
