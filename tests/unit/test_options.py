from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from podproof._authorization.allow_list import AllowList
from podproof._authorization.rbac import RBAC
from podproof._authorization.rules import Rule
from podproof.errors import ConfigurationError, NotAllowed
from podproof.identity import ServiceAccount
from podproof.options import OptionArguments, Options


def read(environ: dict[str, str] | None = None, /, **given: object) -> Options:
    return Options.read({"audience": "bob"} | given, environ or {})


def test_nothing_but_an_audience_is_needed_and_the_rest_is_secure() -> None:
    options = read()
    assert options.audience == ("bob",)
    assert options.allow is None
    assert options.issuers == options.trusted_proxies == options.exempt == ()
    assert options.source_address == "pod"
    assert [options.host_network, options.optional, options.keep_authorization] == [False] * 3
    assert (options.cache_ttl, options.cache_size) == (60, 10_000)
    assert (options.rejection_ttl, options.rejection_size) == (10, 2_000)
    assert (options.timeout, options.max_reviews) == (5, 8)


@pytest.mark.trap(4)
def test_without_an_audience_there_is_no_start() -> None:
    with pytest.raises(ConfigurationError, match='audience="bob" or PODPROOF_AUDIENCE=bob'):
        Options.read({}, {})


@pytest.mark.parametrize(
    ("name", "value", "parsed"),
    [
        ("audience", ["bob", "https://bob.example/a?b#c"], ("bob", "https://bob.example/a?b#c")),
        ("audience", "bob, carol", ("bob", "carol")),
        ("issuers", ["https://a"], ("https://a",)),
        ("issuers", [], ()),
        ("source_address", "off", "off"),
        ("trusted_proxies", ["10.0.0.7", ip_network("fd00::/8")], (ip_network("10.0.0.7/32"), ip_network("fd00::/8"))),
        ("trusted_proxies", "10.0.0.7, fd00::/8", (ip_network("10.0.0.7/32"), ip_network("fd00::/8"))),
        ("trusted_proxies", [], ()),
        ("exempt", ["/", "/healthz", "/a/b/", "/public/*"], ("/", "/healthz", "/a/b/", "/public/*")),
        ("exempt", ["/.well-known/x", "/~a/b=c", "/..."], ("/.well-known/x", "/~a/b=c", "/...")),
        ("exempt", [], ()),
        ("host_network", True, True),
        ("optional", "yes", True),
        ("keep_authorization", " TRUE ", True),
        ("cache_ttl", "2.5", 2.5),
        ("cache_ttl", 0, 0.0),
        ("cache_size", "7", 7),
        ("timeout", 0.05, 0.05),
    ],
)
def test_an_option_is_parsed(name: str, value: object, parsed: object) -> None:
    assert getattr(read(**{name: value}), name) == parsed


@pytest.mark.parametrize(
    ("text", "flag"), [("1", True), ("on", True), ("0", False), ("no", False), ("off", False), ("false", False)]
)
def test_a_flag_can_be_said_in_words(text: str, flag: bool) -> None:
    assert read({"PODPROOF_OPTIONAL": text}).optional is flag


def test_an_allow_list_is_one_however_it_is_given() -> None:
    allow = AllowList(["default/alice"])
    assert read(allow=allow).allow is allow
    assert read(allow=None).allow is None
    for options in (read(allow=["a/b", "default/*"]), read({"PODPROOF_ALLOW": "a/b, default/*"})):
        assert options.allow is not None
        options.allow.authorize(ServiceAccount("default", "alice"))
        with pytest.raises(NotAllowed):
            options.allow.authorize(ServiceAccount("other", "alice"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("audience", ""),
        ("audience", []),
        ("audience", None),
        ("audience", 7),
        ("audience", b"bob"),
        ("audience", ["bob", ""]),
        ("audience", ["bob", 7]),
        ("audience", "bob,"),
        ("audience", 'b"ob'),
        ("audience", "b ob"),
        ("audience", "b\\ob"),
        ("audience", ["a,b"]),
        ("audience", "b\r\nob"),
        ("audience", "b\xf6b"),
        ("allow", []),
        ("allow", "alice"),
        ("allow", ["default/"]),
        ("allow", 7),
        ("issuers", ["a", ""]),
        ("issuers", 7),
        ("source_address", "none"),
        ("source_address", None),
        ("source_address", ["pod"]),
        ("trusted_proxies", ""),
        ("trusted_proxies", "10.0.0.7/24"),
        ("trusted_proxies", "nginx"),
        ("trusted_proxies", ["10.0.0.7", None]),
        ("trusted_proxies", 7),
        ("exempt", "healthz"),
        ("exempt", ""),
        ("exempt", "*"),
        ("exempt", "/*"),
        ("exempt", "//healthz"),
        ("exempt", "/a/../b"),
        ("exempt", "/a/."),
        ("exempt", "/a*"),
        ("exempt", "/*/b"),
        ("exempt", "/a%20b"),
        ("exempt", "/a;b"),
        ("exempt", "/a?b"),
        ("exempt", 7),
        ("host_network", "maybe"),
        ("optional", 1),
        ("optional", None),
        ("cache_ttl", -1),
        ("cache_ttl", 3601),
        ("cache_ttl", "nan"),
        ("cache_ttl", True),
        ("cache_ttl", None),
        ("cache_size", 0),
        ("cache_size", 1.5),
        ("cache_size", True),
        ("cache_size", "many"),
        ("cache_size", 10**9),
        ("timeout", 0),
        ("timeout", "inf"),
        ("max_reviews", 0),
    ],
)
def test_a_wrong_value_is_an_error_that_says_what_was_given_and_what_is_possible(name: str, value: object) -> None:
    with pytest.raises(ConfigurationError) as raised:
        read(**{name: value})
    message = str(raised.value)
    assert message.startswith(f"{name} was given {value!r}")
    assert "; possible is " in message


