"""The header that carries the token: Authorization, or one of an app's own."""

from __future__ import annotations

import re

AUTHORIZATION = "Authorization"

# Letters, digits and dashes: what servers neither drop nor read as another name (nginx and gunicorn drop underscores).
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:-[A-Za-z0-9]+){0,5}")
MAX_NAME = 64

# Headers that mean something else to servers, proxies, browsers or podproof (RFC 9110, RFC 9113 section 8.2.2, RFC
# 6265, the Fetch standard, gRPC over HTTP/2): a token there would be dropped, changed, or read by others.
_TAKEN = re.compile(
    r"age|allow|alt-svc|authentication-info|baggage|cache-control|connection|cookie2?|date|dnt|dpop|etag|expect|expires"
    r"|forwarded|from|host|http2-settings|keep-alive|last-modified|link|location|max-forwards|origin|pragma|range"
    r"|referer|refresh|remote-user|retry-after|server|set-cookie|signature|te|traceparent|tracestate|trailers?"
    r"|transfer-encoding|upgrade|user-agent|vary|via|warning|www-authenticate|x-csrf-?token|x-xsrf-token"
    r"|x-http-method-override|x-original-url|x-rewrite-url|x-powered-by|x-request-id|x-requested-with|x-real-ip"
    r"|x-client-ip|true-client-ip|fastly-client-ip|accept(-.*)?|.*-bin|(access-control|cf|content|grpc|if|proxy|sec|x-forwarded)-.*"
)

EXPECTED = (
    'a header that has no meaning yet, of letters, digits and up to 5 dashes, such as "X-Pod-Authorization" '
    '(or "Authorization")'
)


def is_header_name(name: str) -> bool:
    """Return True if a token may stand in a header of this name."""
    return len(name) <= MAX_NAME and _NAME.fullmatch(name) is not None and not _TAKEN.fullmatch(name.lower())
