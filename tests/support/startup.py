"""Waits for the checks that a process makes once, in a thread of their own."""

from __future__ import annotations

import threading


def wait_for_startup_check() -> None:
    """Return when no startup check is running any more."""
    for thread in threading.enumerate():
        if thread.name == "podproof-startup":
            thread.join(10)
