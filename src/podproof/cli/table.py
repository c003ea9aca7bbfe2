"""Tables on a terminal: aligned, and coloured where that is wanted."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from enum import Enum
from itertools import zip_longest
from typing import TextIO


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


def table(
    heading: Sequence[str], rows: Sequence[Sequence[str]], colours: Sequence[Colour] = (), *, coloured: bool = False
) -> str:
    """Return an aligned table; each row's last cell has the colour of the same place in `colours`."""
    widths = [max(len(cell) for cell in column) for column in zip(heading, *rows, strict=True)]
    lines = [_line([cell.upper() for cell in heading], widths)]
    if coloured:
        lines[0] = f"{Colour.HEADING.value}{lines[0]}\x1b[0m"
    for row, colour in zip_longest(rows, colours, fillvalue=Colour.PLAIN):
        assert not isinstance(row, Colour)
        last = f"{colour.value}{row[-1]}\x1b[0m" if coloured and colour.value else row[-1]
        lines.append(_line([*row[:-1], last], widths))
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
