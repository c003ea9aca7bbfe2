from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network

import pytest

from podproof._authentication.pod_address import canonical_address as canonical
from podproof._authentication.pod_address import check_address
from podproof._request.peer import find_peer
from podproof.errors import Forbidden, HostNetwork, NoAddressYet, PeerUnknown, WrongAddress
from podproof.identity import Pod

PROXIES = (ip_network("10.9.0.0/24"), ip_network("fd00:9::/64"))


def via(*x_forwarded_for: str, forwarded: tuple[str, ...] = (), remote: str = "10.9.0.1") -> str:
    return find_peer(remote, PROXIES, x_forwarded_for=x_forwarded_for, forwarded=forwarded)


@pytest.mark.trap(19)
@pytest.mark.parametrize(
    ("text", "spelling"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("::FFFF:0a00:0001", "10.0.0.1"),
        ("::ffff:10.0.0.1%eth0", "10.0.0.1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("2001:db8::1%eth0", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
    ],
)
def test_an_address_has_one_spelling(text: str, spelling: str) -> None:
    assert canonical(text) == spelling


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "10.0.0",
        "10.0.0.1.1",
        "010.0.0.1",
        "0x0a.0.0.1",
        "10.0.0.1 ",
        "10.0.0.1:80",
        "[2001:db8::1]",
        "10.0.0.1%eth0",
        "\uff11.0.0.1",
        "localhost",
        "unix:",
        "/run/bob.sock",
        "fe80::1%",
        "fe80::1%a name longer than an interface's",
        "fe80::1%eth\n0",
    ],
)
def test_what_is_no_address_has_no_spelling(text: str) -> None:
    assert canonical(text) is None


@pytest.mark.trap(28)
def test_text_too_long_for_an_address_is_not_remembered() -> None:
    from podproof._authentication.pod_address import _canonical  # noqa: PLC0415  # the memory itself

    before = _canonical.cache_info().currsize
    assert canonical("f" * 60_000) is None
    assert _canonical.cache_info().currsize == before


def test_without_proxies_the_sockets_peer_is_the_peer() -> None:
    assert find_peer("::ffff:10.0.0.1", ()) == "10.0.0.1"


@pytest.mark.trap(22)
@pytest.mark.parametrize("trusted", [(), PROXIES])
def test_a_forwarded_header_is_believed_from_no_one_else(trusted: tuple[IPv4Network | IPv6Network, ...]) -> None:
    assert find_peer("10.0.0.1", trusted, x_forwarded_for=["10.0.0.2"]) == "10.0.0.1"
    assert find_peer("10.0.0.1", trusted, forwarded=["for=10.0.0.2"]) == "10.0.0.1"


@pytest.mark.trap(26)
@pytest.mark.parametrize("remote", [None, "", "/run/bob.sock", "unix:", "testclient", "localhost"])
@pytest.mark.parametrize("trusted", [(), (ip_network("0.0.0.0/0"), ip_network("::/0"))])
def test_no_address_no_entry(remote: str | None, trusted: tuple[IPv4Network | IPv6Network, ...]) -> None:
    with pytest.raises(PeerUnknown, match=r"no(t an)? IP address"):
        find_peer(remote, trusted, x_forwarded_for=["10.0.0.2"])


@pytest.mark.trap(23)
def test_a_rewritten_peer_is_refused_with_what_to_change() -> None:
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
def test_a_peer_that_stands_in_a_header_may_come_from_there(remote: str, header: str) -> None:
    with pytest.raises(PeerUnknown, match="may have been taken from a forwarded header"):
        find_peer(remote, (), x_forwarded_for=["10.0.0.8", header])
    with pytest.raises(PeerUnknown, match="may have been taken from a forwarded header"):
        find_peer(remote, PROXIES, x_forwarded_for=[header])


@pytest.mark.trap(23)
@pytest.mark.parametrize(
    "header", ["junk;for=10.0.0.1", 'x=", for=10.0.0.1;y="', 'by=", for=10.0.0.1;y="', "for=10.0.0.1\xa0"]
)
def test_a_peer_that_stands_in_forwarded_in_any_way_may_come_from_there(header: str) -> None:
    with pytest.raises(PeerUnknown, match="may have been taken from a forwarded header"):
        find_peer("10.0.0.1", (), forwarded=[header])


