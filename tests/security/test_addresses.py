"""Peer addresses in every form: a request is allowed only from an address of the pod, whatever its headers say."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.security.attacked_app import DUAL_STACK, ENTRY_POINTS, AttackedApps, AttackEnv, Headers
from tests.security.reference_model import is_same_address
from tests.support.leak_detector import LeakDetector

V4, V6 = DUAL_STACK
PROXIES = ("10.9.0.1", "10.9.0.2", "fd09::1")
ELSEWHERE = ("10.1.2.4", "192.0.2.1", "fd00::1:3", "127.0.0.1")

SPELLINGS = (
    *(V4, f"::ffff:{V4}", f"::FFFF:{V4}", "::ffff:a01:203", "::ffff:0a01:0203", "0:0:0:0:0:ffff:10.1.2.3"),
    *("0000:0000:0000:0000:0000:FFFF:0A01:0203", f"::ffff:{V4}%eth0"),
    *(V6, "FD00::1:2", "fd00:0:0::1:2", "fd00:0000:0000:0000:0000:0000:0001:0002", "fd00::0.1.0.2", f"{V6}%eth0"),
)
NOT_ADDRESSES = (
    *("10.1.515", "10.66051", "167838211", "0x0a.0x01.0x02.0x03", "0xa010203", "012.1.2.3", "10.1.2.03", "10.01.2.3"),
    *("10.1.2.3.", ".10.1.2.3", "10.1.2.3:80", "[10.1.2.3]", "10.1.2.3%eth0", "10.1.2.3/32", "10.1.2.3,10.1.2.4"),
    *(" 10.1.2.3", "10.1.2.3 ", "10.1.2.3\n", "10.1.2.3\0", "10.1.2.3\t10.1.2.4", "+10.1.2.3", "10.1.2.259"),
    *("\uff11\uff10.1.2.3", "\u0661\u0660.1.2.3", "10\u30021.2.3", "::10.1.2.3", "64:ff9b::10.1.2.3", "2002:a01:203::"),
    *("::ffff:0:10.1.2.3", "::fffe:10.1.2.3", "1::ffff:10.1.2.3", "[fd00::1:2]", "[fd00::1:2]:80", "fd00::1:2/128"),
    *("fd00::1:2%", "fd00::1:2%eth0%eth1", f"fd00::1:2%{'x' * 100}", "fd00::1:2%\n", "fd00:::1:2", "fd00::1::2"),
    *("fd00::1:00002", "fd00::g", "", " ", "-", "unknown", "localhost", "alice-pod", "/run/app.sock", "\ud800"),
)
TEXTS = st.one_of(
    st.sampled_from([*SPELLINGS, *NOT_ADDRESSES, *ELSEWHERE]),
    st.text(max_size=80),
    st.ip_addresses().map(str),
    st.text("0123456789abcdef.:%[]"),
)


@pytest.fixture(scope="module")
def app(attack_env: AttackEnv, leak_detector: LeakDetector) -> AttackedApps:
    return attack_env.make_apps(leak_detector)


@pytest.fixture(scope="module")
def proxied_app(attack_env: AttackEnv, leak_detector: LeakDetector) -> AttackedApps:
    return attack_env.make_apps(leak_detector, trusted_proxies=["10.9.0.0/16", "fd09::/64"])


@pytest.fixture(scope="module")
def apps(app: AttackedApps, proxied_app: AttackedApps) -> tuple[AttackedApps, AttackedApps]:
    return app, proxied_app


@pytest.fixture(scope="module")
def credential(attack_env: AttackEnv) -> tuple[bytes, bytes]:
    return b"authorization", b"Bearer " + attack_env.dual.token("bob", lifetime=86400).encode()


def is_own_address(text: str) -> bool:
    return any(is_same_address(text, own) for own in DUAL_STACK)


@given(remote=TEXTS, entry_point=st.sampled_from(ENTRY_POINTS))
def test_an_allowed_request_comes_from_an_address_of_its_pod(
    apps: tuple[AttackedApps, AttackedApps], credential: tuple[bytes, bytes], remote: str, entry_point: str
) -> None:
    for app in apps:
        result = app.send(entry_point, [credential], remote)
        assert result.status in (200, 403)
        assert is_own_address(remote) or not result.allowed


@pytest.mark.parametrize("entry_point", ENTRY_POINTS)
@pytest.mark.parametrize("remote", SPELLINGS)
def test_every_spelling_of_an_address_is_recognized(
    app: AttackedApps, credential: tuple[bytes, bytes], remote: str, entry_point: str
) -> None:
    assert is_own_address(remote)
    assert app.send(entry_point, [credential], remote).allowed


@pytest.mark.parametrize("remote", NOT_ADDRESSES)
def test_text_that_only_resembles_an_address_is_denied(
    app: AttackedApps, credential: tuple[bytes, bytes], remote: str
) -> None:
    assert not any(app.send(entry_point, [credential], remote).allowed for entry_point in ENTRY_POINTS)


def forwarded(hops: list[str], *, rfc: bool) -> bytes:
    """Return hops as a chain of proxies writes them: as Forwarded (RFC 7239) or as X-Forwarded-For."""
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
FORGED_VALUES = (
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
CLAIMS = st.sampled_from(FORGED_VALUES) | st.lists(WORDS | st.binary(max_size=10), max_size=12).map(b"".join)


def added(claims: list[bytes], written: bytes, *, joined: bool) -> list[bytes]:
    """Return a header's values as proxies pass them on: their own value is joined to the last one, or is one more."""
    return [*claims[:-1], claims[-1] + b", " + written] if claims and joined else [*claims, written]


