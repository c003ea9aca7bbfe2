"""Tables on a terminal: aligned, and coloured where that is wanted."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import NamedTuple, TextIO


class Colour(Enum):
    """What a cell stands for, and how a terminal shows it (ECMA-48 SGR)."""

    PLAIN = ""
    HEADING = "\x1b[1m"
    GOOD = "\x1b[32m"
    BAD = "\x1b[31m"
    DOUBTFUL = "\x1b[33m"


def wants_colour(out: TextIO, environ: Mapping[str, str] = os.environ) -> bool:
    """Tell whether to colour: on a terminal, unless NO_COLOR is set to anything (no-color.org)."""
    return out.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


class Row(NamedTuple):
    """A row of a table, and the colour of its last cell."""

    cells: Sequence[str]
    colour: Colour = Colour.PLAIN


def table(heading: Sequence[str], rows: Sequence[Row], *, coloured: bool = False) -> str:
    """Return an aligned table."""
    widths = [max(map(len, column)) for column in zip(heading, *(row.cells for row in rows), strict=True)]
    lines = [paint(_line([cell.upper() for cell in heading], widths), Colour.HEADING, coloured=coloured)]
    for cells, colour in rows:
        last = paint(cells[-1], colour, coloured=coloured)
        lines.append(_line([*cells[:-1], last], widths))
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def paint(text: str, colour: Colour, *, coloured: bool) -> str:
    """Return text as a terminal shows it in a colour, or as it is."""
    return f"{colour.value}{text}\x1b[0m" if coloured and colour.value else text
