from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, fields
from inspect import Parameter
from ipaddress import ip_address, ip_network
from os import PathLike
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest

from podproof._authorization.allow_list import AllowList
from podproof._authorization.rbac import RBAC
from podproof._authorization.rules import Rule
from podproof.errors import ConfigurationError, NotAllowed
from podproof.identity import ServiceAccount
from podproof.options import MAX_SHOWN, PREFIX, OptionArguments, Options, markdown_table, signature


def read(environ: dict[str, str] | None = None, /, **given: object) -> Options:
    return Options.read({"audience": "bob"} | given, environ or {})


def test_only_the_audience_is_required_and_the_defaults_are_secure() -> None:
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
def test_a_missing_audience_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match='audience="bob" or PODPROOF_AUDIENCE=bob'):
        Options.read({}, {})


@pytest.mark.parametrize(
    ("name", "value", "parsed"),
    [
        ("audience", ["bob", "https://bob.example/a?b#c"], ("bob", "https://bob.example/a?b#c")),
        ("audience", "bob, carol", ("bob", "carol")),
        ("issuers", ["https://a"], ("https://a",)),
        ("issuers", [], ()),
        ("verify", "keys", "keys"),
        ("verify", "auto", "auto"),
        ("pods", "watch", "watch"),
        ("watch_namespaces", "shop, payments", ("shop", "payments")),
        ("watch_namespaces", [], ()),
        ("watch_labels", None, None),
        ("watch_labels", " app.kubernetes.io/part-of=shop ", "app.kubernetes.io/part-of=shop"),
        ("watch_labels", "a, !b,c==d,e!=f, g in (h, i),j notin (,k)", "a, !b,c==d,e!=f, g in (h, i),j notin (,k)"),
        ("watch_fields", "status.phase=Running,spec.nodeName!=", "status.phase=Running,spec.nodeName!="),
        ("max_outage", 0, 0.0),
        ("source_address", "off", "off"),
        ("trusted_proxies", ["10.0.0.7", ip_network("fd00::/8")], (ip_network("10.0.0.7/32"), ip_network("fd00::/8"))),
        ("trusted_proxies", "10.0.0.7, fd00::/8", (ip_network("10.0.0.7/32"), ip_network("fd00::/8"))),
        ("trusted_proxies", [ip_address("10.0.0.7")], (ip_network("10.0.0.7/32"),)),
        ("trusted_proxies", "0.0.0.0/1, ::/1", (ip_network("0.0.0.0/1"), ip_network("::/1"))),
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
def test_a_flag_may_be_one_of_several_words(text: str, flag: bool) -> None:
    assert read({"PODPROOF_OPTIONAL": text}).optional is flag


def test_an_allow_list_may_be_an_object_a_list_or_a_text_with_commas() -> None:
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
        ("allow", "Default/Alice"),
        ("allow", '["default/alice"]'),
        ("allow", ["system:serviceaccount:default:alice"]),
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
        ("trusted_proxies", [7]),
        ("rules", []),
        ("rules", ["/a"]),
        ("rules", [{"path": "/a", "allow": ["*/*"]}]),
        ("rules", 7),
        ("rules_file", 7),
        ("rules_file", ""),
        ("policy", "abac"),
        ("policy", RBAC),
        ("policy", object()),
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
        ("verify", "none"),
        ("verify", None),
        ("jwks", "http://issuer.example/jwks"),
        ("jwks", "jwks.json"),
        ("jwks", ""),
        ("jwks", 7),
        ("pods", "cache"),
        ("watch_namespaces", ["Shop"]),
        ("watch_namespaces", ["a/../b"]),
        ("watch_labels", ""),
        ("watch_labels", "a=b,"),
        ("watch_labels", "a=b&watch=0"),
        ("watch_labels", "a in b"),
        ("watch_labels", ["a=b"]),
        ("watch_fields", "phase=Running"),
        ("watch_fields", "status.phase"),
        ("watch_fields", "status.phase=Running, spec.nodeName=a"),
        ("max_staleness", 0),
        ("max_outage", -1),
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
def test_an_invalid_value_is_an_error_that_names_the_option_and_what_is_expected(name: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=rf"^invalid {name} .+: expected .+") as raised:
        read(**{name: value})
    assert raised.value.__context__ is None  # whose traceback would show the value in full


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("timeout", 0, "invalid timeout 0: expected seconds between 0.05 and 300"),
        ("cache_ttl", "1h", "invalid cache_ttl '1h': expected seconds between 0 and 3600"),
        ("max_reviews", 0, "invalid max_reviews 0: expected a whole number between 1 and 10000000"),
        ("optional", "maybe", "invalid optional 'maybe': expected true or false"),
        ("source_address", "none", """invalid source_address 'none': expected "pod" or "off\""""),
    ],
)
def test_a_message_says_what_was_seen_and_what_is_expected(name: str, value: object, message: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        read(**{name: value})
    assert str(raised.value) == message


def test_a_file_or_url_of_keys_needs_the_issuers_whose_keys_they_are() -> None:
    keys = "/etc/jwks.json"
    assert read(verify="keys", issuers=["https://issuer"], jwks=keys).jwks == "/etc/jwks.json"
    for given in ({"verify": "keys"}, {"issuers": ["https://issuer"]}, {"verify": "auto", "issuers": ["https://a"]}):
        with pytest.raises(ConfigurationError, match='jwks needs verify="keys", and issuers'):
            read(jwks=keys, **given)


@pytest.mark.parametrize(
    ("given", "watches"),
    [
        ({}, False),
        ({"verify": "auto"}, False),
        ({"verify": "keys"}, True),
        ({"verify": "keys", "pods": "lookup"}, False),
        ({"pods": "watch"}, True),
    ],
)
def test_pods_are_watched_by_default_where_tokens_are_verified_by_keys(given: dict[str, str], watches: bool) -> None:
    assert read(**given).watches_pods is watches


@pytest.mark.parametrize(
    ("name", "value", "item"),
    [
        ("audience", ["bob", "b ob"], "'b ob'"),
        ("allow", "default/alice, Default/Bob", "'Default/Bob'"),
        ("trusted_proxies", ["10.0.0.7", "nginx"], "'nginx'"),
        ("exempt", "/healthz,/a/../b", "'/a/../b'"),
    ],
)
def test_in_a_list_the_invalid_item_is_named(name: str, value: object, item: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^invalid {name} {item}: expected (a list|one name)"):
        read(**{name: value})


def test_a_long_invalid_value_is_cut() -> None:
    jwt_sized = "eyJ" + "x" * 1000 + ".signature"
    with pytest.raises(ConfigurationError) as raised:
        read(source_address=jwt_sized)
    shown = str(raised.value).removeprefix("invalid source_address ").partition(": expected")[0]
    assert shown == repr(jwt_sized)[:MAX_SHOWN] + "…"


@pytest.mark.trap(56)
@pytest.mark.parametrize(
    "networks", ["0.0.0.0/0", "::/0", ["10.0.0.7", ip_network("::/0")], "0.0.0.0/1,128.0.0.0/1", "::/1,8000::/1"]
)
def test_a_trusted_proxy_cannot_be_everyone(networks: object) -> None:
    with pytest.raises(
        ConfigurationError, match=r"invalid trusted_proxies .*every caller could choose its own address"
    ):
        read(trusted_proxies=networks)


@pytest.mark.parametrize(
    ("name", "suggestion"), [("alow", r"did you mean 'allow'\?"), ("zzz", "expected one of audience, allow, rules,")]
)
def test_an_unknown_option_is_an_error_with_a_suggestion(name: str, suggestion: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^unknown option '{name}': {suggestion}"):
        read(**{name: "bob"})


def test_every_option_but_rules_may_come_from_the_environment() -> None:
    environ = {
        "PODPROOF_AUDIENCE": "bob,carol",
        "PODPROOF_ALLOW": "default/*",
        "PODPROOF_ISSUERS": "https://a,https://b",
        "PODPROOF_VERIFY": "keys",
        "PODPROOF_JWKS": "https://a/jwks",
        "PODPROOF_PODS": "lookup",
        "PODPROOF_WATCH_NAMESPACES": "shop,payments",
        "PODPROOF_WATCH_LABELS": "team=shop,!batch",
        "PODPROOF_WATCH_FIELDS": "status.phase=Running",
        "PODPROOF_MAX_STALENESS": "7",
        "PODPROOF_MAX_OUTAGE": "8",
        "PODPROOF_SOURCE_ADDRESS": "off",
        "PODPROOF_TRUSTED_PROXIES": "10.0.0.0/8",
        "PODPROOF_HOST_NETWORK": "true",
        "PODPROOF_EXEMPT": "/healthz,/public/*",
        "PODPROOF_HEADER": "X-Pod-Authorization",
        "PODPROOF_OPTIONAL": "true",
        "PODPROOF_OTHER_CREDENTIALS": "pass",
        "PODPROOF_ENFORCE": "false",
        "PODPROOF_CACHE_TTL": "1",
        "PODPROOF_CACHE_SIZE": "2",
        "PODPROOF_REJECTION_TTL": "3",
        "PODPROOF_REJECTION_SIZE": "4",
        "PODPROOF_TIMEOUT": "5",
        "PODPROOF_MAX_REVIEWS": "6",
        "PODPROOF_KEEP_AUTHORIZATION": "true",
    }
    deciding = {"PODPROOF_RULES_FILE": "/etc/rules.yaml", "PODPROOF_POLICY": "rbac"}  # neither is beside optional
    assert {PREFIX + one.name.upper() for one in fields(Options)} == {*environ, *deciding, "PODPROOF_RULES"}
    for variable, text in deciding.items():
        assert getattr(read({variable: text}), variable.removeprefix(PREFIX).lower()) is not None
    with pytest.raises(ConfigurationError, match=r"^invalid PODPROOF_RULES '/a': .* PODPROOF_RULES_FILE"):
        read({"PODPROOF_RULES": "/a"})
    options = Options.read({}, environ)
    assert options.audience == ("bob", "carol")
    assert options.exempt == ("/healthz", "/public/*")
    assert (options.source_address, options.other_credentials) == ("off", "pass")
    assert [options.verify, options.jwks, options.pods] == ["keys", "https://a/jwks", "lookup"]
    assert options.watch_namespaces == ("shop", "payments")
    assert [options.watch_labels, options.watch_fields] == ["team=shop,!batch", "status.phase=Running"]
    assert [options.max_staleness, options.max_outage] == [7, 8]
    assert [options.cache_ttl, options.cache_size, options.rejection_ttl, options.rejection_size] == [1, 2, 3, 4]
    assert [options.timeout, options.max_reviews] == [5, 6]
    assert options.host_network
    assert options.optional
    assert not options.enforce
    assert options.keep_authorization


def test_an_argument_wins_over_the_environment() -> None:
    assert read({"PODPROOF_AUDIENCE": "carol"}).audience == ("bob",)


def test_an_invalid_value_in_the_environment_is_named_by_its_variable() -> None:
    with pytest.raises(ConfigurationError, match=r"^invalid PODPROOF_TIMEOUT 'x': expected seconds between 0.05 and"):
        read({"PODPROOF_TIMEOUT": "x"})


def test_an_unknown_variable_is_an_error_with_a_suggestion() -> None:
    with pytest.raises(
        ConfigurationError, match=r"^unknown option PODPROOF_AUDIENCES: did you mean 'PODPROOF_AUDIENCE'\?"
    ):
        read({"PODPROOF_AUDIENCES": "bob"})


@pytest.mark.parametrize("text", ["", " ", "\n"])
def test_an_empty_variable_counts_as_unset(text: str) -> None:
    environ = {PREFIX + one.name.upper(): text for one in fields(Options)}
    assert read(environ) == read()
    with pytest.raises(ConfigurationError, match="no audience was given"):
        Options.read({}, environ)


@pytest.mark.parametrize(
    "variable",
    [
        "PODPROOF_TOKEN_FILE",
        "PODPROOF_DRAIN_GAP",
        # Kubernetes sets these in every pod of a namespace with a Service called podproof.
        "PODPROOF_SERVICE_HOST",
        "PODPROOF_SERVICE_PORT_HTTP",
        "PODPROOF_PORT",
        "PODPROOF_PORT_80_TCP_ADDR",
        "OTHER_AUDIENCE",
        "audience",
    ],
)
def test_variables_of_other_parts_and_of_services_are_ignored(variable: str) -> None:
    assert read({variable: "x"}) == read()


def test_options_are_frozen_and_keyword_only() -> None:
    cls: Any = Options
    with pytest.raises(TypeError):
        cls("bob")
    with pytest.raises(AttributeError):
        read().timeout = 7  # type: ignore[misc]  # the attempt is the test


def test_only_one_of_rules_rules_file_and_policy_may_be_given() -> None:
    rule = Rule("/a", allow=["*/*"])
    assert read(rules=[rule]).rules == (rule,)
    with pytest.raises(
        ConfigurationError, match=r"^rules, rules_file and policy exclude each other: .* got rules and policy"
    ):
        read(rules=[rule], policy="rbac")


@pytest.mark.parametrize(
    ("name", "value"), [("rules", [Rule("/a", allow=["*/*"])]), ("policy", "rbac"), ("rules_file", "/a")]
)
def test_optional_cannot_be_combined_with_what_anonymous_callers_would_bypass(name: str, value: object) -> None:
    with pytest.raises(ConfigurationError) as raised:
        read(optional=True, **{name: value})
    assert str(raised.value) == (
        f"optional cannot be combined with {name}: anonymous callers would bypass it; use exempt"
    )


def test_a_policy_is_the_word_rbac_or_an_object() -> None:
    assert read({"PODPROOF_POLICY": " RBAC"}).policy == read(policy="rbac").policy == "rbac"
    policy = RBAC(prefix="/bob")
    assert read(policy=policy).policy is policy
    assert read({"PODPROOF_RULES_FILE": "/etc/rules.yaml"}).rules_file == Path("/etc/rules.yaml")


def members(annotation: Any) -> set[Any]:
    """Return the members of a union, else the type alone."""
    return set(get_args(annotation)) if get_origin(annotation) in (Union, UnionType) else {annotation}


def accepts(argument: Any, value: Any) -> bool:
    """Return True if an argument of this type may be given for an option whose value has that type."""
    if get_origin(argument) is Sequence and get_origin(value) is tuple:
        return members(get_args(value)[0]) <= members(get_args(argument)[0])
    return bool(argument == value or (argument == PathLike[str] and value is Path))


def test_the_typed_arguments_have_the_names_and_types_of_the_options() -> None:
    declared, arguments = get_type_hints(Options), get_type_hints(OptionArguments)
    assert list(arguments) == [one.name for one in fields(Options)]
    parsed_from_strings = {str, Sequence[str]}
    for name in arguments:
        values, given = members(declared[name]), members(arguments[name])
        assert all(any(accepts(argument, value) for argument in given) for value in values), name
        assert all(any(accepts(one, value) for value in values) for one in given - parsed_from_strings), name


def test_the_signature_has_the_options_with_their_types_and_defaults() -> None:
    app, *options, authenticator = signature().parameters.values()
    assert [str(app), str(authenticator)] == ["app", "authenticator=None"]
    assert {one.kind for one in [*options, authenticator]} == {Parameter.KEYWORD_ONLY}
    assert {one.name: one.annotation for one in options} == get_type_hints(OptionArguments)
    defaults = {one.name: Parameter.empty if one.default is MISSING else one.default for one in fields(Options)}
    assert {one.name: one.default for one in options} == defaults
    parsed = read()
    assert all(getattr(parsed, name) == default for name, default in defaults.items() if name != "audience")


def test_the_markdown_table_and_the_help_have_a_line_for_each_option() -> None:
    header, rule, *rows = markdown_table().splitlines()
    assert (header, rule) == ("| option | default | meaning |", "|---|---|---|")
    cells = [row.strip("| ").split(" | ") for row in rows]
    names = [one.name for one in fields(Options)]
    assert [name for name, _, _ in cells] == [f"`{name}`" for name in names]
    defaults = dict(zip(names, [default for _, default, _ in cells], strict=True))
    assert [defaults[name] for name in ("audience", "allow", "exempt", "source_address", "optional", "timeout")] == [
        "required",
        "none",
        "none",
        '`"pod"`',
        "`False`",
        "`5`",
    ]
    assert Options.__doc__ is not None
    assert Options.__doc__.splitlines()[-len(names) :] == [
        f"{name}: {meaning}." for name, (_, _, meaning) in zip(names, cells, strict=True)
    ]
