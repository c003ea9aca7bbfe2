"""The options of both middlewares, given as arguments or in the environment as PODPROOF_<NAME>.

Each option is declared once, as a field of `Options`: its type, default, parser, the form of a valid value, its
meaning. The rest is derived from there (`signature`, `markdown_table`, the help of `Options`) or compared with it by a
test (`OptionArguments`, which type checkers need written out).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from inspect import Parameter, Signature, cleandoc
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, collapse_addresses, ip_network
from os import PathLike
from pathlib import Path
from typing import Any, Literal, Self, TypedDict, TypeVar, cast, get_type_hints

from podproof._authorization.allow_list import AllowList
from podproof._authorization.path_pattern import is_path_pattern
from podproof._authorization.policy import Policy
from podproof._authorization.rbac import RBAC
from podproof._authorization.rules import Rule
from podproof._token.header_name import AUTHORIZATION, EXPECTED, is_header_name
from podproof.errors import ConfigurationError

__all__ = ["PREFIX", "OptionArguments", "Options", "markdown_table", "signature"]

PREFIX = "PODPROOF_"
"""What the name of an option begins with in the environment."""

MAX_SHOWN = 80
"""Characters of an invalid value that a message shows: enough to recognize it, too few for a whole token."""

# An audience stands in a header's quoted string as the realm (RFC 9110 section 5.6.4), and in lists split at commas:
# visible ASCII without quotes, commas and backslashes.
_AUDIENCE = re.compile(r"[!#-+\--\[\]-~]+")

_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")  # RFC 1123 label

# Label and field selectors, as the API server reads them
# (https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/ and .../field-selectors/).
_NAME = r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_KEY = rf"(?:[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?/)?{_NAME}"
_VALUE = rf"\s*(?:{_NAME})?\s*"
_REQUIREMENT = rf"\s*(?:!?{_KEY}\s*|{_KEY}\s*(?:==?|!=){_VALUE}|{_KEY}\s+(?:not)?in\s*\({_VALUE}(?:,{_VALUE})*\)\s*)"
_LABEL_SELECTOR = re.compile(rf"{_REQUIREMENT}(?:,{_REQUIREMENT})*")
_TERM = r"[a-z]+\.[A-Za-z]+(?:==?|!=)[^\s,=!]*"
_FIELD_SELECTOR = re.compile(rf"{_TERM}(?:,{_TERM})*")

# The variables that Kubernetes sets in each container for a Service, after the Service's name
# (https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables).
_SERVICE_VARIABLE = re.compile(r"(.*_)?(SERVICE_(HOST|PORT(_.+)?)|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)")

_FLAGS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}

T = TypeVar("T")
Network = IPv4Network | IPv6Network


class _InvalidItem(ValueError):
    """One item of a list is invalid: the message shows it instead of the whole list."""

    def __init__(self, item: object) -> None:
        super().__init__(item)
        self.item = item


def _parse_strings(value: object) -> tuple[str, ...]:
    """Return a list of at least one string; text is split at commas."""
    items = value.split(",") if isinstance(value, str) else list(cast("Iterable[Any]", value))
    stripped = tuple(item.strip() for item in items if isinstance(item, str))
    if not items or len(stripped) != len(items) or not all(stripped):
        raise ValueError
    return stripped


def _parse_each(parse: Callable[[Any], T], items: Iterable[object]) -> tuple[T, ...]:
    parsed = []
    for item in items:
        try:
            parsed.append(parse(item))
        except (ValueError, TypeError):
            raise _InvalidItem(item) from None
    return tuple(parsed)


def _parse_audience(item: str) -> str:
    if _AUDIENCE.fullmatch(item) is None:
        raise ValueError
    return item


def _parse_audiences(value: object) -> tuple[str, ...]:
    return _parse_each(_parse_audience, _parse_strings(value))


def _parse_allow(value: object) -> AllowList | None:
    if value is None or isinstance(value, AllowList):
        return value
    patterns = _parse_strings(value)
    _parse_each(lambda pattern: AllowList([pattern]), patterns)
    return AllowList(patterns)


def _parse_rules(value: object) -> tuple[Rule, ...] | None:
    if value is None:
        return None
    rules = tuple(cast("Iterable[object]", value))
    if not rules or not all(isinstance(rule, Rule) for rule in rules):
        raise ValueError
    return cast("tuple[Rule, ...]", rules)


def _parse_file(value: object) -> Path | None:
    if value == "":
        raise ValueError
    return None if value is None else Path(cast("str | PathLike[str]", value))


def _parse_policy(value: object) -> Policy | RBAC | Literal["rbac"] | None:
    if isinstance(value, str) and value.strip().lower() == "rbac":
        return "rbac"
    if value is None or (isinstance(value, Policy | RBAC) and not isinstance(value, type)):
        return value
    raise ValueError


def _parse_issuers(value: object) -> tuple[str, ...]:
    return _parse_strings(value) if value else ()


def _one_of(*values: str | None) -> Callable[[object], object]:
    def parse(value: object) -> object:
        if value not in values:
            raise ValueError
        return value

    return parse


def _parse_jwks(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, str) and value.startswith(("/", "https://")):
        return value
    raise ValueError


def _parse_namespace(item: str) -> str:
    if _NAMESPACE.fullmatch(item) is None:
        raise ValueError
    return item


def _parse_namespaces(value: object) -> tuple[str, ...]:
    return _parse_each(_parse_namespace, _parse_strings(value)) if value else ()


def _selector(form: re.Pattern[str]) -> Callable[[object], str | None]:
    def parse(value: object) -> str | None:
        if value is None:
            return None
        if not isinstance(value, str) or form.fullmatch(value.strip()) is None:
            raise ValueError
        return value.strip()

    return parse


def _parse_network(item: object) -> Network:
    if isinstance(item, IPv4Network | IPv6Network):
        return item
    if isinstance(item, str | IPv4Address | IPv6Address):
        return ip_network(item)
    raise TypeError  # ip_network would take a number for an address


def _parse_networks(value: object) -> tuple[Network, ...]:
    items = _parse_strings(value) if isinstance(value, str) else cast("Iterable[object]", value)
    networks = _parse_each(_parse_network, items)
    together: list[Network] = [
        *collapse_addresses(one for one in networks if isinstance(one, IPv4Network)),
        *collapse_addresses(one for one in networks if isinstance(one, IPv6Network)),
    ]
    if any(network.prefixlen == 0 for network in together):
        raise ValueError
    return networks


def _parse_path(item: str) -> str:
    if not is_path_pattern(item):
        raise ValueError
    return item


def _parse_paths(value: object) -> tuple[str, ...]:
    return _parse_each(_parse_path, _parse_strings(value) if isinstance(value, str) or value else ())


def _parse_header(value: object) -> str:
    if isinstance(value, str) and is_header_name(value.strip()):
        return value.strip()
    raise ValueError


def parse_flag(value: object) -> bool:
    """Return what true or false, or a word for them, says. Raises ValueError."""
    if isinstance(value, bool):
        return value
    if not isinstance(value, str) or value.strip().lower() not in _FLAGS:
        raise ValueError
    return _FLAGS[value.strip().lower()]


@dataclass(frozen=True, slots=True)
class _Declaration:
    """What an option's field says besides its type and default.

    `parse` returns the value or raises ValueError or TypeError; `expected` is the form of a valid value, for messages;
    `meaning` is one line for the help and the README.
    """

    parse: Callable[[object], object]
    expected: str
    meaning: str


def _option(parse: Callable[[object], object], expected: str, meaning: str) -> Mapping[str, _Declaration]:
    return {"option": _Declaration(parse, expected, meaning)}


def _flag(meaning: str) -> Mapping[str, _Declaration]:
    return _option(parse_flag, "true or false", meaning)


def _seconds(least: float, most: float, meaning: str, *, optional: bool = False) -> Mapping[str, _Declaration]:
    def parse(value: object) -> float | None:
        if value is None and optional:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise TypeError
        number = float(value)
        if not least <= number <= most:
            raise ValueError
        return number

    return _option(parse, f"seconds between {least:g} and {most:g}", f"{meaning}, in seconds")


def _count(meaning: str, *, most: int = 10_000_000) -> Mapping[str, _Declaration]:
    def parse(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise TypeError
        number = int(value)
        if not 1 <= number <= most:
            raise ValueError
        return number

    return _option(parse, f"a whole number between 1 and {most}", meaning)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of both middlewares, parsed and validated.

    Raises ConfigurationError for an invalid value, with the value and what is expected.
    """

    audience: tuple[str, ...] = field(
        metadata=_option(
            _parse_audiences,
            'one name or several, such as "bob", without blanks, quotes, commas or backslashes',
            "one name or several; a token must be issued for one of them",
        )
    )
    allow: AllowList | None = field(
        default=None,
        metadata=_option(
            _parse_allow,
            'a list of "namespace/name" with shell globs, such as "payments/*", in lower case as Kubernetes names are',
            'who may call: service accounts as `"namespace/name"` with shell globs; without it every authenticated pod',
        ),
    )
    rules: tuple[Rule, ...] | None = field(
        default=None,
        metadata=_option(
            _parse_rules,
            f"a list of podproof.Rule (in the environment: {PREFIX}RULES_FILE)",
            "who may call which path by which method: a list of `podproof.Rule`, of which the first match decides; "
            "no match is denied",
        ),
    )
    rules_file: Path | None = field(
        default=None,
        metadata=_option(
            _parse_file,
            "the path of a YAML file",
            "the rules in a YAML file, read again when it changes",
        ),
    )
    policy: Policy | RBAC | Literal["rbac"] | None = field(
        default=None,
        metadata=_option(
            _parse_policy,
            '"rbac", a podproof.RBAC(...) or another object with a method check(identity, method, path)',
            'what decides instead of rules: `"rbac"`, a `podproof.RBAC(...)` or an object of your own',
        ),
    )
    issuers: tuple[str, ...] = field(
        default=(),
        metadata=_option(
            _parse_issuers,
            'a list of issuers as in the tokens\' iss claim, such as "https://kubernetes.default.svc"',
            "accepted `iss` values; unset: whatever the API server trusts",
        ),
    )
    verify: Literal["review", "keys", "auto"] = field(
        default="review",
        metadata=_option(
            _one_of("review", "keys", "auto"),
            '"review", "keys" or "auto"',
            'who says that a token is good: `"review"`: the API server, by a TokenReview each; `"keys"`: its signing '
            'keys; `"auto"`: the keys where this app may read them and watch pods (docs/choosing-a-mode.md)',
        ),
    )
    jwks: str | None = field(
        default=None,
        metadata=_option(
            _parse_jwks,
            "an absolute path, or a URL that begins with https://",
            "where the signing keys of `issuers` are, a file or a URL; unset: the API server, for its own tokens",
        ),
    )
    pods: Literal["lookup", "watch"] | None = field(
        default=None,
        metadata=_option(
            _one_of(None, "lookup", "watch"),
            '"lookup" or "watch"',
            'how a token\'s pod is looked up: `"lookup"`: a GET each; `"watch"`: in a view that a watch keeps; unset: '
            '`"watch"` where tokens are verified by keys',
        ),
    )
    watch_namespaces: tuple[str, ...] = field(
        default=(),
        metadata=_option(
            _parse_namespaces,
            "a list of namespaces",
            "the namespaces whose pods are watched, by one watch each; unset: all",
        ),
    )
    watch_labels: str | None = field(
        default=None,
        metadata=_option(
            _selector(_LABEL_SELECTOR),
            "a label selector, such as app.kubernetes.io/part-of=shop",
            "a label selector of the pods that are watched: each other one is looked up; unset: all",
        ),
    )
    watch_fields: str | None = field(
        default=None,
        metadata=_option(
            _selector(_FIELD_SELECTOR),
            "a field selector, such as status.phase=Running",
            "a field selector of the pods that are watched, as `watch_labels`",
        ),
    )
    max_staleness: float = field(
        default=120.0,
        metadata=_seconds(1, 3600, "how old the view of the pods may be before pods are looked up again"),
    )
    max_outage: float | None = field(
        default=None,
        metadata=_seconds(
            0,
            86400,
            "how long a known caller stays accepted while the API server cannot be asked; unset: 900 where pods are "
            "watched, else 0, which is not at all",
            optional=True,
        ),
    )
    source_address: Literal["pod", "off"] = field(
        default="pod",
        metadata=_option(
            _one_of("pod", "off"),
            '"pod" or "off"',
            '`"pod"`: the peer must have an address of the caller\'s pod; `"off"`: not compared (logs a warning)',
        ),
    )
    trusted_proxies: tuple[Network, ...] = field(
        default=(),
        metadata=_option(
            _parse_networks,
            'a list of addresses and networks of proxies, such as "10.0.0.7" or "10.1.0.0/24"; '
            "with 0.0.0.0/0 or ::/0 every caller could choose its own address",
            "networks whose `X-Forwarded-For` or `Forwarded` is believed, from right to left, up to the first hop that "
            "is in none of them",
        ),
    )
    host_network: bool = field(
        default=False,
        metadata=_flag("accept pods on the host network, whose address proves only the node that they run on"),
    )
    exempt: tuple[str, ...] = field(
        default=(),
        metadata=_option(
            _parse_paths,
            'a list of plain paths, such as "/healthz" or "/public/*"',
            "paths open to all, exact or `prefix/*`, as the wrapped app's routes see them",
        ),
    )
    header: str = field(
        default=AUTHORIZATION,
        metadata=_option(
            _parse_header, EXPECTED, "the header that has the token, for apps whose own `Authorization` stays untouched"
        ),
    )
    optional: bool = field(
        default=False,
        metadata=_flag(
            "let a request without a credential pass as anonymous; a bad credential is still denied. Cannot be "
            "combined with `rules`, `rules_file` or `policy`"
        ),
    )
    other_credentials: Literal["refuse", "pass"] = field(
        default="refuse",
        metadata=_option(
            _one_of("refuse", "pass"),
            '"refuse" or "pass"',
            'what happens to a request without a credential of this cluster, such as a person\'s: `"pass"`: it reaches '
            "the app as it is, with no identity, for the app's own authentication (docs/people-and-pods.md)",
        ),
    )
    enforce: bool = field(
        default=True,
        metadata=_flag(
            "False: report only. Every request reaches the app, those that would be denied without an identity and "
            "with their `Authorization` header; the decision log and the metrics say `would-deny` (logs a warning)"
        ),
    )
    cache_ttl: float = field(
        default=60.0,
        metadata=_seconds(0, 3600, "how long a caller is cached, never beyond the token's expiry"),
    )
    cache_size: int = field(default=10_000, metadata=_count("how many callers are cached"))
    rejection_ttl: float = field(
        default=10.0,
        metadata=_seconds(0, 3600, "how long a rejected token is cached"),
    )
    rejection_size: int = field(
        default=2_000, metadata=_count("how many rejected tokens are cached, and how many addresses they came from")
    )
    timeout: float = field(
        default=5.0,
        metadata=_seconds(0.05, 300, "deadline of a request's authentication and authorization"),
    )
    max_reviews: int = field(default=8, metadata=_count("how many calls to the API server run at a time"))
    keep_authorization: bool = field(
        default=False, metadata=_flag("leave the header with the token on the request that the app sees")
    )

    def __post_init__(self) -> None:
        for one in fields(self):
            object.__setattr__(self, one.name, _parse(one, one.name, getattr(self, one.name)))
        deciding = [name for name in ("rules", "rules_file", "policy") if getattr(self, name) is not None]
        if len(deciding) > 1:
            raise ConfigurationError(
                f"rules, rules_file and policy exclude each other: expected one of them, got {' and '.join(deciding)}"
            )
        if self.jwks is not None and not (self.issuers and self.verify == "keys"):
            raise ConfigurationError('jwks needs verify="keys", and issuers, whose keys these are')
        if deciding and self.optional:
            raise ConfigurationError(
                f"optional cannot be combined with {deciding[0]}: anonymous callers would bypass it; use exempt"
            )

    @property
    def watches_pods(self) -> bool:
        """True if pods are looked up in a view that a watch keeps; with `verify="auto"`, if permissions allow it."""
        return self.pods == "watch" or (self.pods is None and self.verify == "keys")

    @classmethod
    def read(cls, given: Mapping[str, Any], environ: Mapping[str, str]) -> Self:
        """Return the options: an argument wins over the environment, the environment over the default.

        A variable that is empty counts as unset: Helm charts set such.

        Raises ConfigurationError, for an unknown name too.
        """
        declared = {one.name: one for one in fields(cls)}
        for name in given:
            if name not in declared:
                raise ConfigurationError(f"unknown option {name!r}: {_suggest(name, declared)}")
        values = dict(given)
        for variable, text in environ.items():
            if not variable.startswith(PREFIX) or _is_foreign_variable(variable) or not text.strip():
                continue
            name = variable.removeprefix(PREFIX).lower()
            if name not in declared:
                variables = [PREFIX + one.upper() for one in declared]
                raise ConfigurationError(f"unknown option {variable}: {_suggest(variable, variables)}")
            if name not in values:
                values[name] = _parse(declared[name], variable, text)
        if "audience" not in values:
            raise ConfigurationError(
                "no audience was given: name the one that callers request tokens for, "
                f'as audience="bob" or {PREFIX}AUDIENCE=bob'
            )
        return cls(**cast("Any", values))


