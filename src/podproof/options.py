"""The options of both middlewares, given as arguments or in the environment as PODPROOF_<NAME>."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from ipaddress import IPv4Network, IPv6Network, ip_network
from os import PathLike
from pathlib import Path
from typing import Any, Literal, Self, TypedDict, cast

from podproof._authorization.allow_list import AllowList
from podproof._authorization.path_pattern import is_path_pattern
from podproof._authorization.policy import Policy
from podproof._authorization.rbac import RBAC
from podproof._authorization.rules import Rule
from podproof.errors import ConfigurationError

PREFIX = "PODPROOF_"

# An audience stands in a header's quoted string as the realm (RFC 9110 section 5.6.4), and in lists split at commas:
# visible ASCII without quotes, commas and backslashes.
_AUDIENCE = re.compile(r"[!#-+\--\[\]-~]+")

# What a pod's environment says of each Service, after the Service's name.
_OF_A_SERVICE = re.compile(r"(.*_)?(SERVICE_(HOST|PORT(_.+)?)|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the middlewares can be told. Times are in seconds.

    audience: one name or several; a token must have been issued for one of them.
    allow: who may call, as "namespace/name" with shell globs; None for everyone who is known.
    rules: who may call which path by which method, see `podproof.rules.Rule`; the first that fits decides.
    rules_file: the same in a YAML file, which is read again when it changes.
    policy: what decides instead of rules: "rbac" or a `podproof.rbac.RBAC`, or one of your own.
    issuers: whose tokens are looked at; none named means that the API server decides.
    source_address: "pod" (the connection must come from the caller's pod) or "off" (not checked).
    trusted_proxies: networks whose X-Forwarded-For or Forwarded is believed.
    host_network: accept pods on the host network, whose address proves only the node.
    exempt: paths open to all, exact or "prefix/*", as the wrapped app sees them.
    optional: let a request without any credential pass as anonymous.
    cache_ttl, cache_size: how long and how many callers are remembered.
    rejection_ttl, rejection_size: how long and how many refused tokens are remembered, and addresses they came from.
    timeout: for one whole identification.
    max_reviews: how many tokens are reviewed at a time.
    keep_authorization: leave the Authorization header on the request.

    Raises ConfigurationError for a value that is not possible: what was given, and what is possible.
    """

    audience: tuple[str, ...]
    allow: AllowList | None = None
    rules: tuple[Rule, ...] | None = None
    rules_file: Path | None = None
    policy: Policy | None = None
    issuers: tuple[str, ...] = ()
    source_address: Literal["pod", "off"] = "pod"
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    host_network: bool = False
    exempt: tuple[str, ...] = ()
    optional: bool = False
    cache_ttl: float = 60.0
    cache_size: int = 10_000
    rejection_ttl: float = 10.0
    rejection_size: int = 2_000
    timeout: float = 5.0
    max_reviews: int = 8
    keep_authorization: bool = False

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, _parse(field.name, field.name, getattr(self, field.name)))
        deciding = [name for name in ("rules", "rules_file", "policy") if getattr(self, name) is not None]
        if len(deciding) > 1:
            raise ConfigurationError(f"{' and '.join(deciding)} were given; possible is one of them")
        if deciding and self.optional:
            raise ConfigurationError(
                f"optional was given, and {deciding[0]}, which anonymous callers would pass by; possible is exempt, "
                "for paths that are open to all"
            )

    @classmethod
    def read(cls, given: Mapping[str, Any], environ: Mapping[str, str]) -> Self:
        """Read the options: an argument wins over the environment, the environment over the default.

        Raises ConfigurationError, for a name that is not possible too.
        """
        names = [field.name for field in fields(cls)]
        for name in given:
            if name not in names:
                raise ConfigurationError(f"there is no option {name!r}; {_suggest(name, names)}")
        values = dict(given)
        for variable, text in environ.items():
            name = variable.removeprefix(PREFIX).lower()
            if not variable.startswith(PREFIX) or _is_foreign_variable(variable):
                continue
            if name not in names:
                suggestion = _suggest(variable, [PREFIX + one.upper() for one in names])
                raise ConfigurationError(f"the environment's {variable} is no option; {suggestion}")
            if name not in values:
                values[name] = _parse(name, variable, text)
        if "audience" not in values:
            raise ConfigurationError(
                "no audience was given: name the one that callers request tokens for, "
                f'as audience="bob" or {PREFIX}AUDIENCE=bob'
            )
        return cls(**cast("Any", values))


class OptionArguments(TypedDict, total=False):
    """The options as a middleware takes them: see `Options`."""

    audience: str | Sequence[str]
    allow: Sequence[str] | None
    rules: Sequence[Rule] | None
    rules_file: str | PathLike[str] | None
    policy: Policy | Literal["rbac"] | None
    issuers: Sequence[str]
    source_address: Literal["pod", "off"]
    trusted_proxies: Sequence[str | IPv4Network | IPv6Network]
    host_network: bool
    exempt: Sequence[str]
    optional: bool
    cache_ttl: float
    cache_size: int
    rejection_ttl: float
    rejection_size: int
    timeout: float
    max_reviews: int
    keep_authorization: bool


