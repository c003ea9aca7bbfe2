"""The peer of a request: the socket's, or the hop that trusted proxies name."""

from __future__ import annotations

import re
from collections.abc import Sequence

from podproof._authentication.pod_address import Networks, canonical_address, is_within
from podproof.errors import PeerUnknown

ADDRESS_HEADERS = frozenset(
    {
        # RFC 7239; the header that it replaces; and what others made of that one.
        *("forwarded", "x-forwarded-for", "forwarded-for", "x-forwarded", "x-original-forwarded-for"),
        *("x-forwarded-client-ip", "x-vercel-forwarded-for", "x-vercel-proxied-for"),
        # nginx and whatever reads it: Tornado's xheaders, Go's chi and echo, Django's and Express' middleware.
        *("x-real-ip", "x-client-ip", "client-ip", "x-remote-ip", "x-remote-addr", "remote-addr", "remote-ip"),
        *("x-cluster-client-ip", "x-originating-ip", "x-original-remote-addr", "x-source-ip", "x-true-ip", "real-ip"),
        *("proxy-client-ip", "wl-proxy-client-ip", "x-proxyuser-ip", "x-original-ip", "x-peer-ip", "x-host-ip"),
        # https://developers.cloudflare.com/fundamentals/reference/http-headers/; Akamai has True-Client-IP too.
        *("cf-connecting-ip", "cf-connecting-ipv6", "cf-pseudo-ipv4", "true-client-ip", "x-true-client-ip"),
        # Fastly, CloudFront, Incapsula, Sucuri, Alibaba's and other CDNs.
        *("fastly-client-ip", "cloudfront-viewer-address", "incap-client-ip", "x-sucuri-clientip", "ali-cdn-real-ip"),
        *("cdn-src-ip", "cdn-real-ip", "x-akamai-client-ip", "x-nf-client-connection-ip", "x-bb-ip"),
        # https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/headers; and platforms.
        *("x-envoy-external-address", "fly-client-ip", "do-connecting-ip"),
        *("x-appengine-user-ip", "x-appengine-remote-addr", "x-goog-client-ip", "x-azure-clientip", "x-azure-socketip"),
        *("x-arr-clientip", "x-client-address", "x-clientip", "x-railway-client-ip", "x-aws-client-ip"),
    }
)
"""The headers that some server or middleware turns into an address, in lower case. Two of them are understood
(`_walk`); in all of them the peer's address is looked for before it is believed."""

MAX_LINES = 64
MAX_LENGTH = 4096
MAX_PARTS = 256
MAX_WORDS = 64
"""The bounds of all these headers together, checked before they are parsed: lines, characters, parts between commas and
semicolons, and words that may be addresses. Dozens of hops fit in, and what a caller writes costs less than a
millisecond."""

# RFC 7239 section 4, of each pair the name and the value; besides, a value may hold colons and brackets without quotes,
# and may be empty: HAProxy's templates write `proto-version=` for a connection without such a version. No quantifier
# gives back what it has taken, so the time is linear.
_PAIR = re.compile(r"""([\w!#$%&'*+.^`|~-]++)=("(?:[^"\\]|\\.)*+"|[^\s",;]*+)""", re.ASCII)
_ELEMENT = re.compile(rf"{_PAIR.pattern}(?:[ \t]*+;[ \t]*+{_PAIR.pattern})*+", re.ASCII)
_FORWARDED = re.compile(
    rf"[ \t]*+(?:{_ELEMENT.pattern})?+(?:[ \t]*+,[ \t]*+(?:{_ELEMENT.pattern})?+)*+[ \t]*+", re.ASCII
)

# Whatever some reader may take for an address. After by= a proxy names itself.
_WORD = re.compile(r"[\w.:%-]++", re.ASCII)
_BY = re.compile(r'\bby="?\[?[\w.:]+', re.ASCII | re.IGNORECASE)


def find_peer(
    remote: str | None,
    trusted: Networks,
    *,
    x_forwarded_for: Sequence[str] = (),
    forwarded: Sequence[str] = (),
    others: Sequence[str] = (),
    rewritten: bool = False,
    trailers: bool = False,
) -> str:
    """Return the canonical address that a request comes from.

    `remote` is the address at the socket's other end as the server spells it. `x_forwarded_for`, `forwarded` and
    `others` hold all occurrences of these headers and of the other `ADDRESS_HEADERS`, in order. `rewritten` means that
    a server or middleware before us has put a header's address in the place of the socket's, `trailers` that some of
    the headers may be trailers.

    The peer is the socket's, unless that is one of the `trusted` proxies: then the forwarded header is walked from
    right to left, and the peer is the first hop that is not a trusted proxy. Both headers have to lead to one peer.

    Raises PeerUnknown if there is no true address, with a reason that says what to change.
    """
    peer = _socket_peer(remote, [*x_forwarded_for, *forwarded, *others], rewritten=rewritten)
    if not trusted or not is_within(peer, trusted):
        return peer
    if trailers:
        raise PeerUnknown(
            f"the trusted proxy {peer} sent a chunked request in which a forwarded header is there more than once or "
            "is named by Trailer: it may be a trailer, which the caller writes; have the proxy join or overwrite the "
            "header and drop trailers, or run uvicorn with --http h11"
        )
    return _only_peer(peer, trusted, x_forwarded_for, forwarded)


