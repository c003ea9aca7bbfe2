"""Are those who are allowed there at all? A name that is misspelt allows nobody."""

from __future__ import annotations

from collections.abc import Iterator

from podproof.cli.environment import Environment
from podproof.cli.finding import Finding, warn
from podproof.errors import Unavailable
from podproof.options import Options


def check(facts: Environment, options: Options) -> Iterator[Finding]:
    """Look up each service account that is allowed by its plain name, where we may."""
    patterns = options.allow.patterns if options.allow else ()
    for pattern in patterns:
        if any(sign in pattern for sign in "*?["):
            continue
        namespace, _, name = pattern.partition("/")
        try:
            answer = facts.own.get(f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}", facts.deadline())
        except Unavailable:  # we may not look: an app in its pod need not be able to
            return
        if answer.status == 404:
            yield warn(
                "allow",
                f"allow has {pattern}, and there is no such service account",
                f"kubectl get serviceaccounts --namespace {namespace}",
            )
