"""Grants: which pods may get a token for which audience, with which scopes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from podproof._authorization.allow_list import AllowList
from podproof.exchange.denied import ScopeNotGranted, TargetNotGranted
from podproof.exchange.token_request import is_scope, is_target
from podproof.identity import ServiceAccount

SubjectMode = Literal["service-account", "pairwise"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """Pods that may get a token for an audience.

    `audience`: the name or the URI of a service, as it is in the token and in the request (`audience` or `resource`).
    `allow`: service accounts as "namespace/name", with shell globs. `scopes`: the scopes that they may ask for; a
    request without a scope gets all of them. `users`: the issuers of users' tokens for whom they may act, by default
    none. `introspect`: who may ask whether a token for this audience is still active, by default nobody. `subject`:
    what the audience sees as `sub`, by default as the exchange is set; "pairwise" subjects differ for each audience.
    `pod`: whether the token names the pod and its service account; by default not if the subject is pairwise.

    Raises ValueError for an invalid value.
    """

    audience: str
    allow: Sequence[str]
    scopes: Sequence[str] = ()
    users: Sequence[str] = ()
    introspect: Sequence[str] = ()
    subject: SubjectMode | None = None
    pod: bool | None = None
    _allowed: AllowList = field(init=False, repr=False, compare=False)
    _introspecting: AllowList | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("allow", "scopes", "users", "introspect"):
            value = getattr(self, name)
            if isinstance(value, str) or not all(isinstance(one, str) and one for one in value):
                raise ValueError(f"invalid {name} {value!r:.80}: expected a list of texts")
            object.__setattr__(self, name, tuple(value))
        if not isinstance(self.audience, str) or not is_target(self.audience):
            raise ValueError(f"invalid audience {self.audience!r:.80}: expected a name or a URI without blanks")
        if invalid := [one for one in self.scopes if not is_scope(one)]:
            raise ValueError(
                f"invalid scope {invalid[0]!r:.80}: expected a name without blanks, quotes and backslashes"
            )
        if self.subject not in (None, "service-account", "pairwise"):
            raise ValueError(f'invalid subject {self.subject!r:.80}: expected "service-account" or "pairwise"')
        if self.pod not in (None, True, False):
            raise ValueError(f"invalid pod {self.pod!r:.80}: expected True or False")
        object.__setattr__(self, "_allowed", AllowList(self.allow))
        object.__setattr__(self, "_introspecting", AllowList(self.introspect) if self.introspect else None)

    def covers(self, service_account: ServiceAccount) -> bool:
        """Return True for a service account whose pods may get the token."""
        return self._allowed.matches(service_account)

    def lets_introspect(self, service_account: ServiceAccount) -> bool:
        """Return True for a service account whose pods may ask about a token."""
        return self._introspecting is not None and self._introspecting.matches(service_account)


class Granted(NamedTuple):
    """What a token is issued for, and what it says: see `Grant`."""

    audience: str
    scopes: tuple[str, ...]
    subject: SubjectMode
    pod: bool


class Grants:
    """A table of grants; what no grant covers is refused. `subject` is for those that do not say their own.

    Raises ValueError for users of an unknown issuer, and if an audience could not tell two users apart.
    """

    def __init__(
        self,
        grants: Iterable[Grant],
        subject: SubjectMode = "service-account",
        *,
        user_issuers: Collection[str] = (),
    ) -> None:
        self._grants = tuple(grants)
        self._subject = subject
        if unknown := {issuer for one in self._grants for issuer in one.users} - {*user_issuers}:
            raise ValueError(f"users of {min(unknown)!r:.80}, which is not in user_issuers")
        issuers: dict[str, set[str]] = {}
        for one in self._grants:
            if self._granted(one, ()).subject != "pairwise":
                issuers.setdefault(one.audience, set()).update(one.users)
        if shared := [audience for audience, users in issuers.items() if len(users) > 1]:
            raise ValueError(
                f"users of several issuers may act at {shared[0]}, who may have the same sub: expected one issuer, or "
                'subject="pairwise"'
            )

    @property
    def needs_secret(self) -> bool:
        """True if a token is to have a pairwise subject, or is not to show its pod."""
        granted = [self._granted(one, ()) for one in self._grants]
        return any(one.subject == "pairwise" or not one.pod for one in granted)

    def decide(
        self,
        service_account: ServiceAccount,
        target: str | None,
        scopes: Sequence[str] | None,
        user_issuer: str | None = None,
    ) -> Granted:
        """Return what a caller gets that asks for a target and scopes, each None if it names none.

        Without a target it is the only one that the caller may have. Several grants for one audience add up; what its
        tokens say is up to the first one. `user_issuer` is the issuer of a user's token, if the caller acts for a user.

        Raises TargetNotGranted, ScopeNotGranted.
        """
        found = [
            one
            for one in self._grants
            if one.covers(service_account)
            and target in (None, one.audience)
            and (user_issuer is None or user_issuer in one.users)
        ]
        audiences = dict.fromkeys(one.audience for one in found)
        if len(audiences) != 1:
            raise TargetNotGranted(_explain(service_account, target, user_issuer, audiences))
        granted = tuple(dict.fromkeys(scope for one in found for scope in one.scopes))
        if scopes is not None and not {*scopes} <= {*granted}:
            raise ScopeNotGranted(f"{service_account} may not have each of the scopes for {found[0].audience}")
        return self._granted(found[0], granted if scopes is None else tuple(scopes))

    def _granted(self, grant: Grant, scopes: tuple[str, ...]) -> Granted:
        subject = grant.subject or self._subject
        return Granted(grant.audience, scopes, subject, subject != "pairwise" if grant.pod is None else grant.pod)

    def introspectable(self, service_account: ServiceAccount) -> frozenset[str]:
        """Return the audiences whose tokens a service account may introspect."""
        return frozenset(one.audience for one in self._grants if one.lets_introspect(service_account))


def _explain(
    service_account: ServiceAccount, target: str | None, user_issuer: str | None, audiences: Iterable[str]
) -> str:
    user = " on behalf of a user" if user_issuer else ""
    if target is not None:
        return f"no grant lets {service_account} have a token for the audience that it names{user}"
    if named := ", ".join(audiences):
        return f"{service_account} names no audience, and may have a token for several: {named}"
    return f"no grant lets {service_account} have a token{user}"
