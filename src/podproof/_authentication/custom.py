"""An authenticator of the user's own, such as a stub in a test, in the form that the request pipeline drives."""

from __future__ import annotations

import math
import time
from concurrent.futures import Future
from functools import partial
from typing import Protocol

from podproof._authentication.cached_identity import AuthenticationResult, CachedIdentity
from podproof._cache.review_threads import review_threads
from podproof._token.jwt import CLOCK_SKEW
from podproof.errors import PodAuthError, Unavailable
from podproof.identity import PodIdentity
from podproof.options import Options


class SupportsAuthenticate(Protocol):
    """What a middleware takes as its `authenticator`: podproof's own, or a stub for tests."""

    def authenticate(self, token: str, peer: str | None) -> PodIdentity:
        """Return the caller; raise a PodAuthError to deny. It may block."""


class CustomAuthenticator:
    """Calls an authenticator, which may block, in a thread; what it decides on a token and a peer is taken as it is."""

    access_reviewer = None
    namespace_reader = None
    issuer_reader = None
    monotonic = staticmethod(time.monotonic)

    def __init__(self, authenticator: SupportsAuthenticate, options: Options) -> None:
        self._authenticator = authenticator
        self._enforce = options.enforce
        self._allow = options.allow if options.enforce else None
        self.threads = review_threads(options.max_reviews)

    def begin(self) -> None:
        """There is nothing to check at startup."""

    def get_known(self, *_: object) -> None:
        """Return None: nothing is cached."""

    def get_cached(self, *_: object) -> None:
        """Return None: nothing is cached."""

    def start(self, token: str, peer: str | None, *_: object) -> Future[AuthenticationResult]:
        """Return the future of a call to the authenticator. Raises Overloaded, as `ReviewThreads.submit`."""
        return self.threads.get().submit(peer, partial(self._authenticate, token, peer))

    def check_peer(self, result: AuthenticationResult, *_: object) -> CachedIdentity:
        """Return the result. Raises a denial."""
        if isinstance(result, PodAuthError):
            raise result
        return result

    def _authenticate(self, token: str, peer: str | None) -> AuthenticationResult:
        try:
            identity = self._authenticator.authenticate(token, peer)
            if self._allow is not None:
                self._allow.authorize(identity.service_account)
        except PodAuthError as denial:
            return denial
        except Exception as error:  # noqa: BLE001  an error in an authenticator must deny, not crash
            return Unavailable.unexpected(error)
        left = identity.expires_at - time.time() if self._enforce else math.inf
        ends_at = self.monotonic() + (left if left > 0 else left + CLOCK_SKEW)
        return CachedIdentity(identity, identity.identity, identity.scopes, (), -math.inf, ends_at, -math.inf)
