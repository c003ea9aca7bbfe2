"""`podproof doctor`: diagnose why callers are rejected, and suggest fixes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import requests

from podproof.cli.checks.allow_list import check_allow_list
from podproof.cli.checks.api_server import check_api_server
from podproof.cli.checks.app_metrics import check_app_metrics
from podproof.cli.checks.credential import check_credential
from podproof.cli.checks.exchange import check_exchange
from podproof.cli.checks.forward_auth import check_forward_auth
from podproof.cli.checks.http_proxy import check_proxy_variables
from podproof.cli.checks.issuer import check_issuer_and_audience
from podproof.cli.checks.options import check_options, check_rules_file, check_trusted_proxies, read_options
from podproof.cli.checks.permissions import check_permissions, check_service_account, uses_keys
from podproof.cli.checks.pod_spec import check_caller_spec, check_server_spec, projected_tokens
from podproof.cli.checks.pod_watch import check_pod_watch
from podproof.cli.checks.signing_keys import check_signing_keys
from podproof.cli.checks.token_files import check_token_files
from podproof.cli.checks.web_server import check_web_servers
from podproof.cli.environment import Environment
from podproof.cli.finding import Finding, Level, warn
from podproof.cli.workload import Workload, list_workloads, read_own_workload
from podproof.errors import Unavailable
from podproof.identity import ServiceAccount

if TYPE_CHECKING:
    from podproof.options import Options


def diagnose(environment: Environment, side: str | None) -> Iterator[Finding]:
    """Yield what all checks find.

    `side` is "server", "caller" or "both"; None examines whichever side is found.
    """
    if environment.acting_as is None:
        yield from _diagnose_own_pod(environment, side)
    else:
        yield from _diagnose_from_outside(environment, environment.acting_as, side)


def _diagnose_own_pod(environment: Environment, side: str | None) -> Iterator[Finding]:
    workload = read_own_workload(environment)
    is_server, is_caller = _select_sides(
        side,
        server=workload.sets_options or not environment.in_pod,
        caller=bool(environment.token_files),
        runs_server=workload.runs_server,
    )
    if not is_server and not is_caller:
        yield _report_undecided(environment, "NAMESPACE/NAME", f"{environment.token_directory} has no token")
    if is_server:
        options, finding = read_options(workload.variables, environment.audience)
        yield finding
        yield from _check_app(workload, options)
        if options is not None:
            yield from check_rules_file(options, environment.root)
        yield from check_exchange(workload.variables, environment.root)
        yield from check_forward_auth(workload.variables, options)
        reached = _reach_api_server(environment)
        yield from reached
        if not _any_failed(reached):
            yield from check_permissions(environment, options)
            yield from _check_cluster(environment, options)
    if is_caller:
        yield from check_token_files(environment, None if is_server else environment.audience)
        yield from check_proxy_variables(environment.variables)


def _diagnose_from_outside(environment: Environment, account: ServiceAccount, side: str | None) -> Iterator[Finding]:
    reached = _reach_api_server(environment)
    if not _any_failed(reached):
        reached += check_service_account(environment, account)
    yield from reached
    if _any_failed(reached):
        return
    workloads, reason = _find_workloads(environment, account)
    if not workloads:
        yield warn(
            "pods",
            f"{reason}: the app's options, server and volumes were not checked",
            f"kubectl get pods --namespace {account.namespace} "
            "--output custom-columns=POD:.metadata.name,ACCOUNT:.spec.serviceAccountName",
        )
    options = read_options({}, environment.audience)[0] if environment.audience else None
    any_server = not workloads and side != "caller"
    for workload in workloads:
        found = [*workload.findings]
        is_server, is_caller = _select_sides(
            side,
            server=workload.sets_options,
            caller=bool(projected_tokens(workload.spec)),
            runs_server=workload.runs_server or not workload.complete,
        )
        if not is_server and not is_caller:
            found.append(_report_undecided(environment, str(account), "no volume projects a token for an app"))
        if is_server:
            any_server = True
            options, finding = read_options(workload.variables, environment.audience, complete=workload.complete)
            found += [finding, *_check_app(workload, options)]
            found += check_server_spec(workload.spec, options)
        if is_caller:
            found += check_caller_spec(workload.spec, None if is_server else environment.audience, account)
            found += check_proxy_variables(workload.variables)
        yield from (replace(finding, message=f"{workload.name}: {finding.message}") for finding in found)
    if any_server:
        yield from check_permissions(environment, options)
        yield from _check_cluster(environment, options)


def _reach_api_server(environment: Environment) -> list[Finding]:
    found = list(check_credential(environment))
    return found if _any_failed(found) else [*found, *check_api_server(environment)]


def _find_workloads(environment: Environment, account: ServiceAccount) -> tuple[list[Workload], str]:
    """Return the pods of a service account, and the reason if there are none."""
    try:
        return list_workloads(environment, account), f"no pod runs as {account}"
    except Unavailable as error:
        return [], error.reason


def _select_sides(side: str | None, *, server: bool, caller: bool, runs_server: bool) -> tuple[bool, bool]:
    """Return whether to examine the server's and the caller's side.

    With both, the audience of the command line is the server's. A pod without options and without tokens is a server if
    a web server runs in it, and else undecided.
    """
    if side is not None:
        return side in ("server", "both"), side in ("caller", "both")
    return server or (runs_server and not caller), caller


def _report_undecided(environment: Environment, account: str, no_token: str) -> Finding:
    audience = environment.audience or "bob"
    command = f"podproof doctor --as {environment.acting_as}" if environment.acting_as else "podproof doctor"
    return warn(
        "token",
        f"{no_token}, and no variable sets an option of podproof: a caller lacks its volume",
        f"podproof manifests --only caller --caller {account} --audience {audience}\n"
        f"or, to examine it as the app that is called: {command} --side server --audience {audience}",
    )


def _any_failed(findings: Iterable[Finding]) -> bool:
    return any(finding.level is Level.FAIL for finding in findings)


def _check_app(workload: Workload, options: Options | None) -> Iterator[Finding]:
    if options is not None:
        yield from check_options(options)
        yield from check_trusted_proxies(options, workload.addresses)
    yield from check_web_servers(workload.commands, workload.variables, running=not workload.spec)


def _check_cluster(environment: Environment, options: Options | None) -> Iterator[Finding]:
    if options is not None:
        keys = uses_keys(environment, options)
        watches = options.watches_pods or (keys and options.pods is None)
        yield from check_issuer_and_audience(environment, options, keys=keys)
        if keys:
            yield from check_signing_keys(environment, options)
        if watches:
            yield from check_pod_watch(environment, options)
        if keys or watches:
            with requests.Session() as http:
                yield from check_app_metrics(environment, options, http)
        yield from check_allow_list(environment, options)
