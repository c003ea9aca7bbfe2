"""Addresses of every form: a caller is where its pod is, or is refused, whatever stands in a header."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.security.attacked_app import DOORS, TWO, Bob, Headers, World
from tests.security.reference_model import is_same_address
from tests.support.leak_detector import Ears

V4, V6 = TWO
PROXIES = ("10.9.0.1", "10.9.0.2", "fd09::1")
ELSEWHERE = ("10.1.2.4", "192.0.2.1", "fd00::1:3", "127.0.0.1")

SAME = (
    *(V4, f"::ffff:{V4}", f"::FFFF:{V4}", "::ffff:a01:203", "::ffff:0a01:0203", "0:0:0:0:0:ffff:10.1.2.3"),
    *("0000:0000:0000:0000:0000:FFFF:0A01:0203", f"::ffff:{V4}%eth0"),
    *(V6, "FD00::1:2", "fd00:0:0::1:2", "fd00:0000:0000:0000:0000:0000:0001:0002", "fd00::0.1.0.2", f"{V6}%eth0"),
)
OTHERS = (
    *("10.1.515", "10.66051", "167838211", "0x0a.0x01.0x02.0x03", "0xa010203", "012.1.2.3", "10.1.2.03", "10.01.2.3"),
    *("10.1.2.3.", ".10.1.2.3", "10.1.2.3:80", "[10.1.2.3]", "10.1.2.3%eth0", "10.1.2.3/32", "10.1.2.3,10.1.2.4"),
    *(" 10.1.2.3", "10.1.2.3 ", "10.1.2.3\n", "10.1.2.3\0", "10.1.2.3\t10.1.2.4", "+10.1.2.3", "10.1.2.259"),
    *("\uff11\uff10.1.2.3", "\u0661\u0660.1.2.3", "10\u30021.2.3", "::10.1.2.3", "64:ff9b::10.1.2.3", "2002:a01:203::"),
    *("::ffff:0:10.1.2.3", "::fffe:10.1.2.3", "1::ffff:10.1.2.3", "[fd00::1:2]", "[fd00::1:2]:80", "fd00::1:2/128"),
    *("fd00::1:2%", "fd00::1:2%eth0%eth1", f"fd00::1:2%{'x' * 100}", "fd00::1:2%\n", "fd00:::1:2", "fd00::1::2"),
    *("fd00::1:00002", "fd00::g", "", " ", "-", "unknown", "localhost", "alice-pod", "/run/bob.sock", "\ud800"),
)
TEXTS = st.one_of(
    st.sampled_from([*SAME, *OTHERS, *ELSEWHERE]),
    st.text(max_size=80),
    st.ip_addresses().map(str),
    st.text("0123456789abcdef.:%[]"),
)


@pytest.fixture(scope="module")
def bob(world: World, ears: Ears) -> Bob:
    return world.bob(ears)


@pytest.fixture(scope="module")
def proxied_bob(world: World, ears: Ears) -> Bob:
    return world.bob(ears, trusted_proxies=["10.9.0.0/16", "fd09::/64"])


@pytest.fixture(scope="module")
def bobs(bob: Bob, proxied_bob: Bob) -> tuple[Bob, Bob]:
    return bob, proxied_bob


@pytest.fixture(scope="module")
def good(world: World) -> tuple[bytes, bytes]:
    return b"authorization", b"Bearer " + world.dual.token("bob", lifetime=86400).encode()


def is_home(text: str) -> bool:
    return any(is_same_address(text, own) for own in TWO)


@given(remote=TEXTS, door=st.sampled_from(DOORS))
def test_who_is_let_in_has_an_address_of_its_own_pod(
    bobs: tuple[Bob, Bob], good: tuple[bytes, bytes], remote: str, door: str
) -> None:
    for bob in bobs:
        reply = bob.ask(door, [good], remote)
        assert reply.status in (200, 403)
        assert is_home(remote) or not reply.accepted


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("remote", SAME)
def test_every_spelling_of_an_address_is_that_address(
    bob: Bob, good: tuple[bytes, bytes], remote: str, door: str
) -> None:
    assert is_home(remote)
    assert bob.ask(door, [good], remote).accepted


@pytest.mark.parametrize("remote", OTHERS)
def test_what_only_looks_like_an_address_is_none(bob: Bob, good: tuple[bytes, bytes], remote: str) -> None:
    assert not any(bob.ask(door, [good], remote).accepted for door in DOORS)


def forwarded(hops: list[str], *, rfc: bool) -> bytes:
    """Write down hops as a chain of proxies does, by RFC 7239 or as X-Forwarded-For."""
    if not rfc:
        return ", ".join(hops).encode()
    return ", ".join(f'for="[{hop}]"' if ip_address(hop).version == 6 else f"for={hop}" for hop in hops).encode()


WORDS = st.sampled_from(
    [
        *(V4.encode(), V6.encode(), b'"[fd00::1:2]"', b"for=10.1.2.3", b"10.9.0.1", b"for=10.9.0.1", b"by=10.1.2.3"),
        *(b"for=", b'for="', b'"', b'\\"', b"\\", b",", b";", b"=", b" ", b"[", b"]:80"),
        *(b"unknown", b"_x", b"\x00", b"\xff", b"\t", b"%"),
    ]
)
LIES = (
    *(
        V4.encode(),
        V6.encode(),
        b"for=10.1.2.3",
        b'for="[fd00::1:2]"',
        b"for=10.1.2.3;proto=http",
        b"10.1.2.3, 10.9.0.1",
    ),
    *(b'for=10.1.2.3;by="', b'for=10.1.2.3, x="', b'for=10.1.2.3;x="\\', b"for=10.1.2.3, by=x", b"for=10.1.2.3,", b""),
)
CLAIMS = st.sampled_from(LIES) | st.lists(WORDS | st.binary(max_size=10), max_size=12).map(b"".join)


def added(claims: list[bytes], written: bytes, *, joined: bool) -> list[bytes]:
    """Return a header's values as proxies pass them on: what they write is joined to the last one, or is one more."""
    return [*claims[:-1], claims[-1] + b", " + written] if claims and joined else [*claims, written]


