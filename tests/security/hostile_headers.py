"""Header values as raw bytes: random ones, and ones that differ from a valid value in one part."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hypothesis import strategies as st

Bytes = st.SearchStrategy[bytes]

SCHEMES = (
    *(b"bearer", b"BEARER", b"Bearer:", b"Bearer=", b"Bearer,", b"Bear", b"Bearers"),
    *(b"", b"Basic", b"Token", b"Negotiate", b"DPoP", b"\xa0Bearer", b"\xef\xbb\xbfBearer", b"B\x00earer", b'"Bearer"'),
    *(b" Bearer", b"\tBearer", b"Bearer Bearer", b"Basic Bearer", b"x, Bearer", b"\xe2\x80\x8bBearer", b"Be\xe4rer"),
)
GAPS = (
    *(
        b" ",
        b" ",
        b" ",
        b"",
        b"  ",
        b"\t",
        b" \t",
        b"\x0b",
        b"\x0c",
        b"\x85",
        b"\xa0",
        b"\x00",
        b":",
        b"=",
        b"%20",
        b"+",
    ),
)
TAILS = (
    *(b" ", b"\t", b"=", b"==", b",", b", ", b";", b'"', b".", b"..", b"/", b"~", b"#", b"?", b"\\"),
    *(b"\x00", b"\x7f", b"\x85", b"\xa0", b"\xff", b" junk", b",Basic eDp5", b', realm="x"', b"%00", b"\x1b[31m"),
)
NAMES = (
    *(b"x-forwarded-for", b"forwarded", b"x-real-ip", b"forwarded-for", b"via", b"host", b"cookie", b"origin"),
    *(b"traceparent", b"tracestate", b"x-request-id", b"user-agent", b"accept", b"proxy-authorization", b"remote-user"),
    *(b"x-forwarded-authorization", b"podproof-identity", b"remote-addr", b"auth-type", b"x-remote-user"),
)
ADDRESSES = (b"127.0.0.2", b"::ffff:127.0.0.2", b"[::1]:80", b"127.0.0.1", b"unknown", b"_hidden", b"for=127.0.0.2")


def authorizations(tokens: Sequence[bytes]) -> st.SearchStrategy[list[bytes]]:
    """Draw the Authorization headers of one request: usually one, with one of these tokens, most often the first.

    Each part is usually valid, so that some values are valid and most others are wrong in one part.
    """
    junk = st.sampled_from([b"", b"x", b"a.b.c", b"A" * 8192, b"A" * 8193]) | st.binary()
    parts = (
        _usually(b"Bearer", st.sampled_from(SCHEMES)),
        _usually(b" ", st.sampled_from(GAPS)),
        _usually(tokens[0], st.sampled_from(tokens) | junk),
        _usually(b"", st.sampled_from(TAILS)),
    )
    value = st.tuples(*parts).map(b"".join) | st.tuples(*parts).map(b"".join) | st.binary(max_size=200)
    return value.map(lambda one: [one]) | st.lists(value, max_size=3)


def unfold(value: bytes) -> bytes:
    """Return a value as a server may read it (RFC 9112 section 5): one line, unfolded, without surrounding blanks."""
    return re.split(rb"[\r\n]", re.sub(rb"\r?\n[ \t]+", b" ", value))[0].strip(b" \t")


def _usually(usual: bytes, others: Bytes) -> Bytes:
    return st.integers(0, 3).flatmap(lambda number: st.just(usual) if number else others)


def other_headers() -> st.SearchStrategy[tuple[bytes, bytes]]:
    """Draw a header other than Authorization."""
    traceparent = st.sampled_from([b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01", b"00-" + b"A" * 32, b"00-\r\n-01"])
    lists = st.lists(st.sampled_from(ADDRESSES) | st.binary(max_size=20), max_size=4).map(b", ".join)
    value = st.one_of(st.binary(max_size=300), lists, traceparent, st.just(b"x" * 20_000))
    return st.tuples(st.sampled_from(NAMES), value)
