from __future__ import annotations

import pytest

from podproof.testing import StatusError
from podproof.testing._emulator.object_store import ObjectStore


def test_what_is_gone_is_not_replaced_and_not_deleted_again() -> None:
    store = ObjectStore()
    thing = store.create("pods", {"metadata": {"name": "alice"}}, "2026-01-01T00:00:00Z")
    store.delete("pods", thing)
    store.create("pods", {"metadata": {"name": "alice"}}, "2026-01-01T00:00:00Z")
    for change in (store.replace, store.delete):
        with pytest.raises(StatusError, match='pods "alice" not found'):
            change("pods", thing)
    assert store.get("pods", "", "alice") is not None


def test_each_change_has_a_version_of_its_own() -> None:
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
