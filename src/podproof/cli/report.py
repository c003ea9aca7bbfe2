"""How findings are printed: as aligned text, or as JSON."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TextIO

from podproof.cli.finding import Finding, Level
from podproof.cli.table import Colour, paint, use_colour

_COLOURS = {Level.SKIP: Colour.PLAIN, Level.OK: Colour.GOOD, Level.WARN: Colour.DOUBTFUL, Level.FAIL: Colour.BAD}


def print_findings(
    findings: Sequence[Finding], out: TextIO, variables: Mapping[str, str], *, as_json: bool = False
) -> int:
    """Print findings, and return the highest level of them as an exit status."""
    highest = max(Level.OK, *(finding.level for finding in findings))
    if as_json:
        lines = [{"level": f.level.word, "subject": f.subject, "message": f.message, "fix": f.fix} for f in findings]
        out.write(json.dumps({"status": highest.word, "findings": lines}, indent=2) + "\n")
    else:
        width = shutil.get_terminal_size().columns if out.isatty() else None
        out.write(format_findings(findings, coloured=use_colour(out, variables), width=width))
    return highest


def format_findings(findings: Sequence[Finding], *, coloured: bool = False, width: int | None = None) -> str:
    """Return findings in aligned columns, each with its fix below it.

    Messages are folded at `width` columns, if given; a fix is not, so that it can be copied.
    """
    subject_width = max(len(finding.subject) for finding in findings)
    margin = " " * (len("fail") + 2 + subject_width + 2)
    lines = []
    for finding in findings:
        level = paint(f"{finding.level.word:4}", _COLOURS[finding.level], coloured=coloured)
        first, *rest = _split_lines(finding.message, width and width - len(margin))
        lines += [f"{level}  {finding.subject:{subject_width}}  {first}", *(margin + line for line in rest)]
        lines += [margin + paint(line, Colour.HEADING, coloured=coloured) for line in finding.fix.splitlines()]
    count = Counter(finding.level for finding in findings)
    counted = [level for level in reversed(Level) if level is not Level.SKIP or count[level]]
    lines += ["", ", ".join(f"{count[level]} {level.word}" for level in counted)]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _split_lines(text: str, width: int | None) -> list[str]:
    lines = text.splitlines()
    if width is None:
        return lines
    wrapper = textwrap.TextWrapper(max(width, 20), break_long_words=False, break_on_hyphens=False)
    return [part for line in lines for part in wrapper.wrap(line)]
