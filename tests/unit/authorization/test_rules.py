from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from podproof._authorization.rules import Rule, Rules
from podproof.errors import NotAllowed
from podproof.identity import Pod, PodIdentity, ServiceAccount
from tests.support.middleware_client import MiddlewareClient

ALICE = PodIdentity(ServiceAccount("default", "alice"), Pod("default", "alice-pod", "uid"), "bob", 0)

RULES = Rules(
    [
        Rule("/invoices/*", methods=["GET", "post"], allow=["default/alice", "payments/*"]),
        Rule("/invoices/*", allow=["payments/*"]),
        Rule("/reports", methods=["HEAD"], allow=["*/*"]),
        Rule("/closed/*", allow=[]),
        Rule("/closed", allow=["*/*"]),
    ]
)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/invoices/1"),
        ("HEAD", "/invoices/1"),
        ("POST", "/invoices/1/lines"),
        ("GET", "/invoices/"),
        ("HEAD", "/reports"),
        ("DELETE", "/closed"),
    ],
)
def test_the_first_rule_about_a_path_and_method_lets_in_whom_it_allows(method: str, path: str) -> None:
    assert RULES.check(ALICE, method, path) is None


@pytest.mark.parametrize(
    ("method", "path", "reason"),
    [
        ("DELETE", "/invoices/1", r"by the rule for \* /invoices/\*, default/alice is not among payments/\*"),
        ("GET", "/closed/1", r"the rule for \* /closed/\* allows nobody"),
        ("GET", "/invoices", "no rule is about this path and method"),
        ("GET", "/invoicesx", "no rule"),
        ("GET", "/reports", "no rule"),
        ("HEAD", "/reports/", "no rule"),
        ("GET", "/", "no rule"),
    ],
)
def test_everything_else_is_refused_with_a_reason(method: str, path: str, reason: str) -> None:
    with pytest.raises(NotAllowed, match=reason):
        RULES.check(ALICE, method, path)


def test_a_rule_may_be_about_every_path() -> None:
    everywhere = Rules([Rule("/*", allow=["default/*"])])
    for path in ("/", "/a", "/a/b/"):
        assert everywhere.check(ALICE, "GET", path) is None


@pytest.mark.parametrize(
    "path", ["", "invoices", "*", "/a*", "/*/a", "//", "/a//b", "/a/../b", "/a;b", "/a%20b", "/a\\b", "/ä", "/a\n"]
)
def test_a_path_that_is_not_plain_makes_no_rule(path: str) -> None:
    with pytest.raises(ValueError, match="plain path"):
        Rule(path, allow=["*/*"])


@pytest.mark.parametrize("methods", [[], [""], ["GET,POST"], ["G ET"]])
def test_methods_are_one_word_each(methods: list[str]) -> None:
    with pytest.raises(ValueError, match="HTTP methods"):
        Rule("/", methods=methods, allow=["*/*"])


def test_a_text_is_not_taken_for_a_list_of_letters() -> None:
    with pytest.raises(TypeError, match="methods is to be a list, and is the text 'GET'"):
        Rule("/", methods="GET", allow=["*/*"])
    with pytest.raises(TypeError, match="allow is to be a list"):
        Rule("/", allow="default/alice")
    with pytest.raises(ValueError, match="namespace/name"):
        Rule("/", allow=["alice"])


def test_a_rule_shows_what_it_says() -> None:
    rule = Rule("/a/*", methods=["get", "POST"], allow=["default/alice"])
    assert str(rule) == "GET,POST /a/*"
    assert repr(rule) == "Rule('/a/*', methods=('GET', 'POST'), allow=('default/alice',))"


@pytest.fixture
def ruled(make_client: Callable[..., MiddlewareClient]) -> MiddlewareClient:
    allow_alice: Any = {"allow": ["default/alice"]}
    admin = Rule("/admin/*", methods=["GET"], allow=["default/admin"])
    return make_client(rules=[admin, Rule("/admin", **allow_alice), Rule("/*", **allow_alice)])


def test_a_middleware_goes_by_its_rules(ruled: MiddlewareClient) -> None:
    assert ruled("/invoices").status == 200
    refused = ruled("/admin/1")
    assert refused.status == 403
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert b"admin" not in refused.body


@pytest.mark.trap(38)
@pytest.mark.parametrize(
    "path",
    [
        "//admin/1",
        "/x/../admin/1",
        "/./admin/1",
        "/%61dmin/1",
        "/%78/1",
        "/x%2f..%2fadmin/1",
        "/admin;x/1",
        "/x%5c..%5cadmin/1",
    ],
)
def test_a_path_that_routers_may_read_in_two_ways_is_nobody_s(ruled: MiddlewareClient, path: str) -> None:
    assert ruled(path).status == 403


def test_a_method_in_lower_case_gets_nobody_past_a_rule(ruled: MiddlewareClient) -> None:
    assert ruled("/admin/1", method="get").status == 403


def test_exempt_paths_stay_open(make_client: Callable[..., MiddlewareClient]) -> None:
    app = make_client(rules=[Rule("/a", allow=["*/*"])], exempt=["/healthz"])
    assert app("/healthz").status == 200
    assert app("/b").status == 403
