from __future__ import annotations

import pytest

from podproof.testing import StatusError
from podproof.testing._emulator.object_store import ObjectStore


def test_a_deleted_object_can_be_neither_replaced_nor_deleted() -> None:
    store = ObjectStore()
    thing = store.create("pods", {"metadata": {"name": "alice"}}, "2026-01-01T00:00:00Z")
    store.delete("pods", thing)
    store.create("pods", {"metadata": {"name": "alice"}}, "2026-01-01T00:00:00Z")
    for change in (store.replace, store.delete):
        with pytest.raises(StatusError, match='pods "alice" not found'):
            change("pods", thing)
    assert store.get("pods", "", "alice") is not None


def test_each_change_has_its_own_resource_version() -> None:
    store = ObjectStore()
    before = store.version
    thing = store.create("pods", {"metadata": {"name": "alice"}}, "2026-01-01T00:00:00Z")
    thing = store.replace("pods", thing)
    store.delete("pods", thing)
    changes = store.since(before)
    assert [change.kind for change in changes] == ["ADDED", "MODIFIED", "DELETED"]
    assert [change.after["metadata"]["resourceVersion"] for change in changes] == [
        str(change.version) for change in changes
    ]
