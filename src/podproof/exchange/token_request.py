"""A request of a token endpoint: its form, parsed strictly, and what it asks for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qsl

from podproof.exchange.oauth_error import OAuthError

TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"  # noqa: S105  RFC 8693 section 2.1
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"  # RFC 7523 section 2.1
CLIENT_CREDENTIALS = "client_credentials"  # RFC 6749 section 4.4, with a client assertion
GRANT_TYPES = (TOKEN_EXCHANGE, JWT_BEARER, CLIENT_CREDENTIALS)

CLIENT_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"  # RFC 7523 section 2.2

_TOKEN_TYPE = "urn:ietf:params:oauth:token-type:"  # noqa: S105  RFC 8693 section 3
ACCESS_TOKEN_TYPE = f"{_TOKEN_TYPE}access_token"
JWT_TYPE = f"{_TOKEN_TYPE}jwt"
ID_TOKEN_TYPE = f"{_TOKEN_TYPE}id_token"

MAX_BODY = 65_536
"""The longest form that is read, in bytes: three tokens of the longest, escaped, and the rest."""

MAX_FIELDS = 32
MAX_TARGET = 1024
MAX_SCOPE = 1024
"""The longest audience or resource, and the longest scope, in characters."""

_REPEATABLE = ("audience", "resource")  # RFC 8693 section 2.1, RFC 8707 section 2
_SCOPE = re.compile(r"[!#-\[\]-~]+( [!#-\[\]-~]+)*")  # RFC 6749 section 3.3
_RESOURCE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!-\"$-~]+")  # an absolute URI without a fragment: RFC 8707 section 2
_TARGET = re.compile(r"[!-~]+")

CredentialSource = Literal["subject_token", "actor_token", "assertion", "client_assertion", "Authorization header"]


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """What a request asks for: a token for `target`, on the strength of `credential`, the pod's projected token.

    `source` is the parameter that had it. `user_token` is that of the user for whom the pod acts, None where it acts
    for itself; `user_source` its parameter. `target` is an audience or the URI of a resource, None if none is named;
    `scopes` are those asked for, None if none are. `client_id` has to be the caller's, where it is given.
    """

    grant_type: str
    credential: str = field(repr=False)
    source: CredentialSource
    user_token: str | None = field(repr=False)
    user_source: CredentialSource
    target: str | None
    scopes: tuple[str, ...] | None
    issued_token_type: str
    client_id: str | None


Form = Mapping[str, Sequence[str]]


def is_target(text: str) -> bool:
    """Return True for what an audience can be: visible ASCII."""
    return len(text) <= MAX_TARGET and _TARGET.fullmatch(text) is not None


def is_scope(text: str) -> bool:
    """Return True for one scope (RFC 6749 section 3.3)."""
    return len(text) <= MAX_SCOPE and " " not in text and _SCOPE.fullmatch(text) is not None


def parse_form(content_type: str, body: bytes) -> Form:
    """Return the parameters of a form with their values, without those that are empty (RFC 6749 section 3.2).

    Raises OAuthError, also for a parameter that is repeated and may not be.
    """
    if content_type.partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        raise OAuthError("invalid_request", "The body must be application/x-www-form-urlencoded.")
    form: dict[str, list[str]] = {}
    try:
        text = body.decode("ascii")
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS) if text else []
    except ValueError:  # UnicodeDecodeError is one
        raise OAuthError("invalid_request", "The body is not a form in UTF-8, or has too many parameters.") from None
    for name, value in pairs:
        form.setdefault(name, []).append(value)
    for name, values in form.items():
        if len(values) > 1 and name not in _REPEATABLE:
            raise OAuthError("invalid_request", "A parameter is repeated.")
    return {name: present for name, values in form.items() if (present := [value for value in values if value])}


def parse_token_request(form: Form) -> TokenRequest:
    """Return what a form asks for. Raises OAuthError."""
    grant_type = _one(form, "grant_type")
    if grant_type is None:
        raise OAuthError("invalid_request", "The parameter grant_type is missing.")
    if grant_type not in GRANT_TYPES:
        raise OAuthError("unsupported_grant_type", "Token exchange, jwt-bearer and client_credentials are supported.")
    if "client_secret" in form:
        raise OAuthError("invalid_client", "Clients have no secret here: use a client_assertion.", status=401)
    client = parse_client_assertion(form)
    subject, subject_source = _subject(form, grant_type)
    actor = _actor(form) if grant_type == TOKEN_EXCHANGE else None
    if client is not None and actor is not None and client != actor:
        raise OAuthError("invalid_request", "The actor_token must be the client_assertion, or be left out.")
    credential, source = _credential(client, actor, subject, subject_source)
    user_token = None if subject in (None, credential) else subject
    if user_token is None and grant_type == TOKEN_EXCHANGE and _one(form, "subject_token_type") != JWT_TYPE:
        raise OAuthError("invalid_request", f"The subject_token_type of a pod's own token is {JWT_TYPE}.")
    return TokenRequest(
        grant_type=grant_type,
        credential=credential,
        source=source,
        user_token=user_token,
        user_source=subject_source,
        target=_target(form),
        scopes=_scopes(form),
        issued_token_type=_issued_token_type(form) if grant_type == TOKEN_EXCHANGE else ACCESS_TOKEN_TYPE,
        client_id=_one(form, "client_id"),
    )


def parse_client_assertion(form: Form) -> str | None:
    """Return the token by which a client authenticates (RFC 7523 section 2.2), None if it does not. Raises OAuthError.

    A client_assertion without its type, or of another one, is refused.
    """
    assertion, kind = _one(form, "client_assertion"), _one(form, "client_assertion_type")
    if (assertion is None) != (kind is None):
        raise OAuthError(
            "invalid_request", "The parameters client_assertion and client_assertion_type belong together."
        )
    if kind not in (None, CLIENT_ASSERTION_TYPE):
        raise OAuthError("invalid_client", f"The client_assertion_type must be {CLIENT_ASSERTION_TYPE}.", status=401)
    return assertion


def _subject(form: Form, grant_type: str) -> tuple[str | None, CredentialSource]:
    """Return the token of whom the issued one is about, and its parameter."""
    if grant_type == CLIENT_CREDENTIALS:
        return None, "client_assertion"
    if grant_type == JWT_BEARER:
        return _required(form, "assertion"), "assertion"
    subject = _required(form, "subject_token")
    kind = _required(form, "subject_token_type")
    if kind not in (JWT_TYPE, ID_TOKEN_TYPE, ACCESS_TOKEN_TYPE):
        raise OAuthError("invalid_request", f"The subject_token_type must be {JWT_TYPE}.")
    return subject, "subject_token"


def _actor(form: Form) -> str | None:
    actor, kind = _one(form, "actor_token"), _one(form, "actor_token_type")
    if (actor is None) != (kind is None):  # RFC 8693 section 2.1
        raise OAuthError("invalid_request", "The parameters actor_token and actor_token_type belong together.")
    if kind not in (None, JWT_TYPE):
        raise OAuthError("invalid_request", f"The actor_token_type must be {JWT_TYPE}.")
    return actor


def _credential(
    client: str | None, actor: str | None, subject: str | None, subject_source: CredentialSource
) -> tuple[str, CredentialSource]:
    """Return the pod's own token: that of the client, or the actor, or else the subject is the pod itself."""
    if client is not None:
        return client, "client_assertion"
    if actor is not None:
        return actor, "actor_token"
    if subject is not None:
        return subject, subject_source
    raise OAuthError("invalid_client", "The parameter client_assertion is missing.", status=401)


