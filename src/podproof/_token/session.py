"""`TokenSession`: the `requests.Session` of `TokenClient.session()`."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import requests

from podproof._token.auth import TokenAuth


class TokenSession(requests.Session):
    """A `requests.Session` that keeps the token to its origin, whatever a `.netrc` or HTTP_PROXY says.

    A plain-http request bypasses the proxies of the environment, which would see the token. Proxies that the app itself
    gives, as `proxies=` or `session.proxies`, are used. If the token has a header of its own, `auth` is the app's.
    """

    __attrs__ = [*requests.Session.__attrs__, "_token", "_has_own_header"]  # noqa: RUF012  as there; what is pickled

    def __init__(self, token: TokenAuth, *, has_own_header: bool) -> None:
        super().__init__()
        self._token = token
        self._has_own_header = has_own_header
        if not has_own_header:
            self.auth = token

    def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
        """Return a request as it is sent, with the token if that has a header of its own."""
        prepared = super().prepare_request(request)
        return self._token(prepared) if self._has_own_header else prepared

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        """Keep the token on its origin in a redirect, where `requests` would prefer a .netrc to it."""
        if self._has_own_header:
            super().rebuild_auth(prepared_request, response)  # type: ignore[no-untyped-call]  # by types-requests
        before, after = response.request.url, prepared_request.url
        if self.should_strip_auth(before, after):  # type: ignore[no-untyped-call]  # as above
            self._token.take_off(prepared_request)
        elif self._has_own_header or self.auth is self._token:
            self._token.renew(prepared_request)

    def merge_environment_settings(self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any) -> Any:
        """Return the settings of a request; for plain http without the environment's proxies."""
        given = {**self.proxies, **(proxies or {})}
        settings = super().merge_environment_settings(url, proxies, stream, verify, cert)
        if _is_plain_http(url):
            settings["proxies"] = {scheme: proxy for scheme, proxy in given.items() if proxy is not None}
        return settings

    def rebuild_proxies(self, prepared_request: requests.PreparedRequest, proxies: Any) -> Any:
        """Return the proxies of a redirect; for plain http without the environment's."""
        if not _is_plain_http(prepared_request.url):
            return super().rebuild_proxies(prepared_request, proxies)  # type: ignore[no-untyped-call]
        super().rebuild_proxies(prepared_request, {**proxies, "no_proxy": "*"})  # type: ignore[no-untyped-call]
        return proxies

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        """Send a prepared request; plain http without the environment's proxies."""
        if _is_plain_http(request.url):
            options.setdefault("proxies", dict(self.proxies))
        return super().send(request, **options)


def _is_plain_http(url: str | None) -> bool:
    return urlsplit(url or "").scheme == "http"
