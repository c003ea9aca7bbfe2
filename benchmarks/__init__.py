"""What podproof costs, beside what its users would do instead: `python -m benchmarks`."""

from __future__ import annotations

import sys

AUDIENCE = "bob"

EXTRAS = ("prometheus_client", "opentelemetry")


def leave_out_extras() -> None:
    """Make imports of podproof's optional packages fail in this process. To be called before podproof is imported.

    What is measured is podproof without metrics and traces.
    """
    for name in EXTRAS:
        sys.modules[name] = None  # type: ignore[assignment]  # an import then raises ModuleNotFoundError
