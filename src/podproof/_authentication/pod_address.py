"""Addresses: their canonical form, and whether a peer is one of the caller's pod. The one place that compares them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from podproof.errors import HostNetwork, NoAddressYet, WrongAddress
from podproof.identity import Pod

Address = IPv4Address | IPv6Address
Networks = Sequence[IPv4Network | IPv6Network]

MAX_ADDRESS_LENGTH = 64  # an IPv6 address in its longest spelling, and a zone

_ZONE = re.compile(r"[!-~]{1,15}")  # the name of a network interface: IFNAMSIZ, less its end


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


def canonical_address(text: str) -> str | None:
    """Return an address in its one canonical spelling, None if the text is not an address.

    Nothing is cached: the text may be a caller's, who would push out what others need.
    """
    if len(text) > MAX_ADDRESS_LENGTH:
        return None
    try:
        return str(parse_address(text))
    except ValueError:
        return None


def is_within(address: str, networks: Networks) -> bool:
    """Return True if one of these networks contains an address, which is in canonical form."""
    if not networks:
        return False
    parsed = ip_address(address)
    return any(parsed in network for network in networks)


def peer_network(peer: str) -> str:
    """Return what limits count a peer by: an IPv4 address, or an IPv6 /64, of which a host may use any (RFC 4291).

    `peer` is in canonical form.
    """
    return str(IPv6Network((int(IPv6Address(peer)), 64), strict=False)) if ":" in peer else peer


def accepted_addresses(pod: Pod, *, host_network: bool) -> tuple[str, ...]:
    """Return the addresses that a pod may call from: none if it is on the host network, unless that is accepted."""
    return () if pod.host_network and not host_network else pod.addresses


def server_spellings(addresses: Iterable[str]) -> tuple[str, ...]:
    """Return canonical addresses, and what a dual-stack socket makes of the IPv4 ones (RFC 4291 section 2.5.5.2)."""
    return tuple(text for one in addresses for text in ((one,) if ":" in one else (one, f"::ffff:{one}")))


def check_address(pod: Pod, peer: str, *, host_network: bool, trusted: Networks = ()) -> None:
    """Deny a peer, in canonical form, that is not one of the pod's accepted addresses.

    `trusted` are the proxies that are named already, for the reason.

    Raises HostNetwork for a pod on the host network unless that is accepted, NoAddressYet for a pod without an address,
    WrongAddress for any other peer.
    """
    if peer in accepted_addresses(pod, host_network=host_network):
        return
    if pod.host_network and not host_network:
        raise HostNetwork(
            f"pod {pod} is on the host network, where its address proves only the node: set host_network to accept it"
        )
    if not pod.addresses:
        raise NoAddressYet(f"pod {pod} has no address yet, so the connection from {peer} cannot be compared with it")
    seen = f"the connection comes from {peer}, and pod {pod} has {', '.join(pod.addresses)}"
    raise WrongAddress(f"{seen}{_explain(pod, peer, trusted)}")


def _explain(pod: Pod, peer: str, trusted: Networks) -> str:
    """Return what a wrong peer is, as far as it shows, and what to change."""
    if is_within(peer, trusted):
        return "; that is in trusted_proxies already: have the proxy send X-Forwarded-For or Forwarded"
    if ip_address(peer).is_loopback:
        return (
            ": a sidecar or a proxy in this pod hides the caller (a mesh, kubectl port-forward); "
            "keep this port out of the mesh, or name the proxy in trusted_proxies"
        )
    if peer in pod.node_addresses:
        return (
            ": that is the address of the pod's node, which masquerades the connection (SNAT, as for a NodePort, a "
            "LoadBalancer or an address outside the pod network); call the ClusterIP Service or the pod itself. Every "
            "process on the node has this address, so it is no proxy to trust"
        )
    if _is_bridge(pod, peer):
        return (
            ": that looks like the node's end of a link or a bridge, as in a hairpin call, where a pod reaches itself "
            "through its own Service; call the pod's own address"
        )
    return "; if that is a proxy of yours, name it in trusted_proxies"


def _is_bridge(pod: Pod, peer: str) -> bool:
    """Return True for a link-local address, and for the first one of a pod's /24 or /64: the bridge of CNI plugins."""
    address = ip_address(peer)
    if address.is_link_local:
        return True
    host_bits = 8 if address.version == 4 else 64
    own = [] if pod.host_network else [one for one in map(ip_address, pod.addresses) if one.version == address.version]
    return any(int(address) == (int(one) >> host_bits << host_bits) + 1 for one in own)
