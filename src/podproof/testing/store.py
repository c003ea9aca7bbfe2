"""What exists in the emulated cluster, and every change to it in order, for those who watch."""

from __future__ import annotations

import threading
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from podproof.testing import status

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Change:
    """One change: ADDED, MODIFIED or DELETED, the object before it (if any) and after it."""

    version: int
    kind: str
    resource: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any]


class Store:
    """Objects by resource, namespace and name. An object is never altered in place, only replaced."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.version = 100
        self._objects: dict[tuple[str, str, str], Mapping[str, Any]] = {}
        self._changes: list[Change] = []
        self._forgotten = self.version

    def get(self, resource: str, namespace: str, name: str) -> Mapping[str, Any] | None:
        """Return one object, or None."""
        return self._objects.get((resource, namespace, name))

    def require(self, resource: str, namespace: str, name: str) -> Mapping[str, Any]:
        """Return one object. Raises a 404 `Failure` when there is none."""
        if (found := self.get(resource, namespace, name)) is None:
            raise status.not_found(resource, name)
        return found

    def list(self, resource: str, namespace: str = "") -> tuple[list[Mapping[str, Any]], int]:
        """Return the objects of a resource, in a namespace or all of them, and the version they were seen at."""
        with self.changed:
            keys = sorted(key for key in self._objects if key[0] == resource and namespace in {"", key[1]})
            return [self._objects[key] for key in keys], self.version

    def create(self, resource: str, wanted: Mapping[str, Any], created: str) -> Mapping[str, Any]:
        """Add an object with a UID and a resource version of its own; `created` is its RFC 3339 time.

        Raises a 409 `Failure` when the name is taken.
        """
        metadata = wanted["metadata"]
        key = (resource, metadata.get("namespace", ""), metadata["name"])
        with self.changed:
            if key in self._objects:
                raise status.already_exists(resource, metadata["name"])
            fresh = {"uid": str(uuid.uuid4()), "creationTimestamp": created}
            return self._put("ADDED", key, wanted | {"metadata": metadata | fresh})

    def replace(self, resource: str, wanted: Mapping[str, Any]) -> Mapping[str, Any]:
        """Put an object in the place of the one with its name and UID. Raises a 404 `Failure` when that is gone."""
        metadata = wanted["metadata"]
        key = (resource, metadata.get("namespace", ""), metadata["name"])
        with self.changed:
            self._present(key, metadata["uid"])
            return self._put("MODIFIED", key, wanted)

    def delete(self, resource: str, namespace: str, name: str, uid: str) -> Mapping[str, Any]:
        """Remove an object. Raises a 404 `Failure` when the one with this UID is gone."""
        key = (resource, namespace, name)
        with self.changed:
            gone = self._present(key, uid)
            last = self._put("DELETED", key, gone)
            del self._objects[key]
            return last

    def since(self, version: int) -> list[Change]:
        """Return the changes after a version. Raises a 410 `Failure` when they are no longer all remembered."""
        if version < self._forgotten:
            raise status.expired(f"too old resource version: {version} ({self._forgotten})")
        return [change for change in self._changes if change.version > version]

    def forget(self) -> None:
        """Forget all changes until now, as etcd does when it compacts."""
        with self.changed:
            self.version += 1
            self._forgotten = self.version
            self._changes.clear()
            self.changed.notify_all()

    def _present(self, key: tuple[str, str, str], uid: str) -> Mapping[str, Any]:
        found = self._objects.get(key)
        if found is None or found["metadata"]["uid"] != uid:
            raise status.not_found(key[0], key[2])
        return found

    def _put(self, kind: str, key: tuple[str, str, str], wanted: Mapping[str, Any]) -> Mapping[str, Any]:
        self.version += 1
        after = {**wanted, "metadata": wanted["metadata"] | {"resourceVersion": str(self.version)}}
        self._changes.append(Change(self.version, kind, key[0], self._objects.get(key), after))
        self._objects[key] = after
        self.changed.notify_all()
        return after
