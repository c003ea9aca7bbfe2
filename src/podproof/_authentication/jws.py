"""A signed JSON object in its three parts (RFC 7515), parsed so that no two parsers could differ about it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NoReturn

from podproof._token.jwt import decode_segment, split_token
from podproof.errors import MalformedToken

MAX_BRACKETS = 64
"""How many objects and lists a header or a payload may open, in texts too: a service account token's have up to 6.

Counted before they are parsed, so that nesting is bounded on every version of Python.
"""

# RFC 7515 section 4.1.11: what a verifier does not know has to be rejected if it is critical, and we know no such
# extension. The others change what is signed (RFC 7797) or encrypted and compressed (RFC 7516).
_UNSUPPORTED = ("crit", "b64", "enc", "zip")

HEADERS = 16
"""How many headers are kept parsed: all tokens that one key signs have the same."""


@dataclass(slots=True)
class JWS:
    """The parts of a JWS, of which nothing is verified yet: what is signed, and by what."""

    header: Mapping[str, Any] = field(repr=False)
    claims: Mapping[str, Any] = field(repr=False)
    signed: bytes = field(repr=False)
    signature: bytes = field(repr=False)


def parse_jws(text: str, *, most: int) -> JWS:
    """Return the parts of a JWS in compact serialization (RFC 7515 section 7.1) of up to `most` characters.

    Raises MalformedToken, also for what parsers differ about: duplicated members (RFC 8725 section 2.4), NaN, other
    spellings of base64url.
    """
    if len(text) > most:
        raise MalformedToken(f"the token is longer than {most} bytes")
    head, payload, signature = split_token(text)
    header, claims = _parse_header(head), _parse_object("payload", payload)
    return JWS(header, claims, text[: len(head) + 1 + len(payload)].encode(), decode_segment(signature))


def text_member(parent: Mapping[str, Any], name: str) -> str:
    """Return a member that is a text with something in it. Raises MalformedToken."""
    value = parent.get(name)
    if not isinstance(value, str) or not value:
        raise MalformedToken(f"the token's {name} is missing, or not a text")
    return value


def object_member(parent: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a member that is a JSON object. Raises MalformedToken."""
    value = parent.get(name)
    if not isinstance(value, dict):
        raise MalformedToken(f"the token's {name} is missing, or not a JSON object")
    return value


def _without_duplicates(members: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(members)
    if len(made) < len(members):
        raise ValueError("a member is duplicated")
    return made


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


STRICT_DECODER = json.JSONDecoder(object_pairs_hook=_without_duplicates, parse_constant=_reject_constant)


@lru_cache(maxsize=HEADERS)
def _parse_header(segment: str) -> Mapping[str, Any]:
    header = _parse_object("header", segment)
    if unsupported := [name for name in _UNSUPPORTED if name in header]:
        raise MalformedToken(f"the token's header has {unsupported[0]}, which is not supported")
    return header


def _parse_object(part: str, segment: str) -> dict[str, Any]:
    try:
        text = decode_segment(segment).decode()
        parsed = STRICT_DECODER.decode(text) if text.count("{") + text.count("[") <= MAX_BRACKETS else None
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict):
        raise MalformedToken(f"the token's {part} is not a JSON object with each member once")
    return parsed
