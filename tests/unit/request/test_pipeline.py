from __future__ import annotations

import json
import logging
import threading
from concurrent.futures import Future
from hashlib import sha256
from typing import Any

import pytest

from podproof import Pod, Rule, ServiceAccount
from podproof._authentication.cached_identity import CachedIdentity
from podproof._authorization.policy import Decision
from podproof._request.flow import Allowed, Wait
from podproof._request.incoming import IncomingRequest
from podproof._request.pipeline import RequestPipeline
from podproof._request.problem import HTTPResponse
from podproof._request.setup import build_pipeline
from podproof.errors import (
    ConfigurationError,
    MalformedCredential,
    NoCredential,
    NotAllowed,
    PeerUnknown,
    PodAuthError,
    TokenReviewFailed,
    Unavailable,
)
from podproof.identity import PodIdentity
from tests.support.fake_api import PEER, AuthenticatorFactory, FakeAPI, token

TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def pipeline(make_authenticator: AuthenticatorFactory) -> RequestPipeline:
    return build(make_authenticator)


def build(make_authenticator: AuthenticatorFactory, **options: object) -> RequestPipeline:
    return build_pipeline({"authenticator": make_authenticator(**options)}, new_id=lambda: "17")


def request(**changes: Any) -> IncomingRequest:
    facts: dict[str, Any] = {
        "method": "GET",
        "path": "/",
        "raw_path": "/",
        "full_path": "/",
        "remote": PEER,
        "authorization": [f"Bearer {token()}"],
    }
    return IncomingRequest(**(facts | changes))


def decide(pipeline: RequestPipeline, **changes: Any) -> CachedIdentity | None:
    """Drive the pipeline as WSGI does."""
    flow = pipeline.decide(request(**changes))
    try:
        while True:
            wait = next(flow)
            wait.future.exception(wait.seconds)
    except StopIteration as decided:
        allowed: Allowed = decided.value
        return allowed.caller


def deny(pipeline: RequestPipeline, error: PodAuthError | None = None, **changes: Any) -> HTTPResponse:
    return pipeline.record_denied(error or TokenReviewFailed("why"), request(**changes))


def test_an_authenticated_caller_is_returned(pipeline: RequestPipeline) -> None:
    caller = decide(pipeline, remote=f"::ffff:{PEER}")
    assert caller is not None
    assert str(caller.identity.pod) == "default/alice-pod"


def test_the_pipeline_yields_what_it_waits_for_and_until_when(pipeline: RequestPipeline, fake_api: FakeAPI) -> None:
    response = threading.Event()
    fake_api.before = lambda: response.wait(10)
    flow = pipeline.decide(request())
    first = next(flow)
    assert isinstance(first, Wait)
    assert first.seconds == 5
    response.set()
    assert first.future.exception(10) is None
    with pytest.raises(StopIteration) as decided:
        next(flow)
    assert decided.value.value.caller.identity.display_name == "default/alice"


def test_a_result_that_does_not_come_in_time_is_503(pipeline: RequestPipeline, fake_api: FakeAPI) -> None:
    response = threading.Event()
    fake_api.before = lambda: response.wait(10)
    flow = pipeline.decide(request())
    next(flow)
    with pytest.raises(Unavailable, match="no response within 5 s"):
        next(flow)
    response.set()


class DecidedPolicy:
    """A policy whose decision is there as soon as it is asked for."""

    def check(self, identity: PodIdentity, method: str, path: str) -> Future[Decision]:
        decided: Future[Decision] = Future()
        decided.set_result(True if path == "/whoami" else NotAllowed(f"{method} {path}"))
        return decided


def test_what_is_decided_already_is_not_waited_for(make_authenticator: AuthenticatorFactory) -> None:
    pipeline = build(make_authenticator, policy=DecidedPolicy())
    assert decide(pipeline, path="/whoami") is not None
    key = sha256(f"Bearer {token()}".encode()).digest()
    known = pipeline.get_known(key, PEER)
    with pytest.raises(StopIteration) as decided:
        next(pipeline.decide(request(path="/whoami"), key, known))
    assert decided.value.value.caller is known
    with pytest.raises(NotAllowed, match="GET /other"):
        next(pipeline.decide(request(path="/other"), key, known))


def test_a_known_caller_is_looked_up_by_credential_and_address(pipeline: RequestPipeline) -> None:
    key = sha256(f"Bearer {token()}".encode()).digest()
    assert pipeline.get_known(key, PEER) is None
    caller = decide(pipeline)
    assert pipeline.get_known(key, PEER) is pipeline.get_known(key, f"::ffff:{PEER}") is caller
    assert pipeline.get_known(key, "10.1.2.99") is None
    assert pipeline.get_known(key, None) is None


