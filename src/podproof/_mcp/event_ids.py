"""The IDs of server-sent events, by which a client resumes a stream: each is bound to a pod and its session.

The SDK keeps the events of all sessions in one store, and asks it for whatever ID a client names.
"""

from __future__ import annotations

import hmac
import secrets

_FIELD = b"id: "
_SEPARATOR = "."


class EventIds:
    """Marks event IDs on their way out, and accepts them back from the same pod in the same session alone.

    The key is one process's, as the SDK's sessions are.
    """

    def __init__(self, key: bytes | None = None) -> None:
        self._key = key or secrets.token_bytes(32)

    def mark(self, event: bytes, pod_uid: str, session: str) -> bytes:
        """Return a server-sent event with a marked ID, if it has one, which comes first."""
        if not event.startswith(_FIELD):
            return event
        line, end, rest = event.partition(b"\r\n")
        name = line.removeprefix(_FIELD)
        return b"".join([line, _SEPARATOR.encode(), self._mark(name, pod_uid, session).encode(), end, rest])

    def accept(self, marked: str, pod_uid: str, session: str) -> str | None:
        """Return the ID that the event's store knows, None if it was not marked for this pod in this session."""
        name, _, mark = marked.rpartition(_SEPARATOR)
        expected = self._mark(name.encode("latin-1"), pod_uid, session)
        return name if hmac.compare_digest(mark.encode("latin-1"), expected.encode()) else None

    def _mark(self, name: bytes, pod_uid: str, session: str) -> str:
        # No UID holds a blank, nor does a session ID.
        message = b" ".join([pod_uid.encode(), session.encode("latin-1"), name])
        return hmac.digest(self._key, message, "sha256").hex()