def find_proxy(remote: str | None, trusted: Networks, headers: Sequence[str], *, rewritten: bool) -> str:
    """Return the canonical address of the trusted proxy that a request comes from, whose word counts.

    `headers` are all that name addresses; see `find_peer`. Raises PeerUnknown if it does not come from such a proxy.
    """
    proxy = _socket_peer(remote, headers, rewritten=rewritten)
    if not is_within(proxy, trusted):
        raise PeerUnknown(f"the request comes from {proxy}, which is in none of the networks of trusted_proxies")
    return proxy


def _socket_peer(remote: str | None, headers: Sequence[str], *, rewritten: bool) -> str:
    """Return the canonical address at the socket's other end. Raises PeerUnknown if it may be another one."""
    peer = canonical_address(remote) if remote else None
    if peer is None:
        raise PeerUnknown(_no_address(remote))
    if len(headers) > MAX_LINES or sum(map(len, headers)) > MAX_LENGTH:
        raise PeerUnknown(
            f"the headers that name addresses are too long: expected at most {MAX_LINES} lines and {MAX_LENGTH} "
            "characters in all"
        )
    if sum(value.count(",") + value.count(";") for value in headers) > MAX_PARTS:
        raise PeerUnknown(f"the headers that name addresses have too many parts: expected at most {MAX_PARTS}")
    # uvicorn believes X-Forwarded-For from 127.0.0.1 unless told otherwise, and Tornado X-Real-Ip with xheaders; they
    # leave no trace of the true peer: an address that stands in a header may have been taken from there. hypercorn's
    # middleware reads more leniently than the RFC has it, so it is enough that the address stands there in any way.
    if rewritten or (headers and peer in _named(headers)):
        raise PeerUnknown(
            f"the address {peer} may have been taken from a forwarded header by the server: run uvicorn with "
            "--no-proxy-headers (uvicorn-worker: FORWARDED_ALLOW_IPS=''), Tornado without xheaders, waitress without "
            "trusted_proxy, daphne without --proxy-headers, leave out other middleware that does so, and name your "
            "proxies in podproof's trusted_proxies"
        )
    return peer


def _only_peer(proxy: str, trusted: Networks, x_forwarded_for: Sequence[str], forwarded: Sequence[str]) -> str:
    """Return the peer that a trusted proxy names, in one of the headers or, the same, in both.

    Whatever the proxy does not write itself is the caller's: another peer, or none.
    """
    chains = {
        "X-Forwarded-For": [hop.strip() for value in x_forwarded_for for hop in value.split(",")],
        "Forwarded": [hop for value in forwarded for hop in _forwarded_for(value)],
    }
    peers = {name: _walk(proxy, hops, trusted) for name, hops in chains.items() if hops}
    if not peers:
        raise PeerUnknown(
            f"{proxy} is in trusted_proxies and sent neither X-Forwarded-For nor Forwarded: have the proxy send one of "
            f"them; if {proxy} is no proxy but a pod that calls, name only the proxies' own addresses"
        )
    if len(set(peers.values())) > 1:
        led = " and ".join(f"{name} leads to {peer}" for name, peer in peers.items())
        raise PeerUnknown(
            f"the trusted proxy {proxy} passed on both headers, and {led}: make it drop the one that it does not write "
            "itself"
        )
    return peers.popitem()[1]


def _walk(proxy: str, hops: Sequence[str], trusted: Networks) -> str:
    """Return the first address from the right that is not trusted."""
    last = proxy
    for hop in reversed(hops):
        address = canonical_address(_without_port(hop))
        if address is None:
            raise PeerUnknown(f"the forwarded header from the trusted proxy {proxy} holds something that is no address")
        if not is_within(address, trusted):
            return address
        last = address
    raise PeerUnknown(
        f"every hop from {proxy} to {last} is in trusted_proxies, so none of them is the caller: name only the "
        "proxies' own addresses, not a network of pods"
    )


def _no_address(remote: str | None) -> str:
    if remote == "testclient":
        return (
            'the peer is "testclient", not an IP address: Starlette\'s TestClient names itself so; use '
            'TestClient(app, client=("127.0.0.1", 50000)), or client=podproof_caller.peer'
        )
    return "the connection has no IP address (a Unix socket, or a server that does not pass it on): listen on TCP"


def _named(values: Sequence[str]) -> set[str | None]:
    """Return every address that stands in these headers, however it stands there.

    Raises PeerUnknown if more words than MAX_WORDS may be addresses.
    """
    text = _BY.sub(" ", " ".join(values))
    words = _WORD.findall(text)
    if "\\" in text:  # RFC 9110 section 5.6.4: in quotes, "\." is a dot, and waitress reads it so
        words += _WORD.findall(text.replace("\\", ""))
    candidates = [word for word in words if "." in word or ":" in word]
    if len(candidates) > MAX_WORDS:
        raise PeerUnknown(f"the headers that name addresses hold too many of them: expected at most {MAX_WORDS}")
    # waitress takes what stands after the last colon for a port, in an IPv6 address without brackets too.
    readings = {_without_port(word) for word in candidates} | {word.rpartition(":")[0] for word in candidates}
    return {canonical_address(reading) for reading in readings}


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
