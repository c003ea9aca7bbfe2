"""The caller's half: `TokenClient` sends this pod's token with requests. It needs nothing but `requests`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from podproof._token.allowed_hosts import AllowedHosts
from podproof._token.auth import TokenAuth, auth_for_loaded_libraries
from podproof._token.exchange import Exchange
from podproof._token.exchanged_token import ExchangedToken
from podproof._token.header_name import AUTHORIZATION
from podproof._token.token_file import TokenFile, default_path
from podproof._token.token_header import TokenHeader
from podproof.errors import ConfigurationError, HostNotAllowed, TokenUnavailable

if TYPE_CHECKING:
    import requests

__all__ = ["Exchange", "HostNotAllowed", "TokenAuth", "TokenClient", "TokenFile", "TokenUnavailable"]


class TokenClient:
    """Sends this pod's token with requests to one app, whose `audience` the token is for.

    The token file is `path`, else `$PODPROOF_TOKEN_FILE`, else `/var/run/secrets/podproof/<audience>/token`, else,
    without an audience, `/var/run/secrets/podproof/token`. With an audience, a token for another one is not sent.

    >>> with TokenClient("bob").session() as http:
    ...     http.get("http://bob/whoami").json()
    {'service_account': 'default/alice', 'pod': 'default/alice-pod'}

    With httpx or httpx2, sync or async:

    >>> with httpx.Client(auth=TokenClient("bob").auth) as http:
    ...     http.get("http://bob/whoami").json()
    {'service_account': 'default/alice', 'pod': 'default/alice-pod'}

    If no token is available it raises TokenUnavailable; a request is never sent without one. An Authorization header
    that the app sets itself is kept, and an empty one raises ConfigurationError. After a 401 the request is sent once
    more if the file holds another token by then and the body can be sent again.

    In a redirect the token stays on its origin: scheme, host and port, where only `http` may change to `https` on the
    standard ports. A redirect to another origin is followed without the token. `hosts` limits where the token is sent
    at all: names such as `bob`, `bob.default.svc:8080` or `*.default.svc` (every name below that one). A request to any
    other host raises HostNotAllowed and is not sent.

    Over plain http the token never goes to a proxy that HTTP_PROXY or ALL_PROXY names: `session()` bypasses the proxy,
    and `auth`, which cannot, raises HostNotAllowed. Proxies that the app gives to its HTTP library are its own choice.

    With `exchange`, the URL of a token exchange or an `Exchange`, the token in the file is traded there for one that is
    for `audience`, and that one is sent, with a proof for each request that only this process can make (RFC 9449;
    needs `podproof[dpop]`). It is renewed before it expires; if the exchange is away, it is used until then. The file
    is `path`, else `$PODPROOF_TOKEN_FILE`, else `/var/run/secrets/podproof/token`.

    With `header`, such as "X-Pod-Authorization", the token is sent in that header, for an app that has the same option,
    and Authorization is the app's own: it goes along as it is. All that is said here of an Authorization header is then
    true of this one. httpx takes it for Authorization, so that it stays on its origin: an event hook of httpx that sets
    Authorization removes it.

    A pickled or copied client holds no token. `clock` returns Unix seconds. Raises ConfigurationError.
    """

    def __init__(
        self,
        audience: str | None = None,
        *,
        path: str | os.PathLike[str] | None = None,
        exchange: str | Exchange | None = None,
        hosts: Collection[str] | None = None,
        header: str = AUTHORIZATION,
        clock: Callable[[], float] = time.time,
    ) -> None:
        chosen = path or os.environ.get("PODPROOF_TOKEN_FILE")
        self._source: TokenFile | ExchangedToken
        if exchange is None:
            self._source = TokenFile(chosen or default_path(audience), audience=audience, clock=clock)
        else:
            self._source = _exchanged(exchange, TokenFile(chosen or default_path(None), clock=clock), audience, clock)
        self._hosts = None if hosts is None else AllowedHosts.parse(hosts)
        self._header = TokenHeader(header)

    def __repr__(self) -> str:
        return f"TokenClient({self._source!r})"

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Put the token on a request of `requests`, as `auth` does: `requests.get(url, auth=TokenClient("bob"))`.

        Raises what `auth` raises, and TypeError if httpx calls.
        """
        if not hasattr(request, "register_hook"):
            raise TypeError("invalid auth=TokenClient(...): httpx expects auth=TokenClient(...).auth")
        return self.auth(request)

    def token(self) -> str:
        """Return the token that is in the file now, or that the exchange has issued. Raises TokenUnavailable."""
        return self._source.read()

    def headers(self, url: str | None = None, *, method: str = "GET") -> dict[str, str]:
        """Return the header with the token for one request, for libraries without `auth` (aiohttp).

        Call it for each request, since the token rotates. With the request's URL, `hosts` is checked; redirects and
        proxies are not, and libraries take no other header off than Authorization where a redirect leads elsewhere:
        follow none with a `header` of your own. An issued token that is bound to a key needs the URL and the method,
        for its DPoP header.

        Raises TokenUnavailable, HostNotAllowed, and ConfigurationError without a URL that is needed.
        """
        if url is not None and self._hosts is not None:
            self._hosts.require(url)
        if url is None and self._source.is_bound:
            raise ConfigurationError(
                "the URL of the request is needed: its token is bound to a key, and each proof to a URL"
            )
        return self._header.rename(self._source.headers(method, url or ""))

    @property
    def auth(self) -> TokenAuth:
        """The `auth=` of `requests`, httpx and httpx2, sync and async.

        With `requests`, prefer `session()`: in a redirect, a `.netrc` replaces any other `auth`. With httpx or httpx2,
        import that first: an `auth` made before sends the token but cannot retry after a 401. `auth=None` on a single
        httpx request switches this off, and the request is sent without a token.
        """
        return auth_for_loaded_libraries(self._source, self._hosts, self._header)

    def session(self) -> requests.Session:
        """Return a new `requests.Session` that sends the token."""
        from podproof._token.session import TokenSession  # noqa: PLC0415  httpx users need not load requests

        token = TokenAuth(self._source, self._hosts, header=self._header, bypasses_proxy=True)
        return TokenSession(token, has_own_header=self._header.is_own)


def _exchanged(
    exchange: str | Exchange, file: TokenFile, audience: str | None, clock: Callable[[], float]
) -> ExchangedToken:
    if audience is None:
        raise ConfigurationError("no audience was given: an exchange has to know whom the token is for")
    return ExchangedToken(file, Exchange(exchange) if isinstance(exchange, str) else exchange, audience, clock=clock)