@st.composite
def proxied(draw: st.DrawFn) -> tuple[Headers, str, str]:
    """Draw the headers that come through trusted proxies, after the caller's own; who called; and the last proxy."""
    rfc = draw(st.booleans())
    name = b"forwarded" if rfc else b"x-forwarded-for"
    caller = draw(st.sampled_from([*TWO, *ELSEWHERE]))
    *chain, last = draw(st.lists(st.sampled_from(PROXIES), min_size=1, max_size=2, unique=True))
    written = forwarded([caller, *chain], rfc=rfc)
    claims = draw(st.lists(CLAIMS, max_size=3))
    headers = [(name, value) for value in added(claims, written, joined=draw(st.booleans()))]
    other = b"x-forwarded-for" if rfc else b"forwarded"
    if draw(st.integers(0, 3)) == 0:
        headers.insert(0, (other, draw(CLAIMS)))
    return headers, caller, last


@given(request=proxied(), door=st.sampled_from(DOORS))
def test_through_proxies_a_caller_is_where_they_saw_it_whatever_it_wrote_itself(
    proxied_bob: Bob, good: tuple[bytes, bytes], request: tuple[Headers, str, str], door: str
) -> None:
    headers, caller, last = request
    reply = proxied_bob.ask(door, [*headers, good], last)
    assert reply.status in (200, 403)
    assert is_home(caller) or not reply.accepted


@pytest.mark.parametrize("rfc", [True, False])
@pytest.mark.parametrize("caller", ELSEWHERE)
def test_no_lie_is_believed(
    proxied_bob: Bob,
    good: tuple[bytes, bytes],
    caller: str,
    rfc: bool,
    record_property: Callable[[str, object], None],
) -> None:
    names = (b"forwarded", b"x-forwarded-for") if rfc else (b"x-forwarded-for", b"forwarded")
    written = forwarded([caller, PROXIES[0]], rfc=rfc)
    told = [
        [(names[0], value) for value in added([lie], written, joined=joined)]
        for lie in LIES
        for joined in (True, False)
    ]
    told += [[(names[1], lie), (names[0], written)] for lie in LIES]
    for door in DOORS:
        assert not any(proxied_bob.ask(door, [*headers, good], PROXIES[1]).accepted for headers in told)
    record_property("cases", len(told) * len(DOORS))


@given(request=proxied(), door=st.sampled_from(DOORS), remote=st.sampled_from([*TWO, *ELSEWHERE]))
def test_without_a_proxy_nothing_written_lets_anybody_in(
    bobs: tuple[Bob, Bob], good: tuple[bytes, bytes], request: tuple[Headers, str, str], door: str, remote: str
) -> None:
    headers, _, _ = request
    for bob in bobs:
        assert is_home(remote) or not bob.ask(door, [*headers, good], remote).accepted


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("rfc", [True, False])
@pytest.mark.parametrize("caller", TWO)
def test_a_caller_behind_proxies_is_known(
    proxied_bob: Bob, good: tuple[bytes, bytes], caller: str, door: str, rfc: bool
) -> None:
    header = b"forwarded" if rfc else b"x-forwarded-for"
    *chain, last = PROXIES
    for claim in (b"", b"192.0.2.7, " if not rfc else b"for=192.0.2.7, "):
        value = claim + forwarded([caller, *chain], rfc=rfc)
        assert proxied_bob.ask(door, [(header, value), good], last).caller == "default/dual-pod"
