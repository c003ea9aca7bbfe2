"""One address, its share: a flood of forgeries from there costs callers elsewhere no request.

Time is simulated. Threads are real: each call to the API server is held until the simulation has reached its end.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest

from podproof._authentication.authenticator import MAX_REJECTIONS, Authenticator
from podproof._authentication.cached_identity import AuthenticationResult, CachedIdentity
from podproof._authentication.pods import PodLookup
from podproof._authentication.token_review import TokenReviewVerifier
from podproof._token.jwt import read_claims
from podproof.errors import Overloaded
from podproof.options import Options
from tests.support.fake_api import Clock, pod, review, reviewed_user, token

pytestmark = pytest.mark.usefixtures("without_coverage")

SECONDS = 30  # that a test waits at most for another thread
FORGERIES = 150
CALLERS = 120


@dataclass
class HoldingAPI:
    """Holds each TokenReview for so many simulated seconds; only tokens of a caller are authenticated."""

    time: Clock
    duration: float
    held: list[tuple[float, int, threading.Event]] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)
    reviews: int = 0

    def review_token(self, token: str, audiences: Sequence[str], deadline: float) -> Mapping[str, Any]:
        released = threading.Event()
        with self.changed:
            self.reviews += 1
            heapq.heappush(self.held, (self.time() + self.duration, self.reviews, released))
            self.changed.notify_all()
        assert released.wait(SECONDS)
        caller = str(read_claims(token)["jti"])
        if caller.startswith("forged"):
            return review(authenticated=False)
        extra = review()["status"]["user"]["extra"] | {"authentication.kubernetes.io/pod-name": [caller]}
        return reviewed_user(extra=extra)

    def read_pod(self, namespace: str, name: str, deadline: float) -> Mapping[str, Any] | None:
        return pod(metadata={"name": name}, status={"podIP": address(name), "podIPs": []})


def address(caller: str) -> str:
    """Return the address of a caller: each has its own, and on IPv6 its own network."""
    family, _, number = caller.partition("-")
    return f"10.2.0.{number}" if family == "v4" else f"fd00:0:{int(number):x}::1"


class Simulation:
    """An authenticator, and the calls that wait for it."""

    def __init__(self, time: Clock, duration: float, **given: object) -> None:
        options = Options.read({"audience": "bob"} | given, {})
        self.time, self.api = time, HoldingAPI(time, duration)
        verifier, pods = TokenReviewVerifier(self.api, options.audience), PodLookup(self.api)
        self.authenticator = Authenticator(options, verifier, pods, now=time, monotonic=time)
        self.timeout = options.timeout
        self.threads = options.max_reviews
        self.pending: set[Future[AuthenticationResult]] = set()

    def start(self, jti: str, peer: str | None) -> Future[AuthenticationResult]:
        """Start a review. Raises a PodAuthError."""
        future = self.authenticator.start(token(jti=jti), peer)
        with self.api.changed:
            self.pending.add(future)
        future.add_done_callback(self._on_done)
        return future

    def _on_done(self, future: Future[AuthenticationResult]) -> None:
        with self.api.changed:
            self.pending.discard(future)
            self.api.changed.notify_all()

    def run_until(self, end: float) -> None:
        """Let simulated time pass, releasing each held review at its end, in order."""
        while True:
            with self.api.changed:
                # All threads hold a review, or there is none to run.
                assert self.api.changed.wait_for(
                    lambda: len(self.api.held) == min(self.threads, len(self.pending)), SECONDS
                )
                if not self.api.held or self.api.held[0][0] > end:
                    break
                self.time.seconds, _, released = heapq.heappop(self.api.held)
            released.set()
        self.time.seconds = end

    def close(self) -> None:
        self.api.duration = 0
        self.run_until(self.time() + 1000)
        self.authenticator.close()


MakeSimulation = Callable[..., Simulation]


@pytest.fixture
def simulate(time: Clock) -> Iterator[MakeSimulation]:
    made: list[Simulation] = []

    def make(duration: float, **given: object) -> Simulation:
        made.append(Simulation(time, duration, **given))
        return made[-1]

    yield make
    for simulation in made:
        simulation.close()


class ForgeryFlood:
    """Keeps as many forgeries waiting as it can, up to FORGERIES, from one address (IPv4) or one network (IPv6)."""

    def __init__(self, simulation: Simulation, peers: Callable[[int], str | None]) -> None:
        self._simulation = simulation
        self._peers = peers
        self._number = count()
        self._waiting: list[Future[AuthenticationResult]] = []

    def refill(self) -> None:
        self._waiting = [future for future in self._waiting if not future.done()]
        for _ in range(FORGERIES - len(self._waiting)):
            number = next(self._number)
            with suppress(Overloaded):
                self._waiting.append(self._simulation.start(f"forged {number}", self._peers(number)))


@pytest.mark.trap(58)
@pytest.mark.parametrize("rejection_ttl", [0, 10])
@pytest.mark.parametrize(
    "peers",
    [lambda _: "10.1.0.1", lambda number: f"fd01::{number + 1:x}"],
    ids=["one IPv4 address", "one IPv6 network"],
)
@pytest.mark.parametrize(
    ("duration", "interval"), [(0.01, 0), (0.2, 0), (1, 0.25)], ids=["10 ms at once", "200 ms at once", "1 s"]
)
@pytest.mark.parametrize("family", ["v4", "v6"])
def test_150_forgeries_from_one_address_cost_no_caller_elsewhere_its_request(
    simulate: MakeSimulation,
    *,
    duration: float,
    interval: float,
    peers: Callable[[int], str],
    rejection_ttl: float,
    family: str,
) -> None:
    simulation = simulate(duration, rejection_ttl=rejection_ttl)
    flood = ForgeryFlood(simulation, peers)
    flood.refill()
    callers: dict[str, tuple[float, Future[AuthenticationResult]]] = {}
    for number in range(1, CALLERS + 1):
        caller = f"{family}-{number}"
        callers[caller] = simulation.time(), simulation.start(caller, address(caller))
        simulation.run_until(simulation.time() + interval)
        flood.refill()
    ends: dict[str, float] = {}
    while len(ends) < CALLERS:
        for caller, (_, future) in callers.items():
            if future.done():
                ends.setdefault(caller, simulation.time())
        simulation.run_until(simulation.time() + duration / 2)
        flood.refill()
    refused = [caller for caller, (_, future) in callers.items() if not isinstance(future.result(0), CachedIdentity)]
    print(f"\nrefused: {len(refused)} of {CALLERS}, of {simulation.api.reviews} reviews in all")
    assert refused == []


@pytest.mark.trap(58)
@pytest.mark.parametrize("duration", [0.01, 0.2, 1])
def test_where_addresses_are_not_compared_200_forgeries_are_not_200_reviews(
    simulate: MakeSimulation, duration: float
) -> None:
    simulation = simulate(duration, source_address="off")
    futures = [simulation.start(f"forged {number}", None) for number in range(200)]
    simulation.run_until(simulation.time() + 200 * duration)
    assert all(future.done() for future in futures)
    if duration < 1:  # else most of them are past their deadline
        assert simulation.api.reviews >= 5 * MAX_REJECTIONS
    assert simulation.api.reviews < 5 * MAX_REJECTIONS + simulation.threads
