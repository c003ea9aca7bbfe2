"""A Kubernetes list, decoded one item after the other: the page is held as text, and never as JSON values."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

Kept = TypeVar("Kept")

_DECODER = json.JSONDecoder()
_SPACES = frozenset(" \t\n\r")


def parse_list(data: bytes, keep: Callable[[Any], Kept]) -> tuple[list[Kept], dict[str, Any]]:
    """Return what `keep` returns for each item of a list, and the list's metadata.

    `json.loads` would take three times as long: the garbage collector visits the values of the whole page again and
    again, and what is kept of each item is scattered among them in memory.

    Raises ValueError or RecursionError for what is no list of a Kubernetes API, and what `keep` raises.
    """
    kept, listed = [], False
    metadata = None
    for name, value in _members(_Scanner(data.decode())):
        if name == "items":
            listed = True
            kept += [keep(item) for item in value]
        elif name == "metadata":
            metadata = value
    if not listed or not isinstance(metadata, dict):
        raise ValueError("expected a list with items and metadata")
    return kept, metadata


def _members(scanner: _Scanner) -> Iterator[tuple[Any, Any]]:
    """Yield the members of an object; of `items`, the value is an iterator that has to be used before the next one."""
    scanner.expect("{")
    more = not scanner.take("}")
    while more:
        name = scanner.value()
        scanner.expect(":")
        yield name, _elements(scanner) if name == "items" else scanner.value()
        more = scanner.goes_on("}")
    scanner.expect_end()


def _elements(scanner: _Scanner) -> Iterator[Any]:
    scanner.expect("[")
    more = not scanner.take("]")
    while more:
        yield scanner.value()
        more = scanner.goes_on("]")


class _Scanner:
    """A position in a JSON text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0

    def value(self) -> Any:
        """Return the value that comes next."""
        self._skip_space()
        value, self._position = _DECODER.raw_decode(self._text, self._position)
        return value

    def take(self, token: str) -> bool:
        """Return True if this character comes next, and go past it."""
        self._skip_space()
        if not self._text.startswith(token, self._position):
            return False
        self._position += 1
        return True

    def expect(self, token: str) -> None:
        """Go past a character. Raises ValueError if something else comes next."""
        if not self.take(token):
            raise ValueError(f"expected {token}")

    def expect_end(self) -> None:
        """Raise ValueError if the text goes on."""
        self._skip_space()
        if self._position < len(self._text):
            raise ValueError("expected the end")

    def goes_on(self, end: str) -> bool:
        """Return True after a comma, False after the character that ends the object or array. Raises ValueError."""
        if self.take(","):
            return True
        self.expect(end)
        return False

    def _skip_space(self) -> None:
        while self._text[self._position : self._position + 1] in _SPACES:
            self._position += 1
