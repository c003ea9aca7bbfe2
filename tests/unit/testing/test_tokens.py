from __future__ import annotations

import json

import pytest

from podproof.testing._emulator import tokens


def encoded(thing: object) -> str:
    return tokens.encode(json.dumps(thing).encode())


def test_base64url_skips_line_ends_and_ignores_spare_bits() -> None:
    assert tokens.decode("YWJj") == tokens.decode("YW\r\nJj") == b"abc"
    assert tokens.decode("YQ") == tokens.decode("YR") == b"a"


@pytest.mark.parametrize("segment", ["YQ==", "Y Q", "Y+Q", "Y/Q", "é", "YWJjY"])
def test_a_segment_that_is_not_base64url_is_malformed(segment: str) -> None:
    with pytest.raises(ValueError, match="not base64url"):
        tokens.decode(segment)


@pytest.mark.parametrize(
    "payload", [encoded([1]), encoded("x"), tokens.encode(b"{"), tokens.encode(b"[" * 100_000), "="]
)
def test_a_payload_that_is_not_an_object_has_no_issuer(payload: str) -> None:
    token = f"{encoded({})}.{payload}.x"
    assert tokens.issuer(token) is None
    with pytest.raises(ValueError, match=r"."):
        tokens.parse(token)


@pytest.mark.parametrize("token", ["", "a.b", "a.b.c.d"])
def test_a_token_has_three_segments(token: str) -> None:
    assert tokens.issuer(token) is None
    with pytest.raises(ValueError, match=r"."):
        tokens.parse(token)
