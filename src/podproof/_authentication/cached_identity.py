"""What is known of a caller whose token is valid, and the key that it is cached by."""

from __future__ import annotations

import math
from dataclasses import dataclass
from hashlib import sha256

from podproof.errors import MalformedCredential, PodAuthError, Unavailable
from podproof.identity import PodIdentity


@dataclass(frozen=True, slots=True)
class CachedIdentity:
    """A caller whose token is valid. Times are in monotonic seconds.

    `username` and `scopes` are the identity's, worked out once. `peers`: the addresses that it is accepted from, as
    servers spell them; None where addresses are not compared. `cached_until`: when its token has to be reviewed again.
    `ends_at`: when its token expires, and its connections with it. `read_at`: when its pod was last read.
    `stale_until`: how long it may be accepted while the API server is away; `stale`: it was accepted like that.
    """

    identity: PodIdentity
    username: str
    scopes: tuple[str, ...]
    peers: tuple[str | None, ...]
    cached_until: float
    ends_at: float
    read_at: float
    stale_until: float = -math.inf
    stale: bool = False

    @property
    def pod_uid(self) -> str:
        """The UID of its pod."""
        return self.identity.pod.uid


AuthenticationResult = CachedIdentity | PodAuthError


def credential_key(token: str) -> bytes:
    """Return the SHA-256 of a token's Authorization value: what it is cached by. Tokens themselves are never kept.

    Raises MalformedCredential for a string that no header can hold.
    """
    try:
        return sha256(b"Bearer " + token.encode("latin-1")).digest()
    except UnicodeEncodeError:
        raise MalformedCredential("the token has characters that no header can hold") from None


def too_late(timeout: float) -> Unavailable:
    """Return the denial of a request that has waited for its whole timeout, in seconds."""
    return Unavailable(f"no response within {timeout:g} s")
