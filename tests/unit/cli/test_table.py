from __future__ import annotations

import io

import pytest

from podproof.cli.table import Colour, Row, paint, table, wants_colour


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_columns_are_aligned_and_lines_end_where_their_text_does() -> None:
    rows = [Row(("alice", "127.0.0.2", "known")), Row(("bo", "::1", ""))]
    assert table(("who", "from", "what"), rows) == "WHO    FROM       WHAT\nalice  127.0.0.2  known\nbo     ::1\n"


def test_the_last_cell_and_the_heading_are_coloured_where_that_is_wanted() -> None:
    rows = [Row(("alice", "known"), Colour.GOOD), Row(("bob", "?"))]
    assert table(("who", "what"), rows, coloured=True).splitlines() == [
        "\x1b[1mWHO    WHAT\x1b[0m",
        "alice  \x1b[32mknown\x1b[0m",
        "bob    ?",
    ]


def test_paint_leaves_plain_text_as_it_is() -> None:
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
def test_colour_is_for_terminals_whose_owner_has_nothing_against_it(
    out: io.StringIO, environ: dict[str, str], wanted: bool
) -> None:
    assert wants_colour(out, environ) is wanted
