from __future__ import annotations

import pytest

from podproof._request.paths import ExemptPaths

EXEMPT = ExemptPaths(["/healthz", "/health/", "/public/*", "/"])


@pytest.mark.parametrize(
    "path",
    [
        "/healthz",
        "/health/",
        "/",
        "/public/",
        "/public/a",
        "/public/a/b.css",
        "/public/.a",
        "/public/...",
        "/public/a/",
    ],
)
def test_these_paths_are_exempt(path: str) -> None:
    assert EXEMPT.cover(path)
    assert EXEMPT.cover(path, path)


@pytest.mark.trap(38)
@pytest.mark.parametrize(
    "path",
    [
        "",
        "/admin",
        "/healthz/",
        "/healthz/admin",
        "/healthzz",
        "/Healthz",
        "/health",
        "healthz",
        "//healthz",
        "//",
        "/./healthz",
        "/admin/../healthz",
        "/healthz/../admin",
        "/healthz;admin",
        "/healthz\n",
        "/healthz\x00",
        "/healthz%00",
        "/healthz?",
        "/public",
        "/publicity/a",
        "/public/../admin",
        "/public/..",
        "/public/.",
        "/public/./a",
        "/public/a/..",
        "/public//admin",
        "/public/..\\admin",
        "/public/..;/admin",
        "/public/%2e%2e/admin",
        "/public/a\x7f",
        "/public/..\n",
    ],
)
def test_similar_and_ambiguous_paths_are_not_exempt(path: str) -> None:
    assert not EXEMPT.cover(path)


@pytest.mark.trap(38)
@pytest.mark.parametrize("raw_path", ["/%68ealthz", "/health%7A", "/healthz%"])
def test_an_exempt_path_sent_with_an_escape_is_not_exempt(raw_path: str) -> None:
    assert not EXEMPT.cover("/healthz", raw_path)


def test_nothing_else_is_exempt() -> None:
    assert not ExemptPaths([]).cover("/healthz")
    assert not ExemptPaths(["/healthz"]).cover("")
