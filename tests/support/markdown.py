"""Code blocks, tables and links of a Markdown page."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", "SECURITY.md", "CHANGELOG.md", *sorted(f"docs/{path.name}" for path in ROOT.glob("docs/*.md"))]

# A marker is a comment that a reader does not see, in the line before the block.
_BLOCK = re.compile(r"(?:^<!-- (setup|check): (\w+) -->\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_TABLE = re.compile(r"(?:^\|.*\|\n)+", re.MULTILINE)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced code block: `setup` names what it is run in, `check` what it is compared with; "" for neither."""

    page: str
    line: int
    language: str
    text: str
    setup: str
    check: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def read_page(page: str) -> str:
    """Return the text of a page, named by its path from the root."""
    return (ROOT / page).read_text()


def find_blocks(page: str, text: str) -> list[Block]:
    """Return the code blocks of a page. Raises ValueError if a fence is not part of any."""
    blocks = []
    for match in _BLOCK.finditer(text):
        kind, name, language, code = match.groups()
        marker = {"setup": "", "check": ""} | ({kind: name} if kind else {})
        line = text.count("\n", 0, match.start(3)) + 1
        blocks.append(Block(page, line, language, code, **marker))
    if text.count("```") != 2 * len(blocks):
        raise ValueError(f"{page} has a fence that is not at the start of its line, or is not closed")
    return blocks


def find_table(text: str, *heading: str) -> list[list[str]]:
    """Return the cells of each row below a heading. Raises ValueError unless one table has this heading."""
    tables = [[_cells(line) for line in match[0].splitlines()] for match in _TABLE.finditer(text)]
    [found] = [table for table in tables if table[0] == list(heading)]
    return found[2:]


def find_links(text: str) -> list[str]:
    """Return the targets of a page's links that lead to other files or headings, in order."""
    prose = _BLOCK.sub("", text)
    return [target for target in _LINK.findall(prose) if "://" not in target]


def find_anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", _BLOCK.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def code_in(cell: str) -> list[str]:
    """Return what stands in backquotes."""
    return re.findall(r"`([^`]+)`", cell)


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]
