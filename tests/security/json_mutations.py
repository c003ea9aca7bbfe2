"""JSON documents with one or several places changed, every place in every way."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Raw:
    """JSON text that `json.dumps` does not write."""

    text: str


@dataclass(frozen=True)
class Duplicated:
    """A member that an object has twice, with two values."""

    first: object
    second: object


class _Missing:
    """The value of a member to be removed."""


MISSING = _Missing()
DEEP = Raw("[" * 10_000 + "]" * 10_000)
REPLACEMENTS: tuple[object, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    1.5,
    10**400,
    "",
    "x",
    "true",
    "\ud800",
    "x" * 10_000,
    [],
    [None],
    [[]],
    ["x"] * 2000,
    {},
    {"": None},
    {str(number): number for number in range(1000)},
    Raw("NaN"),
    Raw("1e400"),
    Raw("1" * 5000),
    DEEP,
    MISSING,
)
"""Values put in the place of any other: missing, another type, empty, huge."""


def render(value: object) -> str:
    """Write a document as JSON."""
    match value:
        case Raw(text):
            return text
        case Mapping():
            return f"{{{','.join(_members(value))}}}"
        case list() | tuple():
            return f"[{','.join(map(render, value))}]"
    return json.dumps(value)


def _members(value: Mapping[str, object]) -> Iterator[str]:
    for name, one in value.items():
        both = (one.first, one.second) if isinstance(one, Duplicated) else (one,)
        for each in both:
            yield f"{json.dumps(name)}:{render(each)}"


def places(document: object, here: Path = ()) -> Iterator[Path]:
    """Yield the path of every place in a document, including its root."""
    yield here
    if isinstance(document, Mapping):
        for name, value in document.items():
            yield from places(value, (*here, name))
    elif isinstance(document, list):
        for number, value in enumerate(document):
            yield from places(value, (*here, number))


def at(document: Any, place: Path) -> Any:
    for step in place:
        document = document[step]
    return document


def changes(document: object, place: Path) -> list[object]:
    """Return the values to put in one place of a document."""
    value = at(document, place)
    found = [other for other in REPLACEMENTS if other is not MISSING or place]
    if isinstance(value, str):
        found += [value * 2, value.upper(), [value], {value: value}]
        found += [f"{value} ", f" {value}", f"{value}\n", f"{value}\0"]
    if isinstance(value, list):
        found += [value * 2, value[:-1], [*value, None], {str(number): one for number, one in enumerate(value)}]
    if isinstance(value, dict):
        found += [[value], {name.upper(): one for name, one in value.items()}]
    if place and isinstance(place[-1], str) and not isinstance(value, Duplicated):
        found += [Duplicated(value, None), Duplicated(None, value), Duplicated(value, "x"), Duplicated("x", value)]
    return found


def changed(document: object, place: Path, change: object) -> Any:
    """Return a copy of a document with another value in one place."""
    if not place:
        return change
    whole = copy.deepcopy(document)
    parent = at(whole, place[:-1])
    if change is MISSING:
        del parent[place[-1]]
    else:
        parent[place[-1]] = change
    return whole


def every_change(document: object, where: Iterable[Path] | None = None) -> Iterator[Any]:
    """Yield all documents that differ from one in one place, or in one of these places."""
    for place in places(document) if where is None else where:
        for change in changes(document, place):
            yield changed(document, place, change)


@st.composite
def mangled(draw: st.DrawFn, document: object, most: int = 4) -> Any:
    """Draw a document that differs in up to `most` places."""
    for _ in range(draw(st.integers(1, most))):
        place = draw(st.sampled_from(list(places(document))))
        document = changed(document, place, draw(st.sampled_from(changes(document, place))))
        if not isinstance(document, dict):
            break
    return document
