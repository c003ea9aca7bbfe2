"""What is logged and counted of calls, with gRPC's status."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from queue import SimpleQueue
from typing import Any

import grpc
import pytest
from prometheus_client import REGISTRY

from podproof import require
from podproof.audit import JSONFormatter
from podproof.errors import NotAllowed, TokenReviewFailed
from podproof.grpc._call import Status
from tests.support.fake_api import FakeAPI, token
from tests.support.grpc_servers import AsyncEchoService, EchoService, bearer, call, status_of
from tests.unit.grpc.conftest import LOCAL, Serve

ALICE = bearer(token())


class Records(logging.Handler):
    """The decision log as JSON, in order: a record may be written after the client has its status."""

    def __init__(self) -> None:
        super().__init__()
        self.formatter = JSONFormatter()
        self._lines: SimpleQueue[tuple[dict[str, Any], str]] = SimpleQueue()

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.put((json.loads(self.format(record)), record.getMessage()))

    def next(self) -> dict[str, Any]:
        """Return the next record."""
        return self.next_with_message()[0]

    def next_with_message(self) -> tuple[dict[str, Any], str]:
        return self._lines.get(timeout=10)

    @property
    def is_empty(self) -> bool:
        return self._lines.empty()


@pytest.fixture
def records() -> Iterator[Records]:
    records = Records()
    log = logging.getLogger("podproof.audit")
    before = log.level
    log.addHandler(records)
    log.setLevel(logging.INFO)
    yield records
    log.removeHandler(records)
    log.setLevel(before)


def decision_of(record: dict[str, Any]) -> tuple[Any, ...]:
    return record["decision"], record["code"], record.get("status")


def count(decision: str, code: str) -> float:
    return REGISTRY.get_sample_value("podproof_decisions_total", {"decision": decision, "code": code}) or 0


def test_an_allowed_call_is_one_record_with_its_method_and_status(serve: Serve, kind: str, records: Records) -> None:
    before = count("allowed", "authenticated")
    call(serve(), kind, [*ALICE, ("traceparent", f"00-{'a' * 32}-{'b' * 16}-01")])
    record = records.next()
    assert decision_of(record) == ("allowed", "authenticated", 0)
    assert (record["method"], record["path"], record["peer"]) == ("GRPC", f"/echo.Echo/{kind}", LOCAL)
    assert (record["pod"], record["request_id"]) == ("alice-pod", "a" * 32)
    assert records.is_empty
    assert count("allowed", "authenticated") == before + 1


def test_a_denied_call_is_one_record_whose_id_the_client_has(serve: Serve, kind: str, records: Records) -> None:
    before = count("denied", "no-credential")
    with pytest.raises(grpc.RpcError) as raised:
        call(serve(), kind)
    record, message = records.next_with_message()
    assert decision_of(record) == ("denied", "no-credential", 16)
    assert message.startswith("denied with UNAUTHENTICATED no-credential: ")
    trailers: Any = raised.value.trailing_metadata()
    assert dict(trailers) == {"x-request-id": record["request_id"]}
    assert records.is_empty
    assert count("denied", "no-credential") == before + 1


def test_a_rejected_token_s_record_says_what_it_claims(
    serve: Serve, kind: str, records: Records, fake_api: FakeAPI
) -> None:
    fake_api.review = TokenReviewFailed("why")
    status_of(serve(), kind, ALICE)
    record = records.next()
    assert (record["reason"], record["unverified_subject"]) == ("why", "system:serviceaccount:default:alice")


def test_a_denial_by_the_handler_is_one_record(serve: Serve, kind: str, records: Records) -> None:
    status_of(serve(lambda _: require("default/bob").check()), kind, ALICE)
    record = records.next()
    assert decision_of(record) == ("denied", "not-allowed", 7)
    assert record["service_account"] == "alice"
    assert records.is_empty


def test_a_denial_after_the_first_response_is_a_second_record(serve: Serve, flavour: str, records: Records) -> None:
    class Late(EchoService):
        def unary_stream(self, request: bytes, context: Any) -> Iterator[bytes]:
            yield request
            raise NotAllowed("too late")

    class AsyncLate(AsyncEchoService):
        async def unary_stream(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
            yield request
            raise NotAllowed("too late")

    target = serve(service=AsyncLate() if flavour == "aio" else Late())
    assert status_of(target, "unary_stream", ALICE) == "PERMISSION_DENIED"
    assert [decision_of(records.next()) for _ in range(2)] == [
        ("allowed", "authenticated", 0),
        ("denied", "not-allowed", 7),
    ]


def test_a_denial_that_the_handler_gets_over_is_none(serve: Serve, kind: str, records: Records) -> None:
    def inside(_: Any) -> None:
        with suppress(NotAllowed):
            require("default/bob").check()

    assert status_of(serve(inside), kind, ALICE) == "OK"
    assert decision_of(records.next()) == ("allowed", "authenticated", 0)
    assert records.is_empty


def test_a_denial_that_the_handler_turns_into_another_error_is_one_with_that_status(
    serve: Serve, flavour: str, kind: str, records: Records
) -> None:
    def inside(_: Any) -> None:
        try:
            require("default/bob").check()
        except NotAllowed:
            raise RuntimeError("mine") from None

    assert status_of(serve(inside), kind, ALICE) == "UNKNOWN"
    assert decision_of(records.next()) == ("denied", "not-allowed", 2)


def test_an_error_of_the_handler_is_the_record_s_status(
    serve: Serve, flavour: str, kind: str, records: Records
) -> None:
    def inside(_: Any) -> None:
        raise RuntimeError("mine")

    assert status_of(serve(inside), kind, ALICE) == "UNKNOWN"
    assert decision_of(records.next()) == ("allowed", "authenticated", 2)


def test_a_status_of_the_handler_is_the_record_s(serve: Serve, flavour: str, records: Records) -> None:
    def inside(context: Any) -> None:
        context.set_code(grpc.StatusCode.NOT_FOUND)

    assert status_of(serve(inside), "unary_unary", ALICE) == "NOT_FOUND"
    assert decision_of(records.next()) == ("allowed", "authenticated", 5)


def test_an_anonymous_call_is_a_record(serve: Serve, kind: str, records: Records) -> None:
    call(serve(exempt=["/echo.Echo/*"]), kind)
    record = records.next()
    assert (decision_of(record), record["peer"]) == (("allowed", "anonymous", 0), LOCAL)


def test_where_nothing_is_enforced_the_record_says_what_would_be_denied(
    serve: Serve, kind: str, records: Records
) -> None:
    before = count("would-deny", "no-credential")
    call(serve(enforce=False), kind)
    assert decision_of(records.next()) == ("would-deny", "no-credential", 0)
    assert count("would-deny", "no-credential") == before + 1


def test_a_status_of_gRPC_has_its_name_as_text() -> None:  # noqa: N802  its spelling
    assert (str(Status(16)), json.dumps(Status(16)), str(Status(99))) == ("UNAUTHENTICATED", "16", "99")
