"""From a token and a peer's address to the caller's identity: claims, token, pod, address, in this order.

Each check has a file of its own beside this one.
"""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, cast

from podproof._apiserver.protocols import AccessReviewer, IssuerReader, NamespaceReader
from podproof._authentication.cached_identity import AuthenticationResult, CachedIdentity, credential_key, too_late
from podproof._authentication.claims import MAX_TOKEN, check_claims, check_token_alphabet
from podproof._authentication.jws import JWS, parse_jws
from podproof._authentication.outage import RETRY_INTERVAL, Outage
from podproof._authentication.pod_address import (
    accepted_addresses,
    check_address,
    is_within,
    peer_network,
    server_spellings,
)
from podproof._authentication.pods import FoundPod, PodStore
from podproof._authentication.token_review import ReviewedToken
from podproof._cache.fork_local import ForkLocal
from podproof._cache.identity_cache import IdentityCache
from podproof._cache.review_cache import ReviewCache
from podproof._cache.review_threads import ReviewThreads, review_threads
from podproof._cache.ttl_cache import TTLCache
from podproof._telemetry import metrics
from podproof._token.jwt import CLOCK_SKEW
from podproof.errors import (
    InvalidToken,
    NoAddressYet,
    Overloaded,
    PodAuthError,
    Unavailable,
    WrongAddress,
)
from podproof.identity import Pod, PodIdentity
from podproof.options import Options

if TYPE_CHECKING:
    from podproof._apiserver.startup import StartupCheck
    from podproof._authentication.token_verifier import TokenVerifier

log = logging.getLogger("podproof")

REREAD_INTERVAL = 1.0
"""Seconds between two reads of one pod that a caller at a wrong address can cause."""

REJECTION_WINDOW = 10.0
"""Seconds for which rejected tokens are counted, from the last one on."""

MAX_REJECTIONS = 20
"""How many tokens from one address may be rejected, each within `REJECTION_WINDOW` of the one before. After those, no
further token from there is reviewed until that time has passed: a flood of forgeries costs the API server two reviews a
second."""

WITHOUT_ADDRESSES = 5
"""How many times as many may be rejected where addresses are not compared, so that all callers have one count."""