def _target(form: Form) -> str | None:
    resources = form.get("resource", ())
    if not all(len(one) <= MAX_TARGET and _RESOURCE.fullmatch(one) for one in resources):
        raise OAuthError("invalid_target", "A resource must be an absolute URI without a fragment.")
    audiences = form.get("audience", ())
    if not all(map(is_target, audiences)):
        raise OAuthError("invalid_target", "An audience must be a name without blanks.")
    targets = {*resources, *audiences}
    if len(targets) > 1:
        raise OAuthError("invalid_target", "A token is issued for one audience or resource at a time.")
    return next(iter(targets), None)


def _scopes(form: Form) -> tuple[str, ...] | None:
    text = _one(form, "scope")
    if text is None:
        return None
    if len(text) > MAX_SCOPE or _SCOPE.fullmatch(text) is None:
        raise OAuthError("invalid_scope", "The scope must be a list of names, separated by single blanks.")
    return tuple(dict.fromkeys(text.split(" ")))


def _issued_token_type(form: Form) -> str:
    kind = _one(form, "requested_token_type") or ACCESS_TOKEN_TYPE
    if kind not in (ACCESS_TOKEN_TYPE, JWT_TYPE):
        raise OAuthError("invalid_request", f"The requested_token_type must be {ACCESS_TOKEN_TYPE} or {JWT_TYPE}.")
    return kind


def _required(form: Form, name: str) -> str:
    value = _one(form, name)
    if value is None:
        raise OAuthError("invalid_request", f"The parameter {name} is missing.")
    return value


def _one(form: Form, name: str) -> str | None:
    return next(iter(form.get(name, ())), None)
