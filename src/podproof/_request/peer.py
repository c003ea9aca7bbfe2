"""The peer of a request: the socket's, or the hop that trusted proxies name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address

from podproof._authentication.pod_address import canonical_address
from podproof.errors import PeerUnknown

Networks = Sequence[IPv4Network | IPv6Network]

# RFC 7239 section 4, of each pair the name and the value; besides, a value may hold colons and brackets without quotes.
_PAIR = re.compile(r"""([\w!#$%&'*+.^`|~-]+)=("(?:[^"\\]|\\.)*"|[^\s",;]+)""", re.ASCII)
_ELEMENT = re.compile(rf"{_PAIR.pattern}(?:[ \t]*+;[ \t]*+{_PAIR.pattern})*", re.ASCII)
_FORWARDED = re.compile(rf"[ \t]*+(?:{_ELEMENT.pattern})?(?:[ \t]*+,[ \t]*+(?:{_ELEMENT.pattern})?)*[ \t]*+", re.ASCII)


# Whatever some reader may take for an address. After by= a proxy names itself.
_WORD = re.compile(r"[\w.:%-]+", re.ASCII)
_BY = re.compile(r'\bby="?\[?[\w.:]+', re.ASCII | re.IGNORECASE)


def find_peer(
    remote: str | None,
    trusted: Networks,
    *,
    x_forwarded_for: Sequence[str] = (),
    forwarded: Sequence[str] = (),
    rewritten: bool = False,
) -> str:
    """Return the canonical address that a request comes from.

    `remote` is the address at the socket's other end as the server spells it. `x_forwarded_for` and `forwarded` hold
    all occurrences of these headers, in order. `rewritten` means that a server or middleware before us has put a
    header's address in the place of the socket's.

    The peer is the socket's, unless that is one of the `trusted` proxies: then the forwarded header is walked from
    right to left, and the peer is the first hop that is not a trusted proxy.

    Raises PeerUnknown if there is no true address, with a reason that says what to change.
    """
    peer = canonical_address(remote) if remote else None
    if peer is None:
        raise PeerUnknown(_no_address(remote))
    # uvicorn believes X-Forwarded-For from 127.0.0.1 unless told otherwise, and leaves no trace of the true peer: an
    # address that stands in a header may have been taken from there. hypercorn's middleware reads more leniently than
    # the RFC has it, so it is enough that the address stands there in any way.
    if rewritten or peer in _named([*x_forwarded_for, *forwarded]):
        raise PeerUnknown(
            f"the address {peer} may have been taken from a forwarded header by the server: run uvicorn with "
            "--no-proxy-headers (uvicorn-worker: FORWARDED_ALLOW_IPS=''), leave out other middleware that does so, and "
            "name your proxies in podproof's trusted_proxies"
        )
    if not trusted or not _within(peer, trusted):
        return peer
    if x_forwarded_for and forwarded:
        raise PeerUnknown(
            f"the trusted proxy {peer} passed on both X-Forwarded-For and Forwarded: "
            "make it drop the one that it does not write itself"
        )
    for hop in reversed(_hops(x_forwarded_for, forwarded)):
        if hop is None:
            raise PeerUnknown(f"the forwarded header from the trusted proxy {peer} holds something that is no address")
        peer = hop
        if not _within(peer, trusted):
            break
    return peer


def _no_address(remote: str | None) -> str:
    if remote == "testclient":
        return (
            'the peer is "testclient", not an IP address: Starlette\'s TestClient names itself so; use '
            'TestClient(app, client=("127.0.0.1", 50000)), or client=podproof_caller.peer'
        )
    return "the connection has no IP address (a Unix socket, or a server that does not pass it on): listen on TCP"


def _within(address: str, networks: Networks) -> bool:
    parsed = ip_address(address)
    return any(parsed in network for network in networks)


def _named(values: Sequence[str]) -> set[str | None]:
    """Return every address that stands in these headers, however it stands there."""
    return {canonical_address(_without_port(word)) for value in values for word in _WORD.findall(_BY.sub(" ", value))}


def _hops(x_forwarded_for: Sequence[str], forwarded: Sequence[str]) -> list[str | None]:
    """Return each hop's canonical address, None for one that has none, as both headers name them from left to right."""
    hops = [hop for value in x_forwarded_for for hop in value.split(",")]
    hops += [hop for value in forwarded for hop in _forwarded_for(value)]
    return [canonical_address(_without_port(hop.strip())) for hop in hops]


def _forwarded_for(value: str) -> list[str]:
    """Return who is behind each element of a Forwarded header, "" where it does not say.

    A value that is not of the header's form has one hop that does not say: a quote that a caller leaves open would
    make what the proxy appends a part of the caller's own words.
    """
    if _FORWARDED.fullmatch(value) is None:
        return [""]
    elements = [_PAIR.findall(element[0]) for element in _ELEMENT.finditer(value)]
    return [{name.lower(): text.strip('"') for name, text in pairs}.get("for", "") for pairs in elements]


def _without_port(hop: str) -> str:
    """`192.0.2.1:80` and `[2001:db8::1]:80` are how some proxies write a hop (RFC 7239 section 6)."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop
