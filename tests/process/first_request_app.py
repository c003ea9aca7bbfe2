"""Apps that report which process has responded, and log with the process id."""

from __future__ import annotations

import json
import logging
import os
from typing import Any

from podproof import wsgi
from podproof._request.context import IDENTITY

logging.basicConfig(level=logging.WARNING, format="pid=%(process)d %(message)s")


def report(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    identity = environ[IDENTITY]
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({"pid": os.getpid(), "pod": identity and str(identity.pod)}).encode()]


wsgi_app = wsgi.PodAuthMiddleware(report, exempt=["/healthz"])