@pytest.mark.parametrize(
    ("options", "checks"),
    [({}, False), ({"source_address": "off"}, False), ({"exempt": ["/healthz"]}, True), ({"policy": "rbac"}, True)],
)
def test_the_fast_path_is_taken_only_where_no_path_has_to_be_checked(
    make_authenticator: AuthenticatorFactory, options: dict[str, object], checks: bool
) -> None:
    assert build(make_authenticator, **options).checks_paths is checks


def test_an_exempt_path_needs_no_credential_whatever_it_comes_with(make_authenticator: AuthenticatorFactory) -> None:
    pipeline = build(make_authenticator, exempt=["/healthz"])
    for authorization in ([], ["junk"], [f"Bearer {token()}"], ["a", "b"]):
        assert decide(pipeline, path="/healthz", raw_path="/healthz", authorization=authorization) is None
    assert decide(pipeline, path="/healthz", raw_path=None, remote=None) is None
    with pytest.raises(NoCredential):
        decide(pipeline, path="/healthz", raw_path="/%68ealthz", authorization=[])
    with pytest.raises(NoCredential):
        decide(pipeline, path="/other", authorization=[])


@pytest.mark.trap(35)
def test_optional_allows_a_missing_credential_and_denies_a_bad_one(make_authenticator: AuthenticatorFactory) -> None:
    pipeline = build(make_authenticator, optional=True)
    assert decide(pipeline, authorization=[]) is None
    assert decide(pipeline) is not None
    for authorization in ([""], ["Bearer"], ["Bearer "], ["a", "b"], ["Basic YTpi"]):
        with pytest.raises((MalformedCredential, NoCredential)):
            decide(pipeline, authorization=authorization)


@pytest.mark.trap(22, 23)
def test_the_peer_is_found_with_the_trusted_proxies_of_the_options(make_authenticator: AuthenticatorFactory) -> None:
    behind = build(make_authenticator, trusted_proxies=["10.9.0.0/16"])
    assert decide(behind, remote="10.9.0.1", x_forwarded_for=[PEER]) is not None
    assert decide(behind, remote="10.9.0.1", forwarded=[f"for={PEER}"]) is not None
    with pytest.raises(PeerUnknown):
        decide(behind, rewritten=True)
    with pytest.raises(PeerUnknown):
        decide(behind, remote=None)


def test_source_address_off_needs_no_address(make_authenticator: AuthenticatorFactory) -> None:
    pipeline = build(make_authenticator, source_address="off")
    assert decide(pipeline, remote=None, rewritten=True) is not None
    assert pipeline.get_known(sha256(f"Bearer {token()}".encode()).digest(), None) is not None


def test_a_request_authenticated_by_an_outer_middleware_is_denied_with_that_reason(pipeline: RequestPipeline) -> None:
    with pytest.raises(NoCredential, match=r"another PodAuthMiddleware around this one .* wrap the app once"):
        decide(pipeline, authorization=[], authenticated=True)
    assert decide(pipeline, authenticated=True) is not None


def test_an_ambiguous_path_is_covered_by_no_rule(make_authenticator: AuthenticatorFactory) -> None:
    pipeline = build(make_authenticator, rules=[Rule("/*", allow=["*/*"])])
    assert decide(pipeline) is not None
    with pytest.raises(NotAllowed, match="different ways") as raised:
        decide(pipeline, path="/a//b")
    assert (raised.value.service_account, raised.value.peer) == ("default/alice", PEER)


def test_an_authenticators_own_options_cannot_be_combined_with_others(make_authenticator: AuthenticatorFactory) -> None:
    authenticator = make_authenticator(keep_authorization=True)
    assert build_pipeline({"authenticator": authenticator}).keep_authorization
    with pytest.raises(ConfigurationError, match="authenticator cannot be combined with audience"):
        build_pipeline({"authenticator": authenticator, "audience": "bob"})


class StubAuthenticator:
    """An authenticator as a user writes it to test a view."""

    def authenticate(self, token: str, peer: str | None) -> PodIdentity:
        if token == "bad":
            raise TokenReviewFailed("bad")
        if token == "broken":
            raise RuntimeError("s3cret")
        pod = Pod("default", "alice-pod", "uid")
        return PodIdentity(ServiceAccount("default", "alice"), pod, audience="bob", expires_at=2e9)


