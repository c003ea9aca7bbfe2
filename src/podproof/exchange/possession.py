"""Does the sender of an issued token hold the key that it is bound to? Asked of each request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from urllib.parse import quote, urlsplit

from podproof._authentication.cached_identity import CachedIdentity
from podproof._request.incoming import IncomingRequest
from podproof.errors import InvalidProof
from podproof.exchange.dpop import ALGORITHMS, DPoPVerifier
from podproof.exchange.issued_token_verifier import KEY_THUMBPRINT

_ALGORITHMS = f', algs="{" ".join(ALGORITHMS)}"'


class Possession:
    """Checks the proof of each request with a token that is bound to a key (RFC 9449 section 7).

    Unless proofs are `required`, a token that is bound to no key is a bearer token. `origins` are those that callers
    know this server by, such as `https://ledger.example`; empty: the request's own scheme and Host header.
    """

    def __init__(self, verifier: DPoPVerifier, *, required: bool, origins: Sequence[str] = ()) -> None:
        self._verifier = verifier
        self._required = required
        self._origins = tuple(origins)
        bearer = {} if required else {"Bearer": ""}
        self.schemes: Mapping[str, str] = MappingProxyType({"DPoP": _ALGORITHMS, **bearer})

    def is_needed(self, caller: CachedIdentity) -> bool:
        """Return True unless a caller's token is a bearer token, and may be."""
        return self._required or bound_key(caller) is not None

    def check(self, request: IncomingRequest, token: str, caller: CachedIdentity) -> None:
        """Deny a request without the proof that its token needs. Raises InvalidProof, NonceNeeded or Overloaded."""
        scheme = request.authorization[0].partition(" ")[0].lower()
        key = bound_key(caller)
        if key is None:
            if self._required or scheme == "dpop":
                raise InvalidProof("the token is bound to no key")
            return
        if scheme != "dpop":  # RFC 9449 section 7.2: not as a bearer token, which needs no proof
            raise InvalidProof("the token is bound to a key, and was not sent with the DPoP scheme")
        uris = self._uris(request)
        self._verifier.verify(request.proofs, method=request.method, uris=uris, access_token=token, key=key)

    def _uris(self, request: IncomingRequest) -> Sequence[str]:
        path = request.raw_path or quote(request.full_path, safe="/:@!$&'()*+,;=~")
        if not path.startswith("/"):  # in absolute form (RFC 9112 section 3.2.2)
            path = urlsplit(path).path
        return [f"{origin}{path}" for origin in self._origins or filter(None, [request.origin])]


def bound_key(caller: CachedIdentity) -> str | None:
    """Return the thumbprint of the key that a caller's token is bound to, None if it is bound to none."""
    return next(iter(caller.identity.extra.get(KEY_THUMBPRINT, ())), None)
