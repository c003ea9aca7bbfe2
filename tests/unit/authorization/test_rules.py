from __future__ import annotations

import copy
import dataclasses
import json
import pickle
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
        ("HEAD", "/reports/"),
        ("DELETE", "/closed"),
    ],
)
def test_the_first_rule_that_matches_path_and_method_decides(method: str, path: str) -> None:
    assert RULES.check(ALICE, method, path) is None


@pytest.mark.parametrize(
    ("method", "path", "reason"),
    [
        ("DELETE", "/invoices/1", r"rule \* /invoices/\*: default/alice is not among payments/\*"),
        ("GET", "/closed/1", r"rule \* /closed/\*: allows no one"),
        ("GET", "/invoices", "no rule matches this path and method"),
        ("GET", "/invoicesx", "no rule"),
        ("GET", "/reports", "no rule"),
        ("HEAD", "/reports//", "no rule"),
        ("GET", "/", "no rule"),
    ],
)
def test_everything_else_is_denied_with_a_reason(method: str, path: str, reason: str) -> None:
    with pytest.raises(NotAllowed, match=reason):
        RULES.check(ALICE, method, path)


@pytest.mark.trap(50)
@pytest.mark.parametrize("exact", ["/admin", "/admin/"])
def test_an_exact_rule_is_about_the_path_with_and_without_a_trailing_slash(exact: str) -> None:
    rules = Rules([Rule(exact, allow=["default/admin"]), Rule("/*", allow=["default/*"])])
    for path in ("/admin", "/admin/"):
        with pytest.raises(NotAllowed, match=f"rule \\* {exact}: "):
            rules.check(ALICE, "GET", path)
    assert rules.check(ALICE, "GET", "/admin/x") is None


def test_an_exact_rule_for_the_root_is_about_the_root_alone() -> None:
    assert Rules([Rule("/", allow=["*/*"])]).check(ALICE, "GET", "/") is None
    with pytest.raises(NotAllowed, match="no rule"):
        Rules([Rule("/", allow=["*/*"])]).check(ALICE, "GET", "/a")


def test_a_rule_may_match_every_path() -> None:
    everywhere = Rules([Rule("/*", allow=["default/*"])])
    for path in ("/", "/a", "/a/b/"):
        assert everywhere.check(ALICE, "GET", path) is None


@pytest.mark.parametrize(
    "path", ["", "invoices", "*", "/a*", "/*/a", "//", "/a//b", "/a/../b", "/a;b", "/a%20b", "/a\\b", "/ä", "/a\n"]
)
def test_a_path_that_is_not_plain_is_an_error(path: str) -> None:
    with pytest.raises(ValueError, match=r"^invalid path .*: expected a plain path"):
        Rule(path, allow=["*/*"])


@pytest.mark.parametrize("methods", [[], [""], ["GET,POST"], ["G ET"]])
def test_methods_that_are_none_are_an_error(methods: list[str]) -> None:
    with pytest.raises(ValueError, match=r"^invalid methods .*: expected HTTP methods"):
        Rule("/", methods=methods, allow=["*/*"])


def test_a_string_is_not_taken_for_a_list_of_letters() -> None:
    with pytest.raises(TypeError, match=r"^invalid methods 'GET': expected a list"):
        Rule("/", methods="GET", allow=["*/*"])
    with pytest.raises(TypeError, match=r"^invalid allow 'default/alice': expected a list"):
        Rule("/", allow="default/alice")
    with pytest.raises(ValueError, match="namespace/name"):
        Rule("/", allow=["alice"])


def test_a_rule_as_text_has_methods_and_path() -> None:
    rule = Rule("/a/*", methods=["get", "POST"], allow=["default/alice"])
    assert str(rule) == "GET,POST /a/*"
    assert repr(rule) == "Rule('/a/*', methods=('GET', 'POST'), allow=('default/alice',))"
    rule = Rule("/a", allow=["a/b"], labels={"team": "x"}, owner="Job/a")
    assert repr(rule) == "Rule('/a', methods=None, allow=('a/b',), labels={'team': 'x'}, owner='Job/a')"


@pytest.mark.parametrize(
    "rule",
    [
        Rule("/a/*", methods=["get"], allow=["default/*"]),
        Rule("/", allow=[]),
        Rule("/", allow=["default/*"], labels={"team": "x"}, owner="Deployment/web"),
    ],
)
def test_a_rule_is_a_value(rule: Rule) -> None:
    plain = json.loads(json.dumps(dataclasses.asdict(rule)))
    for copied in (Rule(**plain), copy.deepcopy(rule), pickle.loads(pickle.dumps(rule)), dataclasses.replace(rule)):
        assert (copied, hash(copied)) == (rule, hash(rule))
    assert rule != dataclasses.replace(rule, path="/b")
    with pytest.raises(dataclasses.FrozenInstanceError):
        rule.path = "/b"  # type: ignore[misc]  # the attempt is the test


@pytest.fixture
def client_with_rules(make_client: Callable[..., MiddlewareClient]) -> MiddlewareClient:
    allow_alice: Any = {"allow": ["default/alice"]}
    admin = Rule("/admin/*", methods=["GET"], allow=["default/admin"])
    return make_client(rules=[admin, Rule("/admin", **allow_alice), Rule("/*", **allow_alice)])


def test_a_middleware_applies_its_rules(client_with_rules: MiddlewareClient) -> None:
    assert client_with_rules("/invoices").status == 200
    denied = client_with_rules("/admin/1")
    assert denied.status == 403
    assert denied.headers["Content-Type"] == "application/problem+json"
    assert b"admin" not in denied.body


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
def test_an_ambiguous_path_matches_no_rule(client_with_rules: MiddlewareClient, path: str) -> None:
    assert client_with_rules(path).status == 403


def test_a_method_in_lower_case_does_not_bypass_a_rule(client_with_rules: MiddlewareClient) -> None:
    assert client_with_rules("/admin/1", method="get").status == 403


def test_exempt_paths_stay_open(make_client: Callable[..., MiddlewareClient]) -> None:
    app = make_client(rules=[Rule("/a", allow=["*/*"])], exempt=["/healthz"])
    assert app("/healthz").status == 200
    assert app("/b").status == 403
