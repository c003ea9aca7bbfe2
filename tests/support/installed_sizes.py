"""What the wheel's tests installed, in the last lines of the terminal: how many distributions, of what size."""

from __future__ import annotations

import pytest

INSTALLED = "installed"
"""The name of the property that a test records."""


class InstalledSizes:
    """A plugin that prints them. Under xdist the reports of all workers arrive here."""

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print each combination once."""
        reports = terminalreporter.stats.get("passed", [])
        properties = [dict(report.user_properties) for report in reports if report.when == "call"]
        for line in sorted({found[INSTALLED] for found in properties if INSTALLED in found}):
            terminalreporter.write_line(f"installed: {line}")
