"""Authenticators in each combination of `verify` and `pods`, on fakes, with a clock and a view that a test moves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from podproof._authentication.authenticator import Authenticator
from podproof._authentication.key_set import KeySet
from podproof._authentication.pod_view import ALL_NAMESPACES, PodView
from podproof._authentication.pods import PodLookup, PodStore, read_record
from podproof._authentication.signing_keys import SigningKeyVerifier
from podproof._authentication.token_review import TokenReviewVerifier, TokenVerifier
from podproof.errors import Unavailable
from podproof.options import Options
from tests.support.fake_api import ALICE, NOW, Clock, FakeAPI, pod, review
from tests.support.key_verifier import ISSUER, FakeSource
from tests.support.signed_tokens import signed_token

MODES = [(verify, pods) for verify in ("review", "keys") for pods in ("lookup", "watch")]


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
        verifier: TokenVerifier = TokenReviewVerifier(self.api, options.audience)
        if self.verify == "keys":
            keys = {ISSUER: KeySet(self.source, monotonic=self.time)}
            verifier = SigningKeyVerifier(keys, options.audience, review=verifier, now=self.time)
        store: PodStore = self.view if self.pods == "watch" else lookup
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