def _suggest(name: str, names: Iterable[str]) -> str:
    close = get_close_matches(name, names, n=1)
    return f"did you mean {close[0]}?" if close else f"possible are {', '.join(names)}"


def _is_foreign_variable(variable: str) -> bool:
    """Tell the variables that are not for the middlewares.

    Those are the ones of podproof's other parts, and those that Kubernetes sets for a Service called podproof, or
    podproof-<more>.
    """
    rest = variable.removeprefix(PREFIX)
    return rest == "TOKEN_FILE" or rest.startswith("DRAIN_") or _OF_A_SERVICE.fullmatch(rest) is not None


def _parse(name: str, where: str, value: object) -> object:
    parse, possible = _PARSERS[name]
    try:
        return parse(value)
    except (ValueError, TypeError):
        raise ConfigurationError(f"{where} was given {value!r:.200}; possible is {possible}") from None


def _list(value: object) -> tuple[str, ...]:
    """Return a non-empty list of strings: text is split at commas."""
    items = value.split(",") if isinstance(value, str) else list(cast("Iterable[Any]", value))
    stripped = tuple(item.strip() for item in items if isinstance(item, str))
    if not items or len(stripped) != len(items) or not all(stripped):
        raise ValueError
    return stripped


def _audiences(value: object) -> tuple[str, ...]:
    audiences = _list(value)
    if any(_AUDIENCE.fullmatch(one) is None for one in audiences):
        raise ValueError
    return audiences


def _allow(value: object) -> AllowList | None:
    if value is None or isinstance(value, AllowList):
        return value
    return AllowList(_list(value))


def _rules(value: object) -> tuple[Rule, ...] | None:
    if value is None:
        return None
    rules = tuple(cast("Iterable[object]", value))
    if not rules or not all(isinstance(rule, Rule) for rule in rules):
        raise ValueError
    return cast("tuple[Rule, ...]", rules)


def _path_of_file(value: object) -> Path | None:
    return None if value is None else Path(cast("str | PathLike[str]", value))


def _policy(value: object) -> Policy | None:
    if isinstance(value, str) and value.strip().lower() == "rbac":
        return RBAC()
    if value is None or (isinstance(value, Policy) and not isinstance(value, type)):
        return value
    raise ValueError


def _source_address(value: object) -> str:
    if value not in ("pod", "off"):
        raise ValueError
    return value


def _networks(value: object) -> tuple[IPv4Network | IPv6Network, ...]:
    if isinstance(value, str):
        value = _list(value)
    return tuple(
        one if isinstance(one, IPv4Network | IPv6Network) else ip_network(cast("str", one))
        for one in cast("Iterable[object]", value)
    )


def _paths(value: object) -> tuple[str, ...]:
    paths = _list(value) if isinstance(value, str) or value else ()
    if not all(is_path_pattern(path) for path in paths):
        raise ValueError
    return paths


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    words = {
        "true": True,
        "1": True,
        "yes": True,
        "on": True,
        "false": False,
        "0": False,
        "no": False,
        "off": False,
    }
    if not isinstance(value, str) or value.strip().lower() not in words:
        raise ValueError
    return words[value.strip().lower()]


def _number(least: float, most: float) -> Callable[[object], float]:
    def parse(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise TypeError
        number = float(value)
        if not least <= number <= most:
            raise ValueError
        return number

    return parse


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TypeError
    number = int(value)
    if not 1 <= number <= 10_000_000:
        raise ValueError
    return number


_SECONDS = "a number of seconds"
_PARSERS: Mapping[str, tuple[Callable[[object], object], str]] = {
    "audience": (
        _audiences,
        'one name or several, such as "bob", without blanks, quotes, commas or backslashes',
    ),
    "allow": (_allow, 'a list of "namespace/name" with shell globs, such as "payments/*"'),
    "rules": (_rules, "a list of podproof.rules.Rule; in the environment, PODPROOF_RULES_FILE names a file of them"),
    "rules_file": (_path_of_file, "the path of a YAML file"),
    "policy": (_policy, '"rbac", a podproof.rbac.RBAC(...), or another object that is a podproof.policy.Policy'),
    "issuers": (
        lambda value: _list(value) if value else (),
        "a list of issuers as the tokens' iss claim has them",
    ),
    "source_address": (_source_address, '"pod" or "off"'),
    "trusted_proxies": (_networks, 'a list of networks, such as "10.0.0.7" or "10.1.0.0/24"'),
    "host_network": (_flag, "true or false"),
    "exempt": (_paths, 'a list of plain paths, such as "/healthz" or "/public/*"'),
    "optional": (_flag, "true or false"),
    "cache_ttl": (_number(0, 3600), f"{_SECONDS} up to 3600"),
    "cache_size": (_count, "a whole number from 1"),
    "rejection_ttl": (_number(0, 3600), f"{_SECONDS} up to 3600"),
    "rejection_size": (_count, "a whole number from 1"),
    "timeout": (_number(0.05, 300), f"{_SECONDS} from 0.05 to 300"),
    "max_reviews": (_count, "a whole number from 1"),
    "keep_authorization": (_flag, "true or false"),
}
