"""Pairwise subjects: each audience sees another identifier of the same subject, which only the operator can reverse."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from secrets import token_bytes
from typing import Literal, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from podproof.errors import ConfigurationError
from podproof.exchange.key_directory import SECRET_SUFFIX, KeyFiles

SubjectKind = Literal["service-account", "user", "own"]
"""What an identifier is: a service account's username, the issuer and subject of a user's token, or an ID of your own.

The same text of two kinds has two subjects.
"""

_KINDS: Sequence[SubjectKind] = ("service-account", "user", "own")

MAX_IDENTIFIER = 1024
"""The longest identifier, in bytes."""

BLOCK = 64
"""What is encrypted is padded to a multiple of this, in bytes, so that lengths cannot be compared. A subject of one
block has 107 characters."""

_NONCE = 16
_TAG = 16  # of AES-SIV
_SEALED = b"podproof sealed"
_SUBJECT = b"podproof pairwise subject"


class Subject(NamedTuple):
    """Who is behind a pairwise subject, and which secret it was made by."""

    kind: SubjectKind
    identifier: str
    secret: str


class PairwiseSubjects:
    """Makes pairwise subjects, and reverses them.

    A subject is the identifier, encrypted by AES-SIV (RFC 5297) with the audience as associated data: deterministic, so
    it is stable; authenticated, so only we can make one. Without the secret, those of two audiences say nothing about
    each other.

    `files` returns what the directory of keys has: the current secret is used, and all of them reverse. Where there is
    none, making and sealing raise ConfigurationError.
    """

    def __init__(self, files: Callable[[], KeyFiles]) -> None:
        self._files = files

    @property
    def available(self) -> bool:
        """True if there is a secret."""
        return self._files().current is not None

    def make(self, kind: SubjectKind, identifier: str, audience: str) -> str:
        """Return the subject that an audience sees. Raises ValueError for an identifier that is empty or too long."""
        data = identifier.encode()
        if not 1 <= len(data) <= MAX_IDENTIFIER:
            raise ValueError(f"invalid identifier: expected 1 to {MAX_IDENTIFIER} bytes")
        return _encode(self._cipher().encrypt(_pad(data), _context(kind, audience)))

    def seal(self, data: bytes) -> str:
        """Return data encrypted, as another text each time."""
        nonce = token_bytes(_NONCE)
        return _encode(nonce + self._cipher().encrypt(_pad(data), [_SEALED, nonce]))

    def unseal(self, text: str) -> bytes | None:
        """Return what was sealed, None if this is no such text."""
        data = _decode(text)
        for secret in self._files().secrets.values() if len(data) > _NONCE + _TAG else ():
            with suppress(InvalidTag):
                return _unpad(_cipher(secret).decrypt(data[_NONCE:], [_SEALED, data[:_NONCE]]))
        return None

    def _cipher(self) -> AESSIV:
        files = self._files()
        if files.current is None:
            raise ConfigurationError(
                f"pairwise subjects need a secret: a file *{SECRET_SUFFIX} in the directory of keys"
            )
        return _cipher(files.secrets[files.current])


def reverse_subject(secrets: Mapping[str, bytes], subject: str, audience: str) -> Subject | None:
    """Return who is behind a subject that an audience has seen, None if none of these secrets has made it for that."""
    data = _decode(subject)
    for name, secret in secrets.items() if len(data) > _TAG else ():
        for kind in _KINDS:
            with suppress(InvalidTag):
                identifier = _unpad(_cipher(secret).decrypt(data, _context(kind, audience)))
                return Subject(kind, identifier.decode(), name)
    return None


def _context(kind: SubjectKind, audience: str) -> list[bytes]:
    return [_SUBJECT, kind.encode(), audience.encode()]


@lru_cache(maxsize=64)
def _cipher(secret: bytes) -> AESSIV:
    """Return the cipher of a secret, whatever its form and length are."""
    return AESSIV(HKDF(SHA256(), 64, None, b"podproof AES-SIV").derive(secret))


def _pad(data: bytes) -> bytes:
    """Return data and its padding (ISO/IEC 7816-4): a byte 0x80, and zeros."""
    return data + b"\x80" + bytes(-(len(data) + 1) % BLOCK)


def _unpad(data: bytes) -> bytes:
    return data.rstrip(b"\0")[:-1]


def _encode(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    """Return the bytes of base64url, none for anything else."""
    try:
        data = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        return b""
    return data if _encode(data) == text else b""
