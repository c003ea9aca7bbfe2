"""Which proofs were seen already: each counts once."""

from __future__ import annotations

import threading
from collections import Counter
from hashlib import sha256
from typing import NamedTuple

from podproof.errors import Overloaded

SIZE = 200_000
"""How many proofs one process keeps, at about 120 bytes each."""

SHARE = 2
"""One key may fill 1/SHARE of them, so that no caller can shut out all others."""


class _Period(NamedTuple):
    """The proofs that were issued in one period, and how many each key has."""

    seen: set[bytes]
    by_key: Counter[str]


class ReplayMemory:
    """The proofs of one process, by the period that they say they were issued in.

    `window` is how long before and after its `iat` a proof may be used, in seconds. A proof is looked for in the period
    of its `iat` alone, so that periods can be dropped whole. Each process has a memory of its own: a proof can be used
    once in each.
    """

    def __init__(self, window: float, *, size: int = SIZE) -> None:
        self._window = window
        self._size = size
        self._periods: dict[int, _Period] = {}
        self._lock = threading.Lock()

    def add(self, key: str, proof_id: str, issued_at: float, now: float) -> bool:
        """Add a proof, by its key's thumbprint and its `jti`; return False if it is there already. Unix seconds.

        Not by its signature: of an ECDSA signature anybody can make a second one.

        Raises Overloaded if the memory is full: a proof that cannot be kept is not accepted.
        """
        digest = sha256(f"{key}.{proof_id}".encode("utf-8", "surrogatepass")).digest()[:16]
        with self._lock:
            oldest = self._number(now - self._window)
            for number in [one for one in self._periods if one < oldest]:
                del self._periods[number]
            period = self._periods.setdefault(self._number(issued_at), _Period(set(), Counter()))
            if digest in period.seen:
                return False
            if len(self) >= self._size:
                raise Overloaded(f"{self._size} proofs were used within {self._window:g} s: no more are accepted")
            if sum(one.by_key[key] for one in self._periods.values()) >= self._size // SHARE:
                raise Overloaded(f"one key has used {self._size // SHARE} proofs within {self._window:g} s")
            period.seen.add(digest)
            period.by_key[key] += 1
            return True

    def __len__(self) -> int:
        return sum(len(one.seen) for one in self._periods.values())

    def _number(self, moment: float) -> int:
        return int(moment // self._window)
