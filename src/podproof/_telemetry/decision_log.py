"""The decision log: one record a decision, on the logger `podproof.audit`. No record holds a token."""

from __future__ import annotations

import logging
import re
from typing import NamedTuple

from podproof._authentication.pod_address import canonical_address
from podproof.errors import PodAuthError, Unavailable
from podproof.identity import PodIdentity

log = logging.getLogger("podproof.audit")

FIELDS = (
    "decision",
    "code",
    "status",
    "reason",
    "namespace",
    "service_account",
    "pod",
    "pod_uid",
    "node",
    "credential_id",
    "peer",
    "method",
    "path",
    "audience",
    "request_id",
)
"""What a record has, each a text, a number or None.

`decision` is allowed or denied; `code` is `authenticated`, `anonymous` or the error's code; `reason` is for people.
`peer` is the address that was compared, or the connection's where none was. `request_id` is the trace ID of the
request's `traceparent`; a refusal without one gets an ID of its own, which its answer has too.
"""

# W3C Trace Context section 3.2: version, trace-id, parent-id, flags.
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")


class RequestRecord(NamedTuple):
    """What is written of a request: its method, whole path, connection's address, and `traceparent` header."""

    method: str
    path: str
    remote: str | None
    traceparent: str | None

    @property
    def trace_id(self) -> str | None:
        """The ID that all who work on this request write down, None where it came without one."""
        trace = _TRACEPARENT.fullmatch(self.traceparent or "")
        return trace[1] if trace else None


def record_allowed(identity: PodIdentity | None, peer: str | None, request: RequestRecord) -> None:
    """Write that a request was let in; without an identity, to what is open to all."""
    account, pod = (str(identity.service_account), str(identity.pod)) if identity else (None, None)
    peer = peer or canonical_address(request.remote or "")
    log.info(
        "allowed %s [pod=%s peer=%s request=%s %s request_id=%s]",
        account or "anonymous",
        pod or "-",
        peer or "-",
        ascii(request.method)[1:-1],
        ascii(request.path),
        request.trace_id or "-",
        extra=_whom(account, pod, identity)
        | _what(request, peer, request.trace_id)
        | {"decision": "allowed", "code": "authenticated" if identity else "anonymous", "status": None, "reason": None},
    )


def record_denied(refusal: PodAuthError, request: RequestRecord, request_id: str) -> None:
    """Write that a request was refused, and why."""
    peer = refusal.peer or canonical_address(request.remote or "")
    log.log(
        logging.ERROR if isinstance(refusal, Unavailable) else logging.WARNING,
        "denied with %d %s: %s [service_account=%s pod=%s peer=%s request=%s %s request_id=%s]",
        refusal.status,
        refusal.code,
        refusal.reason,
        refusal.service_account or "-",
        refusal.pod or "-",
        peer or "-",
        ascii(request.method)[1:-1],
        ascii(request.path),
        request_id,
        extra=_whom(refusal.service_account, refusal.pod, refusal.identity)
        | _what(request, peer, request_id)
        | {"decision": "denied", "code": refusal.code, "status": refusal.status, "reason": refusal.reason},
    )


def _whom(account: str | None, pod: str | None, identity: PodIdentity | None) -> dict[str, object]:
    """Return the fields about the caller, all of them None for one that nobody vouches for."""
    namespace, _, name = (account or "").partition("/")
    return {
        "namespace": namespace or None,
        "service_account": name or None,
        "pod": (pod or "").partition("/")[2] or None,
        "pod_uid": identity.pod.uid if identity else None,
        "node": identity.pod.node if identity else None,
        "credential_id": identity.credential_id if identity else None,
        "audience": identity.audience if identity else None,
    }


def _what(request: RequestRecord, peer: str | None, request_id: str | None) -> dict[str, object]:
    return {"peer": peer, "method": request.method, "path": request.path, "request_id": request_id}
