"""Peer addresses: where a request really comes from, and whether that is the caller's pod."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from podproof.errors import HostNetwork, NoAddressYet, NoPeer, WrongAddress
from podproof.identity import Pod

Address = IPv4Address | IPv6Address
Networks = Sequence[IPv4Network | IPv6Network]

_LONGEST = 64  # an IPv6 address in its longest spelling, and a zone

_ZONE = re.compile(r"[!-~]{1,15}")  # the name of a network interface: IFNAMSIZ, less its end

# RFC 7239 section 4, of each pair the name and the value; besides, a value may hold colons and brackets without quotes.
_PAIR = re.compile(r"""([\w!#$%&'*+.^`|~-]+)=("(?:[^"\\]|\\.)*"|[^\s",;]+)""", re.ASCII)
_ELEMENT = re.compile(rf"{_PAIR.pattern}(?:[ \t]*+;[ \t]*+{_PAIR.pattern})*", re.ASCII)
_FORWARDED = re.compile(rf"[ \t]*+(?:{_ELEMENT.pattern})?(?:[ \t]*+,[ \t]*+(?:{_ELEMENT.pattern})?)*[ \t]*+", re.ASCII)


# Whatever in a header may be an address, whoever reads it. After by= a proxy names itself.
_WORD = re.compile(r"[\w.:%-]+", re.ASCII)
_BY = re.compile(r'\bby="?\[?[\w.:]+', re.ASCII | re.IGNORECASE)


def parse_address(text: str) -> Address:
    """Parse an address; an IPv4-mapped IPv6 one (RFC 4291 section 2.5.5.2) is the IPv4 address it maps.

    A zone is dropped where it means nothing, and kept on a link-local address, which then equals no pod's.

    Raises ValueError.
    """
    address = ip_address(text)
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address.scope_id is not None:
            if _ZONE.fullmatch(address.scope_id) is None:
                raise ValueError("not a zone")
            if not address.is_link_local:
                return IPv6Address(int(address))
    return address


def canonical(text: str) -> str | None:
    """Return the one spelling of an address, None for what is none."""
    return _canonical(text) if len(text) <= _LONGEST else None


@lru_cache(maxsize=4096)
def _canonical(text: str) -> str | None:
    try:
        return str(parse_address(text))
    except ValueError:
        return None


def find_peer(
    remote: str | None,
    trusted: Networks,
    *,
    x_forwarded_for: Sequence[str] = (),
    forwarded: Sequence[str] = (),
    rewritten: bool = False,
) -> str:
    """Return the canonical address of the one who made this request.

    `remote` is the address at the socket's other end as the server gives it. `x_forwarded_for` and `forwarded` hold all
    occurrences of these headers, in order. `rewritten` says that something before us is known to have put a header's
    address in the place of the socket's.

    The socket's peer it is, unless that is one of the `trusted` proxies: then the forwarded header is walked from right
    to left, and the first hop that is no trusted proxy is the one.

    Raises NoPeer where there is no true address to be had, with a reason that says what to change.
    """
    peer = _canonical(remote) if remote and len(remote) <= _LONGEST else None
    if peer is None:
        raise NoPeer("the connection has no IP address (a Unix socket, or a server that does not tell): listen on TCP")
    # uvicorn believes X-Forwarded-For from 127.0.0.1 unless told otherwise, and leaves no trace of the true peer: an
    # address that stands in a header may have been taken from there. hypercorn's middleware reads more leniently than
    # the RFC has it, so it is enough that the address stands there in any way.
    if rewritten or peer in _named([*x_forwarded_for, *forwarded]):
        raise NoPeer(
            f"the address {peer} may have been taken from a forwarded header by the server: run uvicorn with "
            "--no-proxy-headers (uvicorn-worker: FORWARDED_ALLOW_IPS=''), leave out other middleware that does so, and "
            "name your proxies in podproof's trusted_proxies"
        )
    if not trusted or not _within(peer, trusted):
        return peer
    if x_forwarded_for and forwarded:
        raise NoPeer(
            f"the trusted proxy {peer} passed on both X-Forwarded-For and Forwarded: "
            "make it drop the one that it does not write itself"
        )
    for hop in reversed(_hops(x_forwarded_for, forwarded)):
        if hop is None:
            raise NoPeer(f"the forwarded header from the trusted proxy {peer} holds something that is no address")
        peer = hop
        if not _within(peer, trusted):
            break
    return peer


def accepted_addresses(pod: Pod, *, host_network: bool) -> tuple[str, ...]:
    """Return where a pod's callers are let in from: nowhere if it is on the host network, unless those are accepted."""
    return () if pod.host_network and not host_network else pod.addresses


def check_address(pod: Pod, peer: str, *, host_network: bool) -> None:
    """Refuse a peer, in canonical form, that is not one of the pod's accepted addresses.

    Raises HostNetwork for a pod on the host network unless those are accepted, NoAddressYet for one that has no address
    to compare with, WrongAddress else.
    """
    if peer in accepted_addresses(pod, host_network=host_network):
        return
    if pod.host_network and not host_network:
        raise HostNetwork(
            f"pod {pod} is on the host network, where its address proves only the node: set host_network to accept it"
        )
    if not pod.addresses:
        raise NoAddressYet(f"pod {pod} has no address yet that the connection from {peer} could be compared with")
    seen = f"the connection comes from {peer}, and pod {pod} has {', '.join(pod.addresses)}"
    if ip_address(peer).is_loopback:
        raise WrongAddress(
            f"{seen}: a sidecar or a proxy in this pod hides the caller (a mesh, kubectl port-forward); "
            "keep this port out of the mesh, or name the proxy in trusted_proxies"
        )
    raise WrongAddress(f"{seen}; if that is a proxy of yours, name it in trusted_proxies")


def _within(address: str, networks: Networks) -> bool:
    parsed = ip_address(address)
    return any(parsed in network for network in networks)


def _named(values: Sequence[str]) -> set[str | None]:
    """Return every address that stands in these headers, however it stands there."""
    return {canonical(_without_port(word)) for value in values for word in _WORD.findall(_BY.sub(" ", value))}


def _hops(x_forwarded_for: Sequence[str], forwarded: Sequence[str]) -> list[str | None]:
    """Return each hop's canonical address, None for one that has none, as both headers name them from left to right."""
    hops = [hop for value in x_forwarded_for for hop in value.split(",")]
    hops += [hop for value in forwarded for hop in _forwarded_for(value)]
    return [canonical(_without_port(hop.strip())) for hop in hops]


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
