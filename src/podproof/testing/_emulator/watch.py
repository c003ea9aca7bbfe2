"""Watches: the changes of a resource as a stream of events."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from podproof.testing._emulator import status_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from podproof.testing._emulator.object_store import ObjectStore, StoredChange

BOOKMARK_PERIOD = 60
BOOKMARK_BEFORE_END = 2
"""Seconds: a watch that wants bookmarks gets one so often, and one just before its end."""


@dataclass(frozen=True, slots=True)
class WatchScope:
    """The objects of a watch: those of a resource, in one namespace or (empty) in all, that a selector chooses."""

    resource: str
    type_meta: Mapping[str, str]
    namespace: str
    chosen: Callable[[Mapping[str, Any]], bool]

    def event(self, change: StoredChange) -> dict[str, Any] | None:
        """Return the event of a change, None for a change outside the scope."""
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

    def bookmark(self, version: int, *, ends_list: bool = False) -> dict[str, Any]:
        """Return the event that says that all changes up to this version have been sent.

        `ends_list` marks it as the end of a streamed list (KEP-3157).
        """
        metadata: dict[str, Any] = {"resourceVersion": str(version), "creationTimestamp": None}
        if ends_list:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        return {"type": "BOOKMARK", "object": {**self.type_meta, "metadata": metadata}}


def events(
    store: ObjectStore,
    scope: WatchScope,
    version: int,
    timeout: float,
    *,
    bookmarks: bool,
    initial_events: bool | None = None,
) -> Iterator[Mapping[str, Any]]:
    """Yield the changes after a version, and end after `timeout` seconds.

    From version 0 the existing objects come first. If the version has been compacted, the only event is an ERROR with a
    410 status. `initial_events` is the parameter sendInitialEvents: if it is given, the version is at most the current
    one, so that the existing objects come in any case, with a bookmark at their end, or in none.
    """
    ends = time.monotonic() + timeout
    with store.changed:
        interruptions, marked = store.interruptions, store.bookmarks
        known, now = store.all(scope.resource, scope.namespace)
    if not version or initial_events is not None:
        version = now
        if initial_events is not False:
            yield from ({"type": "ADDED", "object": thing} for thing in known if scope.chosen(thing))
        if initial_events and bookmarks:
            yield scope.bookmark(now, ends_list=True)
    else:
        try:
            store.check_version(version)
        except status_errors.StatusError as failure:
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