class Authenticator:
    """Decides who is calling.

    `authenticate` is for code that has a token and a peer's address in hand; it blocks. The request pipeline uses its
    parts: `get_cached`, then `start`, whose future it waits for in its own way, then `check_peer`. A peer is an address
    in canonical form, None where addresses are not compared. To deny, all raise a PodAuthError.

    `access_reviewer` and `namespace_reader` are for a policy that asks the same API server, `issuer_reader` knows the
    issuer of its tokens.
    `startup` is begun with the first request. `max_rejections` is how many tokens from one address may be rejected.
    `on_close` ends what else has threads.
    """

    def __init__(
        self,
        options: Options,
        verifier: TokenVerifier,
        pods: PodStore,
        *,
        access_reviewer: AccessReviewer | None = None,
        namespace_reader: NamespaceReader | None = None,
        issuer_reader: IssuerReader | None = None,
        startup: StartupCheck | None = None,
        max_rejections: int = MAX_REJECTIONS,
        on_close: Callable[[], object] = lambda: None,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.options = options
        self.monotonic = monotonic
        self.threads = review_threads(options.max_reviews)
        self.access_reviewer = access_reviewer
        self.namespace_reader = namespace_reader
        self.issuer_reader = issuer_reader
        self._startup = startup
        self._on_close = on_close
        self._max_rejections = max_rejections * (WITHOUT_ADDRESSES if options.source_address == "off" else 1)
        self._verifier = verifier
        self.pods = pods
        self._now = now
        self._state = ForkLocal(lambda: _State(options, self.threads.get(), monotonic))

    def authenticate(self, token: str, peer: str | None) -> PodIdentity:
        """Return the caller, from the cache or by asking the API server. Blocks for up to `options.timeout` seconds.

        Raises InvalidToken, Forbidden, NoAddressYet or Unavailable.
        """
        self.begin()
        deadline = self.monotonic() + self.options.timeout
        key = credential_key(token)
        cached = self.get_cached(token, peer, key)
        if cached is None:
            future = self.start(token, peer, deadline, key)
            try:
                result = future.result(self.options.timeout)
            except TimeoutError:
                result = too_late(self.options.timeout)
            cached = self.check_peer(result, peer)
        return cached.identity

    def begin(self) -> None:
        """Start what is checked once a process, at the first call in a process."""
        if self._startup is not None:
            self._startup.begin()

    def get_known(self, key: bytes, remote: str | None) -> CachedIdentity | None:
        """Return a caller whose credential and address were accepted before: one lookup. None: judge the request.

        None for one that is stale, too, which the decision log says.

        `key` is the credential's `credential_key`, `remote` the connection's address as the server spells it. In a
        forked child that has not authenticated anything yet, this reads the parent's cache.
        """
        state = self._state.latest
        if state is None:
            return None
        cached = state.identities.peek(key)
        if cached is None or remote not in cached.peers or cached.stale:
            return None
        state.identities.count_hit()
        return cached

    def get_cached(self, token: str, peer: str | None, key: bytes | None = None) -> CachedIdentity | None:
        """Return a cached caller if it calls from its pod. No I/O.

        None means that the API server has to be asked. Raises what was decided against this token, and Forbidden for a
        wrong address.
        """
        state = self._state.get()
        cached = state.reviews.get(key or credential_key(token))
        if cached is None or peer in cached.peers:
            return cached
        try:
            return self.check_peer(cached, peer)
        except (WrongAddress, NoAddressYet):
            if self._may_reread(cached):
                return None
            raise

    def start(
        self, token: str, peer: str | None, deadline: float | None = None, key: bytes | None = None
    ) -> Future[AuthenticationResult]:
        """Return the future of this token's review, shared by all who wait for it.

        It is done already where the API server need not be asked: the keys are at hand, and the view of the pods is
        fresh; or the API server is away, and the caller known. A token that could never be accepted is denied here,
        before anything is asked, and so is one from an address with too many rejected tokens. Of a cached caller only
        the pod is read again. `deadline` is in monotonic seconds, by default `options.timeout` from now.
        """
        options = self.options
        if deadline is None:
            deadline = self.monotonic() + options.timeout
        check_token_alphabet(token)
        parsed = parse_jws(token, most=MAX_TOKEN)
        expires_at = check_claims(parsed.claims, audiences=options.audience, issuers=options.issuers, now=self._now())
        if self._startup is not None:
            self._startup.raise_if_failed()
        state = self._state.get()
        network = None if peer is None else peer_network(peer)
        review = PendingReview(token, key or credential_key(token), peer, network, expires_at, deadline)
        self._check_rate(state, network)
        result = state.reviews.decide(review.key, partial(self._review_at_once, state, review, parsed))
        if result is None:
            return self._submit(state, review)
        if isinstance(result, CachedIdentity) and result.stale and state.outage.take_turn():
            review.waiting = False
            with suppress(Unavailable):
                self._submit(state, review)
        future: Future[AuthenticationResult] = Future()
        future.set_result(result)
        return future

    def check_peer(self, result: AuthenticationResult, peer: str | None) -> CachedIdentity:
        """Return a result's caller if it calls from its pod: compared for each request, never cached.

        Raises the result if it is a denial, HostNetwork, NoAddressYet or WrongAddress.
        """
        if isinstance(result, PodAuthError):
            raise result.without_traceback()
        if peer is not None:
            try:
                check_address(
                    result.identity.pod,
                    peer,
                    host_network=self.options.host_network,
                    trusted=self.options.trusted_proxies,
                )
            except PodAuthError as denial:
                raise denial.with_identity(result.identity, peer) from None
        return result

    def discard_pod(self, uid: str) -> None:
        """Forget what is known of the callers in a pod that has ended or changed: it has to be read again."""
        self._state.get().identities.discard_pod(uid)

    def close(self) -> None:
        """End this process's threads, when the reviews that are pending have ended; a later review starts new ones."""
        self._on_close()
        self._state.pop()
        threads = self.threads.pop()
        if threads is not None:
            threads.shutdown()

    def _accepted_peers(self, identity: PodIdentity) -> tuple[str | None, ...]:
        if self.options.source_address == "off":
            return (None,)
        return server_spellings(accepted_addresses(identity.pod, host_network=self.options.host_network))

    def _may_reread(self, cached: CachedIdentity) -> bool:
        return self.monotonic() - cached.read_at >= REREAD_INTERVAL

    def _check_rate(self, state: _State, network: str | None) -> None:
        if (state.rejections.peek(network) or 0) >= self._max_rejections:
            raise Overloaded(
                f"{self._max_rejections} tokens from {network or 'all callers'} were rejected within "
                f"{REJECTION_WINDOW:g} s of each other: further ones are not reviewed until that time has passed"
            )

    def _submit(self, state: _State, review: PendingReview) -> Future[AuthenticationResult]:
        call = partial(self._review, state, review)
        return state.reviews.submit(review.key, call, review.deadline, peer=review.network)

    def _review_at_once(self, state: _State, review: PendingReview, token: JWS) -> CachedIdentity | None:
        """Return the caller if nobody has to be asked, else None. It costs a signature check at most, and no thread."""
        read_at = self.monotonic()
        try:
            review.reviewed = self._verifier.verify_at_once(token)
            found = self._last_known(state, review)
            if found is not None and read_at < found.fresh_until:
                return self._accept(state, review, found, read_at)
            return self._accept_stale(state, review) if state.outage.ongoing else None
        except InvalidToken:
            self._count_rejection(state, review)
            raise

    def _review(self, state: _State, review: PendingReview) -> CachedIdentity:
        """Return the caller, asking the API server; runs in a thread, once for all who wait."""
        cached = state.identities.peek(review.key)
        if cached is not None and cached.stale:
            cached = None
        if cached is not None and not self._may_reread(cached):
            return cached
        self._check_rate(state, review.network)  # again: many may have been rejected while this one waited
        read_at = self.monotonic()  # before the pod is read: what changes from now on makes it old
        try:
            if cached is not None:
                return self._reread(state, review, cached, read_at)
            if review.waiting and state.outage.ongoing:  # it has begun while this one waited for its turn
                stale = self._accept_stale(state, review)
                if stale is not None:
                    return stale
            try:
                found = self._ask(state, review)
            except Unavailable:
                stale = self._accept_stale(state, review)
                if stale is None:
                    raise
                state.outage.begin()
                return stale
            return self._accept(state, review, found, read_at)
        except InvalidToken:
            self._count_rejection(state, review)
            raise

    def _ask(self, state: _State, review: PendingReview) -> FoundPod:
        """Ask whose the token is, if its signature has not said so, and return its pod."""
        if review.reviewed is None:
            deadline = self._deadline_of(state, review)
            with state.outage.asking():
                review.reviewed = self._verifier.verify(review.token, deadline)
        reviewed, deadline = review.reviewed, self._deadline_of(state, review)
        with _naming(reviewed), state.outage.asking():
            return self.pods.get(reviewed.service_account, reviewed.pod_name, reviewed.pod_uid, deadline)

    def _deadline_of(self, state: _State, review: PendingReview) -> float:
        """Return until when the API server is asked: for half of the time left, if the caller is accepted without."""
        if self._find_stale(state, review) is None:
            return review.deadline
        return (self.monotonic() + review.deadline) / 2

    def _last_known(self, state: _State, review: PendingReview) -> FoundPod | None:
        """Return the pod of a token that its signature has verified, as the view or another of its tokens has it."""
        reviewed = review.reviewed
        if reviewed is None:
            return None
        account, name = reviewed.service_account, reviewed.pod_name
        with _naming(reviewed):
            found = self.pods.last_known(account, name, reviewed.pod_uid)
        if found is not None:
            return found
        other = state.identities.last_of_pod(reviewed.pod_uid)
        if other is None or other.identity.service_account != account or other.identity.pod.name != name:
            return None
        # The peer's address may be one that its pod has got since.
        fresh = review.peer in other.peers and not other.stale
        return FoundPod(other.identity.pod, other.cached_until if fresh else -math.inf, other.stale_until)

    def _accept(self, state: _State, review: PendingReview, found: FoundPod, read_at: float) -> CachedIdentity:
        self._warn_of_trusted_pod(state, found.pod)
        metrics.token_seconds.observe(review.expires_at - self._now())
        return self._make_entry(review, found, read_at)

    def _make_entry(self, review: PendingReview, found: FoundPod, read_at: float) -> CachedIdentity:
        """Return what is cached of a verified token's pod. Raises NotAllowed."""
        reviewed = cast("ReviewedToken", review.reviewed)
        if self.options.allow is not None and self.options.enforce:  # decided once, when the caller becomes known
            with _naming(reviewed):
                self.options.allow.authorize(reviewed.service_account)
        identity = PodIdentity(
            service_account=reviewed.service_account,
            pod=found.pod,
            audience=reviewed.audience,
            expires_at=review.expires_at,
            credential_id=reviewed.credential_id,
            groups=reviewed.groups,
            extra=reviewed.extra,
        )
        left = review.expires_at - self._now()
        return CachedIdentity(
            identity=identity,
            username=sys.intern(identity.identity),  # one text for all pods of a service account
            scopes=identity.scopes,
            peers=self._accepted_peers(identity),
            cached_until=min(read_at + min(self.options.cache_ttl, left), found.fresh_until),
            # Expired by our clock, and accepted: the API server's is behind, by less than the skew that is allowed for.
            ends_at=read_at + (left if left > 0 else left + CLOCK_SKEW) if self.options.enforce else math.inf,
            read_at=read_at,
            stale_until=min(found.stale_until, read_at + left),
        )

    def _accept_stale(self, state: _State, review: PendingReview) -> CachedIdentity | None:
        stale = self._find_stale(state, review)
        if stale is not None:
            metrics.stale_pods.inc()
        return stale

    def _find_stale(self, state: _State, review: PendingReview) -> CachedIdentity | None:
        """Return a caller that is accepted if the API server cannot be asked, None for one that is not.

        If the signature has verified the token, that is each of a known pod; else only one that was reviewed before.
        """
        now = self.monotonic()
        if review.reviewed is None:
            last = state.identities.last(review.key)
        else:
            found = self._last_known(state, review)
            last = None if found is None else self._make_entry(review, found, now)
        if last is None or now >= last.stale_until:
            return None
        return replace(last, cached_until=min(now + RETRY_INTERVAL, last.stale_until), stale=True)

    def _reread(self, state: _State, review: PendingReview, cached: CachedIdentity, read_at: float) -> CachedIdentity:
        """Return the caller with its pod as it is now. It says nothing of the token, whose next review stays due."""
        identity = cached.identity
        found = self.pods.get(identity.service_account, identity.pod.name, identity.pod.uid, review.deadline)
        identity = replace(identity, pod=found.pod)
        self._warn_of_trusted_pod(state, found.pod)
        return replace(
            cached,
            identity=identity,
            peers=self._accepted_peers(identity),
            cached_until=min(cached.cached_until, found.fresh_until),
            read_at=read_at,
        )

    def _count_rejection(self, state: _State, review: PendingReview) -> None:
        state.rejections.update(review.network, lambda count: (count or 0) + 1)

    def _warn_of_trusted_pod(self, state: _State, pod: Pod) -> None:
        """Warn once a process of a trusted network that contains pods: each of them can write any address."""
        inside = [address for address in pod.addresses if is_within(address, self.options.trusted_proxies)]
        if inside and not state.warned:
            state.warned = True
            log.warning(
                "trusted_proxies contains %s, an address of pod %s, which calls: every pod in that network can claim "
                "to be at any address; name only the proxies' own addresses",
                inside[0],
                pod,
            )


@contextmanager
def _naming(reviewed: ReviewedToken) -> Iterator[None]:
    """Put a verified token's service account and pod on a denial."""
    try:
        yield
    except PodAuthError as denial:
        account = reviewed.service_account
        raise denial.with_subject(account, f"{account.namespace}/{reviewed.pod_name}") from None


@dataclass(slots=True)
class PendingReview:
    """A token to be reviewed: its key in the cache, its end in Unix seconds, its monotonic deadline.

    `network` is its peer's `peer_network`, None where addresses are not compared. `reviewed` is what it says, as soon
    as it is verified; `waiting` is False if its caller has been accepted meanwhile.
    """

    token: str = field(repr=False)
    key: bytes = field(repr=False)
    peer: str | None
    network: str | None
    expires_at: float
    deadline: float
    reviewed: ReviewedToken | None = field(default=None, repr=False)
    waiting: bool = True


class _State:
    """One process's caches and pending reviews."""

    def __init__(self, options: Options, threads: ReviewThreads, monotonic: Callable[[], float]) -> None:
        self.warned = False
        self.outage = Outage(monotonic)
        self.identities: IdentityCache[CachedIdentity] = IdentityCache(options.cache_size, monotonic)
        denied: TTLCache[bytes, PodAuthError] = TTLCache(
            "denied", size=options.rejection_size, ttl=options.rejection_ttl, monotonic=monotonic
        )
        self.rejections: TTLCache[str | None, int] = TTLCache(
            "rejections", size=options.rejection_size, ttl=REJECTION_WINDOW, monotonic=monotonic
        )
        self.reviews: ReviewCache[CachedIdentity] = ReviewCache(
            "token",
            threads,
            allowed=self.identities,
            denied=denied,
            monotonic=monotonic,
        )