@pytest.mark.trap(22)
@pytest.mark.parametrize("by", ["by=10.9.0.1", 'BY="10.9.0.1:80"', 'by="10.9.0.1"', "by=10.9.0.1:80"])
def test_a_proxy_may_name_itself(by: str) -> None:
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
        (["10.9.0.8, 10.9.0.7"], "10.9.0.8"),
        ([], "10.9.0.1"),
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
def test_forwarded_is_read_as_its_rfc_has_it(headers: list[str], peer: str) -> None:
    assert via(forwarded=tuple(headers)) == peer


@pytest.mark.trap(22)
@pytest.mark.parametrize("hop", ["", "unknown", "_hidden", "10.0.0.2, ", "junk", "10.0.0.2, junk, 10.9.0.7"])
def test_a_hop_without_an_address_is_not_passed_over(hop: str) -> None:
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
        # A caller leaves a quote open, and the proxy appends the truth, which becomes a part of the caller's own words.
        'for=10.0.0.2;x=", for=1.1.1.1',
        'for=10.0.0.2,", for=1.1.1.1',
        'for=10.0.0.2, x=", for="[2001:db8::2]"',
        'for=10.0.0.2;x="\\", for=1.1.1.1',
        'for=10.0.0.2;x="", for="',
    ],
)
def test_a_forwarded_header_out_of_form_is_refused_as_a_whole(value: str) -> None:
    with pytest.raises(PeerUnknown, match="no address"):
        via(forwarded=(value,))


@pytest.mark.trap(22)
def test_a_proxy_that_passes_on_both_headers_is_not_believed() -> None:
    with pytest.raises(PeerUnknown, match="both X-Forwarded-For and Forwarded"):
        via("10.0.0.2", forwarded=("for=10.0.0.2",))


@pytest.mark.trap(19)
@pytest.mark.parametrize("peer", ["10.0.0.1", "2001:db8::1"])
def test_each_address_of_a_pod_is_its_own(peer: str) -> None:
    check_address(Pod("default", "alice-pod", "uid", ("10.0.0.1", "2001:db8::1")), peer, host_network=False)


@pytest.mark.trap(18, 21)
@pytest.mark.parametrize(
    ("addresses", "peer"),
    [(("10.0.0.1",), "10.0.0.2"), (("fe80::1",), "fe80::1%eth0"), (("10.0.0.1",), "10.0.0.11")],
)
def test_any_other_address_is_the_wrong_one(addresses: tuple[str, ...], peer: str) -> None:
    with pytest.raises(WrongAddress, match=r"-pod has (10\.0\.0\.1|fe80::1); if .* trusted_proxies$"):
        check_address(Pod("default", "alice-pod", "uid", addresses), peer, host_network=False)


@pytest.mark.trap(18)
def test_a_pod_without_an_address_is_asked_to_come_again() -> None:
    with pytest.raises(NoAddressYet) as refused:
        check_address(Pod("default", "alice-pod", "uid", ()), "10.0.0.1", host_network=False)
    assert (refused.value.status, refused.value.retry_after) == (503, 1)


@pytest.mark.trap(24)
@pytest.mark.parametrize("peer", ["127.0.0.1", "127.0.0.6", "::1"])
def test_a_sidecar_that_hides_the_caller_is_named_as_what_it_is(peer: str) -> None:
    with pytest.raises(WrongAddress, match="sidecar"):
        check_address(Pod("default", "alice-pod", "uid", ("10.0.0.1",)), peer, host_network=False)


@pytest.mark.trap(20)
def test_a_pod_on_the_host_network_is_refused_even_from_its_own_address() -> None:
    pod = Pod("default", "alice-pod", "uid", ("10.0.0.1",), host_network=True)
    with pytest.raises(HostNetwork, match="host_network"):
        check_address(pod, "10.0.0.1", host_network=False)


@pytest.mark.trap(20)
def test_a_pod_on_the_host_network_is_accepted_on_request_and_from_its_own_node_only() -> None:
    pod = Pod("default", "alice-pod", "uid", ("10.0.0.1",), host_network=True)
    check_address(pod, "10.0.0.1", host_network=True)
    with pytest.raises(Forbidden):
        check_address(pod, "10.0.0.2", host_network=True)
