"""Count the cases that each security test tries, and print the sum in the terminal summary."""

from __future__ import annotations

import functools
from collections.abc import Generator
from typing import Any

import pytest

CASES = "cases"


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Count the examples of a property test that passed, and any other test as one case."""
    handle = getattr(pyfuncitem.obj, "hypothesis", None)
    if handle is None:
        outcome = yield
        count = 1
    else:
        inner, count = handle.inner_test, 0

        @functools.wraps(inner)
        def counted(*args: Any, **kwargs: Any) -> None:
            nonlocal count
            inner(*args, **kwargs)
            count += 1

        handle.inner_test = counted
        try:
            outcome = yield
        finally:
            handle.inner_test = inner
    if CASES not in dict(pyfuncitem.user_properties):
        pyfuncitem.user_properties.append((CASES, count))
    return outcome


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the number of cases. xdist workers send their counts with the test reports."""
    counts = [
        dict(report.user_properties).get(CASES, 0)
        for report in terminalreporter.stats.get("passed", [])
        if report.when == "call"
    ]
    if any(counts):
        terminalreporter.write_line(f"security: {sum(counts)} cases in {sum(map(bool, counts))} tests")
