"""Other credentials than those of the cluster's pods: told from them by the issuers that they claim to be from."""

from __future__ import annotations

import binascii
import re
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

from podproof._authentication.claims import canonical_issuer
from podproof._authentication.cluster_issuers import ClusterIssuers
from podproof._authentication.jws import STRICT_DECODER
from podproof._request.credential import bearer_token
from podproof.errors import MalformedCredential, NoCredential, PodAuthError

# base64 in both alphabets (RFC 4648 sections 4 and 5), wherever it stands in a header.
_ENCODED = re.compile(r"[A-Za-z0-9+/_-]{8,}")
_URLSAFE = str.maketrans("-_", "+/")

# An object, and the beginning of its first member: of random bytes, one in a billion is taken for that.
_OBJECT = re.compile(rb"\s*\{\s*\"[ -~]{6}")


class OtherIssuersCredentials:
    """Tells credentials that name none of the cluster's issuers from all others."""

    def __init__(self, issuers: ClusterIssuers) -> None:
        self._issuers = issuers

    def include(self, headers: Sequence[str], deadline: float) -> bool | Future[PodAuthError | None]:
        """Return True if there is no credential, or one that does not claim to be of one of the cluster's issuers.

        A future is to be waited for before this is asked again: its result is None, or Unavailable, which is to be
        raised. `headers` are the occurrences of the Authorization header, `deadline` is in monotonic seconds.

        Raises Overloaded or Unavailable.
        """
        claims = read_issuers(headers)
        if claims is None or claims.name(self._issuers.known):
            return False
        return (claims.may_have_issuer and self._issuers.refresh(deadline)) or True


class Claims(NamedTuple):
    """What a credential says of its issuer: the `issuers` in its JSON objects, and its other parts as `texts`.

    Issuers are in canonical form, the texts are decoded, in lower case.
    """

    issuers: frozenset[str]
    texts: tuple[str, ...]

    @property
    def may_have_issuer(self) -> bool:
        """False if there is no issuer in it, whatever the cluster's are."""
        return bool(self.issuers) or any("iss" in text for text in self.texts)

    def name(self, issuers: Collection[str]) -> bool:
        """Return True if it names one of these issuers."""
        return any(one in self.issuers or any(one in text for text in self.texts) for one in issuers)


def read_issuers(headers: Sequence[str]) -> Claims | None:
    """Return what a credential says of its issuer, nothing for an opaque one and for none at all.

    None: nobody can say, since it has no form that all read in the same way. There are two of them, or it has `Bearer`
    with no token or a longer one than is read, or a JSON object that has a member twice or ends too early, or an issuer
    that is no text.
    """
    try:
        bearer_token(headers)
    except NoCredential:
        pass  # another scheme, which may hold a JSON Web Token as well
    except MalformedCredential:
        return None
    issuers: set[str] = set()
    texts: list[str] = []
    for decoded in _decoded_parts(" ".join(headers)):
        if _OBJECT.match(decoded) is None:
            texts.append(decoded.decode("latin-1").lower())
            continue
        # The API server reads the names of claims in any case (encoding/json).
        named = [value for name, value in _parse(decoded).items() if name.casefold() == "iss"]
        if not all(isinstance(issuer, str) for issuer in named):
            return None
        issuers.update(map(canonical_issuer, named))
    return Claims(frozenset(issuers), tuple(texts))


def _decoded_parts(text: str) -> Iterator[bytes]:
    for run in _ENCODED.findall(text):
        whole = run[: len(run) - (len(run) % 4 == 1)].translate(_URLSAFE)
        yield binascii.a2b_base64(whole + "=" * (-len(whole) % 4))


def _parse(decoded: bytes) -> dict[str, Any]:
    """Return the JSON object that a text begins with; of one that is not well-formed, that its issuer is none."""
    try:
        # A PASETO has its signature behind the object.
        parsed: dict[str, Any] = STRICT_DECODER.raw_decode(decoded.decode("utf-8", "replace").lstrip())[0]
    except (ValueError, RecursionError):
        return {"iss": None}
    return parsed
