"""The keys of an issuer, found by its discovery document."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from podproof.errors import ConfigurationError, Unavailable
from podproof.exchange.discovered_keys import DOCUMENT, DiscoveredKeys
from podproof.testing._emulator.http_server import LoopbackServer, ServerRequest, ServerResponse
from tests.support.issued_tokens import published_keys


@dataclass
class Issuer:
    """An issuer at `url`, whose discovery document has other members where `changes` say so."""

    url: str = ""
    changes: dict[str, Any] = field(default_factory=dict)
    paths: list[str] = field(default_factory=list)

    def respond(self, request: ServerRequest) -> ServerResponse:
        self.paths.append(request.path)
        if request.path == DOCUMENT:
            return ServerResponse(200, {"issuer": self.url, "jwks_uri": f"{self.url}/jwks.json", **self.changes})
        return ServerResponse(200, published_keys())


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    issuer = Issuer()
    server = LoopbackServer(issuer.respond, None)
    issuer.url = f"http://127.0.0.1:{server.port}"
    yield issuer
    server.stop()


def test_the_document_names_where_the_keys_are(issuer: Issuer) -> None:
    keys = DiscoveredKeys(issuer.url)
    for _ in range(2):
        assert keys.fetch(time.monotonic() + 5) == published_keys()
    assert issuer.paths == [DOCUMENT, "/jwks.json"] * 2
    assert str(keys) == issuer.url


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"issuer": "https://mallory"}, "another issuer"),
        ({"issuer": None}, "another issuer"),
        ({"jwks_uri": None}, "no jwks_uri"),
        ({"jwks_uri": "http://mallory/jwks.json"}, "not an https URL"),
    ],
)
def test_a_document_that_does_not_belong_to_the_issuer_has_no_keys(
    issuer: Issuer, changes: dict[str, Any], message: str
) -> None:
    issuer.changes = changes
    with pytest.raises(Unavailable, match=message):
        DiscoveredKeys(issuer.url).fetch(time.monotonic() + 5)


def test_an_issuer_that_is_no_https_url_cannot_be_discovered() -> None:
    with pytest.raises(ConfigurationError, match="invalid URL"):
        DiscoveredKeys("http://bridge")
