from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podproof._authorization.rules import Rule
from podproof._request.incoming import IncomingRequest
from podproof._request.require import require
from podproof._request.setup import build_pipeline
from podproof._telemetry.decision_log import FIELDS, RequestRecord, escape, record_allowed
from podproof.audit import CallerFilter, JSONFormatter
from podproof.errors import TokenReviewFailed, Unavailable
from podproof.identity import Pod, PodIdentity, ServiceAccount
from tests.support.fake_api import PEER, AuthenticatorFactory, FakeAPI, token
from tests.support.middleware_client import MiddlewareClient

TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-b7ad6b7169203331-01"
ALICE = PodIdentity(
    ServiceAccount("default", "alice"), Pod("default", "alice-pod", "pod-uid", node="node1"), "bob", 0, "JTI=1"
)
ALICE_FIELDS = {
    "namespace": "default",
    "service_account": "alice",
    "pod": "alice-pod",
    "pod_uid": "pod-uid",
    "node": "node1",
    "credential_id": "JTI=1",
    "audience": "bob",
}
ANONYMOUS_FIELDS = dict.fromkeys(ALICE_FIELDS)
UNVERIFIED = dict.fromkeys(["unverified_issuer", "unverified_audience", "unverified_subject"])
REQUEST = RequestRecord("GET", "/invoices", PEER)


