"""What exists in the emulated cluster, and every change to it in order, for those who watch."""

from __future__ import annotations

import threading
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from podproof.testing import status

if TYPE_CHECKING:
    from collections.abc import Mapping

_Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Change:
    """One change: ADDED, MODIFIED or DELETED, the object before it (if any) and after it."""

    version: int
    kind: str
    resource: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any]

    @property
    def left(self) -> Mapping[str, Any]:
        """The object as it was last seen by a watch that it leaves, with the version of the change."""
        last = self.before or self.after
        return {**last, "metadata": {**last["metadata"], "resourceVersion": str(self.version)}}


class Store:
    """Objects by resource, namespace and name. An object is never altered in place, only replaced.

    `changed` is notified of whatever a watch has to look at: a change, a bookmark, an end.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.version = 100
        self.bookmarks = 0
        self.interruptions = 0
        self.closed = False
        self._forgotten = 0
        self._objects: dict[_Key, Mapping[str, Any]] = {}
        self._changes: list[Change] = []

    def get(self, resource: str, namespace: str, name: str) -> Mapping[str, Any] | None:
        """Return one object, or None."""
        return self._objects.get((resource, namespace, name))

    def require(self, resource: str, namespace: str, name: str, group: str = "") -> Mapping[str, Any]:
        """Return one object. Raises a 404 `Failure` when there is none."""
        if (found := self.get(resource, namespace, name)) is None:
            raise status.not_found(resource, name, group)
        return found

    def all(self, resource: str, namespace: str = "") -> tuple[list[Mapping[str, Any]], int]:
        """Return the objects of a resource, in one namespace or in all, and the version they were seen at."""
        with self.changed:
            keys = sorted(key for key in self._objects if key[0] == resource and namespace in {"", key[1]})
            return [self._objects[key] for key in keys], self.version

    def create(self, resource: str, wanted: Mapping[str, Any], created: str) -> Mapping[str, Any]:
        """Add an object with a UID and a resource version of its own; `created` is an RFC 3339 time.

        Raises a 409 `Failure` when the name is taken.
        """
        key = _key(resource, wanted)
        with self.changed:
            if key in self._objects:
                raise status.already_exists(resource, key[2])
            fresh = {"uid": str(uuid.uuid4()), "creationTimestamp": created}
            return self._put("ADDED", key, {**wanted, "metadata": {**wanted["metadata"], **fresh}})

    def replace(self, resource: str, wanted: Mapping[str, Any]) -> Mapping[str, Any]:
        """Put an object in the place of the one of its name and UID.

        Raises a 404 `Failure` when that one is gone.
        """
        key = _key(resource, wanted)
        with self.changed:
            self._check(key, wanted["metadata"]["uid"])
            return self._put("MODIFIED", key, wanted)

    def delete(self, resource: str, last: Mapping[str, Any]) -> Mapping[str, Any]:
        """Remove the object of this name and UID, which looks like this at the end.

        Raises a 404 `Failure` when it is gone.
        """
        key = _key(resource, last)
        with self.changed:
            self._check(key, last["metadata"]["uid"])
            gone = self._put("DELETED", key, last)
            del self._objects[key]
            return gone

    def remember(self, version: int) -> None:
        """Raise a 410 `Failure` when some of the changes after a version are forgotten."""
        if version < self._forgotten:
            raise status.expired(f"too old resource version: {version} ({self._forgotten})")

    def since(self, version: int) -> list[Change]:
        """Return the changes after a version that is remembered, or was when its watch began."""
        with self.changed:
            return [change for change in self._changes if change.version > version]

    def forget(self) -> None:
        """Forget all changes until now: who asks for them is told 410; who is watching misses nothing."""
        with self.changed:
            self.version += 1
            self._forgotten = self.version

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
        """Wait until there is more than a watch has seen, at most `timeout` seconds, and tell whether it goes on."""
        seen = version, bookmarks, interruptions
        with self.changed:
            self.changed.wait_for(
                lambda: self.closed or seen != (self.version, self.bookmarks, self.interruptions), timeout
            )
            return not self.closed and interruptions == self.interruptions

    def close(self) -> None:
        """End every watch, those that are still to come included."""
        self.closed = True
        self.interrupt()

    def _check(self, key: _Key, uid: str) -> None:
        found = self._objects.get(key)
        if found is None or found["metadata"]["uid"] != uid:
            raise status.not_found(key[0], key[2])

    def _put(self, kind: str, key: _Key, wanted: Mapping[str, Any]) -> Mapping[str, Any]:
        self.version += 1
        after = {**wanted, "metadata": {**wanted["metadata"], "resourceVersion": str(self.version)}}
        self._changes.append(Change(self.version, kind, key[0], self._objects.get(key), after))
        self._objects[key] = after
        self.changed.notify_all()
        return after


def _key(resource: str, thing: Mapping[str, Any]) -> _Key:
    return resource, thing["metadata"].get("namespace", ""), thing["metadata"]["name"]
