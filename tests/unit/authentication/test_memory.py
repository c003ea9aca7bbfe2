"""How much memory a cached caller takes, counted object by object: the same in each run."""

from __future__ import annotations

import gc
import sys
from types import BuiltinFunctionType, FunctionType, ModuleType

import pytest

from podproof.options import Options
from tests.support.fake_api import PEER, ClaimsAPI, TokenFactory, authenticator_for

CALLERS = 1000
LIMIT = 1536
"""Bytes per cached caller, each of a pod of its own."""

ALIGNMENT = 16  # of CPython's small objects
CODE = (type, FunctionType, BuiltinFunctionType, ModuleType)


def size_of(root: object) -> int:
    """Return the bytes of an object and of all that it refers to, code excepted."""
    seen: dict[int, object] = {}
    pending = [root]
    while pending:
        one = pending.pop()
        if id(one) not in seen and not isinstance(one, CODE):
            seen[id(one)] = one
            pending += gc.get_referents(one)
    return sum(-(-sys.getsizeof(one) // ALIGNMENT) * ALIGNMENT for one in seen.values())


@pytest.mark.usefixtures("without_coverage")
def test_a_cached_caller_takes_at_most_1_5_kilobytes() -> None:
    make_token = TokenFactory()
    options = Options(audience=("bob",), cache_ttl=3600, cache_size=CALLERS + 1)
    authenticator = authenticator_for(ClaimsAPI(), options)
    authenticator.authenticate(make_token(), PEER)  # with what all callers share
    entries = authenticator._state.get().identities._entries
    before = size_of(entries)
    for number in range(CALLERS):
        authenticator.authenticate(make_token(pod_name=f"alice-7d4b9c6f5-{number:05}"), PEER)
    assert len(entries) == CALLERS + 1
    grown = size_of(entries) - before
    authenticator.close()
    print(f"\n{grown / CALLERS:.0f} bytes per cached caller")
    assert 500 < grown / CALLERS <= LIMIT
