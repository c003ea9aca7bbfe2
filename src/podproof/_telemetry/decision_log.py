"""The decision log: one record a decision, on the logger `podproof.audit`. No record holds a token."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import quote

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
    "stale",
    "request_id",
    "unverified_issuer",
    "unverified_audience",
    "unverified_subject",
)
"""What a record has, each a text, a number, True or None.

`decision` is allowed, denied, or would-deny where nothing is enforced; `code` is `authenticated`, `anonymous` or the
error's code; `reason` is for people.
`stale` is True for a caller that was accepted by what was known of it, since the API server could not be asked.
`status` is that of the response, of a call of gRPC (`method` GRPC) the number of its status; None if an allowed request
got none, as when the client went away. `peer` is the address that was compared, or the connection's if none was.
`request_id` is the trace ID of the request's `traceparent`; a request without one gets an ID of its own, which the
response to a denied one has too. `method`, `path` and the `unverified_` claims of a rejected token are the caller's
words: percent-encoded and cut, so that they are one word of printable ASCII in any format. No field holds a token.
"""

# W3C Trace Context section 3.2: version, trace-id, parent-id, flags.
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")


NOTHING: Mapping[str, str] = MappingProxyType({})

_ESCAPED = {byte: quote(bytes((byte,)), "!$&()*+,;=:@/-._~?#") for byte in range(256)}
"""What stands for each byte of a caller's text: one table, since `quote` has a call for each byte of it."""


def escape(text: str, longest: int) -> str:
    """Return a caller's text percent-encoded: without blanks, quotes, line ends and all that is not printable ASCII."""
    cut = text[:longest].encode(errors="backslashreplace").decode("latin-1")
    return cut.translate(_ESCAPED) + ("..." if len(text) > longest else "")


class RequestRecord(NamedTuple):
    """What is logged about a request: method and full path, both escaped, and peer in canonical form."""

    method: str
    path: str
    peer: str | None


def trace_id(traceparent: str | None) -> str | None:
    """Return the trace ID that a request came with in its `traceparent` header, None if it has none."""
    trace = _TRACEPARENT.fullmatch(traceparent or "")
    return trace[1] if trace else None


def record_allowed(
    identity: PodIdentity | None,
    request: RequestRecord,
    request_id: str,
    status: int | None,
    *,
    stale: bool = False,
) -> None:
    """Log that a request was allowed; without an identity, as an anonymous one."""
    account, pod = (str(identity.service_account), str(identity.pod)) if identity else (None, None)
    log.info(
        "allowed %s [pod=%s peer=%s request=%s '%s' request_id=%s%s]",
        account or "anonymous",
        pod or "-",
        request.peer or "-",
        request.method,
        request.path,
        request_id,
        " stale" if stale else "",
        extra=_caller_fields(account, pod, identity)
        | _request_fields(request, request_id)
        | {
            "stale": stale or None,
            "decision": "allowed",
            "code": "authenticated" if identity else "anonymous",
            "status": status,
            "reason": None,
        },
    )


def record_denied(
    error: PodAuthError,
    request: RequestRecord,
    request_id: str,
    status: int | None,
    unverified: Mapping[str, str] = NOTHING,
    *,
    enforced: bool = True,
) -> None:
    """Log that a request was denied, and why: API server failures at ERROR, every other denial at WARNING.

    `unverified` has the fields for what a rejected token says. A denial that is not enforced has the app's status.
    """
    claims = {name: escape(value, 256) for name, value in unverified.items()}
    log.log(
        logging.ERROR if isinstance(error, Unavailable) else logging.WARNING,
        "%s %s: %s [service_account=%s pod=%s peer=%s request=%s '%s' request_id=%s%s]",
        f"denied with {status}" if enforced else "would deny:",
        error.code,
        error.reason,
        error.service_account or "-",
        error.pod or "-",
        request.peer or "-",
        request.method,
        request.path,
        request_id,
        "".join(f" {name}={value}" for name, value in claims.items()),
        extra=_caller_fields(error.service_account, error.pod, error.identity)
        | _request_fields(request, request_id)
        | {
            "decision": "denied" if enforced else "would-deny",
            "code": error.code,
            "status": status,
            "reason": error.reason,
        }
        | claims,
    )


def record_issued(
    identity: PodIdentity, audience: str, scopes: Sequence[str], token_id: str, user_issuer: str | None
) -> None:
    """Log that a token was issued: to whom, for what, and its ID; for a user of which issuer, if it is about one."""
    account, pod = str(identity.service_account), str(identity.pod)
    log.info(
        "issued a token to %s [pod=%s issued_for=%s scope='%s' token_id=%s user_issuer=%s]",
        account,
        pod,
        audience,
        " ".join(scopes),
        token_id,
        user_issuer or "-",
        extra=_caller_fields(account, pod, identity)
        | {
            "decision": "issued",
            "code": "issued",
            "reason": None,
            "issued_for": audience,
            "scope": " ".join(scopes),
            "token_id": token_id,
            "user_issuer": user_issuer,
        },
    )


def _caller_fields(account: str | None, pod: str | None, identity: PodIdentity | None) -> dict[str, object]:
    """Return the fields about the caller, all of them None for one that is not authenticated."""
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


def _request_fields(request: RequestRecord, request_id: str | None) -> dict[str, object]:
    return {
        "peer": request.peer,
        "method": request.method,
        "path": request.path,
        "stale": None,
        "request_id": request_id,
        "unverified_issuer": None,
        "unverified_audience": None,
        "unverified_subject": None,
    }
