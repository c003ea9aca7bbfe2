from __future__ import annotations

import json

import pytest

from podproof._mcp.resource_metadata import ResourceMetadata
from podproof.errors import ConfigurationError

WELL_KNOWN = "/.well-known/oauth-protected-resource"


@pytest.mark.parametrize(
    ("resource", "path"),
    [
        ("http://bob", WELL_KNOWN),
        ("http://bob/", WELL_KNOWN),
        ("https://bob.default.svc:8443/mcp", f"{WELL_KNOWN}/mcp"),
        ("https://[fd00::1]:8443/team/mcp/", f"{WELL_KNOWN}/team/mcp"),
    ],
)
def test_the_path_is_between_host_and_path(resource: str, path: str) -> None:
    metadata = ResourceMetadata(resource, [])
    assert metadata.path == path
    assert json.loads(bytes(metadata.response.body)) == {"resource": resource, "bearer_methods_supported": ["header"]}


@pytest.mark.parametrize(
    "resource",
    [
        "",
        "bob",
        "/mcp",
        "ftp://bob/mcp",
        "http:///mcp",
        "http://bob/mcp?a=1",
        "http://bob/mcp#a",
        'http://bob/"',
        "http://bob/ mcp",
        "http://bob/mcp\r\nX: y",
        "http://a@bob/mcp",
        "http://bob/ü",
    ],
)
def test_any_other_resource_is_invalid(resource: str) -> None:
    with pytest.raises(ConfigurationError, match="invalid resource"):
        ResourceMetadata(resource, [])
