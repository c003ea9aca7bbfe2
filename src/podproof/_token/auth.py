"""`TokenAuth`: puts the token on the requests of `requests`, httpx and httpx2."""

from __future__ import annotations

import functools
import sys
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from urllib.parse import urljoin, urlsplit

from podproof._token.allowed_hosts import AllowedHosts
from podproof._token.proxies import require_no_proxy
from podproof._token.token_header import IN_AUTHORIZATION, TokenHeader
from podproof.errors import ConfigurationError, HostNotAllowed, TokenUnavailable

if TYPE_CHECKING:
    import requests


class TokenSource(Protocol):
    """Has the token that requests are sent with."""

    def headers(self, method: str, url: str, /) -> dict[str, str]:
        """Return what one request sends; its Authorization header is always among it. Raises TokenUnavailable."""

    def headers_after(self, sent: str, response: Any, /, *, moved: bool) -> dict[str, str] | None:
        """Return what to send after a 401 to the request that had the Authorization value `sent`, None for nothing.

        `moved` says that a redirect has changed the request's URL since.
        """

    def may_block(self, status: int | None, /) -> bool:
        """Return True if the headers may take a while: before a request, or after a response with this status."""


class _Request(Protocol):
    @property
    def method(self) -> str | None: ...
    @property
    def url(self) -> object: ...
    @property
    def headers(self) -> MutableMapping[str, str]: ...


class _Response(Protocol):
    @property
    def status_code(self) -> int: ...
    @property
    def request(self) -> _Request: ...


_R = TypeVar("_R", bound=_Request)

# An httpx request may come by more than once: sent again by the app, or as the next one of a redirect. This extension
# says that its header is ours, to be replaced, and not the app's, which is kept; and where the header is gone, that the
# redirect leads to another origin.
_OURS = "podproof.authorized"


class TokenAuth:
    """Puts the token on requests of `requests`, httpx and httpx2: the value of their `auth=`.

    A header of this name that the app has set is kept. `TokenClient.auth` makes these.
    """

    def __init__(
        self,
        source: TokenSource,
        hosts: AllowedHosts | None = None,
        *,
        header: TokenHeader = IN_AUTHORIZATION,
        bypasses_proxy: bool = False,
    ) -> None:
        self._source = source
        self._hosts = hosts
        self._header = header
        self._bypasses_proxy = bypasses_proxy

    def __repr__(self) -> str:
        return f"TokenAuth({self._source!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        # The class may be a subclass of httpx's: it is chosen anew in the process that loads this.
        return _new_auth, (), vars(self)

    def __call__(self, request: _R) -> _R:
        """Put the token on the request and return it: what `requests` calls.

        Raises TokenUnavailable, HostNotAllowed, and ConfigurationError for an empty header of the token's name.
        """
        if not hasattr(request, "register_hook"):  # httpx, imported after this was made: it takes any callable
            self._authorize(request)
            return request
        try:
            sent = self._authorize(request, for_requests=True)
        except (TokenUnavailable, HostNotAllowed) as error:
            raise _as_requests_error(error) from error.__cause__
        if sent is not None:
            request.register_hook(
                "response", _AfterResponse(self._source, self._hosts, self._header, sent, str(request.url))
            )
        return request

    def auth_flow(self, request: _Request) -> Generator[_Request, _Response, None]:
        """Send the request with the token, and once more after a 401: what httpx calls on its own `Auth`.

        Raises TokenUnavailable, HostNotAllowed, and ConfigurationError for an empty header of the token's name.
        """
        sent = self._authorize(request)
        response = yield request
        # The request of this response: the first one, or the last one of its redirects.
        last = response.request
        fresh = _headers_after(self._source, self._header, sent, response, moved=last is not request)
        if fresh and _is_in_memory(last):
            self._header.put(last, fresh)
            yield last

    async def async_auth_flow(self, request: _Request) -> AsyncGenerator[_Request, _Response]:
        """Do the same on an event loop, which a source that trades tokens does not block: what httpx calls."""
        flow = self.auth_flow(request)
        sent = await self._step(None, next, flow, None)
        while sent is not None:
            response = yield sent
            sent = await self._step(response.status_code, _send, flow, response)

    async def _step(self, status: int | None, call: Callable[..., _Request | None], *args: object) -> _Request | None:
        if not self._source.may_block(status):
            return call(*args)
        from anyio.to_thread import run_sync  # noqa: PLC0415  httpx has it

        return await run_sync(call, *args)

    def _authorize(self, request: _Request, *, for_requests: bool = False) -> str | None:
        extensions: MutableMapping[str, object] = getattr(request, "extensions", {})
        given = self._header.get(request)
        if given is not None and not given.strip():
            raise ConfigurationError(
                f"invalid {self._header.name} header '': expected a value, or no header to send the token"
            )
        if (given is not None) != (_OURS in extensions):
            return None
        url = str(request.url)
        if self._hosts is not None:
            self._hosts.require(url)
        if not self._bypasses_proxy:
            require_no_proxy(url, for_requests=for_requests)
        headers = self._header.rename(self._source.headers(request.method or "GET", url))
        self._header.put(request, headers)
        extensions[_OURS] = True
        return headers[self._header.name]

    def take_off(self, request: requests.PreparedRequest) -> None:
        """Take the token off a request that a redirect leads elsewhere."""
        self._header.take_off(request)

    def renew(self, request: _Request) -> None:
        """Put on a request that a redirect leads to what its new URL needs, where it still has the token."""
        if self._header.name in request.headers and "DPoP" in request.headers:
            headers = self._source.headers(request.method or "GET", str(request.url))
            request.headers.update(self._header.rename(headers))


