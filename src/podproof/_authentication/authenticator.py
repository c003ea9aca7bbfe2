"""The order of the story: from a token and a peer's address to the caller's identity.

This is the one place that knows it whole. Each check lives in the room of its own that is named here.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

from podproof._authentication.claims import check_claims
from podproof._authentication.pod_address import accepted_addresses, check_address
from podproof._authentication.token_review import ReviewedToken
from podproof._cache.fork_local import ForkLocal
from podproof._cache.single_flight import SingleFlight
from podproof._cache.ttl_cache import TTLCache, token_key
from podproof._request.credential import check_token_alphabet
from podproof._telemetry import metrics
from podproof._token.jwt import CLOCK_SKEW, read_claims
from podproof.errors import NoAddressYet, Overloaded, PodAuthError, Unavailable, WrongAddress
from podproof.identity import Pod, PodIdentity, ServiceAccount
from podproof.options import Options

REREAD_INTERVAL = 1.0
"""Seconds between two reads of one pod that a caller in the wrong place can make us do."""

MAX_REJECTIONS = 20
"""How many tokens from one address may be refused upon a review, each within `rejection_ttl` of the one before. After
those none from there is reviewed until that time has passed: a flood of forgeries costs the API server two reviews a
second, and us hardly anything."""


class Verifier(Protocol):
    """Who vouches for tokens."""

    def verify(self, token: str, deadline: float) -> ReviewedToken:
        """Return what there is to know of a token; raise InvalidToken or Unavailable."""


class Directory(Protocol):
    """Who knows the live pods."""

    def find(self, service_account: ServiceAccount, name: str, uid: str, deadline: float) -> Pod:
        """Return a live pod; raise InvalidToken or Unavailable."""


@dataclass(frozen=True, slots=True)
class CachedIdentity:
    """A caller whose token is good: where, until when, and when its pod was last read, in monotonic seconds."""

    identity: PodIdentity
    addresses: tuple[str, ...]
    until: float
    read_at: float


AuthenticationResult = CachedIdentity | PodAuthError


class Authenticator:
    """Decides who is calling.

    `recall` answers from memory; `identify` asks, and blocks. Those who wait in a way of their own `ask`, and
    `conclude` from what the flight brings. A peer is an address in canonical form, or None where addresses are not
    compared. To refuse, all raise a PodAuthError.
    """

    def __init__(
        self,
        options: Options,
        verifier: Verifier,
        pods: Directory,
        *,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.options = options
        self._verifier = verifier
        self._pods = pods
        self._now = now
        self._monotonic = monotonic
        self._state = ForkLocal(lambda: _State(options, monotonic))

    def recall(self, token: str, peer: str | None) -> PodIdentity | None:
        """Return the caller if its token is known and comes from where it must. No I/O, a few microseconds.

        None means that somebody has to be asked. Raises what was decided against the token, and Forbidden for the
        wrong place.
        """
        state = self._state.latest or self._state.get()
        key = token_key(token)
        known = state.accepted.get(key)
        if known is None:
            refusal = state.refused.get(key)
            if refusal is not None:
                raise refusal.without_traceback()
            return None
        if peer in known.addresses:  # nearly every request ends here, where `conclude` would end as well
            return known.identity
        try:
            return self.conclude(known, peer)
        except (WrongAddress, NoAddressYet):
            if self._may_have_moved(known):
                return None
            raise

    def identify(self, token: str, peer: str | None) -> PodIdentity:
        """Return the caller, asking the API server. Blocks for up to `options.timeout` seconds."""
        flight = self.ask(token, peer)
        try:
            outcome = flight.result(self.options.timeout)
        except TimeoutError:
            outcome = self.too_late()
        return self.conclude(outcome, peer)

    def ask(self, token: str, peer: str | None) -> Future[AuthenticationResult]:
        """Start to find out about a token, or join those who are waiting for it already.

        What could never be accepted is refused here, before anybody is asked, and so is what comes from where too much
        was refused of late. Of a remembered caller only the pod is read anew.
        """
        options, deadline = self.options, self._monotonic() + self.options.timeout
        check_token_alphabet(token)
        expires_at = check_claims(
            read_claims(token), audiences=options.audience, issuers=options.issuers, now=self._now()
        )
        state, question = self._state.get(), PendingReview(token, token_key(token), peer, expires_at, deadline)
        self._check_refusals(state, peer)
        return state.flights.join(question.key, partial(self._find_out, state, question), deadline)

    def conclude(self, outcome: AuthenticationResult, peer: str | None) -> PodIdentity:
        """Return an outcome's caller if it calls from where it must: compared for each request, never remembered."""
        if isinstance(outcome, PodAuthError):
            raise outcome.without_traceback()
        identity = outcome.identity
        if peer is not None:
            try:
                check_address(identity.pod, peer, host_network=self.options.host_network)
            except PodAuthError as refusal:
                raise refusal.with_identity(identity, peer) from None
        return identity

    def seconds_left(self, identity: PodIdentity) -> float:
        """Return how long a caller, let in just now, may stay connected: until its token expires.

        If by our clock it has, the API server's is behind, by less than the skew that was allowed for.
        """
        left = identity.expires_at - self._now()
        return left if left > 0 else left + CLOCK_SKEW

    def too_late(self) -> Unavailable:
        """Return the refusal for who has waited for the whole timeout."""
        return Unavailable(f"the API server gave no answer within {self.options.timeout:g} s")

    def close(self) -> None:
        """End this process's threads; a later question starts new ones."""
        state = self._state.pop()
        if state is not None:
            state.flights.close()

    def _may_have_moved(self, known: CachedIdentity) -> bool:
        return self._monotonic() - known.read_at >= REREAD_INTERVAL

    def _check_refusals(self, state: _State, peer: str | None) -> None:
        if peer is not None and state.refusals(peer) >= MAX_REJECTIONS:
            raise Overloaded(
                f"{MAX_REJECTIONS} tokens from {peer} were refused of late: none from there is reviewed before "
                f"{self.options.rejection_ttl:g} s have passed"
            )

    def _find_out(self, state: _State, question: PendingReview) -> AuthenticationResult:
        """Find out about a token, and remember it. Nothing raises: all who wait get the same outcome."""
        key, deadline, peer = question.key, question.deadline, question.peer
        known = state.accepted.peek(key)
        if known is not None and not self._may_have_moved(known):
            return known
        try:
            if self._monotonic() >= deadline:
                return self.too_late()
            self._check_refusals(state, peer)  # once more: many may have been refused while this one waited
            identity = self._reread(known.identity, deadline) if known else self._review(question)
        except Unavailable as trouble:
            return trouble
        except PodAuthError as refusal:
            state.accepted.forget(key)
            # Without its traceback, whose frames hold the token.
            state.refused.put(key, refusal.without_traceback(), self.options.rejection_ttl)
            if peer is not None:
                state.count_refusal(peer, self.options.rejection_ttl)
            return refusal
        except Exception as error:  # noqa: BLE001  whatever it is, it is our trouble
            return Unavailable.unexpected(error)
        read_at = self._monotonic()
        # The pod read anew says nothing of the token: that is to be reviewed when it always was.
        until = known.until if known else read_at + min(self.options.cache_ttl, question.expires_at - self._now())
        addresses = accepted_addresses(identity.pod, host_network=self.options.host_network)
        outcome = CachedIdentity(identity, addresses, until, read_at)
        state.accepted.put(key, outcome, until - read_at)
        return outcome

    def _review(self, question: PendingReview) -> PodIdentity:
        deadline, expires_at = question.deadline, question.expires_at
        voucher = self._verifier.verify(question.token, deadline)
        account = voucher.service_account
        try:
            pod = self._pods.find(account, voucher.pod_name, voucher.pod_uid, deadline)
            if self.options.allow is not None:
                self.options.allow.authorize(account)
        except PodAuthError as refusal:
            raise refusal.with_subject(account, f"{account.namespace}/{voucher.pod_name}") from None
        metrics.token_seconds.observe(expires_at - self._now())
        return PodIdentity(
            service_account=account,
            pod=pod,
            audience=voucher.audience,
            expires_at=expires_at,
            credential_id=voucher.credential_id,
            groups=voucher.groups,
            extra=voucher.extra,
        )

    def _reread(self, identity: PodIdentity, deadline: float) -> PodIdentity:
        pod = self._pods.find(identity.service_account, identity.pod.name, identity.pod.uid, deadline)
        return replace(identity, pod=pod)


@dataclass(frozen=True, slots=True)
class PendingReview:
    """A token to ask about: where it came from, until when it is good, when we have to answer."""

    token: str = field(repr=False)
    key: bytes = field(repr=False)
    peer: str | None
    expires_at: float
    deadline: float


class _State:
    """One process's memory and flights."""

    def __init__(self, options: Options, monotonic: Callable[[], float]) -> None:
        self.accepted: TTLCache[bytes, CachedIdentity] = TTLCache("accepted", options.cache_size, monotonic)
        self.refused: TTLCache[bytes, PodAuthError] = TTLCache("refused", options.rejection_size, monotonic)
        self.refused_from: TTLCache[str, int] = TTLCache("refused_from", options.rejection_size, monotonic)
        self.flights: SingleFlight[bytes, AuthenticationResult] = SingleFlight("token", options.max_reviews, monotonic)
        self._counting = threading.Lock()

    def refusals(self, peer: str) -> int:
        """Return how many tokens from an address were refused of late."""
        return self.refused_from.peek(peer) or 0

    def count_refusal(self, peer: str, seconds: float) -> None:
        """Count one more, all to be forgotten if it is the last for so many seconds."""
        with self._counting:
            self.refused_from.put(peer, self.refusals(peer) + 1, seconds)
