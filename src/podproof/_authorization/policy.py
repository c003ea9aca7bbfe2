"""What every policy looks like: it decides by caller, method and path."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Literal, Protocol, runtime_checkable

from podproof.errors import PodAuthError
from podproof.identity import PodIdentity

Decision = Literal[True] | PodAuthError
"""What a policy found out: True if the caller may, else the denial."""


@runtime_checkable
class Policy(Protocol):
    """Decides what an authenticated caller may do."""

    def check(self, identity: PodIdentity, method: str, path: str) -> Future[Decision] | None:
        """Return None if the caller may, or the future of the decision where the API server has to be asked.

        `method` is in upper case; `path` is unambiguous (no escapes, dot or empty segments), and as the wrapped app's
        routes see it. It must not block, and do no more than a few microseconds' work.

        Raises NotAllowed, or Unavailable.
        """


Labels = Mapping[str, str]


class Namespaces(Protocol):
    """Knows the labels of the callers' namespaces."""

    def check(self, identity: PodIdentity, check: Callable[[Labels], None], deadline: float) -> Future[Decision] | None:
        """Call `check` with the labels of the caller's namespace, at once or when they are read.

        `check` returns to allow and raises a PodAuthError to deny. `deadline` is in monotonic seconds. Returns and
        raises as `Policy.check`.
        """
