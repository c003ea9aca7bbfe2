"""The rows of the results, as a table and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

HEADING = ("what", "podproof", "beside", "there", "ratio", "goal", "")


@dataclass(frozen=True, slots=True)
class Amount:
    """A number and its unit: seconds and bytes are shown in the size that reads well."""

    value: float
    unit: str = ""

    def __str__(self) -> str:
        if self.unit == "s":
            factor, unit = (1, "s") if self.value >= 1 else (1e3, "ms") if self.value >= 1e-3 else (1e6, "µs")
            return f"{self.value * factor:.3g} {unit}"
        if self.unit == "B":
            size, unit = (1024**2, "MB") if self.value >= 1024**2 else (1024, "KB") if self.value >= 1024 else (1, "B")
            return f"{self.value / size:.3g} {unit}"
        number = f"{self.value:,.0f}" if float(self.value).is_integer() else f"{self.value:.3g}"
        return f"{number} {self.unit}".strip()


@dataclass(frozen=True, slots=True)
class Measurement:
    """One measurement, its competitor and its goal.

    `ratio` is the median of the rounds' own ratios, which is not the ratio of the medians. `met` is None where there is
    no goal; `why` is the reason of a goal that is missed, or of a row that was not run.
    """

    what: str
    ours: Amount | None
    beside: str = ""
    theirs: Amount | None = None
    ratio: float | None = None
    goal: str = ""
    met: bool | None = None
    why: str = ""

    def cells(self) -> tuple[str, ...]:
        """Return the row as the table shows it."""
        result = {None: self.why, True: "met", False: f"missed: {self.why}"}[self.met]
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}x"
        return (self.what, _text(self.ours), self.beside, _text(self.theirs), ratio, self.goal, result)


def _text(amount: Amount | None) -> str:
    return "" if amount is None else str(amount)


def table(rows: Sequence[Measurement]) -> str:
    """Return the rows as aligned text, which is a Markdown table as well."""
    lines = [HEADING, *(row.cells() for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in lines]
    text.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(text)


def as_json(row: Measurement) -> dict[str, Any]:
    """Return a row with its numbers as they were measured, in seconds, bytes or pieces."""
    return {
        "what": row.what,
        "podproof": row.ours and row.ours.value,
        "beside": row.beside,
        "there": row.theirs and row.theirs.value,
        "unit": (row.ours or row.theirs or Amount(0)).unit,
        "ratio": row.ratio,
        "goal": row.goal,
        "met": row.met,
        "why": row.why,
    }
