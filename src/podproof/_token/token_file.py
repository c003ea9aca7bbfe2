"""`TokenFile`: the token file that the kubelet mounts and refreshes."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from podproof._token.jwt import CLOCK_SKEW, numeric_date, read_claims
from podproof.errors import ConfigurationError, MalformedToken, TokenUnavailable

_log = logging.getLogger("podproof.client")

_FOLDER = Path("/var/run/secrets/podproof")

_VOLUME = """\
The kubelet writes the token to that file in a pod with this volume:

volumes:
  - name: podproof
    projected:
      sources:
        - serviceAccountToken:
            audience: {audience}
            expirationSeconds: 3600
            path: {file}
containers:
  - volumeMounts:
      - name: podproof
        mountPath: {folder}
        readOnly: true
"""

_NOT_REFRESHED = (
    "The kubelet does not refresh the token of a pod that is being deleted (kubernetes#116481). "
    "For any other pod, see the kubelet's log on its node."
)


@dataclass(frozen=True, slots=True)
class _Token:
    text: str = field(repr=False)
    expires_at: float


class TokenFile:
    """A mounted token file. It is read at each use, which takes microseconds, so that every rotation is seen at once.

    The last valid token is cached for one purpose: until it expires, it is used while the file is missing, empty or
    invalid. Instances are thread-safe. A pickled or copied instance holds no token.

    `clock` returns Unix seconds.
    """

    is_bound = False
    """No proof goes with the token."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        audience: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = Path(path)
        self._audience = audience
        self._clock = clock
        self._cached: _Token | None = None
        self._is_failing = False

    def __repr__(self) -> str:
        return f"TokenFile({str(self._path)!r}, audience={self._audience!r})"

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_cached": None}

    def read(self) -> str:
        """Return the token.

        Raises TokenUnavailable if the file is missing, unreadable, empty, not a JSON Web Token, for another audience,
        or expired for more than `CLOCK_SKEW` seconds, and no unexpired token is cached.
        """
        try:
            token = self._read_file()
        except TokenUnavailable as error:
            cached = self._cached
            if cached is None or (left := cached.expires_at - self._clock()) <= 0:
                raise
            if not self._is_failing:
                self._is_failing = True
                _log.warning("%s. The last token from it is used for another %.0f s.", error.args[0], left)
            return cached.text
        self._cached, self._is_failing = token, False
        return token.text

    def authorization(self) -> str:
        """Return the value of an Authorization header with the token. Raises TokenUnavailable."""
        return f"Bearer {self.read()}"

    def headers(self, method: str, url: str) -> dict[str, str]:  # noqa: ARG002  the same for all requests
        """Return what a request sends. Raises TokenUnavailable."""
        return {"Authorization": self.authorization()}

    def headers_after(self, sent: str, response: object, *, moved: bool) -> dict[str, str] | None:  # noqa: ARG002
        """Return what to send after a 401 to the request that had the Authorization value `sent`, None for nothing.

        Nothing is evicted here: a token that another thread has just read stays valid for all.
        """
        try:
            fresh = self.authorization()
        except TokenUnavailable:
            return None
        return {"Authorization": fresh} if fresh != sent else None

    def may_block(self, status: int | None) -> bool:  # noqa: ARG002
        """Return False: a mounted file is in memory."""
        return False

    def _read_file(self) -> _Token:
        try:
            text = self._path.read_bytes().decode("ascii", "replace").strip()
        except OSError as error:
            raise self._unavailable(f"cannot be read: {error.strerror}") from error
        if not text:
            raise self._unavailable("is empty")
        try:
            claims = read_claims(text)
        except MalformedToken:
            raise self._unavailable("does not hold a JSON Web Token") from None

        aud = claims.get("aud")
        audiences = aud if isinstance(aud, list) else [aud]
        if self._audience is not None and self._audience not in audiences:
            issued_for = ", ".join(map(str, audiences))
            raise self._unavailable(f"holds a token for {issued_for}, not for {self._audience}")

        try:
            expires_at = numeric_date(claims, "exp")
        except MalformedToken:
            raise self._unavailable("holds a token without an expiry, unlike the tokens of projected volumes") from None
        if (expired_for := self._clock() - expires_at) > CLOCK_SKEW:
            raise TokenUnavailable(
                f"the token file {self._path} holds a token that expired {expired_for:.0f} s ago", _NOT_REFRESHED
            )
        return _Token(text, expires_at)

    def _unavailable(self, problem: str) -> TokenUnavailable:
        volume = _VOLUME.format(audience=self._audience or "AUDIENCE", file=self._path.name, folder=self._path.parent)
        return TokenUnavailable(f"the token file {self._path} {problem}", volume)


def default_path(audience: str | None) -> Path:
    """Return the default path of the token file for an audience.

    Raises ConfigurationError if the audience cannot be the name of a folder.
    """
    if audience is None:
        return _FOLDER / "token"
    if audience in {"", ".", ".."} or "/" in audience:
        raise ConfigurationError(
            f"invalid audience {audience!r}: expected the name of a folder in {_FOLDER}; "
            "for any other audience give path=, or set PODPROOF_TOKEN_FILE"
        )
    return _FOLDER / audience / "token"
