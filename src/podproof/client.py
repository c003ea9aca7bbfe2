"""The caller's half: `TokenClient` sends this pod's token with requests. It needs nothing but `requests`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from podproof._token.allowed_hosts import AllowedHosts
from podproof._token.auth import TokenAuth, auth_for_loaded_libraries
from podproof._token.token_file import TokenFile, default_path
from podproof.errors import HostNotAllowed, TokenUnavailable

if TYPE_CHECKING:
    import requests

__all__ = ["HostNotAllowed", "TokenAuth", "TokenClient", "TokenFile", "TokenUnavailable"]


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

    A pickled or copied client holds no token. `clock` returns Unix seconds. Raises ConfigurationError.
    """

    def __init__(
        self,
        audience: str | None = None,
        *,
        path: str | os.PathLike[str] | None = None,
        hosts: Collection[str] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._file = TokenFile(
            path or os.environ.get("PODPROOF_TOKEN_FILE") or default_path(audience),
            audience=audience,
            clock=clock,
        )
        self._hosts = None if hosts is None else AllowedHosts.parse(hosts)

    def __repr__(self) -> str:
        return f"TokenClient({self._file!r})"

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Put the token on a request of `requests`, as `auth` does: `requests.get(url, auth=TokenClient("bob"))`.

        Raises what `auth` raises, and TypeError if httpx calls.
        """
        if not hasattr(request, "register_hook"):
            raise TypeError("invalid auth=TokenClient(...): httpx expects auth=TokenClient(...).auth")
        return self.auth(request)

    def token(self) -> str:
        """Return the token that is in the file now. Raises TokenUnavailable."""
        return self._file.read()

    def headers(self, url: str | None = None) -> dict[str, str]:
        """Return the Authorization header for one request, for libraries without `auth` (aiohttp).

        Call it for each request, since the token rotates. With the request's URL, `hosts` is checked; redirects and
        proxies are not. Raises TokenUnavailable, and HostNotAllowed.
        """
        if url is not None and self._hosts is not None:
            self._hosts.require(url)
        return {"Authorization": self._file.authorization()}

    @property
    def auth(self) -> TokenAuth:
        """The `auth=` of `requests`, httpx and httpx2, sync and async.

        With `requests`, prefer `session()`: in a redirect, a `.netrc` replaces any other `auth`. With httpx or httpx2,
        import that first: an `auth` made before sends the token but cannot retry after a 401. `auth=None` on a single
        httpx request switches this off, and the request is sent without a token.
        """
        return auth_for_loaded_libraries(self._file, self._hosts)

    def session(self) -> requests.Session:
        """Return a new `requests.Session` that sends the token."""
        from podproof._token.session import TokenSession  # noqa: PLC0415  httpx users need not load requests

        session = TokenSession()
        session.auth = TokenAuth(self._file, self._hosts, bypasses_proxy=True)
        return session