def test_a_long_wrong_value_is_not_repeated_in_full() -> None:
    with pytest.raises(ConfigurationError) as raised:
        read(source_address="x" * 100_000)
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize(
    ("name", "answer"), [("audiences", "did you mean audience?"), ("zzz", "possible are audience, allow,")]
)
def test_an_unknown_option_is_an_error_that_suggests(name: str, answer: str) -> None:
    with pytest.raises(ConfigurationError, match=f"there is no option '{name}'.*{answer}"):
        read(**{name: "bob"})


def test_every_option_can_come_from_the_environment() -> None:
    environ = {
        "PODPROOF_AUDIENCE": "bob,carol",
        "PODPROOF_ALLOW": "default/*",
        "PODPROOF_ISSUERS": "https://a,https://b",
        "PODPROOF_SOURCE_ADDRESS": "off",
        "PODPROOF_TRUSTED_PROXIES": "10.0.0.0/8",
        "PODPROOF_HOST_NETWORK": "true",
        "PODPROOF_EXEMPT": "/healthz,/public/*",
        "PODPROOF_OPTIONAL": "true",
        "PODPROOF_CACHE_TTL": "1",
        "PODPROOF_CACHE_SIZE": "2",
        "PODPROOF_REJECTION_TTL": "3",
        "PODPROOF_REJECTION_SIZE": "4",
        "PODPROOF_TIMEOUT": "5",
        "PODPROOF_MAX_REVIEWS": "6",
        "PODPROOF_KEEP_AUTHORIZATION": "true",
    }
    others = {"PODPROOF_RULES", "PODPROOF_RULES_FILE", "PODPROOF_POLICY"}
    assert {f"PODPROOF_{name.upper()}" for name in OptionArguments.__annotations__} == set(environ) | others
    options = Options.read({}, environ)
    assert options.audience == ("bob", "carol")
    assert options.exempt == ("/healthz", "/public/*")
    assert options.source_address == "off"
    assert [options.cache_ttl, options.cache_size, options.rejection_ttl, options.rejection_size] == [1, 2, 3, 4]
    assert [options.timeout, options.max_reviews] == [5, 6]
    assert options.host_network
    assert options.optional
    assert options.keep_authorization


def test_an_argument_wins_over_the_environment() -> None:
    assert read({"PODPROOF_AUDIENCE": "carol"}).audience == ("bob",)


def test_a_wrong_value_in_the_environment_is_named_by_its_variable() -> None:
    with pytest.raises(
        ConfigurationError, match=r"^PODPROOF_TIMEOUT was given 'long'; possible is a number of seconds"
    ):
        read({"PODPROOF_TIMEOUT": "long"})


def test_an_unknown_variable_is_an_error_that_suggests() -> None:
    with pytest.raises(ConfigurationError, match=r"PODPROOF_AUDIENCES is no option; did you mean PODPROOF_AUDIENCE\?"):
        read({"PODPROOF_AUDIENCES": "bob"})


@pytest.mark.parametrize(
    "variable",
    [
        "PODPROOF_TOKEN_FILE",
        "PODPROOF_DRAIN_GAP",
        # Kubernetes sets these in every pod beside a Service called podproof.
        "PODPROOF_SERVICE_HOST",
        "PODPROOF_SERVICE_PORT_HTTP",
        "PODPROOF_PORT",
        "PODPROOF_PORT_80_TCP_ADDR",
        "OTHER_AUDIENCE",
        "audience",
    ],
)
def test_variables_that_are_for_others_are_left_alone(variable: str) -> None:
    assert read({variable: "x"}) == read()


def test_options_can_neither_be_changed_nor_mistaken_by_position() -> None:
    cls: Any = Options
    with pytest.raises(TypeError):
        cls("bob")
    with pytest.raises(AttributeError):
        read().timeout = 7  # type: ignore[misc]  # which is what is tried


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rules", []),
        ("rules", ["/a"]),
        ("rules", [{"path": "/a", "allow": ["*/*"]}]),
        ("rules", 7),
        ("rules_file", 7),
        ("policy", "abac"),
        ("policy", RBAC),
        ("policy", object()),
    ],
)
def test_what_decides_is_of_a_kind_that_can(name: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} was given .*; possible is "):
        read(**{name: value})


def test_one_thing_decides() -> None:
    rule = Rule("/a", allow=["*/*"])
    assert read(rules=[rule]).rules == (rule,)
    with pytest.raises(ConfigurationError, match="rules and policy were given; possible is one of them"):
        read(rules=[rule], policy="rbac")


@pytest.mark.parametrize("given", [{"rules": [Rule("/a", allow=["*/*"])]}, {"policy": "rbac"}, {"rules_file": "/a"}])
def test_nobody_passes_a_policy_by_as_anonymous(given: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match="anonymous callers would pass by; possible is exempt"):
        read(optional=True, **given)


def test_rbac_needs_no_import() -> None:
    assert isinstance(read({"PODPROOF_POLICY": "RBAC"}).policy, RBAC)
    mine = RBAC(prefix="/bob")
    assert read(policy=mine).policy is mine
    assert read({"PODPROOF_RULES_FILE": "/etc/rules.yaml"}).rules_file == Path("/etc/rules.yaml")
