"""Authenticators in each combination of `verify` and `pods`, on fakes, with a clock and a view that a test moves.

A test that takes `make_authenticator` runs in the modes that its marker names: `@pytest.mark.modes(*MODES)`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count, cycle
from typing import Any, NamedTuple

import pytest

from podproof._apiserver.permissions import GET_SIGNING_KEYS
from podproof._authentication.authenticator import Authenticator
from podproof._authentication.auto_mode import AutoMode
from podproof._authentication.auto_mode import Mode as Parts
from podproof._authentication.key_set import KeySet
from podproof._authentication.key_source import APIServerKeys, KeySource
from podproof._authentication.pod_view import ALL_NAMESPACES, PodView
from podproof._authentication.pods import PodLookup, PodStore, read_record
from podproof._authentication.signing_keys import SigningKeyVerifier
from podproof._authentication.token_review import TokenReviewVerifier
from podproof._authentication.token_verifier import TokenVerifier
from podproof.errors import InvalidToken, SignatureInvalid, TokenReviewFailed, Unavailable
from podproof.options import Options
from tests.support.fake_api import ALICE, NOW, Clock, FakeAPI, pod, review
from tests.support.key_verifier import ISSUER, FakeSource
from tests.support.signed_tokens import signed_token


class Mode(NamedTuple):
    """How tokens are verified and pods looked up: the options of these names."""

    verify: str
    pods: str

    def __str__(self) -> str:
        return "auto" if self.verify == "auto" else "-".join(self)

    @property
    def options(self) -> dict[str, str]:
        """The options of a middleware in this mode: `auto` is to find the watch by itself."""
        return {"verify": "auto"} if self.verify == "auto" else self._asdict()

    @property
    def environ(self) -> dict[str, str]:
        """The same as environment variables."""
        return {f"PODPROOF_{name.upper()}": value for name, value in self.options.items()}

    def calls(self, reviews: int, reads: int) -> tuple[int, int]:
        """Return how many of these reviews and reads of pods are made in this mode."""
        return (reviews if self.verify == "review" else 0, reads if self.pods == "lookup" else 0)

    @property
    def rejection(self) -> type[InvalidToken]:
        """The error of a forged token."""
        return TokenReviewFailed if self.verify == "review" else SignatureInvalid


DEFAULT = Mode("review", "lookup")
REVIEWING = (DEFAULT, Mode("review", "watch"))
LOOKING_UP = (DEFAULT, Mode("keys", "lookup"))
AUTO = Mode("auto", "watch")
"""By the keys and a watch, as the permissions of the tests' apps allow it."""
MODES = (*REVIEWING, Mode("keys", "lookup"), Mode("keys", "watch"), AUTO)


def modes_in_turn(rows: Iterable[Any], modes: Sequence[Mode] = MODES, *, name: Callable[[Any], str] = str) -> list[Any]:
    """Return a parameter for each row, in a mode of its own: `ROW-MODE`. Each mode has its turn, and begins anew.

    For rows that cost a process each: what they have in common meets every mode.
    """
    return [pytest.param(row, mode, id=f"{name(row)}-{mode}") for row, mode in zip(rows, cycle(modes))]


def pairs_in_turn(rows: Iterable[Any], modes: Sequence[Mode] = MODES) -> list[Any]:
    """Return the same for a fixture, whose parameter is the row and the mode."""
    return [pytest.param(one.values, id=one.id) for one in modes_in_turn(rows, modes)]


MANY = 10
"""Rows of a test: if it has more, each is run in one mode only."""


def names_modes(test: pytest.Item) -> bool:
    """Return True if a test is given its modes by a parametrization of its own."""
    return any(
        "mode" in str(marker.args[0]).split(",") or "mode" in marker.args[0]
        for marker in test.iter_markers("parametrize")
    )


def take_turns(items: Iterable[pytest.Item]) -> Iterator[pytest.Item]:
    """Yield the tests, of those with many rows each row in one mode: the modes take their turn."""
    rows: defaultdict[tuple[object, ...], dict[str, list[pytest.Item]]] = defaultdict(dict)
    listed = [*items]
    for item in listed:
        if (
            isinstance(item, pytest.Function)
            and hasattr(item, "callspec")
            and "mode" in item.callspec.params
            and not names_modes(item)
        ):
            row = item.callspec.id.replace(str(item.callspec.params["mode"]), "", 1)
            rows[item.module, item.cls, item.originalname].setdefault(row, []).append(item)
    left_out = {
        item
        for of_test in rows.values()
        if len(of_test) > MANY
        for number, of_row in enumerate(of_test.values())
        for item in of_row
        if item is not of_row[number % len(of_row)]
    }
    yield from (item for item in listed if item not in left_out)


