from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from podproof._request.pipeline import RequestPipeline
from podproof._telemetry.decision_log import RequestRecord as Request
from podproof.errors import (
    ConfigurationError,
    MalformedCredential,
    NoCredential,
    PeerUnknown,
    TokenReviewFailed,
    Unavailable,
)
from tests.support.fake_api import PEER, AuthenticatorFactory, token

TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def gate(make_authenticator: AuthenticatorFactory) -> RequestPipeline:
    return gate_with(make_authenticator)


def gate_with(make_authenticator: AuthenticatorFactory, **given: object) -> RequestPipeline:
    return RequestPipeline({"authenticator": make_authenticator(**given)}, new_id=lambda: "17")


def question(gate: RequestPipeline, **changes: Any) -> tuple[str, str | None] | None:
    facts: dict[str, Any] = {
        "path": "/",
        "raw_path": "/",
        "authorization": [f"Bearer {token()}"],
        "remote": PEER,
        "x_forwarded_for": (),
        "forwarded": (),
        "rewritten": False,
    }
    return gate.question(**(facts | changes))


def refuse(gate: RequestPipeline, refusal: Any = None, **changes: Any) -> Any:
    facts: dict[str, Any] = {"method": "GET", "path": "/", "remote": PEER, "traceparent": None}
    return gate.refuse(refusal or TokenReviewFailed("why"), Request(**(facts | changes)))


def test_a_request_comes_down_to_a_token_and_a_peer(gate: RequestPipeline) -> None:
    assert question(gate, remote=f"::ffff:{PEER}") == (token(), PEER)


def test_an_exempt_path_is_no_question_whatever_it_comes_with(make_authenticator: AuthenticatorFactory) -> None:
    gate = gate_with(make_authenticator, exempt=["/healthz"])
    for authorization in ([], ["junk"], [f"Bearer {token()}"], ["a", "b"]):
        assert question(gate, path="/healthz", raw_path="/healthz", authorization=authorization) is None
    assert question(gate, path="/healthz", raw_path=None, remote=None) is None
    with pytest.raises(NoCredential):
        question(gate, path="/healthz", raw_path="/%68ealthz", authorization=[])
    with pytest.raises(NoCredential):
        question(gate, path="/other", authorization=[])


@pytest.mark.trap(35)
def test_optional_is_for_no_credential_and_not_for_a_bad_one(make_authenticator: AuthenticatorFactory) -> None:
    gate = gate_with(make_authenticator, optional=True)
    assert question(gate, authorization=[]) is None
    assert question(gate) == (token(), PEER)
    for authorization in ([""], ["Bearer"], ["Bearer "], ["a", "b"], ["Basic YTpi"]):
        with pytest.raises((MalformedCredential, NoCredential)):
            question(gate, authorization=authorization)


@pytest.mark.trap(22, 23)
def test_the_peer_is_found_by_what_the_options_say(make_authenticator: AuthenticatorFactory) -> None:
    behind = gate_with(make_authenticator, trusted_proxies=["10.9.0.0/16"])
    assert question(behind, remote="10.9.0.1", x_forwarded_for=[PEER]) == (token(), PEER)
    assert question(behind, remote="10.9.0.1", forwarded=[f"for={PEER}"]) == (token(), PEER)
    with pytest.raises(PeerUnknown):
        question(behind, rewritten=True)
    with pytest.raises(PeerUnknown):
        question(behind, remote=None)


def test_where_addresses_are_not_compared_none_is_looked_for(make_authenticator: AuthenticatorFactory) -> None:
    gate = gate_with(make_authenticator, source_address="off")
    assert question(gate, remote=None, rewritten=True) == (token(), None)


def test_an_authenticator_has_options_of_its_own(make_authenticator: AuthenticatorFactory) -> None:
    authenticator = make_authenticator(keep_authorization=True)
    assert RequestPipeline({"authenticator": authenticator}).keep_authorization
    with pytest.raises(ConfigurationError, match="options of its own"):
        RequestPipeline({"authenticator": authenticator, "audience": "bob"})


def test_options_are_read_where_no_authenticator_is_given() -> None:
    with pytest.raises(ConfigurationError, match="no audience"):
        RequestPipeline({}, environ={})
    with pytest.raises(ConfigurationError, match="PODPROOF_TIMEOUT"):
        RequestPipeline({"audience": "bob"}, environ={"PODPROOF_TIMEOUT": "x"})


def test_the_answer_leads_to_the_log_line_and_says_no_more(
    gate: RequestPipeline, caplog: pytest.LogCaptureFixture
) -> None:
    refusal = TokenReviewFailed("the API server does not vouch for the token").with_subject(
        "default/alice", "default/alice-pod"
    )
    answer = refuse(gate, refusal, method="POST", path="/whoami")
    assert json.loads(answer.body)["request_id"] == "17"
    assert answer.status == 401
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        "denied with 401 token-review-failed: the API server does not vouch for the token "
        f"[service_account=default/alice pod=default/alice-pod peer={PEER} request=POST '/whoami' request_id=17]"
    )
    assert b"vouch" not in answer.body


def test_our_own_trouble_is_an_error_in_the_log(gate: RequestPipeline, caplog: pytest.LogCaptureFixture) -> None:
    assert refuse(gate, Unavailable("away")).status == 503
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_a_log_line_can_be_read_by_machines(gate: RequestPipeline, caplog: pytest.LogCaptureFixture) -> None:
    refuse(gate)
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
def test_a_request_in_a_trace_is_named_by_the_trace(
    gate: RequestPipeline, traceparent: str | None, request_id: str
) -> None:
    assert json.loads(refuse(gate, traceparent=traceparent).body)["request_id"] == request_id


def test_other_requests_are_named_at_random(make_authenticator: AuthenticatorFactory) -> None:
    gate = RequestPipeline({"authenticator": make_authenticator()})
    names = {json.loads(refuse(gate).body)["request_id"] for _ in range(10)}
    assert len(names) == 10


@pytest.mark.parametrize("name", ["method", "path", "remote"])
def test_a_caller_writes_no_log_line_of_its_own(
    gate: RequestPipeline, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    refuse(gate, **{name: "/\r\ndenied with 200 \x1b[2J\u2028\xff"})
    message = caplog.records[0].getMessage()
    assert message.isascii()
    assert message.isprintable()


@pytest.mark.trap(33)
@pytest.mark.parametrize("remote", [None, "", "s3cret", "fe80::1%s3cret-s3cret-s3cret", "/run/s3cret"])
def test_a_peer_is_logged_only_as_an_address(
    gate: RequestPipeline, caplog: pytest.LogCaptureFixture, remote: str | None
) -> None:
    refuse(gate, remote=remote)
    assert "peer=- " in caplog.records[0].getMessage()
    assert "s3cret" not in caplog.text
