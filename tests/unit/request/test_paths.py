from __future__ import annotations

import pytest

from podproof._request.paths import PathPatterns, path_below, with_other_slash

EXEMPT = PathPatterns(["/healthz", "/health/", "/public/*", "/"])


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
    assert EXEMPT.covers(path)
    assert EXEMPT.covers(path, path)


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
        "/public/a b",
        "/public/a#b",
        "/public/a?b",
        "/public/caf\xe9",
    ],
)
def test_similar_and_ambiguous_paths_are_not_exempt(path: str) -> None:
    assert not EXEMPT.covers(path)


@pytest.mark.trap(38)
@pytest.mark.parametrize("raw_path", ["/%68ealthz", "/health%7A", "/healthz%"])
def test_an_exempt_path_sent_with_an_escape_is_not_exempt(raw_path: str) -> None:
    assert not EXEMPT.covers("/healthz", raw_path)


def test_nothing_else_is_exempt() -> None:
    assert not PathPatterns([]).covers("/healthz")
    assert not PathPatterns(["/healthz"]).covers("")


@pytest.mark.trap(50)
def test_a_path_is_exempt_if_all_is_that_a_framework_may_take_it_for() -> None:
    assert EXEMPT.covers("/public/a/", other_paths=["/public/a"])
    assert EXEMPT.covers("/healthz", other_paths=["/healthz/"])
    assert not EXEMPT.covers("/public/", other_paths=["/public"])
    assert not EXEMPT.covers("/healthz/", other_paths=["/healthz"])


@pytest.mark.trap(49)
@pytest.mark.parametrize(
    ("path", "root", "below"),
    [
        ("/admin", "", "/admin"),
        ("/admin", "/api", "/admin"),
        ("/api/admin", "/api", "/admin"),
        ("/api/x/api/admin", "/api", "/x/api/admin"),
        ("/api", "/api", ""),
        ("/apiadmin", "/api", None),
        ("/x/api/admin", "/api", None),
        ("/public/api/admin", "/api", None),
        ("/public/apiadmin", "/api", None),
        ("/admin/api", "/api", None),
        ("/apihttp://bob/admin", "/api", None),
        ("/api//admin", "/api/", None),
        ("/api/admin", "/api/", None),
        ("/admin", "/api/", "/admin"),
        ("/admin", "/", "/admin"),
        ("//admin", "/", "/admin"),
        ("api/admin", "api", "/admin"),
        ("/api/admin", "api", None),
    ],
)
def test_the_root_is_at_the_start_of_a_path_or_nowhere(path: str, root: str, below: str | None) -> None:
    assert path_below(path, root) == below


def test_the_other_slash() -> None:
    assert [with_other_slash(path) for path in ("/", "/a", "/a/")] == ["/", "/a/", "/a"]
