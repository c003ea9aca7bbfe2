"""Moments that processes share."""

from __future__ import annotations

import subprocess
import sys

from podproof.drain.shared_state import SharedState

FORKED = """
import os
from podproof.drain.shared_state import SHARED, is_draining

SHARED.since = 5.0
if os.fork() == 0:
    assert is_draining()
    SHARED.arrived = 7.5
    SHARED.promise()
    os._exit(0)
os.wait()
print(SHARED.arrived, SHARED.stamped)
"""


def test_nothing_has_happened_at_first() -> None:
    stamps = SharedState()
    assert (stamps.arrived, stamps.since, stamps.draining, stamps.stamped) == (0.0, 0.0, False, False)


def test_a_drain_has_begun_when_its_moment_is_set() -> None:
    stamps = SharedState()
    stamps.since = 3.0
    assert (stamps.since, stamps.draining, stamps.arrived) == (3.0, True, 0.0)


def test_what_a_forked_worker_stamps_its_master_reads() -> None:
    # In a process of its own: forking one with threads, as a test runner has, is warned of from Python 3.12 on.
    script = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, check=True, timeout=30)
    assert script.stdout == "7.5 True\n"
