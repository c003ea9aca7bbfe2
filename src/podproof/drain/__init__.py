"""Graceful shutdown: after SIGTERM, serve until requests stop arriving, then shut down.

`podproof.drain.gunicorn` has gunicorn's hooks, `podproof.drain.uvicorn` a middleware for uvicorn, `podproof.drain.wsgi`
and `podproof.drain.asgi` a readiness endpoint each. No other part of podproof is needed.

Set `PODPROOF_DRAIN_GRACE_PERIOD` to the pod's `terminationGracePeriodSeconds`; requests in flight at the end of the
drain have what is left of it. The options and what was measured: docs/graceful-shutdown.md.
"""

from __future__ import annotations

from podproof.drain.shared_state import is_draining

__all__ = ["is_draining"]
