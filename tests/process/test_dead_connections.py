"""A connection whose other end is gone without a word, as after the failure of a node: seen between two namespaces."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from tests.process.dead_link import QUICK

REQUIRED = "REQUIRE_NAMESPACES" in os.environ
"""Set where they must be there: elsewhere than on Linux, or without the right to make them, the test is left out."""


SLACK = 5.0
"""Seconds: without any probe it takes the read timeout, 30 s."""


def namespace_command() -> list[str]:
    """Return what runs a command in a network namespace of its own, as root or as a user, empty if none does."""
    candidates = (["unshare", "--net"], ["unshare", "--user", "--map-root-user", "--net"])
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        return []
    probes = (subprocess.run([*one, "ip", "link"], check=False, capture_output=True) for one in candidates)
    return next((one for one, probe in zip(candidates, probes, strict=True) if probe.returncode == 0), [])


def test_a_watch_and_a_request_notice_a_dead_link() -> None:
    command = namespace_command()
    if not command and not REQUIRED:
        pytest.skip("no network namespaces here")
    program = [*command, sys.executable, "-m", "tests.process.dead_link"]
    run = subprocess.run(program, check=True, capture_output=True, text=True, timeout=60)
    found: dict[str, tuple[str, float]] = json.loads(run.stdout)
    print(f"\n{found}")
    assert found["watch"][0] == "the other end of the connection does not respond any more"
    assert found["request"][0] == "connection failed with ReadTimeoutError (TimeoutError)"
    assert max(seconds for _, seconds in found.values()) < QUICK.idle + QUICK.probes * QUICK.interval + SLACK
