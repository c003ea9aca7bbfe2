"""Leaving without dropping a request: on SIGTERM, serve on until callers have stopped coming, then shut down.

`podproof.drain.gunicorn` has gunicorn's hooks, `podproof.drain.uvicorn` a middleware for uvicorn, `podproof.drain.wsgi`
and `podproof.drain.asgi` a readiness endpoint each. No other part of podproof is needed.

Set the pod's `terminationGracePeriodSeconds` to `PODPROOF_DRAIN_GRACE_PERIOD`; requests in flight at the end of the
drain have what is left of it.
"""

from __future__ import annotations

from podproof.drain.shared_state import is_draining

__all__ = ["is_draining"]
