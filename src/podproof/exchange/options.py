"""The options of a token exchange, as arguments or in the environment as PODPROOF_EXCHANGE_<NAME>."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, Literal, Self, cast
from urllib.parse import urlsplit

from podproof._request.setup import MiddlewareOptions
from podproof.errors import ConfigurationError
from podproof.exchange.grants import Grant, SubjectMode
from podproof.exchange.profile import DEFAULT_LIFETIME, MAX_LIFETIME, MIN_LIFETIME
from podproof.options import is_service_variable, parse_flag

PREFIX = "PODPROOF_EXCHANGE_"

ProofMode = Literal["optional", "required"]

MAX_SHOWN = 80
"""Characters of an invalid value that a message shows."""


def _parse_issuer(value: Any) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("https", "http") or not parts.hostname or parts.query or parts.fragment or "@" in value:
        raise ValueError
    if not value.isascii() or not value.isprintable() or " " in value or value.endswith("/"):
        raise ValueError
    return cast("str", value)


def _parse_path(value: Any) -> Path:
    if not value:
        raise ValueError
    return Path(value)


def _parse_grants(value: Any) -> tuple[Grant, ...]:
    grants = tuple(value)
    if not all(isinstance(one, Grant) for one in grants):
        raise ValueError
    return grants


def _parse_lifetime(value: Any) -> float:
    seconds = float(value)
    if not MIN_LIFETIME <= seconds <= MAX_LIFETIME:
        raise ValueError
    return seconds


def _parse_subject(value: Any) -> SubjectMode:
    if value not in ("service-account", "pairwise"):
        raise ValueError
    return cast("SubjectMode", value)


def _parse_name(value: Any) -> str:
    if not value or "/" in value:
        raise ValueError
    return cast("str", value)


def _parse_dpop(value: Any) -> ProofMode:
    if value not in ("optional", "required"):
        raise ValueError
    return cast("ProofMode", value)


def _parse_urls(value: Any) -> tuple[str, ...]:
    items = value.split(",") if isinstance(value, str) else value
    return tuple(_parse_issuer(item.strip()) for item in items)


def _parse_user_issuers(value: Any) -> Mapping[str, str]:
    if isinstance(value, str):
        value = dict(item.strip().split("=", 1) for item in value.split(","))
    issuers = dict(value)
    if not all(
        issuer and isinstance(source, str) and source.startswith(("/", "https://"))
        for issuer, source in issuers.items()
    ):
        raise ValueError
    return issuers


_PARSERS: Mapping[str, tuple[Callable[[Any], object], str]] = {
    "issuer": (_parse_issuer, "a URL without a query, a fragment and a slash at its end, such as https://bridge"),
    "keys": (_parse_path, "the path of a directory"),
    "grants": (_parse_grants, "a list of podproof.exchange.Grant (in the environment: PODPROOF_EXCHANGE_GRANTS_FILE)"),
    "grants_file": (_parse_path, "the path of a YAML file"),
    "lifetime": (_parse_lifetime, f"seconds between {MIN_LIFETIME} and {MAX_LIFETIME}"),
    "subject": (_parse_subject, '"service-account" or "pairwise"'),
    "pairwise_secret": (_parse_name, "the name of a file *.pairwise in the directory of keys"),
    "user_issuers": (
        _parse_user_issuers,
        "issuers of users' tokens and their JWK Sets, such as https://idp.example=https://idp.example/jwks.json",
    ),
    "dpop": (_parse_dpop, '"optional" or "required"'),
    "nonce": (parse_flag, "true or false"),
    "urls": (_parse_urls, "a list of URLs without a query, a fragment and a slash at their end"),
}


class ExchangeArguments(MiddlewareOptions, total=False):
    """What a `TokenExchange` takes: its own options (see `ExchangeOptions`), and those of a middleware."""

    issuer: str
    keys: str | PathLike[str]
    grants: Iterable[Grant]
    grants_file: str | PathLike[str]
    lifetime: float
    subject: SubjectMode
    pairwise_secret: str
    user_issuers: Mapping[str, str]
    dpop: ProofMode
    nonce: bool
    urls: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeOptions:
    """The options of a token exchange, parsed and validated.

    issuer: the `iss` of issued tokens, the URL that this app has; keys: the directory of its keys, see `KeyDirectory`;
    grants, grants_file: who may get a token for which audience, in code or in a YAML file that is read again when it
    changes; lifetime: of issued tokens, in seconds; subject: what audiences see as `sub` whose grant does not say it;
    pairwise_secret: the file of the secret for pairwise subjects, needed where there are several; user_issuers: the
    issuers of users' tokens for whom pods may act, and their JWK Sets, a path or an https URL each; dpop: whether a
    token is only issued with a proof of possession (RFC 9449), whose key it is then bound to; nonce: whether such a
    proof has to have a nonce of ours, which an error brings; urls: other URLs than the issuer that this app has, for
    which such proofs are made too.
    """

    issuer: str
    keys: Path
    grants: tuple[Grant, ...] | None = None
    grants_file: Path | None = None
    lifetime: float = DEFAULT_LIFETIME
    subject: SubjectMode = "service-account"
    pairwise_secret: str | None = None
    user_issuers: Mapping[str, str] = field(default_factory=dict)
    dpop: ProofMode = "optional"
    nonce: bool = False
    urls: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.grants is None) == (self.grants_file is None):
            raise ConfigurationError("expected one of grants and grants_file: who may get a token for which audience")

    @classmethod
    def read(cls, given: Mapping[str, Any], environ: Mapping[str, str]) -> Self:
        """Return the options: an argument wins over the environment, the environment over the default.

        Raises ConfigurationError, for an unknown variable too.
        """
        values = {name: _parse(name, name, value) for name, value in given.items() if value is not None}
        for variable, text in environ.items():
            if not variable.startswith(PREFIX) or is_service_variable(variable) or not text.strip():
                continue
            name = variable.removeprefix(PREFIX).lower()
            if name not in _PARSERS:
                raise ConfigurationError(
                    f"unknown option {variable}: expected one of {', '.join(PREFIX + one.upper() for one in _PARSERS)}"
                )
            if name not in values and not (name == "grants_file" and "grants" in values):
                values[name] = _parse(name, variable, text.strip())
        for name in ("issuer", "keys"):
            if name not in values:
                raise ConfigurationError(
                    f"no {name} was given, nor {PREFIX}{name.upper()}: expected {_PARSERS[name][1]}"
                )
        return cls(**cast("Any", values))


def split_arguments(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the arguments of an exchange and those of a middleware."""
    own = {name: value for name, value in given.items() if name in _PARSERS}
    return own, {name: value for name, value in given.items() if name not in own}


def _parse(name: str, where: str, value: object) -> object:
    parse, expected = _PARSERS[name]
    try:
        return parse(value)
    except (AttributeError, TypeError, ValueError):
        shown = repr(value)
        shown = f"{shown[:MAX_SHOWN]}…" if len(shown) > MAX_SHOWN else shown
        raise ConfigurationError(f"invalid {where} {shown}: expected {expected}") from None
