"""`podproof report`: what a decision log has denied, or would have denied, by caller and code, and what to do."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from podproof.cli.errors import CommandError
from podproof.cli.table import Colour, Row, format_table

FIXES = {
    "no-credential": "have the caller send a token, as with podproof.TokenClient; name open paths in exempt",
    "malformed-credential": "have the caller send the token's header once, as in: Authorization: Bearer <token>",
    "malformed-token": "the credential is not a service-account token; have the caller mount a projected one",
    "wrong-audience": "mount a projected token whose audience is this app's",
    "wrong-issuer": "the token is of another cluster or provider; add its issuer to issuers if it is yours",
    "expired": "have the caller read the mounted file for each call: the kubelet renews it",
    "not-pod-bound": "use the token that is mounted in the pod, not one of kubectl create token or a Secret",
    "token-review-failed": "the token is forged, revoked or of another cluster; run podproof inspect on it",
    "invalid-signature": "the token is forged, or signed by a key of the same name elsewhere: find who sends it",
    "invalid-proof": "have the caller send a DPoP proof, as podproof.TokenClient does; behind a proxy, set origins",
    "token-inactive": "the caller's pod has ended, or no grant of the exchange has this app in introspect",
    "nonce-needed": "the caller has to send the request again with the nonce: podproof.TokenClient does",
    "pod-gone": "the pod was deleted or replaced: nothing to do if the caller was shutting down",
    "pod-finished": "the pod has ended: nothing to do if the caller was shutting down",
    "service-account-mismatch": "the pod does not run as the token's service account: find who uses the token",
    "wrong-address": "a proxy or SNAT is in between, or the token is used elsewhere: run podproof doctor",
    "peer-unknown": "name the proxies in trusted_proxies, and let no server rewrite the address",
    "original-unknown": "forward auth: configure the proxy as in docs/forward-auth.md, and name it in trusted_proxies",
    "host-network": "set host_network if pods on the host network may call",
    "not-allowed": "add the caller to allow, or to the rules of that path",
    "unavailable": "the API server gave no usable response: run podproof doctor",
    "overloaded": "too many reviews were waiting: see max_reviews and cache_ttl",
    "no-address-yet": "the pod has no address yet: the caller has to try again",
    "malformed-request": "the request is none of a token endpoint: see docs/token-exchange.md",
    "wrong-client": "have the caller authenticate with its own projected token",
    "target-not-granted": "add a grant for that audience to the exchange, if the caller may have it",
    "scope-not-granted": "add the scopes to the grant, if the caller may have them",
    "actor-not-allowed": "the user's token names another actor in may_act: find who uses it",
}
"""By code, what brings a caller back in."""


@dataclass
class Denials:
    """The denials of one caller with one code, as a decision log has them."""

    count: int = 0
    peers: Counter[str] = field(default_factory=Counter)
    requests: Counter[str] = field(default_factory=Counter)


@dataclass
class DecisionCounts:
    """What was read from a decision log: denials by code and caller, and `unread`, the lines that are no decision."""

    allowed: int = 0
    denied: int = 0
    would_deny: int = 0
    unread: int = 0
    denials: dict[tuple[str, str], Denials] = field(default_factory=dict)


def read_decisions(file: str, stdin: TextIO) -> DecisionCounts:
    """Return what a decision log says, of standard input for "-". Raises CommandError if it cannot be read."""
    if file == "-":
        return count_decisions(stdin)
    try:
        with Path(file).open(encoding="utf-8", errors="replace") as lines:
            return count_decisions(lines)
    except OSError as error:
        raise CommandError(f"{file} cannot be read: {error.strerror}") from None


def count_decisions(lines: Iterable[str]) -> DecisionCounts:
    """Return what the lines of a decision log say, each a JSON object as of `podproof.audit.JSONFormatter`."""
    counts = DecisionCounts()
    for line in lines:
        match _parse(line):
            case {"decision": "allowed"}:
                counts.allowed += 1
            case {"decision": ("denied" | "would-deny") as decision, "code": str()} as record:
                if decision == "denied":
                    counts.denied += 1
                else:
                    counts.would_deny += 1
                denials = counts.denials.setdefault((_text(record, "code"), _caller(record)), Denials())
                denials.count += 1
                denials.peers[_text(record, "peer")] += 1
                denials.requests[f"{_text(record, 'method')} {_text(record, 'path')}"] += 1
            case _:
                counts.unread += bool(line.strip())
    return counts


def _parse(line: str) -> Mapping[str, Any]:
    try:
        # kubectl logs may put a prefix or a timestamp before the line.
        record = json.loads(line[max(line.find("{"), 0) :])
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _caller(record: Mapping[str, Any]) -> str:
    """Return the service account; what a rejected token says about itself has a question mark."""
    if record.get("service_account"):
        return f"{_text(record, 'namespace')}/{_text(record, 'service_account')}"
    claimed = _text(record, "unverified_subject").removeprefix("system:serviceaccount:").replace(":", "/")
    return "-" if claimed == "-" else f"{claimed} ?"


def _text(record: Mapping[str, Any], name: str) -> str:
    value = record.get(name)
    # A log may have been written by others: nothing of it moves the terminal's cursor.
    return ascii(value)[1:-1] if isinstance(value, str) and value else "-"


def format_report(counts: DecisionCounts, *, coloured: bool = False) -> str:
    """Return the denials as a table, the most frequent first, what to do for each code, and a line with all counts."""
    parts = []
    if counts.denials:
        by_count = sorted(counts.denials.items(), key=lambda item: (-item[1].count, item[0]))
        rows = [
            Row((str(one.count), caller, _most_common(one.peers), _most_common(one.requests), code), Colour.DOUBTFUL)
            for (code, caller), one in by_count
        ]
        parts.append(format_table(("count", "caller", "from", "request", "code"), rows, coloured=coloured))
        codes = dict.fromkeys(code for (code, _), _ in by_count)
        width = max(map(len, codes))
        parts.append("".join(f"{code.ljust(width)}  {FIXES.get(code, '-')}\n" for code in codes))
    summary = f"{counts.would_deny} would be denied, {counts.denied} denied, {counts.allowed} allowed"
    if counts.unread:
        summary += f"; {counts.unread} lines are no JSON record of the decision log"
    parts.append(f"{summary}\n")
    return "\n".join(parts)


def _most_common(values: Counter[str]) -> str:
    [(most, _)] = values.most_common(1)
    return most if len(values) == 1 else f"{most} (+{len(values) - 1})"
