"""The peer of a request: the socket's address, or what trusted proxies forward."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

import pytest

from podproof._request.peer import MAX_LENGTH, MAX_LINES, MAX_PARTS, MAX_WORDS, find_peer
from podproof.errors import PeerUnknown

PROXIES = (ip_network("10.9.0.0/24"), ip_network("fd00:9::/64"))


def via(*x_forwarded_for: str, forwarded: tuple[str, ...] = (), remote: str = "10.9.0.1") -> str:
    return find_peer(remote, PROXIES, x_forwarded_for=x_forwarded_for, forwarded=forwarded)


def test_without_trusted_proxies_the_peer_is_the_sockets() -> None:
    assert find_peer("::ffff:10.0.0.1", ()) == "10.0.0.1"


@pytest.mark.trap(22)
@pytest.mark.parametrize("trusted", [(), PROXIES])
def test_a_forwarded_header_of_any_other_peer_is_ignored(trusted: tuple[IPv4Network | IPv6Network, ...]) -> None:
    assert find_peer("10.0.0.1", trusted, x_forwarded_for=["10.0.0.2"]) == "10.0.0.1"
    assert find_peer("10.0.0.1", trusted, forwarded=["for=10.0.0.2"]) == "10.0.0.1"


@pytest.mark.trap(26)
@pytest.mark.parametrize("remote", [None, "", "/run/bob.sock", "unix:", "testclient", "localhost"])
@pytest.mark.parametrize("trusted", [(), (ip_network("0.0.0.0/0"), ip_network("::/0"))])
def test_a_connection_without_an_ip_address_is_denied(
    remote: str | None, trusted: tuple[IPv4Network | IPv6Network, ...]
) -> None:
    with pytest.raises(PeerUnknown, match=r"no IP address|not an IP address"):
        find_peer(remote, trusted, x_forwarded_for=["10.0.0.2"])


@pytest.mark.trap(23)
def test_a_peer_that_the_server_rewrote_is_denied_with_what_to_change() -> None:
    with pytest.raises(PeerUnknown, match=r"--no-proxy-headers.*FORWARDED_ALLOW_IPS.*trusted_proxies"):
        find_peer("10.0.0.1", (), rewritten=True)


@pytest.mark.trap(23)
@pytest.mark.parametrize(
    ("remote", "header"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("10.0.0.1", "10.0.0.1:4711"),
        ("10.0.0.1", "10.0.0.7, 10.0.0.1 , 127.0.0.1"),
        ("10.0.0.1", "::ffff:10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("2001:db8::1", "[2001:DB8::1]:4711"),
        ("2001:db8::1", "[2001:DB8::1]"),
        ("fe80::1%eth0", "fe80::1%eth0"),
    ],
)
def test_a_peer_that_is_also_in_x_forwarded_for_is_denied(remote: str, header: str) -> None:
    with pytest.raises(PeerUnknown, match="may have been taken from a forwarded header"):
        find_peer(remote, (), x_forwarded_for=["10.0.0.8", header])
    with pytest.raises(PeerUnknown, match="may have been taken from a forwarded header"):
        find_peer(remote, PROXIES, x_forwarded_for=[header])


@pytest.mark.trap(23)
@pytest.mark.parametrize(
    "header", ["junk;for=10.0.0.1", 'x=", for=10.0.0.1;y="', 'by=", for=10.0.0.1;y="', "for=10.0.0.1\xa0"]
)
def test_a_peer_that_is_anywhere_in_forwarded_is_denied(header: str) -> None:
    with pytest.raises(PeerUnknown, match="may have been taken from a forwarded header"):
        find_peer("10.0.0.1", (), forwarded=[header])


@pytest.mark.trap(22)
@pytest.mark.parametrize("by", ["by=10.9.0.1", 'BY="10.9.0.1:80"', 'by="10.9.0.1"', "by=10.9.0.1:80"])
def test_a_proxy_may_name_itself_in_forwarded_by(by: str) -> None:
    assert via(forwarded=(f"for=10.0.0.2;{by}",)) == "10.0.0.2"


@pytest.mark.trap(22)
@pytest.mark.parametrize(
    ("headers", "peer"),
    [
        (["10.0.0.2"], "10.0.0.2"),
        (["10.0.0.2:4711"], "10.0.0.2"),
        (["[2001:db8::2]:4711"], "2001:db8::2"),
        (["2001:db8::2"], "2001:db8::2"),
        (["1.1.1.1, 10.0.0.2"], "10.0.0.2"),
        (["1.1.1.1", "10.0.0.2"], "10.0.0.2"),
        (["10.0.0.2, 10.9.0.7"], "10.0.0.2"),
        (["1.1.1.1, 10.0.0.2, fd00:9::7 ,10.9.0.7"], "10.0.0.2"),
        (["junk, 10.0.0.2"], "10.0.0.2"),
    ],
)
def test_from_a_trusted_proxy_the_first_untrusted_hop_from_the_right_is_the_peer(headers: list[str], peer: str) -> None:
    assert via(*headers) == peer
    assert via(*headers, remote="::ffff:10.9.0.1") == peer


@pytest.mark.trap(22)
@pytest.mark.parametrize(
    ("headers", "peer"),
    [
        (["for=10.0.0.2"], "10.0.0.2"),
        (["FOR=10.0.0.2;Proto=http"], "10.0.0.2"),
        (['for="10.0.0.2:4711"'], "10.0.0.2"),
        (["for=10.0.0.2:4711"], "10.0.0.2"),
        (['by=10.9.0.1 ; for="[2001:db8::2]:4711"'], "2001:db8::2"),
        (["for=1.1.1.1,for=10.0.0.2"], "10.0.0.2"),
        (["for=1.1.1.1", "for=10.0.0.2, for=10.9.0.7"], "10.0.0.2"),
        (['for="a, for=1.1.1.1", for=10.0.0.2'], "10.0.0.2"),
        (["for=unknown, ,for=10.0.0.2,"], "10.0.0.2"),
        (['for="', "for=10.0.0.2"], "10.0.0.2"),
    ],
)
def test_forwarded_is_parsed_as_in_rfc_7239(headers: list[str], peer: str) -> None:
    assert via(forwarded=tuple(headers)) == peer


@pytest.mark.trap(22)
@pytest.mark.parametrize("hop", ["", "unknown", "_hidden", "10.0.0.2, ", "junk", "10.0.0.2, junk, 10.9.0.7"])
def test_a_hop_without_an_address_is_denied_not_skipped(hop: str) -> None:
    with pytest.raises(PeerUnknown, match="no address"):
        via(hop)


@pytest.mark.trap(22)
@pytest.mark.parametrize(
    "value",
    [
        "proto=http",
        "for=unknown",
        'for="_hidden"',
        "for=",
        "for",
        "10.0.0.2",
        'for=10.0.0.2, for="',
        # A caller leaves a quote open: what the proxy appends becomes part of the caller's own value.
        'for=10.0.0.2;x=", for=1.1.1.1',
        'for=10.0.0.2,", for=1.1.1.1',
        'for=10.0.0.2, x=", for="[2001:db8::2]"',
        'for=10.0.0.2;x="\\", for=1.1.1.1',
        'for=10.0.0.2;x="", for="',
    ],
)
def test_a_malformed_forwarded_header_is_denied_as_a_whole(value: str) -> None:
    with pytest.raises(PeerUnknown, match="no address"):
        via(forwarded=(value,))


@pytest.mark.trap(22, 54)
def test_a_proxy_that_passes_on_both_headers_is_believed_where_they_agree() -> None:
    assert via("10.0.0.2", forwarded=("for=10.0.0.2",)) == "10.0.0.2"
    with pytest.raises(PeerUnknown, match=r"X-Forwarded-For leads to 10\.0\.0\.2 and Forwarded leads to 10\.0\.0\.3"):
        via("10.0.0.2", forwarded=("for=10.0.0.3",))


@pytest.mark.trap(56)
@pytest.mark.parametrize("hops", ["10.9.0.7", "10.9.0.8, 10.9.0.7", "fd00:9::1, ::ffff:10.9.0.2"])
def test_in_a_chain_that_is_trusted_from_end_to_end_none_is_the_caller(hops: str) -> None:
    for headers, forwarded in (([hops], ()), ([], ("for=10.9.0.8, for=10.9.0.7",))):
        with pytest.raises(PeerUnknown, match="none of them is the caller: name only the proxies' own addresses"):
            via(*headers, forwarded=forwarded)


@pytest.mark.trap(55, 56)
@pytest.mark.parametrize("forwarded", [(), ("",), (" , ",)])
def test_a_trusted_proxy_that_names_no_caller_is_not_taken_for_it(forwarded: tuple[str, ...]) -> None:
    with pytest.raises(PeerUnknown, match=r"10\.9\.0\.1 is in trusted_proxies and sent neither"):
        via(forwarded=forwarded)


@pytest.mark.trap(53)
@pytest.mark.parametrize(
    ("remote", "header"),
    [("10.0.0.1", "10.0.0.1"), ("10.0.0.1", "::FFFF:a00:1"), ("2001:db8::1", "[2001:DB8:0::1]:80")],
)
def test_an_address_may_come_from_any_header_that_names_one(remote: str, header: str) -> None:
    for trusted in ((), PROXIES):
        with pytest.raises(PeerUnknown, match="may have been taken from a forwarded header"):
            find_peer(remote, trusted, others=[header])
        assert find_peer(remote, trusted, others=["10.0.0.2"]) == remote


@pytest.mark.trap(53)
def test_an_escaped_address_is_noticed_too() -> None:
    with pytest.raises(PeerUnknown, match="may have been taken from a forwarded header"):
        find_peer("10.0.0.1", (), forwarded=['for="10\\.0.0.\\1"'])


@pytest.mark.trap(53)
def test_an_ipv6_address_with_a_port_and_no_brackets_is_noticed_too() -> None:
    for remote in ("fd00::1", "fd00::1:80"):
        with pytest.raises(PeerUnknown, match="may have been taken from a forwarded header"):
            find_peer(remote, (), x_forwarded_for=["fd00::1:80"])


@pytest.mark.trap(57)
@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["10.0.0.2"] * MAX_LINES, None),
        ([""] * (MAX_LINES + 1), "too long"),
        (["x" * MAX_LENGTH], None),
        (["x" * MAX_LENGTH, "x"], "too long"),
        ([",".join(["1.2"] * MAX_WORDS)], None),
        ([",".join(["1.2"] * (MAX_WORDS + 1))], "too many"),
        ([",".join(["::"] * (MAX_WORDS + 1))], "too many"),
        (["," * MAX_PARTS], None),
        (["," * MAX_PARTS, ";"], "too many parts"),
        (['"' + "\\.1," * (MAX_WORDS // 2 + 1)], "too many"),
    ],
)
def test_headers_that_name_addresses_are_bounded_before_they_are_parsed(lines: list[str], reason: str | None) -> None:
    for name in ("x_forwarded_for", "forwarded", "others"):
        given: dict[str, Any] = {name: lines}
        if reason is None:
            assert find_peer("10.0.0.1", (), **given) == "10.0.0.1"
        else:
            with pytest.raises(PeerUnknown, match=reason):
                find_peer("10.0.0.1", (), **given)


@pytest.mark.trap(68)
def test_what_may_be_a_trailer_is_not_believed_from_a_trusted_proxy() -> None:
    with pytest.raises(PeerUnknown, match="--http h11"):
        find_peer("10.9.0.1", PROXIES, x_forwarded_for=["10.0.0.3", "10.0.0.2"], trailers=True)
    assert find_peer("10.0.0.1", PROXIES, x_forwarded_for=["10.0.0.3", "10.0.0.2"], trailers=True) == "10.0.0.1"
