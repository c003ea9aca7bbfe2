"""Aligned tables for a terminal, in colour where that is wanted."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import NamedTuple, TextIO


class Colour(Enum):
    """The meaning of a cell, as the escape sequence (ECMA-48 SGR) that a terminal shows it with."""

    PLAIN = ""
    HEADING = "\x1b[1m"
    GOOD = "\x1b[32m"
    BAD = "\x1b[31m"
    DOUBTFUL = "\x1b[33m"


def use_colour(out: TextIO, environ: Mapping[str, str] = os.environ) -> bool:
    """Return True if `out` is a terminal that shows colours and NO_COLOR is unset or empty (no-color.org)."""
    return out.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


class Row(NamedTuple):
    """A row of a table, and the colour of its last cell."""

    cells: Sequence[str]
    colour: Colour = Colour.PLAIN


def format_table(heading: Sequence[str], rows: Sequence[Row], *, coloured: bool = False) -> str:
    """Return an aligned table with a heading in capitals."""
    widths = [max(map(len, column)) for column in zip(heading, *(row.cells for row in rows), strict=True)]
    lines = [paint(_align([cell.upper() for cell in heading], widths), Colour.HEADING, coloured=coloured)]
    for cells, colour in rows:
        last = paint(cells[-1], colour, coloured=coloured)
        lines.append(_align([*cells[:-1], last], widths))
    return "\n".join(lines) + "\n"


def _align(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def paint(text: str, colour: Colour, *, coloured: bool) -> str:
    """Return text with the escape sequences for a colour, or unchanged if not `coloured`."""
    return f"{colour.value}{text}\x1b[0m" if coloured and colour.value else text
