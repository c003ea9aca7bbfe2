"""A gRPC call as the request pipeline sees it: its facts, whether its caller is known, and how it is denied."""

from __future__ import annotations

import math
from collections.abc import Callable
from hashlib import sha256
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import unquote

import grpc
import grpc.aio

from podproof._authentication.cached_identity import CachedIdentity
from podproof._authentication.claims import MAX_TOKEN
from podproof._request.context import CurrentRequest, current_request
from podproof._request.flow import Allowed, Flow
from podproof._request.incoming import IncomingRequest
from podproof._request.peer import ADDRESS_HEADERS, MAX_LINES
from podproof._request.pipeline import RequestPipeline
from podproof._request.problem import Denial
from podproof._telemetry import traces
from podproof.errors import PodAuthError

_READ = ADDRESS_HEADERS | {"traceparent"}
_LONGEST = len("Bearer ") + MAX_TOKEN
_MAX_ENTRIES = 1000  # of metadata; gRPC itself accepts 16 KiB of it, unless a server is configured to accept more

_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}
_CODES = {403: grpc.StatusCode.PERMISSION_DENIED, 503: grpc.StatusCode.UNAVAILABLE}

ENDED = "The caller's token has expired."

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Metadata = tuple[tuple[str, str | bytes], ...]
Source = tuple[str, Metadata, str, bool, frozenset[str]]
"""What a call's facts are read from: its method, its metadata, its peer as gRPC names it, whether another interceptor
has judged it already, and the names of the entry that has the token."""


class Status(int):
    """A status of gRPC: its number, and its name as text."""

    def __str__(self) -> str:
        return _NAMES.get(int(self), repr(int(self)))


OK = Status(0)


class Refusal(NamedTuple):
    """How a denied call ends: the details show the kind of denial alone, and a trailer leads to the log."""

    code: grpc.StatusCode
    details: str
    trailers: Metadata


class JudgedContext:
    """A servicer context whose metadata has no token any more."""

    __slots__ = ("_context", "_names")

    def __init__(self, context: Any, names: frozenset[str]) -> None:
        self._context = context
        self._names = names

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def invocation_metadata(self) -> Metadata:
        """Return the metadata that the client sent, but for the token."""
        return without_token(self._context.invocation_metadata(), self._names)


grpc.ServicerContext.register(JudgedContext)
grpc.aio.ServicerContext.register(JudgedContext)


def behavior_of(handler: Handler) -> Callable[..., Any]:
    """Return the function of a handler, of whatever kind."""
    behavior: Any = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    return behavior  # type: ignore[no-any-return]


def without_token(metadata: Metadata, names: frozenset[str]) -> Metadata:
    """Return metadata without the entries that hold a token."""
    return tuple([entry for entry in metadata if entry[0] not in names])  # not a generator, called for each entry


class Call(CurrentRequest):
    """A call whose caller is allowed, while its handler runs.

    `given` is gRPC's own context, `context` what the handler gets, `ends_at` when the call has to end with its caller's
    token, in the pipeline's monotonic seconds.
    """

    __slots__ = ("context", "ends_at", "given")

    given: Any
    context: Any
    ends_at: float

    def settle(self, status: int | None) -> None:
        """Log the decision once, when the first response is sent or the call ends; None if the client has left."""
        recorder, denial = self.recorder, self.denial
        if recorder is None or (self.settled and denial is None):
            return
        self.settled, self.denial = True, None
        if denial is None or status == 0:
            recorder.record_allowed(self.identity, self.peer, read_call, self.source, status)
        else:
            recorder.record_denial(denial, read_call(self.source), self.peer, status or number(code_of(denial.error)))

    def refuse(self, error: PodAuthError) -> Refusal:
        """Deny the call from within its handler, log that, and return how it ends."""
        refusal = _refusal(self.deny(error))
        self.settle(number(refusal.code))
        return refusal


def known_call(pipeline: RequestPipeline, method: str, context: Any) -> Call | None:
    """Return the call of a known caller about whom nothing more is to be decided, else None."""
    if pipeline.checks_paths:
        return None
    source = method, context.invocation_metadata() or (), context.peer(), False, pipeline.header.texts
    address = address_of(source[2])
    _, caller = find_known(pipeline, source, address)
    return None if caller is None else make_call(pipeline, context, source, Allowed(caller, address, pipeline))


