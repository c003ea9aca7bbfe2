"""The decision log for your own handlers: a JSON formatter, and the caller on an app's own log lines.

One record a decision is written to the logger `podproof.audit`: what was allowed at INFO, what was denied at WARNING,
and API server failures at ERROR. A record carries its `FIELDS` as attributes, for a formatter of one's own or the
`JSONFormatter` here. No record holds a token.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

from podproof._request.context import current_caller
from podproof._telemetry.decision_log import FIELDS

__all__ = ["FIELDS", "CallerFilter", "JSONFormatter"]


_STANDARD = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"})
"""The attributes that each record has; all others are an app's `extra`, or of podproof's FIELDS."""


class JSONFormatter(logging.Formatter):
    """One JSON object a record, on one line, for any logger.

    `time` (RFC 3339, in UTC), `level`, `logger`, `message`, all that is `extra` and not None (of a decision, its
    FIELDS), `exception` and `stack` as text. What has no form in JSON is written as its `str()`.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's line."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, object] = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name in (*FIELDS, *vars(record)):
            value = getattr(record, name, None)
            if name not in _STANDARD and value is not None:
                line.setdefault(name, value)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        elif record.exc_text:
            line["exception"] = record.exc_text
        if record.stack_info:
            line["stack"] = self.formatStack(record.stack_info)
        return json.dumps(line, default=str, skipkeys=True)


class CallerFilter(logging.Filter):
    """Puts `caller` and `caller_pod` on each record, as "namespace/name": on a handler, for all lines of an app.

    Outside a request, and for an anonymous caller, both are "-".
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass."""
        identity = current_caller()
        record.caller = str(identity.service_account) if identity else "-"
        record.caller_pod = str(identity.pod) if identity else "-"
        return True
