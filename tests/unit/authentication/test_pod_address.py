"""Addresses in canonical form, and which ones a pod may call from."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_network
from typing import Any

import pytest

from podproof._authentication import pod_address
from podproof._authentication.pod_address import canonical_address, check_address
from podproof.errors import Forbidden, HostNetwork, NoAddressYet, WrongAddress
from podproof.identity import Pod


@pytest.mark.trap(19)
@pytest.mark.parametrize(
    ("text", "canonical"),
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
def test_an_address_has_one_canonical_form(text: str, canonical: str) -> None:
    assert canonical_address(text) == canonical


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
def test_text_that_is_not_an_address_has_no_canonical_form(text: str) -> None:
    assert canonical_address(text) is None


@pytest.mark.trap(28, 57)
def test_no_text_is_cached_as_an_address() -> None:
    assert [name for name, value in vars(pod_address).items() if hasattr(value, "cache_info")] == []
    assert canonical_address("f" * 60_000) is None


@pytest.mark.trap(19)
@pytest.mark.parametrize("peer", ["10.0.0.1", "2001:db8::1"])
def test_a_pod_may_call_from_each_of_its_addresses(peer: str) -> None:
    check_address(Pod("default", "alice-pod", "uid", ("10.0.0.1", "2001:db8::1")), peer, host_network=False)


@pytest.mark.trap(18, 21)
@pytest.mark.parametrize(
    ("addresses", "peer"),
    [(("10.0.0.1",), "10.0.0.2"), (("10.0.0.1",), "10.0.0.11"), (("10.0.0.1", "fd00::2"), "fd00::3")],
)
def test_any_other_address_is_denied_as_wrong_address(addresses: tuple[str, ...], peer: str) -> None:
    with pytest.raises(WrongAddress, match=r"-pod has 10\.0\.0\.1(, fd00::2)?; if .* trusted_proxies$"):
        check_address(Pod("default", "alice-pod", "uid", addresses), peer, host_network=False)


def reason(peer: str, trusted: Sequence[str] = (), **fields: Any) -> str:
    pod = Pod("default", "alice-pod", "uid", **{"addresses": ("10.0.0.7", "fd00::7:8")} | fields)
    with pytest.raises(WrongAddress) as denied:
        check_address(pod, peer, host_network=True, trusted=[ip_network(one) for one in trusted])
    return str(denied.value)


@pytest.mark.trap(55)
@pytest.mark.parametrize("peer", ["10.250.0.4", "10.0.0.1", "fd00:ffff::4"])
def test_the_pods_own_node_is_named_as_masquerading_and_never_as_a_proxy(peer: str) -> None:
    said = reason(peer, node_addresses=(peer,))
    assert "SNAT" in said
    assert "ClusterIP" in said
    assert "trusted_proxies" not in said


@pytest.mark.trap(55)
@pytest.mark.parametrize("peer", ["169.254.1.1", "fe80::1", "fe80::1%eth0", "10.0.0.1", "fd00::1"])
def test_a_link_or_a_bridge_is_named_as_a_hairpin_call(peer: str) -> None:
    said = reason(peer)
    assert "hairpin" in said
    assert "trusted_proxies" not in said


@pytest.mark.trap(55)
@pytest.mark.parametrize(
    ("peer", "fields"),
    [
        ("10.0.0.2", {}),
        ("10.0.1.1", {}),
        ("fd00:0:0:1::1", {}),
        ("10.0.0.1", {"addresses": ("fd00::7",)}),
        ("10.0.0.1", {"host_network": True}),
    ],
)
def test_any_other_peer_may_be_a_proxy(peer: str, fields: dict[str, Any]) -> None:
    assert reason(peer, **fields).endswith("if that is a proxy of yours, name it in trusted_proxies")


@pytest.mark.trap(55)
@pytest.mark.parametrize("peer", ["10.9.0.1", "127.0.0.1", "169.254.1.1", "10.250.0.4"])
def test_a_proxy_that_is_named_already_need_not_be_named(peer: str) -> None:
    said = reason(peer, [f"{peer}/32"], node_addresses=("10.250.0.4",))
    assert "in trusted_proxies already" in said
    assert "name it" not in said


@pytest.mark.trap(18)
def test_a_pod_without_an_address_is_503_with_retry_after() -> None:
    with pytest.raises(NoAddressYet) as raised:
        check_address(Pod("default", "alice-pod", "uid", ()), "10.0.0.1", host_network=False)
    assert (raised.value.status, raised.value.retry_after) == (503, 1)


@pytest.mark.trap(24)
@pytest.mark.parametrize("peer", ["127.0.0.1", "127.0.0.6", "::1"])
def test_a_loopback_peer_is_explained_by_a_sidecar_or_proxy_in_the_pod(peer: str) -> None:
    with pytest.raises(WrongAddress, match="sidecar"):
        check_address(Pod("default", "alice-pod", "uid", ("10.0.0.1",)), peer, host_network=False)


@pytest.mark.trap(20)
def test_a_pod_on_the_host_network_is_denied_even_from_its_own_address() -> None:
    pod = Pod("default", "alice-pod", "uid", ("10.0.0.1",), host_network=True)
    with pytest.raises(HostNetwork, match="host_network"):
        check_address(pod, "10.0.0.1", host_network=False)


@pytest.mark.trap(20)
def test_with_the_option_host_network_a_pod_is_accepted_from_its_own_node_only() -> None:
    pod = Pod("default", "alice-pod", "uid", ("10.0.0.1",), host_network=True)
    check_address(pod, "10.0.0.1", host_network=True)
    with pytest.raises(Forbidden):
        check_address(pod, "10.0.0.2", host_network=True)