class OptionArguments(TypedDict, total=False):
    """The options as a middleware takes them: see `Options`."""

    audience: str | Sequence[str]
    allow: Sequence[str] | AllowList | None
    rules: Sequence[Rule] | None
    rules_file: str | PathLike[str] | None
    policy: Policy | RBAC | Literal["rbac"] | None
    issuers: Sequence[str]
    verify: Literal["review", "keys", "auto"]
    jwks: str | None
    pods: Literal["lookup", "watch"] | None
    watch_namespaces: Sequence[str]
    watch_labels: str | None
    watch_fields: str | None
    max_staleness: float
    max_outage: float | None
    source_address: Literal["pod", "off"]
    trusted_proxies: Sequence[str | IPv4Network | IPv6Network]
    host_network: bool
    exempt: Sequence[str]
    header: str
    optional: bool
    other_credentials: Literal["refuse", "pass"]
    enforce: bool
    cache_ttl: float
    cache_size: int
    rejection_ttl: float
    rejection_size: int
    timeout: float
    max_reviews: int
    keep_authorization: bool


def signature(*, app: bool = True) -> Signature:
    """Return a middleware's signature, for `help()` and editors: the app, each option by keyword, or an authenticator.

    What wraps no app has none.

    An option without a default has to be given, as an argument or in the environment.
    """
    hints = get_type_hints(OptionArguments)
    return Signature(
        [
            *([Parameter("app", Parameter.POSITIONAL_OR_KEYWORD)] if app else []),
            *(
                Parameter(one.name, Parameter.KEYWORD_ONLY, annotation=hints[one.name], default=_default(one))
                for one in fields(Options)
            ),
            Parameter("authenticator", Parameter.KEYWORD_ONLY, default=None),
        ]
    )


