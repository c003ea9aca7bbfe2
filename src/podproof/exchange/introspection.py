"""Is the token of a risky request still active? Asked of the exchange that has issued it (RFC 7662)."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any

from podproof._authentication.json_url import JSONURL
from podproof._cache.fork_local import ForkLocal
from podproof._cache.review_threads import ReviewThreads
from podproof._request.incoming import IncomingRequest
from podproof._request.paths import PathPatterns
from podproof._token.jwt import read_claims
from podproof._token.token_file import TokenFile
from podproof.errors import PodAuthError, TokenInactive, TokenUnavailable, Unavailable

_IDENTIFYING = ("iss", "aud", "sub", "jti")
"""The claims by which a response shows that it is about the token that was asked about."""


class Introspection:
    """Asks the exchange about the tokens of requests, each time anew: no response is kept.

    `paths` are those of the requests, None for all. We authenticate by the token in `file`, which is this pod's own.
    """

    def __init__(
        self, endpoint: JSONURL, file: TokenFile, paths: PathPatterns | None, threads: ForkLocal[ReviewThreads]
    ) -> None:
        self._endpoint = endpoint
        self._file = file
        self._paths = paths
        self._threads = threads

    def start(self, request: IncomingRequest, token: str, deadline: float) -> Future[PodAuthError | None] | None:
        """Return the future of why a request with a verified token is denied, None if the exchange is not asked.

        `deadline` is in monotonic seconds. Raises Overloaded.
        """
        if self._paths is not None and not self._paths.may_cover(request.path, request.raw_path, request.other_paths):
            return None
        return self._threads.get().submit(request.remote, partial(self._ask, token, deadline))

    def _ask(self, token: str, deadline: float) -> PodAuthError | None:
        try:
            response = self._endpoint.post({"token": token}, deadline, authorization=self._file.authorization())
        except TokenUnavailable as error:
            return Unavailable(f"the exchange cannot be asked: {error.args[0]}")
        except Unavailable as error:
            return Unavailable(f"the exchange at {self._endpoint} does not say whether a token is active: {error}")
        return _find_denial(response, read_claims(token))


def _find_denial(response: Mapping[str, Any], claims: Mapping[str, Any]) -> PodAuthError | None:
    """Return why a token with these claims is denied after a response, None if it is active."""
    active = response.get("active")
    if active is False:
        return TokenInactive("the exchange says that the token is inactive, or that we may not ask about it")
    if active is not True:
        return Unavailable("the exchange's response does not say whether the token is active")
    if any(response.get(name) != claims.get(name) for name in _IDENTIFYING):
        return Unavailable("the exchange's response is about another token")
    return None
