"""`AllowedHosts`: the hosts that the token may be sent to."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

from podproof.errors import ConfigurationError, HostNotAllowed

_HOST = re.compile(r"(\*\.)?([\w.-]+|\[[0-9a-f:.]+\])(?::(\d+))?", re.ASCII | re.IGNORECASE)
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class AllowedHosts:
    """A list of hosts such as `bob`, `bob.default.svc:8080` or `*.default.svc`."""

    patterns: tuple[HostPattern, ...]

    @classmethod
    def parse(cls, hosts: str | Collection[str]) -> AllowedHosts:
        """Return the hosts of one string or several. Raises ConfigurationError."""
        return cls(tuple(map(HostPattern.parse, [hosts] if isinstance(hosts, str) else hosts)))

    def include(self, url: str) -> bool:
        """Return True if the URL is of one of these hosts."""
        name, port = _host_of(url)
        return any(pattern.matches(name, port) for pattern in self.patterns)

    def require(self, url: str) -> None:
        """Raise HostNotAllowed if the URL is of another host."""
        if not self.include(url):
            name, port = _host_of(url)
            expected = ", ".join(map(str, self.patterns)) or "none"
            raise HostNotAllowed(f"the token is not sent to {name}:{port}: the allowed hosts are {expected}")


def _host_of(url: str) -> tuple[str, int | None]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or _DEFAULT_PORTS.get(parts.scheme)


@dataclass(frozen=True, slots=True)
class HostPattern:
    """One host, or with `subdomains` every name below it; with a port or for all ports."""

    name: str
    subdomains: bool
    port: int | None

    @classmethod
    def parse(cls, text: str) -> HostPattern:
        """Return the pattern for a text like `*.default.svc:8080`. Raises ConfigurationError."""
        match = _HOST.fullmatch(text)
        if match is None:
            raise ConfigurationError(
                f"invalid hosts entry {text!r}: expected a name such as 'bob', 'bob.default.svc:8080' or "
                "'*.default.svc'"
            )
        wildcard, name, port = match.groups()
        return cls(name.strip("[]").lower(), wildcard is not None, None if port is None else int(port))

    def __str__(self) -> str:
        return ("*." if self.subdomains else "") + self.name + ("" if self.port is None else f":{self.port}")

    def matches(self, name: str, port: int | None) -> bool:
        """Return True if the pattern covers this host name in lower case and port."""
        covered = name.endswith(f".{self.name}") if self.subdomains else name == self.name
        return covered and self.port in {None, port}
