"""Watches: the changes of a resource as a stream of events, until the time is up."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from podproof.testing import status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from podproof.testing.store import Change, Store

BOOKMARK_PERIOD = 60
BOOKMARK_BEFORE_END = 2
"""Seconds: a watch that wants bookmarks gets one so often, and one just before its end."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What a watch is about: a resource, in one namespace or (empty) in all, those objects that are chosen."""

    resource: str
    type_meta: Mapping[str, str]
    namespace: str
    chosen: Callable[[Mapping[str, Any]], bool]

    def event(self, change: Change) -> dict[str, Any] | None:
        """Return what a change looks like from here: an object may come into the selection or leave it."""
        if change.resource != self.resource:
            return None
        if self.namespace not in {"", change.after["metadata"].get("namespace", "")}:
            return None
        was = change.before is not None and self.chosen(change.before)
        is_now = change.kind != "DELETED" and self.chosen(change.after)
        match was, is_now:
            case True, True:
                return {"type": "MODIFIED", "object": change.after}
            case False, True:
                return {"type": "ADDED", "object": change.after}
            case True, False:
                return {"type": "DELETED", "object": change.left}
            case _:
                return None

    def bookmark(self, version: int) -> dict[str, Any]:
        """Return the event that says: all changes until this version have been told."""
        metadata = {"resourceVersion": str(version), "creationTimestamp": None}
        return {"type": "BOOKMARK", "object": {**self.type_meta, "metadata": metadata}}


def events(store: Store, scope: Scope, version: int, timeout: float, *, bookmarks: bool) -> Iterator[Mapping[str, Any]]:
    """Yield what happens after a version, and end after `timeout` seconds.

    From version 0 it begins with what there is. When the version is forgotten, an ERROR event with a 410 status
    is all there is.
    """
    ends = time.monotonic() + timeout
    with store.changed:
        interruptions, marked = store.interruptions, store.bookmarks
        known, now = store.all(scope.resource, scope.namespace)
    if not version:
        version = now
        yield from ({"type": "ADDED", "object": thing} for thing in known if scope.chosen(thing))
    else:
        try:
            store.remember(version)
        except status.Failure as failure:
            yield {"type": "ERROR", "object": failure.json()}
            return
    started, due = version, _bookmark_due(ends)
    while True:
        for change in store.since(version):
            version = change.version
            if (event := scope.event(change)) is not None:
                yield event
        asked, marked = store.bookmarks != marked, store.bookmarks
        overdue = time.monotonic() >= due
        if bookmarks and (asked or (overdue and version > started)):
            yield scope.bookmark(version)
        if overdue:
            due = _bookmark_due(ends)
        goes_on = store.wait(version, marked, interruptions, min(due, ends) - time.monotonic())
        if not goes_on or time.monotonic() >= ends:
            return


def _bookmark_due(ends: float) -> float:
    now = time.monotonic()
    before_end = ends - BOOKMARK_BEFORE_END
    return min(now + BOOKMARK_PERIOD, before_end if before_end > now else ends)
