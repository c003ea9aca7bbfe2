"""Whose tokens, for whom: the cluster's issuer and keys, and audiences that must not be ours."""

from __future__ import annotations

from collections.abc import Iterator

from podproof._apiserver.startup import check_audiences
from podproof.cli.environment import Environment
from podproof.cli.finding import Finding, fail, ok, warn
from podproof.errors import ConfigurationError, Unavailable
from podproof.options import Options

_READABLE = (
    "kubectl create clusterrolebinding service-account-issuer-discovery \\\n"
    "  --clusterrole system:service-account-issuer-discovery --group system:serviceaccounts"
)


def check(facts: Environment, options: Options) -> Iterator[Finding]:
    """Compare the options with the issuer's own documents, and have a token for others refused."""
    issuer = facts.own_claims.get("iss")
    try:
        found = facts.app.get("/.well-known/openid-configuration", facts.deadline()).document
        keys = facts.app.get("/openid/v1/jwks", facts.deadline()).document.get("keys")
    except Unavailable as trouble:
        yield warn("keys", f"the cluster's keys (JWKS) cannot be read: {trouble.reason}", _READABLE)
    else:
        issuer = found.get("issuer", issuer)
        if keys:
            yield ok("keys", f"the issuer {issuer} shows its keys ({len(keys)})")
        else:
            yield warn("keys", "the cluster shows no keys (JWKS) of its issuer", "kubectl get --raw /openid/v1/jwks")
    yield from _check_issuer(options, issuer)
    audience = _check_audience(facts, options, issuer)
    yield audience or ok("audience", f"{' and '.join(options.audience)}: not the API server's own")
    if audience is None:
        yield from _check_review(facts, options)


def _check_issuer(options: Options, issuer: object) -> Iterator[Finding]:
    if options.issuers and issuer and issuer not in options.issuers:
        yield fail(
            "issuer",
            f"issuers has {', '.join(options.issuers)}, and this cluster's tokens come from {issuer}: each is refused",
            f"kubectl set env deployment/NAME PODPROOF_ISSUERS={issuer}",
        )


def _check_audience(facts: Environment, options: Options, issuer: object) -> Finding | None:
    try:
        check_audiences(options.audience, facts.own.own_token())
    except ConfigurationError as error:
        seen = str(error)
    else:
        if issuer not in options.audience:
            return None
        seen = f"the audience {issuer} is the issuer, and by that the API server's own: callers must not send you such"
    return fail(
        "audience", seen, "kubectl set env deployment/NAME PODPROOF_AUDIENCE=bob   (and the same in each caller)"
    )


def _check_review(facts: Environment, options: Options) -> Iterator[Finding]:
    """Have a token reviewed that is not for us: our own for the API server, which has it anyway."""
    token = facts.own.own_token()
    if not token or not facts.own_claims:
        return
    try:
        status = facts.app.review_token(token, options.audience, facts.deadline()).get("status")
    except Unavailable:  # the permission is missing, and has been named
        return
    if isinstance(status, dict) and status.get("authenticated") is True:
        yield fail(
            "review",
            "the API server vouches for a token that is for another audience: one of its authenticators (a webhook) "
            "knows no audiences, and podproof refuses what it vouches for",
            "In the API server's --authentication-token-webhook: answer with status.audiences (KEP-1205).",
        )
    else:
        yield ok("review", "a token for another audience is refused by the API server, as it must be")