def markdown_table() -> str:
    """Return the options as a Markdown table, one row an option, as README has it."""
    lines = ["| option | default | meaning |", "|---|---|---|"]
    for one in fields(Options):
        default = _default(one)
        if default is Parameter.empty:
            shown = "required"
        elif default in (None, ()):
            shown = "none"
        elif isinstance(default, str):
            shown = f'`"{default}"`'
        else:
            shown = f"`{default:g}`" if isinstance(default, float) else f"`{default}`"
        lines.append(f"| `{one.name}` | {shown} | {_declaration(one).meaning} |")
    return "\n".join(lines) + "\n"


def _default(one: Field[Any]) -> object:
    return Parameter.empty if one.default is MISSING else one.default


def _declaration(one: Field[Any]) -> _Declaration:
    declaration: _Declaration = one.metadata["option"]
    return declaration


def _parse(one: Field[Any], where: str, value: object) -> object:
    """Return a parsed value; `where` names its origin: the option or the environment's variable."""
    declaration = _declaration(one)
    try:
        return declaration.parse(value)
    except _InvalidItem as invalid:
        value = invalid.item
    except (ValueError, TypeError):
        pass
    shown = repr(value)
    if len(shown) > MAX_SHOWN:
        shown = f"{shown[:MAX_SHOWN]}…"
    raise ConfigurationError(f"invalid {where} {shown}: expected {declaration.expected}")


def _suggest(name: str, names: Iterable[str]) -> str:
    from difflib import get_close_matches  # noqa: PLC0415  only a mistake needs it

    close = get_close_matches(name, names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(names)}"


def _is_foreign_variable(variable: str) -> bool:
    """Return True for PODPROOF_ variables that belong to other parts or that Kubernetes injects for a Service.

    A Service called podproof, or podproof-<more>, has its address in such variables.
    """
    rest = variable.removeprefix(PREFIX)
    return (
        rest == "TOKEN_FILE"
        or rest.startswith(("DRAIN_", "EXCHANGE_", "FORWARD_AUTH_"))
        or is_service_variable(variable)
    )


def is_service_variable(variable: str) -> bool:
    """Return True for what Kubernetes injects for a Service, after whose name it is named."""
    return _SERVICE_VARIABLE.fullmatch(variable) is not None


Options.__doc__ = "\n".join(
    [
        cleandoc(Options.__doc__ or ""),
        "",
        *(f"{one.name}: {_declaration(one).meaning}." for one in fields(Options)),
    ]
)
