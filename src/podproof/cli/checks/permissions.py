"""The app's permissions on the API server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from podproof._apiserver.permissions import (
    CREATE_TOKENREVIEWS,
    GET_NAMESPACES,
    GET_PODS,
    Permission,
    needed_permissions,
)
from podproof.cli.checks.options import read_rules_file
from podproof.cli.environment import Environment
from podproof.cli.finding import Finding, fail, ok, warn
from podproof.errors import ConfigurationError, Unavailable
from podproof.identity import ServiceAccount

if TYPE_CHECKING:
    from podproof.options import Options


def check_permissions(environment: Environment, options: Options | None) -> Iterator[Finding]:
    """Check each permission that podproof needs by a SelfSubjectAccessReview."""
    rbac = options is not None and options.policy == "rbac"
    labels = options is not None and _asks_for_namespaces(environment, options)
    keys = options is not None and options.verify == "keys"
    watches = options is not None and options.watches_pods
    needed = needed_permissions(
        reviews=not keys,
        keys=keys and options is not None and options.jwks is None,
        watch=watches,
        namespaces=options.watch_namespaces if options is not None else (),
        rbac=rbac,
        namespace_labels=labels,
    )
    fallbacks = [*([CREATE_TOKENREVIEWS] if keys else []), *([GET_PODS] if watches else [])]
    fix = f"{' --verify keys' if keys or watches else ''}{' --policy rbac' * rbac}{' --namespace-labels' * labels}"
    try:
        yield from _check_needed(environment, needed, fix)
        yield from _check_fallbacks(environment, fallbacks, fix)
        if options is not None and options.verify == "auto":
            yield _describe_auto_mode(environment, options)
        if options is not None and options.rules_file is not None and environment.acting_as is not None:
            yield from _check_unread_rules(environment, f"{fix} --namespace-labels")
    except Unavailable as error:
        account = environment.app_account
        username = account.username if account else "system:serviceaccount:NAMESPACE:NAME"
        yield warn("permissions", f"not checked: {error.reason}", f"kubectl auth can-i --list --as {username}")


def uses_keys(environment: Environment, options: Options) -> bool:
    """Return True if the app verifies tokens by signing keys: with `verify="auto"`, if its permissions allow that."""
    if options.verify != "auto":
        return options.verify == "keys"
    try:
        return not _missing(environment, _needed_by_auto(options))
    except Unavailable:
        return False


def check_service_account(environment: Environment, account: ServiceAccount) -> Iterator[Finding]:
    """Check that a service account exists, and that we may impersonate it."""
    path = f"/api/v1/namespaces/{account.namespace}/serviceaccounts/{account.name}"
    with suppress(Unavailable):  # without this permission, the check of its permissions tells
        if environment.client.get(path, environment.deadline()).status == 404:
            yield fail(
                "account",
                f"the service account {account} does not exist",
                f"kubectl create serviceaccount {account.name} --namespace {account.namespace}",
            )
    impersonate = Permission("impersonate", "", "serviceaccounts", account.namespace)
    with suppress(Unavailable):
        if not environment.client.is_allowed(impersonate, environment.deadline()):
            yield fail(
                "account",
                f"you may not {impersonate}, which --as needs",
                "Ask an administrator for it, or run the doctor in the pod:\n"
                "kubectl exec deployment/NAME -- podproof doctor",
            )


def _check_needed(environment: Environment, needed: Sequence[Permission], options: str) -> Iterator[Finding]:
    missing = _missing(environment, needed)
    for permission in needed:
        if permission not in missing:
            yield ok("permissions", f"{environment.app_name} may {permission}")
    if missing:
        yield fail(
            "permissions",
            f"{environment.app_name} may not {', nor '.join(map(str, missing))}{_only_here(environment, missing)}",
            _grant(environment, options),
        )
    if environment.app_account is None:
        yield warn(
            "permissions",
            "checked for the kubeconfig's user; the app in its pod has its own permissions",
            "podproof doctor --as NAMESPACE/NAME",
        )


def _check_fallbacks(environment: Environment, fallbacks: Sequence[Permission], options: str) -> Iterator[Finding]:
    """Check what is needed for the tokens and pods of which the keys and the view say nothing."""
    missing = _missing(environment, fallbacks)
    for permission in fallbacks:
        if permission not in missing:
            yield ok("permissions", f"{environment.app_name} may {permission}")
    if missing:
        yield warn(
            "permissions",
            f"{environment.app_name} may not {', nor '.join(map(str, missing))}: tokens that name an unknown key, or "
            "pods that the view does not have yet, get 503",
            _grant(environment, options),
        )


def _asks_for_namespaces(environment: Environment, options: Options) -> bool:
    """Return True if a rule of the rules file asks for labels of a namespace; from outside the pod it is not read."""
    if options.rules_file is None or environment.acting_as is not None:
        return False
    with suppress(ConfigurationError):  # which another check tells
        return any(rule.namespace_labels for rule in read_rules_file(options.rules_file, environment.root))
    return False


def _check_unread_rules(environment: Environment, options: str) -> Iterator[Finding]:
    if _missing(environment, [GET_NAMESPACES]):
        yield ok(
            "permissions",
            f"{environment.app_name} may not {GET_NAMESPACES}, which it needs if its rules file has namespace_labels: "
            f"{_grant(environment, options)}",
        )


def _describe_auto_mode(environment: Environment, options: Options) -> Finding:
    missing = _missing(environment, _needed_by_auto(options))
    if missing:
        return ok(
            "mode",
            f"auto: tokens are verified by TokenReviews, since {environment.app_name} may not "
            f"{', nor '.join(map(str, missing))}; to have the signing keys used: "
            f"{_grant(environment, ' --verify keys')}",
        )
    return ok("mode", "auto: tokens are verified by the signing keys")


def _needed_by_auto(options: Options) -> list[Permission]:
    """Return the permissions with which `verify="auto"` uses the signing keys."""
    watch = options.pods != "lookup"
    return needed_permissions(reviews=False, keys=True, watch=watch, namespaces=options.watch_namespaces)


def _missing(environment: Environment, needed: Sequence[Permission]) -> list[Permission]:
    return [one for one in needed if not environment.app_client.is_allowed(one, environment.deadline())]


def _grant(environment: Environment, options: str) -> str:
    account = environment.app_account or "NAMESPACE/NAME"
    return f"podproof manifests --only rbac --server {account}{options} | kubectl apply -f -"


def _only_here(environment: Environment, missing: list[Permission]) -> str:
    """Return a remark if a RoleBinding grants the permissions, which it does only in its own namespace."""
    account = environment.app_account
    if account is None:
        return ""
    here = [one._replace(namespace=account.namespace) for one in missing]
    if not any(environment.app_client.is_allowed(one, environment.deadline()) for one in here):
        return ""
    return f", except in {account.namespace}: a RoleBinding is not enough, a ClusterRoleBinding is needed"
