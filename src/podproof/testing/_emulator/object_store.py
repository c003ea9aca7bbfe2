"""The objects of the emulated cluster, and their changes in order, for watches."""

from __future__ import annotations

import bisect
import threading
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from podproof.testing._emulator import status_errors

if TYPE_CHECKING:
    from collections.abc import Mapping

_Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class StoredChange:
    """One change: ADDED, MODIFIED or DELETED, the object before it (if any) and after it."""

    version: int
    kind: str
    resource: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any]

    @property
    def left(self) -> Mapping[str, Any]:
        """The object before the change, with the version of the change: the end of it in a watch."""
        last = self.before or self.after
        return {**last, "metadata": {**last["metadata"], "resourceVersion": str(self.version)}}


class ObjectStore:
    """Objects by resource, namespace and name. An object is never altered in place, only replaced.

    `changed` is notified of everything that a watch waits for: a change, a bookmark, an end.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.version = 100
        self.bookmarks = 0
        self.interruptions = 0
        self.closed = False
        self._compacted = 0
        self._objects: dict[_Key, Mapping[str, Any]] = {}
        self._changes: list[StoredChange] = []

    def get(self, resource: str, namespace: str, name: str) -> Mapping[str, Any] | None:
        """Return one object, or None."""
        return self._objects.get((resource, namespace, name))

    def require(self, resource: str, namespace: str, name: str, group: str = "") -> Mapping[str, Any]:
        """Return one object. Raises a 404 `StatusError` when there is none."""
        if (found := self.get(resource, namespace, name)) is None:
            raise status_errors.not_found(resource, name, group)
        return found

    def all(self, resource: str, namespace: str = "") -> tuple[list[Mapping[str, Any]], int]:
        """Return the objects of a resource, in one namespace or in all, and the version they were seen at."""
        with self.changed:
            keys = sorted(key for key in self._objects if key[0] == resource and namespace in {"", key[1]})
            return [self._objects[key] for key in keys], self.version

    def create(self, resource: str, wanted: Mapping[str, Any], created: str) -> Mapping[str, Any]:
        """Add an object with a UID and a resource version of its own; `created` is an RFC 3339 time.

        Raises a 409 `StatusError` when the name is taken.
        """
        key = _key(resource, wanted)
        with self.changed:
            if key in self._objects:
                raise status_errors.already_exists(resource, key[2])
            fresh = {"uid": str(uuid.uuid4()), "creationTimestamp": created}
            return self._put("ADDED", key, {**wanted, "metadata": {**wanted["metadata"], **fresh}})

    def replace(self, resource: str, wanted: Mapping[str, Any]) -> Mapping[str, Any]:
        """Put an object in the place of the one of its name and UID.

        Raises a 404 `StatusError` when that one is gone.
        """
        key = _key(resource, wanted)
        with self.changed:
            self._check(key, wanted["metadata"]["uid"])
            return self._put("MODIFIED", key, wanted)

    def delete(self, resource: str, last: Mapping[str, Any]) -> Mapping[str, Any]:
        """Remove the object of this name and UID, which looks like this at the end.

        Raises a 404 `StatusError` when it is gone.
        """
        key = _key(resource, last)
        with self.changed:
            self._check(key, last["metadata"]["uid"])
            gone = self._put("DELETED", key, last)
            del self._objects[key]
            return gone

    def snapshot(self) -> Mapping[_Key, Mapping[str, Any]]:
        """Return all objects, to `restore` them."""
        with self.changed:
            return dict(self._objects)

    def restore(self, objects: Mapping[_Key, Mapping[str, Any]]) -> None:
        """Bring back the objects of a snapshot with their UIDs. Watches get an event for each difference."""
        with self.changed:
            for key, found in [*self._objects.items()]:
                wanted = objects.get(key)
                if wanted is None or wanted["metadata"]["uid"] != found["metadata"]["uid"]:
                    self._put("DELETED", key, found)
                    del self._objects[key]
            for key, wanted in objects.items():
                found_now = self._objects.get(key)
                if found_now is not wanted:
                    self._put("ADDED" if found_now is None else "MODIFIED", key, wanted)

    def check_version(self, version: int) -> None:
        """Raise a 410 `StatusError` if changes after a version have been compacted."""
        if version < self._compacted:
            raise status_errors.expired(f"too old resource version: {version} ({self._compacted})")

    def since(self, version: int) -> list[StoredChange]:
        """Return the changes after a version. Compaction keeps them for the watches that are open."""
        with self.changed:
            start = bisect.bisect_right(self._changes, version, key=lambda change: change.version)
            return self._changes[start:]

    def compact(self) -> None:
        """Compact the changes until now: a request for them gets a 410, open watches miss none."""
        with self.changed:
            self.version += 1
            self._compacted = self.version

    def bookmark(self) -> None:
        """Send a bookmark to each watch that wants them."""
        with self.changed:
            self.bookmarks += 1
            self.changed.notify_all()

    def interrupt(self) -> None:
        """End every watch that is open now."""
        with self.changed:
            self.interruptions += 1
            self.changed.notify_all()

    def wait(self, version: int, bookmarks: int, interruptions: int, timeout: float) -> bool:
        """Wait at most `timeout` seconds for more than a watch has seen. Return True if the watch goes on."""
        seen = version, bookmarks, interruptions
        with self.changed:
            self.changed.wait_for(
                lambda: self.closed or seen != (self.version, self.bookmarks, self.interruptions), timeout
            )
            return not self.closed and interruptions == self.interruptions

    def close(self) -> None:
        """End every watch, open ones and later ones."""
        self.closed = True
        self.interrupt()

    def _check(self, key: _Key, uid: str) -> None:
        found = self._objects.get(key)
        if found is None or found["metadata"]["uid"] != uid:
            raise status_errors.not_found(key[0], key[2])

    def _put(self, kind: str, key: _Key, wanted: Mapping[str, Any]) -> Mapping[str, Any]:
        self.version += 1
        after = {**wanted, "metadata": {**wanted["metadata"], "resourceVersion": str(self.version)}}
        self._changes.append(StoredChange(self.version, kind, key[0], self._objects.get(key), after))
        self._objects[key] = after
        self.changed.notify_all()
        return after


def _key(resource: str, thing: Mapping[str, Any]) -> _Key:
    return resource, thing["metadata"].get("namespace", ""), thing["metadata"]["name"]