@st.composite
def proxied(draw: st.DrawFn) -> tuple[Headers, str, str]:
    """Draw the headers that trusted proxies send after the caller's own, the caller's address, and the last proxy."""
    rfc = draw(st.booleans())
    name = b"forwarded" if rfc else b"x-forwarded-for"
    caller = draw(st.sampled_from([*DUAL_STACK, *ELSEWHERE]))
    *chain, last = draw(st.lists(st.sampled_from(PROXIES), min_size=1, max_size=2, unique=True))
    written = forwarded([caller, *chain], rfc=rfc)
    claims = draw(st.lists(CLAIMS, max_size=3))
    headers = [(name, value) for value in added(claims, written, joined=draw(st.booleans()))]
    other = b"x-forwarded-for" if rfc else b"forwarded"
    if draw(st.integers(0, 3)) == 0:
        headers.insert(0, (other, draw(CLAIMS)))
    return headers, caller, last


@given(request=proxied(), entry_point=st.sampled_from(ENTRY_POINTS))
def test_behind_trusted_proxies_the_address_they_saw_counts_and_not_what_the_caller_wrote(
    proxied_app: AttackedApps, credential: tuple[bytes, bytes], request: tuple[Headers, str, str], entry_point: str
) -> None:
    headers, caller, last = request
    result = proxied_app.send(entry_point, [*headers, credential], last)
    assert result.status in (200, 403)
    assert is_own_address(caller) or not result.allowed


@pytest.mark.parametrize("rfc", [True, False])
@pytest.mark.parametrize("caller", ELSEWHERE)
def test_no_forged_header_changes_the_address_that_trusted_proxies_saw(
    proxied_app: AttackedApps,
    credential: tuple[bytes, bytes],
    caller: str,
    rfc: bool,
    record_property: Callable[[str, object], None],
) -> None:
    names = (b"forwarded", b"x-forwarded-for") if rfc else (b"x-forwarded-for", b"forwarded")
    written = forwarded([caller, PROXIES[0]], rfc=rfc)
    requests = [
        [(names[0], value) for value in added([forged], written, joined=joined)]
        for forged in FORGED_VALUES
        for joined in (True, False)
    ]
    requests += [[(names[1], forged), (names[0], written)] for forged in FORGED_VALUES]
    for entry_point in ENTRY_POINTS:
        assert not any(
            proxied_app.send(entry_point, [*headers, credential], PROXIES[1]).allowed for headers in requests
        )
    record_property("cases", len(requests) * len(ENTRY_POINTS))


@given(request=proxied(), entry_point=st.sampled_from(ENTRY_POINTS), remote=st.sampled_from([*DUAL_STACK, *ELSEWHERE]))
def test_without_a_proxy_no_forwarded_header_makes_a_wrong_address_right(
    apps: tuple[AttackedApps, AttackedApps],
    credential: tuple[bytes, bytes],
    request: tuple[Headers, str, str],
    entry_point: str,
    remote: str,
) -> None:
    headers, _, _ = request
    for app in apps:
        assert is_own_address(remote) or not app.send(entry_point, [*headers, credential], remote).allowed


@pytest.mark.parametrize("entry_point", ENTRY_POINTS)
@pytest.mark.parametrize("rfc", [True, False])
@pytest.mark.parametrize("caller", DUAL_STACK)
def test_a_caller_behind_trusted_proxies_is_allowed(
    proxied_app: AttackedApps, credential: tuple[bytes, bytes], caller: str, entry_point: str, rfc: bool
) -> None:
    header = b"forwarded" if rfc else b"x-forwarded-for"
    *chain, last = PROXIES
    for claim in (b"", b"192.0.2.7, " if not rfc else b"for=192.0.2.7, "):
        value = claim + forwarded([caller, *chain], rfc=rfc)
        assert proxied_app.send(entry_point, [(header, value), credential], last).caller == "default/dual-pod"
