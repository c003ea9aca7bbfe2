"""`ExchangedToken`: the token that a pod gets for its own at a token exchange, kept and renewed."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from podproof._extras import require_extra
from podproof._token.exchange import Exchange
from podproof._token.token_endpoint import IssuedToken, TokenEndpoint
from podproof._token.token_file import TokenFile
from podproof.errors import TokenUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podproof._token.proof_key import ProofKey

_log = logging.getLogger("podproof.client")

RETRY_INTERVAL = 1.0
"""Seconds between two trades at the least, where the first one failed."""

MIN_AGE = 30.0
"""Seconds for which a token is not traded again because a service has rejected it."""

_MAX_NONCE = 256
_MAX_ORIGINS = 64


class ExchangedToken:
    """The token for an audience that an exchange issues for the token in a file.

    One thread trades it; meanwhile others use the one before, for as long as that is good. It is kept in memory alone:
    a pickled, copied or forked instance trades for itself, with a key of its own. `clock` returns Unix seconds.

    Raises MissingExtra if the token is to be bound to a key, and `podproof[dpop]` is not installed.
    """

    def __init__(
        self, file: TokenFile, exchange: Exchange, audience: str, *, clock: Callable[[], float] = time.time
    ) -> None:
        if exchange.dpop:
            require_extra("TokenClient(exchange=...)", "dpop")
        self.is_bound = exchange.dpop
        self._file = file
        self._exchange = exchange
        self._audience = audience
        self._clock = clock
        self._state: _State | None = None

    def __repr__(self) -> str:
        return f"ExchangedToken({self._exchange.url!r}, audience={self._audience!r})"

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_state": None}

    def read(self) -> str:
        """Return the token. Blocks where it has to be traded. Raises TokenUnavailable."""
        state = self._own_state()
        issued, now = state.issued, self._clock()
        if issued is not None and now < issued.renewed_at:
            return issued.text
        good = issued if issued is not None and now < issued.expires_at else None
        if not state.lock.acquire(blocking=good is None) and good is not None:
            return good.text
        try:
            newest = state.issued
            if newest is not None and newest is not issued:  # another thread has traded it while this one waited
                return newest.text
            return self._trade(state, good)
        finally:
            state.lock.release()

    def headers(self, method: str, url: str) -> dict[str, str]:
        """Return what one request sends: the token, and the proof for this request if it is bound. As `read`."""
        token, state = self.read(), self._own_state()
        if state.key is None:
            return {"Authorization": f"Bearer {token}"}
        proof = state.key.prove(method, url, token=token, nonce=state.nonces.get(_origin(url)))
        return {"Authorization": f"DPoP {token}", "DPoP": proof}

    def headers_after(self, sent: str, response: Rejection, *, moved: bool) -> dict[str, str] | None:
        """Return what to send after a 401 to the request that had the Authorization value `sent`, None for nothing.

        That is a proof with the nonce that the response brings, one for the URL that the request was `moved` to by a
        redirect, or a newer token.
        """
        state, request = self._own_state(), response.request
        issued = state.issued
        proof_only = state.keep_nonce(str(request.url), response.headers.get("DPoP-Nonce")) or moved
        if issued is not None and sent.endswith(f" {issued.text}") and not (proof_only and state.key is not None):
            if self._clock() - state.traded_at < MIN_AGE:
                return None
            state.issued = None
        try:
            return self.headers(request.method or "GET", str(request.url))
        except TokenUnavailable:
            return None

    def may_block(self, status: int | None) -> bool:
        """Return True if the token has to be traded, or may have to be since it was rejected."""
        issued = self._own_state().issued
        return status == 401 or (status is None and (issued is None or self._clock() >= issued.renewed_at))

    def _own_state(self) -> _State:
        """Return this process's state: a lock that crossed a fork may be held for ever, and a key has one owner."""
        state = self._state
        if state is None or state.pid != os.getpid():
            state = self._state = _State(self._make_key())
        return state

    def _make_key(self) -> ProofKey | None:
        if not self._exchange.dpop:
            return None
        from podproof._token.proof_key import ProofKey  # noqa: PLC0415  the base install has no cryptography

        return ProofKey(clock=self._clock)

    def _trade(self, state: _State, good: IssuedToken | None) -> str:
        """Return a new token; `good`, the one before, if there is one and no other can be had."""
        if self._clock() - state.failed_at >= RETRY_INTERVAL:
            endpoint = TokenEndpoint(self._exchange, self._audience, clock=self._clock)
            try:
                state.issued = endpoint.trade(self._file.read(), state.key, state.nonces)
            except TokenUnavailable as error:
                if good is not None and not state.failing:
                    left = good.expires_at - self._clock()
                    _log.warning("%s. The last token from it is used for another %.0f s.", error.args[0], left)
                state.failed_at, state.failure, state.failing = self._clock(), error.args, True
            else:
                state.traded_at, state.failed_at, state.failing = self._clock(), -math.inf, False
                return state.issued.text
        if good is None:
            raise TokenUnavailable(*state.failure)
        return good.text


class Rejection(Protocol):
    """A response of `requests` or httpx, as far as it is read here."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Its headers."""

    @property
    def request(self) -> Any:
        """The request that it answers, the last one of redirects."""


class _State:
    """One process's key, token and nonces."""

    def __init__(self, key: ProofKey | None) -> None:
        self.pid = os.getpid()
        self.lock = threading.Lock()
        self.key = key
        self.issued: IssuedToken | None = None
        self.nonces: dict[str, str] = {}
        self.traded_at = self.failed_at = -math.inf
        self.failure: tuple[object, ...] = ()
        self.failing = False

    def keep_nonce(self, url: str, nonce: str | None) -> bool:
        """Keep the nonce that a server wants; return True if it is another one than before."""
        origin = _origin(url)
        if nonce is None or len(nonce) > _MAX_NONCE or self.nonces.get(origin) == nonce:
            return False
        if len(self.nonces) >= _MAX_ORIGINS:
            self.nonces.clear()
        self.nonces[origin] = nonce
        return True


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