@pytest.fixture
def decisions(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Return what returns the decision records so far, from INFO up: their fields and level."""
    with caplog.at_level(logging.INFO, "podproof.audit"):
        yield lambda: [
            {name: vars(record)[name] for name in FIELDS} | {"level": record.levelname}
            for record in caplog.records
            if record.name == "podproof.audit"
        ]


def test_an_allowed_request_is_one_record(
    make_client: Callable[..., MiddlewareClient], decisions: Callable[[], list[dict[str, Any]]]
) -> None:
    make_client()("/invoices", method="POST", headers={"traceparent": TRACEPARENT})
    assert decisions() == [
        ALICE_FIELDS
        | UNVERIFIED
        | {
            "decision": "allowed",
            "code": "authenticated",
            "status": 200,
            "reason": None,
            "stale": None,
            "peer": PEER,
            "method": "POST",
            "path": "/invoices",
            "request_id": TRACE,
            "level": "INFO",
        }
    ]


def test_a_denied_request_of_an_authenticated_caller_is_one_record(
    make_client: Callable[..., MiddlewareClient], decisions: Callable[[], list[dict[str, Any]]]
) -> None:
    client = make_client(rules=[Rule("/a", allow=["*/*"])])
    client("/invoices", headers={"traceparent": TRACEPARENT})
    client("/a", peer="10.9.9.9")
    by_rule, by_address = decisions()
    assert by_rule == ALICE_FIELDS | UNVERIFIED | {
        "decision": "denied",
        "code": "not-allowed",
        "status": 403,
        "reason": "no rule matches this path and method",
        "stale": None,
        "peer": PEER,
        "method": "GET",
        "path": "/invoices",
        "request_id": TRACE,
        "level": "WARNING",
    }
    assert by_address["code"] == "wrong-address"
    assert by_address | ALICE_FIELDS == by_address
    assert by_address["peer"] == "10.9.9.9"


def test_a_denied_request_of_an_unknown_caller_is_one_record(
    make_client: Callable[..., MiddlewareClient], decisions: Callable[[], list[dict[str, Any]]]
) -> None:
    response = make_client()(headers={"Authorization": "Bearer junk"})
    (record_fields,) = decisions()
    assert record_fields | ANONYMOUS_FIELDS == record_fields
    assert (record_fields["code"], record_fields["peer"], record_fields["level"]) == (
        "malformed-token",
        PEER,
        "WARNING",
    )
    assert record_fields["request_id"] == json.loads(response.body)["request_id"]


def test_a_caller_denied_by_the_allow_list_is_named_in_the_record(
    make_client: Callable[..., MiddlewareClient], decisions: Callable[[], list[dict[str, Any]]]
) -> None:
    make_client(allow=["batch/*"])()
    (record_fields,) = decisions()
    assert [record_fields[name] for name in ("code", "namespace", "service_account", "pod")] == [
        "not-allowed",
        "default",
        "alice",
        "alice-pod",
    ]


def test_an_api_server_failure_is_logged_at_error(
    make_client: Callable[..., MiddlewareClient], fake_api: FakeAPI, decisions: Callable[[], list[dict[str, Any]]]
) -> None:
    fake_api.review = Unavailable("away")
    make_client()()
    (record_fields,) = decisions()
    assert (record_fields["code"], record_fields["status"], record_fields["level"]) == ("unavailable", 503, "ERROR")


def test_an_exempt_request_is_one_record(
    make_client: Callable[..., MiddlewareClient], decisions: Callable[[], list[dict[str, Any]]]
) -> None:
    make_client(exempt=["/healthz"])("/healthz")
    (record_fields,) = decisions()
    assert record_fields | ANONYMOUS_FIELDS == record_fields
    assert (record_fields["decision"], record_fields["code"], record_fields["peer"]) == ("allowed", "anonymous", PEER)


def test_behind_a_proxy_the_peer_is_the_one_that_was_compared(
    make_client: Callable[..., MiddlewareClient], decisions: Callable[[], list[dict[str, Any]]]
) -> None:
    client = make_client(trusted_proxies=["10.9.0.0/16"])
    client(peer="10.9.0.1", headers={"X-Forwarded-For": PEER})
    client(peer="10.9.0.1", headers={"X-Forwarded-For": "10.1.2.99"})
    assert [record_fields["peer"] for record_fields in decisions()] == [PEER, "10.1.2.99"]


def test_with_source_address_off_the_peer_is_the_connections(
    make_client: Callable[..., MiddlewareClient], decisions: Callable[[], list[dict[str, Any]]]
) -> None:
    make_client(source_address="off")(peer="10.9.9.9")
    assert [record_fields["peer"] for record_fields in decisions()] == ["10.9.9.9"]


def test_allowed_requests_are_not_logged_below_info(
    make_client: Callable[..., MiddlewareClient], caplog: pytest.LogCaptureFixture
) -> None:
    make_client()()
    assert caplog.records == []


def test_a_request_is_not_read_for_a_record_that_is_not_logged(make_authenticator: AuthenticatorFactory) -> None:
    def read(_: object) -> IncomingRequest:
        raise AssertionError

    build_pipeline({"authenticator": make_authenticator()}).record_allowed(ALICE, PEER, read, {}, 200)


@pytest.mark.trap(33)
def test_no_record_holds_a_token(
    make_client: Callable[..., MiddlewareClient],
    fake_api: FakeAPI,
    decisions: Callable[[], list[dict[str, Any]]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = make_client(exempt=["/healthz"])
    for path, peer in (("/", PEER), ("/", "10.9.9.9"), ("/healthz", PEER)):
        client(path, peer=peer)
    client(headers={"Authorization": f"Bearer {token(aud=['eve'])}"})
    client(headers={"Authorization": f"Basic {token()}"})
    fake_api.review = RuntimeError(token())
    client(headers={"Authorization": f"Bearer {token(jti='other')}"})
    assert len(decisions()) == 6
    text = "\n".join(JSONFormatter().format(record) + repr(vars(record)) for record in caplog.records)
    for part in token().split(".")[1:]:
        assert part not in text


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[dict[str, Any]]]:
    caplog.set_level(logging.INFO, "podproof.audit")
    return lambda: [json.loads(JSONFormatter().format(record)) for record in caplog.records]


def test_a_json_line_has_the_time_and_the_fields(
    lines: Callable[[], list[dict[str, Any]]], caplog: pytest.LogCaptureFixture
) -> None:
    record_allowed(ALICE, REQUEST, "17", 200)
    caplog.records[0].created = 1_800_000_000.25
    assert lines() == [
        ALICE_FIELDS
        | {
            "time": "2027-01-15T08:00:00.250Z",
            "level": "INFO",
            "logger": "podproof.audit",
            "message": f"allowed default/alice [pod=default/alice-pod peer={PEER} request=GET '/invoices' "
            "request_id=17]",
            "decision": "allowed",
            "code": "authenticated",
            "status": 200,
            "request_id": "17",
            "peer": PEER,
            "method": "GET",
            "path": "/invoices",
        }
    ]


FORGERIES = [
    "a\nb",
    'a"b',
    "a\u2028b",
    "\ud800",
    "\x1b[2J",
    "a' decision='allowed",
    "/\r\nallowed default/admin",
    "a" * 2100,
]


@pytest.mark.parametrize("text", FORGERIES)
def test_a_callers_words_are_one_word_in_any_format(
    make_authenticator: AuthenticatorFactory, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    caplog.set_level(logging.INFO, "podproof.audit")
    pipeline = build_pipeline({"authenticator": make_authenticator()})
    claim = text[:600]  # so that the token is not too long
    rejected = token(iss=claim, aud=[claim, "x"], sub=claim)
    request = IncomingRequest(text, text, None, text, None, authorization=[f"Bearer {rejected}"], traceparent=text)
    pipeline.record_denied(TokenReviewFailed("why"), request)
    pipeline.record_allowed(None, None, lambda _: request, None, 200)
    names = ["method", "path", "unverified_issuer", "unverified_audience", "unverified_subject"]
    for record in caplog.records:
        words = [value for name in names if (value := vars(record)[name]) is not None]
        assert len(words) == (5 if record.levelno == logging.WARNING else 2)
        for word in words:
            assert re.fullmatch(r"[!#-&(-~]{1,7000}", word)
        for told in (JSONFormatter().format(record), record.getMessage()):
            assert told.isascii()
            assert told.isprintable()


def test_a_rejected_token_is_named_by_what_it_says_of_itself(
    make_client: Callable[..., MiddlewareClient], decisions: Callable[[], list[dict[str, Any]]]
) -> None:
    app = make_client()
    app(headers={"Authorization": f"Bearer {token(aud='eve')}"})
    app(headers={"Authorization": f"Bearer {token(aud=['eve', 3], iss=7, sub=None)}"})
    app(headers={"Authorization": "Bearer junk"})
    app(peer="10.9.9.9")
    said = [[record[name] for name in UNVERIFIED] for record in decisions()]
    assert said == [
        ["https://kubernetes.default.svc", "eve", "system:serviceaccount:default:alice"],
        [None, "eve", None],
        [None, None, None],
        [None, None, None],
    ]


def test_a_denial_by_the_app_is_the_one_record_of_its_request(
    make_client: Callable[..., MiddlewareClient], decisions: Callable[[], list[dict[str, Any]]]
) -> None:
    response = make_client(require("batch/*").check)()
    [record] = decisions()
    assert (record["decision"], record["status"], record["peer"]) == ("denied", 403, PEER)
    assert record["request_id"] == json.loads(response.body)["request_id"]


def test_an_app_that_fails_is_recorded_with_500(
    make_client: Callable[..., MiddlewareClient], decisions: Callable[[], list[dict[str, Any]]]
) -> None:
    def fail() -> None:
        raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        make_client(fail)()
    [record] = decisions()
    assert (record["decision"], record["status"]) == ("allowed", 500)


def test_a_request_without_a_trace_has_an_id_of_its_own(
    make_client: Callable[..., MiddlewareClient], decisions: Callable[[], list[dict[str, Any]]]
) -> None:
    app = make_client()
    app()
    app()
    first, second = (record["request_id"] for record in decisions())
    assert first
    assert second
    assert first != second


def test_the_json_formatter_formats_an_apps_own_records() -> None:
    record = logging.makeLogRecord(
        {
            "name": "an.app",
            "msg": "%d invoices",
            "args": (3,),
            "levelname": "INFO",
            "created": 0.0,
            "order": ALICE.pod.addresses,
            "kind": ValueError,
            "level": "forged",
            "stack_info": "Stack",
        }
    )
    line = {
        "time": "1970-01-01T00:00:00.000Z",
        "level": "INFO",
        "logger": "an.app",
        "message": "3 invoices",
        "order": [],
        "kind": "<class 'ValueError'>",
        "stack": "Stack",
    }
    assert json.loads(JSONFormatter().format(record)) == line


def test_a_json_line_has_the_exception() -> None:
    error = ValueError("broken")
    record = logging.makeLogRecord({"msg": "failed", "exc_info": (ValueError, error, None)})
    line = JSONFormatter().format(record)
    assert "\n" not in line
    assert json.loads(line)["exception"].endswith("ValueError: broken")
    record.exc_info, record.exc_text = None, "formatted before"
    assert json.loads(JSONFormatter().format(record))["exception"] == "formatted before"


def test_the_caller_filter_puts_the_caller_on_each_log_line_of_the_app(
    make_client: Callable[..., MiddlewareClient],
) -> None:
    log, text = logging.getLogger("an.app"), io.StringIO()
    handler = logging.StreamHandler(text)
    handler.setFormatter(logging.Formatter("%(caller)s %(caller_pod)s %(message)s"))
    handler.addFilter(CallerFilter())
    log.addHandler(handler)
    try:
        make_client(lambda: log.warning("works"))()
        log.warning("is idle")
    finally:
        log.removeHandler(handler)
    assert text.getvalue().splitlines() == ["default/alice default/alice-pod works", "- - is idle"]


@given(st.text())
def test_a_path_is_one_word_of_printable_ascii_that_decodes_to_what_was_sent(path: str) -> None:
    escaped = escape(path, len(path))
    assert re.fullmatch(r"[!#-&(-~]*", escaped)
    assert unquote(escaped) == path.encode(errors="backslashreplace").decode()
