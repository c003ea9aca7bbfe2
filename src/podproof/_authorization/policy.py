"""What decides by caller, method and path: the form of every policy."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Literal, Protocol, runtime_checkable

from podproof.errors import PodAuthError
from podproof.identity import PodIdentity

Decision = Literal[True] | PodAuthError
"""What was found out about a caller who asks for something: that it may, or the refusal."""


@runtime_checkable
class Policy(Protocol):
    """Decides what a known caller may do."""

    def check(self, identity: PodIdentity, method: str, path: str) -> Future[Decision] | None:
        """Return for a caller who may; for one who has to be asked about, return what will bring the verdict.

        `method` is in upper case, `path` normal (see `podproof.paths.is_normal`) and as the wrapped app's routes see
        it. Neither blocks nor does more than a few microseconds' work.

        Raises NotAllowed, or Unavailable.
        """
