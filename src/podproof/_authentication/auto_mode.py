"""`verify="auto"`: the signing keys and the pod watch where this app's permissions allow them, else reviews."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

from podproof._apiserver.permissions import Permission
from podproof._apiserver.protocols import PermissionReader
from podproof._authentication.jws import JWS
from podproof._authentication.pods import FoundPod, PodStore
from podproof._authentication.token_review import ReviewedToken
from podproof._authentication.token_verifier import TokenVerifier
from podproof._cache.fork_local import ForkLocal
from podproof.errors import Unavailable
from podproof.identity import ServiceAccount

log = logging.getLogger("podproof")


class Mode(NamedTuple):
    """What verifies tokens, and what knows the pods; `close` ends the threads of both."""

    verifier: TokenVerifier
    pods: PodStore
    close: Callable[[], object] = lambda: None


class AutoMode:
    """A `TokenVerifier` and a `PodStore`: those of `keys` if we have the permissions `needed`, else of `review`.

    The permissions are asked for once a process, with its first token. Until the API server has answered that, tokens
    are reviewed.
    """

    def __init__(self, client: PermissionReader, needed: Sequence[Permission], *, keys: Mode, review: Mode) -> None:
        self._client = client
        self._needed = needed
        self._keys = keys
        self._review = review
        self._state = ForkLocal(_State)

    def verify(self, token: str, deadline: float) -> ReviewedToken:
        """Return what a valid token says. Raises InvalidToken or Unavailable."""
        return self._choose(deadline).verifier.verify(token, deadline)

    def get(self, service_account: ServiceAccount, name: str, uid: str, deadline: float) -> FoundPod:
        """Return a live pod. Raises InvalidToken or Unavailable."""
        return self._choose(deadline).pods.get(service_account, name, uid, deadline)

    def verify_at_once(self, token: JWS) -> ReviewedToken | None:
        """Return what a valid token says if nobody has to be asked, else None. Raises InvalidToken."""
        chosen = self._state.get().chosen
        return None if chosen is None else chosen.verifier.verify_at_once(token)

    def last_known(self, service_account: ServiceAccount, name: str, uid: str) -> FoundPod | None:
        """Return a live pod if nobody has to be asked, else None. Raises InvalidToken."""
        chosen = self._state.get().chosen
        return None if chosen is None else chosen.pods.last_known(service_account, name, uid)

    def _choose(self, deadline: float) -> Mode:
        state = self._state.get()
        with state.lock:  # asks once, for all who wait
            state.chosen = state.chosen or self._ask(deadline)
        return state.chosen or self._review

    def _ask(self, deadline: float) -> Mode | None:
        try:
            missing = [one for one in self._needed if not self._client.is_allowed(one, deadline)]
        except Unavailable:
            return None
        if missing:
            log.info("tokens are verified by TokenReviews: this app may not %s", ", nor ".join(map(str, missing)))
            return self._review
        log.info("tokens are verified by the signing keys of their issuer")
        return self._keys


class _State:
    """One process's choice."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.chosen: Mode | None = None