def make_call(pipeline: RequestPipeline, context: Any, source: Source, allowed: Allowed) -> Call:
    """Return a call that is allowed, and make it the current request."""
    caller, peer, recorder = allowed
    call = Call()
    call.recorder, call.read, call.source, call.peer = recorder, read_call, source, peer
    call.denial, call.settled = None, False
    call.given = call.context = context
    if caller is None:
        call.identity, call.ends_at = None, math.inf
    else:
        call.identity, call.ends_at = caller.identity, caller.ends_at
        if not pipeline.keep_authorization:
            call.context = JudgedContext(context, source[4])
        if traces.INSTALLED and traces.get_current_span().is_recording():
            traces.set_caller_attributes(caller.identity)
    current_request.set(call)
    return call


def find_known(
    pipeline: RequestPipeline, source: Source, address: str | None
) -> tuple[bytes | None, CachedIdentity | None]:
    """Return the key of a call's credential, and its caller, each None if it takes more than one lookup to tell."""
    _, metadata, _, _, names = source
    authorization: Any = None  # text: binary values have names in -bin
    for name, value in metadata:
        if name in names:
            if authorization is not None:
                return None, None
            authorization = value
        elif name in ADDRESS_HEADERS:
            return None, None
    if authorization is None or len(authorization) > _LONGEST:
        return None, None
    key = sha256(authorization.encode("latin-1", "replace")).digest()
    return key, pipeline.get_known(key, address if pipeline.compares_addresses else None)


def decide(pipeline: RequestPipeline, source: Source) -> Flow:
    """Decide on a call; see `RequestPipeline.decide`."""
    key, known = find_known(pipeline, source, address_of(source[2]))
    request = read_call(source)
    if key is not None and not request.authorization[0].startswith("Bearer "):
        key = None  # the scheme in another case: the same token has another key
    return pipeline.decide(request, key, known)


def source_of(pipeline: RequestPipeline, method: str, context: Any) -> Source:
    """Return what a call's facts are read from."""
    judged, names = isinstance(context, JudgedContext), pipeline.header.texts
    return method, context.invocation_metadata() or (), context.peer(), judged, names


def read_call(source: Source) -> IncomingRequest:
    """Return the facts of a call. Its path is the method that is invoked, which nothing decodes or routes otherwise."""
    method, metadata, peer, judged, names = source
    overlong = len(metadata) > _MAX_ENTRIES
    occurrences: dict[str, list[str]] = {}
    for name, value in () if overlong else metadata:
        if name in names or name in _READ:
            values = occurrences.setdefault("authorization" if name in names else name, [])
            # One line and one character more than is accepted show that there are too many.
            if len(values) <= MAX_LINES:
                values.append(str(value)[: _LONGEST + 1])
    authorization, traceparent, x_forwarded_for, forwarded = (
        occurrences.pop(name, []) for name in ("authorization", "traceparent", "x-forwarded-for", "forwarded")
    )
    return IncomingRequest(
        "POST",  # gRPC over HTTP/2: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
        path=method,
        raw_path=method,
        full_path=method,
        remote=address_of(peer),
        authorization=authorization,
        x_forwarded_for=x_forwarded_for,
        forwarded=forwarded,
        traceparent=next(iter(traceparent), None),
        authenticated=judged,
        grpc=True,
        address_headers=[value for values in occurrences.values() for value in values],
        overlong=overlong,
    )


def address_of(peer: str) -> str | None:
    """Return the IP address in the peer of a call, as `ipv4:10.0.0.7:4711` or `ipv6:%5B::1%5D:4711`; else None."""
    scheme, _, rest = peer.partition(":")
    if scheme == "ipv4":
        return rest.rpartition(":")[0]
    if scheme == "ipv6":
        return unquote(rest).rpartition(":")[0].removeprefix("[").removesuffix("]")
    return None


def refuse(pipeline: RequestPipeline, error: PodAuthError, source: Source) -> Refusal:
    """Log the denial of a call that has reached no handler, and return how it ends."""
    request = read_call(source)
    denial = pipeline.make_denial(error, request)
    refusal = _refusal(denial)
    pipeline.record_denial(denial, request, None, number(refusal.code), pipeline.unverified_claims(error, request))
    return refusal


def number(code: grpc.StatusCode) -> Status:
    """Return a status by its number."""
    return Status(code.value[0])


def code_of(error: PodAuthError) -> grpc.StatusCode:
    """Return the status of a denial. UNAUTHENTICATED is a malformed credential's too."""
    return _CODES.get(error.status, grpc.StatusCode.UNAUTHENTICATED)


def _refusal(denial: Denial) -> Refusal:
    error = denial.error
    trailers = [("x-request-id", denial.request_id)]
    if error.retry_after is not None:
        # https://github.com/grpc/proposal/blob/master/A6-client-retries.md#pushback
        trailers.append(("grpc-retry-pushback-ms", str(error.retry_after * 1000)))
    return Refusal(code_of(error), error.detail, tuple(trailers))
