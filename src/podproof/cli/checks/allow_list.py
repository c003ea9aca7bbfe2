"""Whether the allowed callers exist: a misspelt name allows no caller."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from podproof.cli.environment import Environment
from podproof.cli.finding import Finding, skip, warn
from podproof.errors import Unavailable

if TYPE_CHECKING:
    from podproof.options import Options


def check_allow_list(environment: Environment, options: Options) -> Iterator[Finding]:
    """Look up each allowed service account that is named without wildcards, if this is permitted."""
    patterns = options.allow.patterns if options.allow else ()
    for pattern in patterns:
        if any(character in pattern for character in "*?["):
            continue
        namespace, _, name = pattern.partition("/")
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}"
        try:
            response = environment.client.get(path, environment.deadline())
        except Unavailable:  # an app in its pod does not need this permission
            yield skip("allow", "whether the allowed service accounts exist was not checked: it is not permitted here")
            return
        if response.status == 404:
            yield warn(
                "allow",
                f"allow contains {pattern}, but this service account does not exist",
                f"kubectl get serviceaccounts --namespace {namespace}",
            )
