from __future__ import annotations

import io

import pytest

from podproof.cli.table import Colour, Row, format_table, paint, use_colour
from tests.support.terminal import Terminal


def test_columns_are_aligned_without_trailing_spaces() -> None:
    rows = [Row(("alice", "127.0.0.2", "allowed")), Row(("bo", "::1", ""))]
    assert (
        format_table(("who", "from", "what"), rows) == "WHO    FROM       WHAT\nalice  127.0.0.2  allowed\nbo     ::1\n"
    )


def test_the_last_cell_and_the_heading_are_coloured_on_request() -> None:
    rows = [Row(("alice", "allowed"), Colour.GOOD), Row(("bob", "?"))]
    assert format_table(("who", "what"), rows, coloured=True).splitlines() == [
        "\x1b[1mWHO    WHAT\x1b[0m",
        "alice  \x1b[32mallowed\x1b[0m",
        "bob    ?",
    ]


def test_paint_leaves_plain_text_unchanged() -> None:
    assert paint("text", Colour.PLAIN, coloured=True) == paint("text", Colour.BAD, coloured=False) == "text"


@pytest.mark.parametrize(
    ("out", "environ", "wanted"),
    [
        (Terminal(), {}, True),
        (Terminal(), {"NO_COLOR": ""}, True),  # no-color.org: set, and not empty
        (Terminal(), {"NO_COLOR": "1"}, False),
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {}, False),
    ],
)
def test_colours_are_used_on_terminals_unless_no_color_is_set(
    out: io.StringIO, environ: dict[str, str], wanted: bool
) -> None:
    assert use_colour(out, environ) is wanted