def parts_in_mode(
    verify: str, api: FakeAPI, keys: KeySource, store: PodStore, options: Options, *, time: Clock
) -> tuple[TokenVerifier, PodStore]:
    """Return what verifies tokens and what knows the pods, where `store` knows them."""
    reviews = TokenReviewVerifier(api, options.audience)
    if verify == "review":
        return reviews, store
    key_sets = {ISSUER: KeySet(keys, monotonic=time)}
    verifier = SigningKeyVerifier(key_sets, options.audience, review=reviews, now=time)
    if verify == "keys":
        return verifier, store
    auto = AutoMode(api, [GET_SIGNING_KEYS], keys=Parts(verifier, store), review=Parts(reviews, store))
    return auto, auto


def make_in_mode(mode: Mode, api: FakeAPI, options: Options, time: Clock) -> Authenticator:
    """Return an authenticator in a mode. Its view is told of each change of the API's pod, and is always fresh."""
    changes: list[Callable[[str], None]] = []
    store: PodStore = PodLookup(api, max_outage=options.max_outage or 0.0, monotonic=time)
    if mode.pods == "watch":
        view = PodView(fallback=store, listeners=changes, max_age=math.inf, monotonic=time, now=time)

        def tell(changed: Mapping[str, Any] | None) -> None:
            with suppress(Unavailable):  # it is not a Pod
                view.replace(ALL_NAMESPACES, [] if changed is None else [read_record(changed)])

        api.watches.append(tell)
        api.pod = api.pod
        store = view
    verifier, store = parts_in_mode(mode.verify, api, APIServerKeys(api), store, options, time=time)
    authenticator = Authenticator(
        options, verifier, store, issuer_reader=api, namespace_reader=api, now=time, monotonic=time
    )
    changes.append(authenticator.discard_pod)
    return authenticator


@dataclass
class ModeEnv:
    """One mode's authenticator, the API server that it asks, and its view of the pods, which has Alice's pod.

    While `watching`, the view is confirmed whenever time passes.
    """

    verify: str
    pods: str
    time: Clock
    given: dict[str, object] = field(default_factory=dict)
    api: FakeAPI = field(default_factory=FakeAPI)
    source: FakeSource = field(default_factory=FakeSource)
    watching: bool = True

    def __post_init__(self) -> None:
        options = Options.read({"audience": "bob", "max_outage": 900} | self.given, {})
        assert options.max_outage is not None
        self._numbers = count()
        changes: list[Callable[[str], None]] = []
        lookup = PodLookup(self.api, max_outage=options.max_outage, monotonic=self.time)
        self.view = PodView(
            fallback=lookup,
            listeners=changes,
            max_age=options.max_staleness,
            max_outage=options.max_outage,
            monotonic=self.time,
            now=self.time,
        )
        self.view.replace(ALL_NAMESPACES, [read_record(pod())])
        store: PodStore = self.view if self.pods == "watch" else lookup
        verifier, store = parts_in_mode(self.verify, self.api, self.source, store, options, time=self.time)
        self.authenticator = Authenticator(options, verifier, store, now=self.time, monotonic=self.time)
        changes.append(self.authenticator.discard_pod)

    def token(self, **claims: object) -> str:
        """Return one of Alice's tokens, as after a rotation: no two are the same."""
        return signed_token(claims=ALICE | {"exp": NOW + 86400, "jti": str(next(self._numbers))} | claims)

    def passes(self, seconds: float) -> None:
        self.time.passes(seconds)
        if self.watching:
            self.view.confirm(ALL_NAMESPACES)

    def go_away(self) -> None:
        self.watching = False
        self.api.review = self.api.pod = self.source.document = Unavailable("away")

    def come_back(self) -> None:
        self.watching = True
        self.api.review, self.api.pod = review(), pod()

    @property
    def calls(self) -> int:
        return self.api.reviews + self.api.reads
