"""The interceptors of `grpc.server` and `grpc.aio.server`: who is calling, and who may, in each kind of call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Event
from typing import Any

import grpc
import grpc.aio
import pytest

from podproof import Rule, current_caller, require
from podproof._request.context import current_request
from podproof.errors import NotAllowed, TokenReviewFailed
from podproof.identity import PodIdentity
from tests.support.fake_api import FakeAPI, pod, token
from tests.support.grpc_servers import AsyncEchoService, EchoService, bearer, call, status_of
from tests.unit.grpc.conftest import LOCAL, Serve

ALICE = bearer(token())


def error_of(target: str, kind: str, metadata: Any = (), **given: Any) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as raised:
        call(target, kind, metadata, **given)
    return raised.value


def trailers_of(error: grpc.RpcError) -> dict[str, Any]:
    pairs: Any = error.trailing_metadata()
    return dict(pairs)


def test_a_handler_knows_its_caller(serve: Serve, kind: str) -> None:
    callers: list[PodIdentity | None] = []
    target = serve(lambda _: callers.append(current_caller()))
    assert b"".join(call(target, kind, ALICE, requests=[b"one ", b"two"])) == b"one two"
    assert [str(caller and caller.service_account) for caller in callers] == ["default/alice"]


def test_a_known_caller_costs_no_review(serve: Serve, kind: str, fake_api: FakeAPI) -> None:
    target = serve()
    for _ in range(3):
        call(target, kind, ALICE)
    assert fake_api.reviews == 1


def test_a_call_without_a_token_is_unauthenticated_and_reaches_no_handler(serve: Serve, kind: str) -> None:
    reached: list[Any] = []
    target = serve(reached.append)
    error = error_of(target, kind)
    assert (error.code(), error.details()) == (grpc.StatusCode.UNAUTHENTICATED, "A bearer token is needed.")
    assert [*trailers_of(error)] == ["x-request-id"]
    assert reached == []


def test_two_tokens_are_unauthenticated(serve: Serve, kind: str) -> None:
    assert status_of(serve(), kind, [*ALICE, *ALICE]) == "UNAUTHENTICATED"


def test_a_rejected_token_is_unauthenticated_and_told_no_reason(serve: Serve, kind: str, fake_api: FakeAPI) -> None:
    fake_api.review = TokenReviewFailed("a secret reason")
    error = error_of(serve(), kind, ALICE)
    assert (error.code(), error.details()) == (grpc.StatusCode.UNAUTHENTICATED, "The token is not accepted here.")


def test_a_token_from_another_address_is_denied(serve: Serve, kind: str, fake_api: FakeAPI) -> None:
    fake_api.pod = pod()
    error = error_of(serve(), kind, ALICE)
    assert (error.code(), error.details()) == (grpc.StatusCode.PERMISSION_DENIED, "The caller is not allowed here.")


def test_an_outage_is_unavailable_and_says_when_to_try_again(serve: Serve, kind: str, fake_api: FakeAPI) -> None:
    fake_api.review = RuntimeError("a bug")
    error = error_of(serve(), kind, ALICE)
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert trailers_of(error)["grpc-retry-pushback-ms"] == "1000"


def test_rules_are_about_the_method_that_is_called(serve: Serve) -> None:
    rules = [Rule("/echo.Echo/unary_unary", allow=["default/alice"]), Rule("/echo.Echo/*", allow=["default/bob"])]
    target = serve(rules=rules)
    assert status_of(target, "unary_unary", ALICE) == "OK"
    assert status_of(target, "unary_unary", ALICE) == "OK"
    assert status_of(target, "unary_stream", ALICE) == "PERMISSION_DENIED"


@pytest.mark.parametrize("method", ["/echo.Echo/%75nary_unary", "/other.Echo/../echo.Echo/unary_unary", "/echo.Echo//"])
def test_no_other_spelling_of_a_method_reaches_it_or_is_exempt(serve: Serve, method: str) -> None:
    target = serve(exempt=["/echo.Echo/unary_unary", "/other.Echo/*"])
    assert status_of(target, "unary_unary", method=method) == "UNAUTHENTICATED"
    assert status_of(target, "unary_unary", ALICE, method=method) == "UNIMPLEMENTED"


def test_an_exempt_method_needs_no_token_and_keeps_what_it_is_sent(serve: Serve, kind: str) -> None:
    seen: list[Any] = []
    target = serve(
        lambda context: seen.append((current_caller(), dict(context.invocation_metadata()))), exempt=["/echo.Echo/*"]
    )
    assert status_of(target, kind) == "OK"
    assert status_of(target, kind, [("authorization", "Basic abc")]) == "OK"
    assert [(caller, metadata.get("authorization")) for caller, metadata in seen] == [(None, None), (None, "Basic abc")]


def test_a_handler_does_not_see_the_token(serve: Serve, kind: str) -> None:
    seen: list[Any] = []
    target = serve(lambda context: seen.append(dict(context.invocation_metadata())))
    call(target, kind, [*ALICE, ("x-other", "seen")])
    assert "authorization" not in seen[0]
    assert seen[0]["x-other"] == "seen"


def test_a_handler_sees_the_token_if_it_is_kept(serve: Serve, kind: str) -> None:
    seen: list[Any] = []
    target = serve(lambda context: seen.append(dict(context.invocation_metadata())), keep_authorization=True)
    call(target, kind, ALICE)
    assert seen[0]["authorization"] == f"Bearer {token()}"


def test_an_unknown_method_is_unimplemented_for_callers_and_unauthenticated_for_others(serve: Serve) -> None:
    target = serve()
    assert status_of(target, "unary_unary", method="/echo.Echo/nothing") == "UNAUTHENTICATED"
    error = error_of(target, "unary_unary", ALICE, method="/echo.Echo/nothing")
    assert (error.code(), error.details()) == (grpc.StatusCode.UNIMPLEMENTED, "Method not found!")


def test_a_handler_can_require_a_caller(serve: Serve, kind: str) -> None:
    target = serve(lambda _: require("default/bob").check())
    error = error_of(target, kind, ALICE)
    assert (error.code(), error.details()) == (grpc.StatusCode.PERMISSION_DENIED, "The caller is not allowed here.")
    assert status_of(serve(lambda _: require("default/*").check()), kind, ALICE) == "OK"


def test_a_handler_can_require_a_caller_of_an_anonymous_call(serve: Serve, kind: str) -> None:
    target = serve(lambda _: require("default/bob").check(), optional=True)
    assert status_of(target, kind) == "UNAUTHENTICATED"


def test_a_method_can_be_decorated(serve: Serve, flavour: str, kind: str) -> None:
    service = AsyncEchoService() if flavour == "aio" else EchoService()
    setattr(service, kind, require("default/bob")(getattr(service, kind)))
    assert status_of(serve(service=service), kind, ALICE) == "PERMISSION_DENIED"
    service = AsyncEchoService() if flavour == "aio" else EchoService()
    setattr(service, kind, require("default/alice")(getattr(service, kind)))
    assert call(serve(service=service), kind, ALICE) == [b"one"]


def test_a_denial_that_the_handler_raises_tells_no_reason(serve: Serve, kind: str) -> None:
    def inside(_: Any) -> None:
        raise NotAllowed("a secret reason")

    assert error_of(serve(inside), kind, ALICE).details() == "The caller is not allowed here."


def test_the_caller_ends_with_the_call(serve: Serve, kind: str) -> None:
    requests: list[Any] = []
    target = serve(lambda _: requests.append(current_request.get()))
    call(target, kind, ALICE)
    call(target, kind, ALICE)
    assert requests[0].identity is None
    assert requests[0] is not requests[1]


def test_an_optional_token_may_be_missing_and_not_bad(serve: Serve, kind: str, fake_api: FakeAPI) -> None:
    fake_api.review = TokenReviewFailed("bad")
    target = serve(optional=True)
    assert status_of(target, kind) == "OK"
    assert status_of(target, kind, ALICE) == "UNAUTHENTICATED"


def test_where_nothing_is_enforced_every_call_reaches_its_handler(serve: Serve, kind: str, fake_api: FakeAPI) -> None:
    seen: list[Any] = []
    target = serve(lambda context: seen.append((current_caller(), dict(context.invocation_metadata()))), enforce=False)
    assert status_of(target, kind, [("authorization", "Basic abc")]) == "OK"
    assert seen[0][0] is None
    assert seen[0][1]["authorization"] == "Basic abc"
    assert status_of(target, kind, ALICE) == "OK"
    assert str(seen[1][0].service_account) == "default/alice"


def test_a_proxy_that_is_trusted_names_the_peer(serve: Serve, kind: str, fake_api: FakeAPI) -> None:
    fake_api.pod = pod(status={"podIP": "10.1.2.3", "podIPs": [{"ip": "10.1.2.3"}]})
    target = serve(trusted_proxies=[LOCAL])
    assert status_of(target, kind, [*ALICE, ("x-forwarded-for", "10.1.2.3")]) == "OK"
    assert status_of(target, kind, [*ALICE, ("x-forwarded-for", "10.1.2.3, 10.1.2.4")]) == "PERMISSION_DENIED"
    assert status_of(target, kind, ALICE) == "PERMISSION_DENIED"
    assert status_of(target, kind, [*ALICE, ("forwarded", "for=10.1.2.3")]) == "OK"


def test_a_forwarded_header_of_a_caller_is_not_believed(serve: Serve, kind: str, fake_api: FakeAPI) -> None:
    target = serve()
    assert status_of(target, kind, [*ALICE, ("x-forwarded-for", "10.9.9.9")]) == "OK"
    fake_api.pod = pod()
    target = serve()
    assert status_of(target, kind, [*ALICE, ("x-forwarded-for", "10.1.2.3")]) == "PERMISSION_DENIED"


def test_a_caller_over_ipv6_is_known_by_its_address(serve: Serve, kind: str) -> None:
    target = serve(listen="[::1]:0")
    assert status_of(target, kind, ALICE) == "OK"


def test_a_caller_over_ipv4_at_a_dual_stack_port_is_known_by_its_address(serve: Serve, kind: str) -> None:
    port = serve(listen="[::]:0").rpartition(":")[2]
    assert status_of(f"{LOCAL}:{port}", kind, ALICE) == "OK"


def test_a_call_over_a_unix_socket_has_no_peer(serve: Serve, kind: str, tmp_path: Any) -> None:
    target = serve(listen=f"unix:{tmp_path}/socket")
    assert status_of(target, kind, ALICE) == "PERMISSION_DENIED"


def test_a_call_over_a_unix_socket_is_allowed_where_addresses_are_not_compared(
    serve: Serve, kind: str, tmp_path: Any
) -> None:
    target = serve(listen=f"unix:{tmp_path}/socket", source_address="off")
    assert status_of(target, kind, ALICE) == "OK"


class ParsingHandler(grpc.GenericRpcHandler):
    """A method with one request, which is parsed."""

    def __init__(self, flavour: str, parse: Callable[[bytes], Any]) -> None:
        service = AsyncEchoService() if flavour == "aio" else EchoService()
        self._handler: Any = grpc.unary_unary_rpc_method_handler(service.unary_unary, parse, lambda value: value)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return self._handler if handler_call_details.method == "/parsing.Echo/unary_unary" else None


PARSING = "/parsing.Echo/unary_unary"


def test_the_request_of_a_denied_call_is_not_parsed(serve: Serve, flavour: str) -> None:
    parsed: list[bytes] = []

    def parse(request: bytes) -> bytes:
        parsed.append(request)
        return request

    target = serve(more=[ParsingHandler(flavour, parse)])
    assert status_of(target, "unary_unary", method=PARSING) == "UNAUTHENTICATED"
    assert parsed == []
    assert call(target, "unary_unary", ALICE, method=PARSING) == [b"one"]
    assert parsed == [b"one"]


@pytest.mark.parametrize("flavour", ["threads"], indirect=True)
def test_a_request_that_cannot_be_parsed_is_an_error_as_without_us(
    serve: Serve, flavour: str, caplog: pytest.LogCaptureFixture
) -> None:
    def parse(_: bytes) -> bytes:
        raise ValueError("what was sent")

    error = error_of(serve(more=[ParsingHandler(flavour, parse)]), "unary_unary", ALICE, method=PARSING)
    assert (error.code(), error.details()) == (grpc.StatusCode.INTERNAL, "Exception deserializing request!")
    assert f"the request of {PARSING} cannot be parsed" in caplog.text


def test_a_call_without_the_one_request_that_its_method_has_is_an_error(serve: Serve) -> None:
    error = error_of(serve(), "stream_unary", ALICE, method="/echo.Echo/unary_unary", requests=[])
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert error.details() == '"/echo.Echo/unary_unary" requires exactly one request message.'


def test_a_denied_call_need_not_send_its_request_to_be_denied(serve: Serve) -> None:
    """A caller that sends nothing would hold a thread of the server."""

    def never() -> Iterator[bytes]:
        ended.wait(10)
        yield b""

    ended = Event()
    target = serve()
    assert status_of(target, "stream_unary", method="/echo.Echo/unary_unary", requests=never()) == "UNAUTHENTICATED"
    ended.set()


@pytest.mark.parametrize("flavour", ["aio"], indirect=True)
def test_a_coroutine_may_read_and_write_instead_of_iterating(serve: Serve) -> None:
    class Service:
        async def unary_stream(self, request: bytes, context: Any) -> None:
            await context.write(request + str(current_caller() and "known").encode())

        async def stream_stream(self, _: Any, context: Any) -> None:
            while (request := await context.read()) is not grpc.aio.EOF:
                await context.write(request)

    target = serve(service=Service())
    assert call(target, "unary_stream", ALICE) == [b"oneknown"]
    assert call(target, "stream_stream", ALICE, requests=[b"1", b"2"]) == [b"1", b"2"]
    assert status_of(target, "stream_stream") == "UNAUTHENTICATED"


def test_a_handler_s_context_is_one_of_grpc(serve: Serve, flavour: str, kind: str) -> None:
    seen: list[bool] = []
    wanted: Any = grpc.aio.ServicerContext if flavour == "aio" else grpc.ServicerContext
    call(serve(lambda context: seen.append(isinstance(context, wanted))), kind, ALICE)
    assert seen == [True]


def test_a_handler_s_context_works_as_without_us(serve: Serve, flavour: str) -> None:
    def inside(context: Any) -> None:
        context.set_trailing_metadata((("x-from", "handler"),))
        context.set_code(grpc.StatusCode.NOT_FOUND)
        context.set_details(context.peer().partition(":")[0])

    error = error_of(serve(inside), "unary_stream", ALICE)
    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "ipv4")
    assert trailers_of(error) == {"x-from": "handler"}
