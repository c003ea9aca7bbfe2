"""What the app may ask the API server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from podproof._apiserver.permissions import CREATE_ACCESS_REVIEWS, CREATE_TOKENREVIEWS, GET_PODS, Permission
from podproof.cli.environment import Environment
from podproof.cli.finding import Finding, fail, ok, warn
from podproof.errors import Unavailable
from podproof.identity import ServiceAccount
from podproof.options import Options


def check(facts: Environment, options: Options | None) -> Iterator[Finding]:
    """Ask the API server, by SelfSubjectAccessReview, for each call that podproof makes."""
    rbac = options is not None and options.policy == "rbac"
    try:
        yield from _check_needed(facts, rbac=rbac)
    except Unavailable as trouble:
        account = facts.account
        yield warn(
            "permissions",
            f"could not be asked for: {trouble.reason}",
            f"kubectl auth can-i --list --as {account.username if account else 'system:serviceaccount:NAMESPACE:NAME'}",
        )


def check_account(facts: Environment, account: ServiceAccount) -> Iterator[Finding]:
    """Look whether there is such a service account, and whether we may ask as if we were it."""
    path = f"/api/v1/namespaces/{account.namespace}/serviceaccounts/{account.name}"
    with suppress(Unavailable):  # we may not look: then its permissions will show
        if facts.own.get(path, facts.deadline()).status == 404:
            yield fail(
                "account",
                f"there is no service account {account}",
                f"kubectl create serviceaccount {account.name} --namespace {account.namespace}",
            )
    impersonate = Permission("impersonate", "", "serviceaccounts", account.namespace)
    with suppress(Unavailable):
        if not facts.own.is_allowed(impersonate, facts.deadline()):
            yield fail(
                "account",
                f"you may not {impersonate}, which --as needs",
                "Ask for it, or run the doctor in the pod:\nkubectl exec deployment/NAME -- podproof doctor",
            )


def _check_needed(facts: Environment, *, rbac: bool) -> Iterator[Finding]:
    needed = [CREATE_TOKENREVIEWS, GET_PODS, *([CREATE_ACCESS_REVIEWS] if rbac else [])]
    missing = [one for one in needed if not facts.app.is_allowed(one, facts.deadline())]
    for permission in needed:
        if permission not in missing:
            yield ok("permissions", f"{facts.who} may {permission}")
    if missing:
        account = facts.account
        yield fail(
            "permissions",
            f"{facts.who} may not {', nor '.join(map(str, missing))}{_in_a_namespace(facts, missing)}",
            f"podproof manifests --only rbac --server {account or 'NAMESPACE/NAME'}{' --policy rbac' * rbac} "
            "| kubectl apply -f -",
        )
    if facts.account is None:
        yield warn(
            "permissions",
            "asked for the kubeconfig's user, which the app in its pod will not be",
            "podproof doctor --as NAMESPACE/SERVICEACCOUNT",
        )


def _in_a_namespace(facts: Environment, missing: list[Permission]) -> str:
    """Tell a RoleBinding from no binding: the first gives the permission in its namespace alone."""
    account = facts.account
    if account is None:
        return ""
    there = [one._replace(namespace=account.namespace) for one in missing]
    if not any(facts.app.is_allowed(one, facts.deadline()) for one in there):
        return ""
    return f" but in {account.namespace}: a RoleBinding does not do, a ClusterRoleBinding is needed"
