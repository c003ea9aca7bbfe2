"""The URI that a proof is for, in one spelling (RFC 9449 section 4.3, RFC 3986 sections 6.2.2 and 6.2.3)."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

MAX_URI = 2048
"""The longest URI that is compared, in characters."""

_PORTS = {"http": 80, "https": 443}
_ESCAPE = re.compile("%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


def normal_uri(uri: str) -> str | None:
    """Return an http or https URI without its query and fragment in its normal form, None if it is none.

    Scheme and host are in lower case, without the scheme's own port; in the path, escapes of unreserved characters are
    undone and those of others in upper case. Dots and slashes stay as they are: servers differ about them.
    """
    if len(uri) > MAX_URI or not uri.isascii() or not uri.isprintable():
        return None
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in _PORTS or not parts.hostname or "@" in parts.netloc or "\\" in uri or " " in uri:
        return None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    suffix = "" if port in (None, _PORTS[parts.scheme]) else f":{port}"
    return f"{parts.scheme}://{host}{suffix}{_ESCAPE.sub(_undo, parts.path) or '/'}"


def _undo(escape: re.Match[str]) -> str:
    character = chr(int(escape[1], 16))
    return character if character in _UNRESERVED else escape[0].upper()