def auth_for_loaded_libraries(source: TokenSource, hosts: AllowedHosts | None, header: TokenHeader) -> TokenAuth:
    """Return a `TokenAuth` that is also an `Auth` of httpx and httpx2, if they are imported."""
    return _loaded_auth_class()(source, hosts, header=header)


def _new_auth() -> TokenAuth:
    kind = _loaded_auth_class()
    return kind.__new__(kind)


def _loaded_auth_class() -> type[TokenAuth]:
    # httpx shows a response only to subclasses of its own Auth, and an app that uses httpx has imported it.
    bases = [base for name in ("httpx", "httpx2") if (base := getattr(sys.modules.get(name), "Auth", None))]
    return _auth_class(*bases)


@functools.cache
def _auth_class(*bases: type) -> type[TokenAuth]:
    return type("TokenAuth", (TokenAuth, *bases), {}) if bases else TokenAuth


def _as_requests_error(error: Exception) -> Exception:
    """Return the same error as one that `except requests.RequestException` catches too."""
    return _new_requests_error(type(error), error.args)


def _new_requests_error(kind: Any, args: tuple[object, ...]) -> Exception:
    error: Exception = _requests_error_class(kind)(*args)
    return error


@functools.cache
def _requests_error_class(kind: type[Exception]) -> type[Exception]:
    from requests import RequestException  # noqa: PLC0415  loaded, since requests calls

    return type(kind.__name__, (kind, RequestException), {"__module__": kind.__module__, "__reduce__": _reduce_error})


def _reduce_error(error: Exception) -> tuple[Any, ...]:
    return _new_requests_error, (type(error).__bases__[0], error.args)


@dataclass(frozen=True, slots=True)
class _AfterResponse:
    """A response hook of `requests`: sends a rejected request once more, and lets no token go to another origin."""

    source: TokenSource
    hosts: AllowedHosts | None
    header: TokenHeader
    sent: str = field(repr=False)
    url: str = field(repr=False)

    def __call__(self, response: requests.Response, **options: Any) -> requests.Response:
        final = self._send_again(response, options)
        if self.header.is_own and final.is_redirect and self._leads_elsewhere(final):
            # `requests` follows with a copy of the request that it was given, less Authorization.
            self.header.take_off(response.request)
        return final

    def _send_again(self, response: requests.Response, options: Mapping[str, Any]) -> requests.Response:
        moved = response.request.url != self.url
        fresh = _headers_after(self.source, self.header, self.sent, response, moved=moved)
        if fresh is None or not _rewind(response.request):
            return response
        # The connection goes back to its pool once the body is read.
        _ = response.content
        request = response.request.copy()
        request.headers.update(fresh)
        second: requests.Response = response.connection.send(request, **options)
        second.history.append(response)
        return second

    def _leads_elsewhere(self, response: requests.Response) -> bool:
        from requests.sessions import SessionRedirectMixin  # noqa: PLC0415  loaded, since requests calls
        from requests.utils import requote_uri  # noqa: PLC0415  as above

        redirects: Any = SessionRedirectMixin()
        target = urljoin(response.url, requote_uri(urlsplit(redirects.get_redirect_target(response)).geturl()))
        if redirects.should_strip_auth(response.url, target):
            return True
        return self.hosts is not None and not self.hosts.include(target)


def _send(flow: Generator[_Request, _Response, None], response: _Response) -> _Request | None:
    try:
        return flow.send(response)
    except StopIteration:
        return None


def _headers_after(
    source: TokenSource, header: TokenHeader, sent: str | None, response: _Response, *, moved: bool
) -> Mapping[str, str] | None:
    """Return what to send in the place of a rejected token, None where it would be no use to send the request again."""
    if response.status_code != 401 or sent is None:
        return None
    if header.get(response.request) != sent:
        # A redirect led to another origin, whose 401 must not bring the token there.
        return None
    fresh = source.headers_after(sent, response, moved=moved)
    return None if fresh is None else header.rename(fresh)


def _rewind(request: requests.PreparedRequest) -> bool:
    """Return True if the body can be sent again, after rewinding it."""
    body: object = request.body
    if body is None or isinstance(body, bytes | str):
        return True
    from requests.exceptions import UnrewindableBodyError  # noqa: PLC0415  loaded, since requests calls
    from requests.utils import rewind_body  # noqa: PLC0415  loaded, since requests calls

    try:
        rewind_body(request)
    except UnrewindableBodyError:
        return False
    return True


def _is_in_memory(request: _Request) -> bool:
    """Return True if an httpx request's body can be sent again: a streamed one cannot."""
    # The next request of a redirect has the body of the one before, as a stream of its own kind.
    return type(getattr(request, "stream", None)).__name__ == "ByteStream"
