"""`TokenHeader`: the header of the token on requests of `requests`, httpx and httpx2."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Protocol

from podproof._token.header_name import AUTHORIZATION, EXPECTED, is_header_name
from podproof.errors import ConfigurationError


class HeadersOwner(Protocol):
    """A request, as far as it is read here."""

    @property
    def headers(self) -> MutableMapping[str, str]:
        """Its headers."""


@dataclass(frozen=True, slots=True)
class TokenHeader:
    """The header that has the token: Authorization, or one of the app's own. Raises ConfigurationError.

    A redirect to another origin is followed without Authorization by each library, and with any other header.
    """

    name: str = AUTHORIZATION

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not is_header_name(self.name):
            raise ConfigurationError(f"invalid header {self.name!r:.80}: expected {EXPECTED}")

    @property
    def is_own(self) -> bool:
        """Whether it is another one than Authorization."""
        return self.name.lower() != AUTHORIZATION.lower()

    def rename(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return headers with this one in the place of Authorization."""
        return {self.name if name == AUTHORIZATION else name: value for name, value in headers.items()}

    def get(self, request: HeadersOwner) -> str | None:
        """Return what a request has in this header, if anything."""
        given = request.headers.get(self.name)
        if given is None and self._is_disguised(request):
            name = self.name.lower().encode()
            given = next((value.decode() for key, value in _raw(request) if key.lower() == name), None)
        return given

    def put(self, request: HeadersOwner, headers: Mapping[str, str]) -> None:
        """Put on a request what it sends with its token, in the place of what was put there before."""
        if self._is_disguised(request):
            _disguise(request.headers, headers)
        else:
            request.headers.update(headers)

    def take_off(self, request: HeadersOwner) -> None:
        """Take the token and its proof off a request of `requests`."""
        for name in (self.name, "DPoP"):
            request.headers.pop(name, None)

    def _is_disguised(self, request: HeadersOwner) -> bool:
        return self.is_own and hasattr(request.headers, "raw")


IN_AUTHORIZATION = TokenHeader()


def _raw(request: HeadersOwner) -> Any:
    return request.headers.raw  # type: ignore[attr-defined]  # httpx has it


def _disguise(headers: Any, added: Mapping[str, str]) -> None:
    """Put headers on an httpx request that are sent by their names, and are Authorization to httpx itself.

    In a redirect httpx copies all headers, and takes Authorization off for another origin; nothing else is asked.
    Raises ConfigurationError where it would not do that.
    """
    names = {name.lower().encode() for name in added}
    kept = [entry for entry in headers._list if entry[0].lower() not in names]  # noqa: SLF001  no public name has both
    ours = [(name.encode(), b"authorization", value.encode()) for name, value in added.items()]
    headers._list = kept + ours  # noqa: SLF001  as above
    elsewhere = type(headers)(headers)
    elsewhere.pop(AUTHORIZATION, None)
    sent = {name.lower() for name, _ in headers.raw}
    if not names <= sent or any(name.lower() in names for name, _ in elsewhere.raw):
        raise ConfigurationError(
            f"this version of httpx would send the header {next(iter(added))} wherever a redirect leads: use another "
            "version, or TokenClient.session()"
        )
