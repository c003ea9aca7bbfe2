"""The keys that tokens are verified by: where they are, which ones, and whether our own token's is among them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from podproof._token.jwt import decode_segment, split_token
from podproof.cli.checks.issuer import GRANT_DISCOVERY
from podproof.cli.environment import Environment
from podproof.cli.finding import Finding, ok, skip, warn
from podproof.cli.mounts import path_below
from podproof.errors import Unavailable

if TYPE_CHECKING:
    from podproof._authentication.key_set import KeysById
    from podproof.options import Options

_REVIEWED = "such a token is reviewed by the API server, not rejected"


def check_signing_keys(environment: Environment, options: Options) -> Iterator[Finding]:
    """Fetch the keys as the app does, and look our own token's up among them."""
    from podproof._authentication.key_set import parse_key_set  # noqa: PLC0415  needs cryptography
    from podproof._authentication.key_source import make_key_source  # noqa: PLC0415

    jwks = options.jwks
    if jwks is not None and jwks.startswith("/"):
        if environment.acting_as is not None:
            yield skip(
                "keys",
                f"the signing keys are in {jwks}, a file in the app's pod, which was not read",
                "kubectl exec deployment/NAME -- podproof doctor",
            )
            return
        jwks = str(path_below(environment.root, jwks))
    source = make_key_source(jwks, environment.app_client)
    fix = GRANT_DISCOVERY if jwks is None else f"kubectl set env deployment/NAME PODPROOF_JWKS=FILE_OR_URL   ({source})"
    try:
        issuers = options.issuers or (environment.app_client.issuer(environment.deadline()),)
        keys, skipped = parse_key_set(source.fetch(environment.deadline()))
    except Unavailable as error:
        yield warn("keys", f"the signing keys of {source} cannot be read: {error.reason}; each token is reviewed", fix)
        return
    for reason in skipped:
        yield warn("keys", f"not all signing keys of {source} are used ({reason}): {_REVIEWED}", fix)
    if not keys:
        yield warn("keys", f"{source} has no signing keys: each token is reviewed by the API server", fix)
        return
    names = [f"{key.key_id} ({', '.join(key.algorithms)})" for same in keys.values() for key in same]
    yield ok(
        "keys",
        f"{source} has {len(names)} key{'s' * (len(names) > 1)} for tokens of {' and '.join(issuers)}: "
        + "; ".join(names),
    )
    yield from _check_own_key(environment, keys)


def _check_own_key(environment: Environment, keys: KeysById) -> Iterator[Finding]:
    """Look up the key of our own service-account token: the API server signs those of callers with the same one."""
    claims = environment.credential_claims
    if not str(claims.get("sub")).startswith("system:serviceaccount:"):
        return
    header, _, _ = split_token(environment.client.own_token() or "")
    key_id = json.loads(decode_segment(header)).get("kid")
    if key_id in keys:
        yield ok("keys", "the key of our own token is among them; a token that names another key is reviewed")
    elif "kubernetes.io" in claims:  # else it is from a Secret, which the controller manager signs
        yield warn(
            "keys",
            f"our own token names the key {key_id}, which is not among them: {_REVIEWED}, which costs a call for each "
            "(managed clusters publish only some of their keys)",
            "kubectl set env deployment/NAME PODPROOF_VERIFY=review   (or PODPROOF_JWKS and PODPROOF_ISSUERS, if the "
            "issuer publishes all keys at a URL)",
        )
