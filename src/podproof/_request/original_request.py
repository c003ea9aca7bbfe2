"""The request that a proxy asks about (forward auth): its method, path and peer, as the proxy has seen them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal, cast

from starlette.types import Scope

from podproof._authentication.pod_address import Networks
from podproof._request.asgi_request import read_request
from podproof._request.credential import CredentialHeader
from podproof._request.incoming import IncomingRequest
from podproof._request.paths import with_other_slash
from podproof._request.peer import find_proxy
from podproof.errors import OriginalUnknown

Proxy = Literal["caddy", "envoy", "nginx"]

_METHOD_HEADERS: Mapping[Proxy, str] = {"caddy": "x-forwarded-method", "nginx": "x-original-method"}
_URI_HEADERS: Mapping[Proxy, str] = {"caddy": "x-forwarded-uri", "nginx": "x-original-uri"}
"""Where a proxy writes the original request. Envoy asks by a request of the same method and path."""

# A token (RFC 9110 section 5.6.2), and the origin form of a target (RFC 9112 section 3.2.1): no absolute URI, no
# authority as of CONNECT, no "*"; in printable ASCII, and without a fragment.
_METHOD = re.compile(r"[\w!#$%&'*+.^`|~-]{1,32}", re.ASCII)
_TARGET = re.compile(r"/[!\"$-~]*")


def read_original(
    scope: Scope, proxy: Proxy, trusted: Networks, header: CredentialHeader, *, ignore_case: bool = False
) -> IncomingRequest:
    """Return the facts of the request that a trusted proxy asks about by another one, which has this scope.

    Its path is the one that was sent, and beside that, since routers of other languages often ignore it, the one with
    or without the slash at its end; with `ignore_case`, both in lower case too.

    Raises PeerUnknown for a request that does not come from a trusted proxy, OriginalUnknown for one that does not say
    clearly which request it is about.
    """
    asking = read_request(scope, header=header)
    addresses = [*asking.x_forwarded_for, *asking.forwarded, *asking.address_headers]
    find_proxy(asking.remote, trusted, addresses, rewritten=asking.rewritten)
    if asking.overlong:
        raise OriginalUnknown("the request has too many header lines")
    method = _read("method", _METHOD_HEADERS, proxy, scope, asking.method)
    target = _read("URI", _URI_HEADERS, proxy, scope, _target(scope))
    if _METHOD.fullmatch(method) is None or method == "CONNECT":
        raise OriginalUnknown("the original method is none that can be judged")
    if _TARGET.fullmatch(target) is None:
        raise OriginalUnknown("the original URI is not a path and a query in printable ASCII")
    path = target.partition("?")[0]
    readings = [path, path.lower()] if ignore_case else [path]
    others = [*readings[1:], *map(with_other_slash, readings)]
    return asking._replace(method=method, path=path, raw_path=path, full_path=path, other_paths=tuple(others))


def _target(scope: Scope) -> str:
    """Return the target of a request as it was sent, empty if the server does not say, or it is not the whole one."""
    raw_path, query = scope.get("raw_path") or b"", scope["query_string"]
    if scope.get("root_path"):
        return ""
    return cast("bytes", raw_path + b"?" * bool(query) + query).decode("latin-1")


def _read(what: str, names: Mapping[Proxy, str], proxy: Proxy, scope: Scope, of_request: str) -> str:
    """Return what a proxy says, in its header or by the request itself.

    What other proxies would say it by has to be absent, or the same: some other reader may go by that. Underscores are
    read as dashes.
    """
    said = {one: _occurrences(scope, name) for one, name in names.items()}
    if proxy in names:
        values = said.pop(proxy)
        if len(values) != 1:
            raise OriginalUnknown(f"{proxy} has to send the original {what} once, in the header {names[proxy]}")
        original = values[0]
    else:
        original = of_request
    if any(value != original for values in said.values() for value in values):
        raise OriginalUnknown(f"two headers name different originals: the {what} of {proxy} is another")
    return original


def _occurrences(scope: Scope, name: str) -> Sequence[str]:
    sought = name.encode()
    return [value.decode("latin-1") for key, value in scope["headers"] if key.replace(b"_", b"-") == sought]