def test_a_stub_of_a_few_lines_is_an_authenticator() -> None:
    pipeline = build_pipeline(
        {"authenticator": StubAuthenticator(), "audience": "bob", "exempt": ["/healthz"]}, environ={}
    )
    pipeline.begin()
    caller = decide(pipeline)
    assert caller is not None
    assert str(caller.identity.pod) == "default/alice-pod"
    assert pipeline.get_known(b"", PEER) is None
    assert decide(pipeline, path="/healthz", authorization=[]) is None
    with pytest.raises(TokenReviewFailed):
        decide(pipeline, authorization=["Bearer bad"])
    with pytest.raises(Unavailable, match="unexpected RuntimeError") as raised:
        decide(pipeline, authorization=["Bearer broken"])
    assert "s3cret" not in str(raised.value)


def test_options_are_read_where_no_authenticator_is_given() -> None:
    with pytest.raises(ConfigurationError, match="no audience"):
        build_pipeline({}, environ={})
    with pytest.raises(ConfigurationError, match="PODPROOF_TIMEOUT"):
        build_pipeline({"audience": "bob"}, environ={"PODPROOF_TIMEOUT": "x"})


def test_a_response_has_the_request_id_of_its_log_line_and_no_reason(
    pipeline: RequestPipeline, caplog: pytest.LogCaptureFixture
) -> None:
    error = TokenReviewFailed("the TokenReview says that the token is not authenticated").with_subject(
        "default/alice", "default/alice-pod"
    )
    response = deny(pipeline, error, method="POST", full_path="/whoami")
    assert json.loads(response.body)["request_id"] == "17"
    assert response.status == 401
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        "denied with 401 token-review-failed: the TokenReview says that the token is not authenticated "
        f"[service_account=default/alice pod=default/alice-pod peer={PEER} request=POST '/whoami' request_id=17]"
    )
    assert b"authenticated" not in response.body


def test_an_api_server_failure_is_logged_as_an_error(
    pipeline: RequestPipeline, caplog: pytest.LogCaptureFixture
) -> None:
    assert deny(pipeline, Unavailable("away")).status == 503
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_a_log_record_has_code_status_and_request_id(
    pipeline: RequestPipeline, caplog: pytest.LogCaptureFixture
) -> None:
    deny(pipeline)
    assert [vars(caplog.records[0])[name] for name in ("code", "status", "request_id")] == [
        "token-review-failed",
        401,
        "17",
    ]


@pytest.mark.parametrize(
    ("traceparent", "request_id"),
    [
        (f"00-{TRACE}-b7ad6b7169203331-01", TRACE),
        (f"cc-{TRACE}-b7ad6b7169203331-01-future", TRACE),
        (None, "17"),
        ("", "17"),
        (f"00-{TRACE}", "17"),
        (f"00-{TRACE.upper()}-b7ad6b7169203331-01", "17"),
        (f"00-{TRACE}-b7ad6b7169203331-01\n", "17"),
        ("00-<script>-b7ad6b7169203331-01", "17"),
    ],
)
def test_the_request_id_is_the_trace_id_of_a_valid_traceparent(
    pipeline: RequestPipeline, traceparent: str | None, request_id: str
) -> None:
    assert json.loads(deny(pipeline, traceparent=traceparent).body)["request_id"] == request_id


def test_without_a_traceparent_the_request_id_is_random(make_authenticator: AuthenticatorFactory) -> None:
    pipeline = build_pipeline({"authenticator": make_authenticator()})
    request_ids = {json.loads(deny(pipeline).body)["request_id"] for _ in range(10)}
    assert len(request_ids) == 10


@pytest.mark.parametrize("name", ["method", "full_path", "remote"])
def test_a_request_cannot_inject_log_lines(
    pipeline: RequestPipeline, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    deny(pipeline, None, **{name: "/\r\ndenied with 200 \x1b[2J\u2028\xff"})
    message = caplog.records[0].getMessage()
    assert message.isascii()
    assert message.isprintable()


@pytest.mark.trap(33)
@pytest.mark.parametrize("remote", [None, "", "s3cret", "fe80::1%s3cret-s3cret-s3cret", "/run/s3cret"])
def test_a_peer_is_logged_only_as_an_address(
    pipeline: RequestPipeline, caplog: pytest.LogCaptureFixture, remote: str | None
) -> None:
    deny(pipeline, remote=remote)
    assert "peer=- " in caplog.records[0].getMessage()
    assert "s3cret" not in caplog.text
