"""What a proxy says about the request that it asks about: one clear original, or none is judged."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import ip_network
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podproof._request.asgi_request import AUTHORIZATION, MAX_HEADERS
from podproof._request.incoming import IncomingRequest
from podproof._request.original_request import Proxy, read_original
from podproof.errors import OriginalUnknown, PeerUnknown

PROXY, CALLER = "10.9.0.1", "10.1.2.3"
TRUSTED = [ip_network("10.9.0.0/24")]
PROXIES: tuple[Proxy, ...] = get_args(Proxy)
HEADERS: dict[Proxy, tuple[bytes, bytes]] = {
    "caddy": (b"x-forwarded-method", b"x-forwarded-uri"),
    "nginx": (b"x-original-method", b"x-original-uri"),
}

Headers = list[tuple[bytes, bytes]]


def ask(proxy: Proxy, method: bytes, target: bytes, *more: tuple[bytes, bytes], **scope: Any) -> IncomingRequest:
    """Read what a proxy asks about a request of this method and target."""
    path, query = b"/check", b""
    headers: Headers = []
    if proxy in HEADERS:
        headers = [*zip(HEADERS[proxy], (method, target), strict=True)]
        asked_by = b"GET"
    else:
        path, _, query = target.partition(b"?")
        asked_by = method
    headers += [(b"x-forwarded-for", CALLER.encode()), *more]
    whole = {
        "type": "http",
        "method": asked_by.decode("latin-1"),
        "path": path.decode("latin-1"),
        "raw_path": path,
        "query_string": query,
        "headers": headers,
        "client": (PROXY, 4711),
        **scope,
    }
    return read_original(whole, proxy, TRUSTED, AUTHORIZATION)


@pytest.mark.parametrize("proxy", PROXIES)
def test_the_original_method_path_and_peer_are_read(proxy: Proxy) -> None:
    request = ask(proxy, b"DELETE", b"/orders/%37?page=1&x=/admin", (b"authorization", b"Bearer x"))
    assert (request.method, request.path, request.raw_path) == ("DELETE", "/orders/%37", "/orders/%37")
    assert (request.full_path, request.other_paths) == ("/orders/%37", ("/orders/%37/",))
    assert (request.remote, request.x_forwarded_for, request.authorization) == (PROXY, [CALLER], ["Bearer x"])


@pytest.mark.parametrize("proxy", PROXIES)
@pytest.mark.parametrize(
    "target",
    [
        *(b"", b"*", b"orders", b"bob:443", b"http://bob/orders", b"HTTP://bob/", b"?/orders", b" /orders"),
        *(b"/orders#x", b"/orders?x#y", b"/a b", b"/\x00", b"/\xe9", b"/\x7f", b"/a\r\n", b"/a\tb"),
    ],
)
def test_a_target_that_is_no_path_is_not_judged(proxy: Proxy, target: bytes) -> None:
    with pytest.raises(OriginalUnknown, match="the original URI"):
        ask(proxy, b"GET", target)


@pytest.mark.parametrize("proxy", PROXIES)
@pytest.mark.parametrize("method", [b"", b"CONNECT", b"GET /", b"G\x00T", b"GET, POST", b"\xc9", b"x" * 33])
def test_a_method_that_is_none_is_not_judged(proxy: Proxy, method: bytes) -> None:
    with pytest.raises(OriginalUnknown, match="the original method"):
        ask(proxy, method, b"/orders")


@pytest.mark.parametrize("proxy", HEADERS)
@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("spelling", [lambda name: name, lambda name: name.replace(b"-", b"_")], ids=["dash", "under"])
def test_a_header_that_is_missing_or_twice_is_not_judged(proxy: Proxy, index: int, spelling: Any) -> None:
    said = [(b"x-forwarded-for", CALLER.encode()), *zip(HEADERS[proxy], (b"GET", b"/orders"), strict=True)]
    name, value = said[index + 1]
    for headers in ([one for one in said if one[0] != name], [*said, (spelling(name), value)]):
        with pytest.raises(OriginalUnknown, match=f"{proxy} has to send the original (method|URI) once"):
            ask(proxy, b"GET", b"/orders", headers=headers)


@pytest.mark.parametrize("proxy", PROXIES)
@pytest.mark.parametrize("name", [one for names in HEADERS.values() for one in names])
def test_another_proxys_header_has_to_say_the_same(proxy: Proxy, name: bytes) -> None:
    if name in HEADERS.get(proxy, ()):
        return
    same, other = (b"GET", b"POST") if b"method" in name else (b"/orders?x=1", b"/admin")
    for spelled in (name, name.replace(b"-", b"_")):
        assert ask(proxy, b"GET", b"/orders?x=1", (spelled, same)).path == "/orders"
        with pytest.raises(OriginalUnknown, match="two headers name different originals"):
            ask(proxy, b"GET", b"/orders?x=1", (spelled, other))


@pytest.mark.parametrize("proxy", PROXIES)
@pytest.mark.parametrize(
    "scope",
    [
        {"client": (CALLER, 4711)},
        {"client": ("10.9.1.1", 4711)},
        {"client": None},
        {"client": ("", 1)},
        {"client": (PROXY, 0)},
        {"headers": [(b"x-forwarded-for", PROXY.encode())]},
        {"headers": [(b"x-real-ip", PROXY.encode())]},
        {"headers": [(b"x-forwarded-for", CALLER.encode())] * 65},
    ],
    ids=str,
)
def test_only_a_trusted_proxy_is_believed(proxy: Proxy, scope: dict[str, Any]) -> None:
    with pytest.raises(PeerUnknown):
        ask(proxy, b"GET", b"/orders", **scope)


@pytest.mark.parametrize("proxy", PROXIES)
def test_more_header_lines_than_are_read_are_not_judged(proxy: Proxy) -> None:
    with pytest.raises(OriginalUnknown, match="too many header lines"):
        ask(proxy, b"GET", b"/orders", *[(b"cookie", b"x")] * MAX_HEADERS)


def test_envoys_path_is_the_whole_one_as_it_was_sent() -> None:
    assert ask("envoy", b"GET", b"/a%2fb?x").path == "/a%2fb"
    for scope in ({"root_path": "/check"}, {"raw_path": None}):
        with pytest.raises(OriginalUnknown):
            ask("envoy", b"GET", b"/check/orders", **scope)


NAMES = st.sampled_from([one for names in HEADERS.values() for one in names]) | st.binary(max_size=20)
VALUES = st.sampled_from([b"GET", b"POST", b"/orders", b"/admin", b"", b"CONNECT", b"*"]) | st.binary(max_size=20)


@given(proxy=st.sampled_from(PROXIES), headers=st.lists(st.tuples(NAMES, VALUES), max_size=6))
def test_whatever_the_headers_are_there_is_one_path_or_a_denial(proxy: Proxy, headers: Headers) -> None:
    said = [(b"x-forwarded-for", CALLER.encode()), *headers]
    with suppress(OriginalUnknown):
        request = ask(proxy, b"GET", b"/orders", headers=said)
        uris = (b"x-original-uri", b"x-forwarded-uri")
        named = [value for name, value in headers if name.replace(b"_", b"-") in uris]
        assert request.path.startswith("/")
        assert {value.partition(b"?")[0].decode("latin-1") for value in named} <= {request.path}
