"""Label and field selectors, by which a list or a watch chooses objects."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from podproof.testing._emulator import status_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

FIELDS = {
    "pods": frozenset(
        {
            "metadata.name",
            "metadata.namespace",
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "status.nominatedNodeName",
            "status.phase",
            "status.podIP",
        }
    )
}
HOST_NETWORK, HOST_NETWORK_SINCE = "spec.hostNetwork", (1, 28)
METADATA_FIELDS = frozenset({"metadata.name", "metadata.namespace"})

_SET = re.compile(r"(?P<key>\S+)\s+(?P<operator>in|notin)\s+\((?P<values>[^()]*)\)")
_EQUALITY = re.compile(r"(?P<key>[^=!\s]+)\s*(?P<operator>==|=|!=)\s*(?P<value>[^=!\s]*)")
_PRESENCE = re.compile(r"(?P<absent>!?)(?P<key>[^=!\s()]+)")


def selector(labels: str, fields: str, resource: str, version: tuple[int, int]) -> Callable[[Mapping[str, Any]], bool]:
    """Return a function that returns True for the objects of a labelSelector and a fieldSelector, empty ones for all.

    Raises a 400 `StatusError` for a selector that cannot be parsed, or a field that the resource does not support.
    """
    tests = [*_label_tests(labels), *_field_tests(fields, resource, version)]
    return lambda thing: all(test(thing) for test in tests)


def _label_tests(text: str) -> Iterator[Callable[[Mapping[str, Any]], bool]]:
    for requirement in filter(None, (part.strip() for part in re.split(r",(?![^(]*\))", text))):
        if match := _SET.fullmatch(requirement):
            values = {value.strip() for value in match["values"].split(",")}
            yield _label(match["key"], values, wanted=match["operator"] == "in")
        elif match := _EQUALITY.fullmatch(requirement):
            yield _label(match["key"], {match["value"]}, wanted=match["operator"] != "!=")
        elif match := _PRESENCE.fullmatch(requirement):
            yield _has_label(match["key"], wanted=not match["absent"])
        else:
            raise status_errors.bad_request(f"unable to parse requirement: {requirement}")


def _label(key: str, values: set[str], *, wanted: bool) -> Callable[[Mapping[str, Any]], bool]:
    return lambda thing: (thing["metadata"].get("labels", {}).get(key) in values) == wanted


def _has_label(key: str, *, wanted: bool) -> Callable[[Mapping[str, Any]], bool]:
    return lambda thing: (key in thing["metadata"].get("labels", {})) == wanted


def _field_tests(text: str, resource: str, version: tuple[int, int]) -> Iterator[Callable[[Mapping[str, Any]], bool]]:
    known = FIELDS.get(resource, METADATA_FIELDS)
    if resource == "pods" and version >= HOST_NETWORK_SINCE:
        known |= {HOST_NETWORK}
    for term in filter(None, text.split(",")):
        match = _EQUALITY.fullmatch(term)
        if match is None:
            raise status_errors.bad_request(f"invalid selector: '{text}'; can't understand '{term}'")
        if match["key"] not in known:
            raise status_errors.bad_request(f"field label not supported: {match['key']}")
        yield _field(match["key"], match["value"], wanted=match["operator"] != "!=")


def _field(path: str, value: str, *, wanted: bool) -> Callable[[Mapping[str, Any]], bool]:
    top, _, name = path.partition(".")
    if path == HOST_NETWORK:
        return lambda thing: (str(thing[top].get(name, False)).lower() == value) == wanted
    return lambda thing: (thing.get(top, {}).get(name, "") == value) == wanted
