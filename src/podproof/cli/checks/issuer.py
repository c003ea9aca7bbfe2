"""The issuer and its keys, and the app's audience, which must not be the API server's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from podproof.cli.environment import Environment
from podproof.cli.finding import Finding, fail, ok, warn
from podproof.errors import Unavailable

if TYPE_CHECKING:
    from podproof.options import Options

GRANT_DISCOVERY = (
    "kubectl create clusterrolebinding service-account-issuer-discovery \\\n"
    "  --clusterrole system:service-account-issuer-discovery --group system:serviceaccounts"
)


def check_issuer_and_audience(environment: Environment, options: Options, *, keys: bool) -> Iterator[Finding]:
    """Compare the options with the issuer's discovery document, and review a token for another audience.

    The keys have a check of their own if tokens are verified by `keys`.
    """
    issuer = environment.credential_claims.get("iss")
    client = environment.app_client
    try:
        discovery = client.get("/.well-known/openid-configuration", environment.deadline()).document
        published = client.get("/openid/v1/jwks", environment.deadline()).document.get("keys")
    except Unavailable as error:
        if not keys:
            yield warn("keys", f"the issuer's keys (JWKS) cannot be read: {error.reason}", GRANT_DISCOVERY)
    else:
        issuer = discovery.get("issuer", issuer)
        if published and not keys:
            yield ok("keys", f"the issuer {issuer} publishes its keys ({len(published)})")
        elif not keys:
            yield warn("keys", f"the issuer {issuer} publishes no keys (JWKS)", "kubectl get --raw /openid/v1/jwks")
    if options.issuers and issuer and issuer not in options.issuers:
        yield fail(
            "issuer",
            f"issuers is {', '.join(options.issuers)}, but the tokens of this cluster are from {issuer}: all are "
            "rejected (wrong-issuer)",
            f"kubectl set env deployment/NAME PODPROOF_ISSUERS={issuer}",
        )
    shared = _find_api_audience(environment, options, issuer)
    if shared is not None:
        yield fail(
            "audience",
            f"the audience {shared} is the API server's own: with a caller's token for it, this app could act as the "
            "caller in the whole cluster",
            "kubectl set env deployment/NAME PODPROOF_AUDIENCE=bob   (and the same audience in each caller's volume)",
        )
        return
    yield ok("audience", f"{' and '.join(options.audience)}: not an audience of the API server")
    yield from _review_foreign_token(environment, options)


def _find_api_audience(environment: Environment, options: Options, issuer: object) -> str | None:
    """Return one of the app's audiences that our own token for the API server has too, or that is the issuer."""
    named = environment.credential_claims.get("aud")
    api_audiences = [*(named if isinstance(named, list) else [named]), issuer]
    return next((audience for audience in options.audience if audience in api_audiences), None)


def _review_foreign_token(environment: Environment, options: Options) -> Iterator[Finding]:
    """Have our own token reviewed, which the API server knows anyway: it is not for the app's audience."""
    token = environment.client.own_token()
    if not token or not environment.credential_claims:
        return
    try:
        review = environment.app_client.review_token(token, options.audience, environment.deadline())
    except Unavailable:  # a missing permission has its own finding
        return
    status = review.get("status")
    if isinstance(status, dict) and status.get("authenticated") is True:
        yield fail(
            "review",
            "the API server authenticated a token for another audience: one of its authenticators (a webhook) ignores "
            "audiences, and podproof rejects the tokens that it authenticates",
            "In the webhook of the API server's --authentication-token-webhook-config-file: return status.audiences "
            "(KEP-1205).",
        )
    else:
        yield ok("review", "the API server rejects a token for another audience, as expected")
