"""The state of a drain that processes share."""

from __future__ import annotations

import subprocess
import sys

from podproof.drain.shared_state import SharedState

FORKED = """
import os
from podproof.drain.shared_state import SHARED_STATE, is_draining

SHARED_STATE.drain_started = 5.0
if os.fork() == 0:
    assert is_draining()
    SHARED_STATE.last_request = 7.5
    SHARED_STATE.mark_instrumented()
    os._exit(0)
os.wait()
print(SHARED_STATE.last_request, SHARED_STATE.instrumented)
"""


def test_at_first_there_is_no_drain_and_no_request() -> None:
    state = SharedState()
    assert (state.last_request, state.drain_started, state.draining, state.instrumented) == (0.0, 0.0, False, False)


def test_a_drain_has_begun_once_its_start_is_set() -> None:
    state = SharedState()
    state.drain_started = 3.0
    assert (state.drain_started, state.draining, state.last_request) == (3.0, True, 0.0)


def test_a_master_reads_what_a_forked_worker_records() -> None:
    # In a process of its own: forking one with threads, as a test runner has, is warned of from Python 3.12 on.
    script = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, check=True, timeout=30)
    assert script.stdout == "7.5 True\n"
