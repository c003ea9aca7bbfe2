"""`podproof doctor`: what keeps callers from being known here, and what mends it."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TextIO

from podproof.cli import workload
from podproof.cli.checks import allow, api, credential, issuer, options, permissions, podspec, servers, tokens
from podproof.cli.environment import Environment
from podproof.cli.finding import Finding, Level, warn
from podproof.cli.table import Colour, paint, wants_colour
from podproof.cli.workload import Workload
from podproof.errors import Unavailable
from podproof.identity import ServiceAccount
from podproof.options import Options

_COLOURS = {Level.OK: Colour.GOOD, Level.WARN: Colour.DOUBTFUL, Level.FAIL: Colour.BAD}


def doctor(facts: Environment, side: str | None, out: TextIO, *, as_json: bool = False) -> int:
    """Print what the checks find, and return the worst level: 0 ok, 1 warn, 2 fail.

    `side` is "server", "caller" or "both"; None stands for what can be seen to be there.
    """
    findings = list(diagnose(facts, side))
    worst = max(finding.level for finding in findings)
    if as_json:
        lines = [{"level": f.level.word, "subject": f.subject, "seen": f.seen, "mend": f.mend} for f in findings]
        out.write(json.dumps({"status": worst.word, "findings": lines}, indent=2) + "\n")
    else:
        width = shutil.get_terminal_size().columns if out.isatty() else None
        out.write(report(findings, coloured=wants_colour(out, facts.environ), width=width))
    return worst


def report(findings: Sequence[Finding], *, coloured: bool = False, width: int | None = None) -> str:
    """Return the findings in aligned columns, each with its mend below it, folded at `width` columns if given."""
    subjects = max(len(finding.subject) for finding in findings)
    margin = " " * (len("fail") + 2 + subjects + 2)
    lines = []
    for level, subject, seen, mend in map(_cells, findings):
        head = f"{paint(f'{level.word:4}', _COLOURS[level], coloured=coloured)}  {subject:{subjects}}  "
        folded = _fold(seen, width - len(margin)) if width else [seen]
        lines += [head + folded[0], *(margin + line for line in folded[1:])]
        lines += [margin + paint(line, Colour.HEADING, coloured=coloured) for line in mend.splitlines()]
    count = Counter(finding.level for finding in findings)
    lines += ["", ", ".join(f"{count[level]} {level.word}" for level in reversed(Level))]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _cells(finding: Finding) -> tuple[Level, str, str, str]:
    return finding.level, finding.subject, finding.seen, finding.mend


def _fold(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, max(width, 20), break_long_words=False, break_on_hyphens=False)


def diagnose(facts: Environment, side: str | None) -> Iterator[Finding]:
    """Yield what the checks find."""
    if facts.acting is None:
        yield from _diagnose_here(facts, side)
    else:
        yield from _diagnose_account(facts, facts.acting, side)


def _diagnose_here(facts: Environment, side: str | None) -> Iterator[Finding]:
    here = workload.here(facts)
    is_server, is_caller = _sides(side, server="PODPROOF_AUDIENCE" in facts.environ, caller=bool(facts.token_files))
    if is_server:
        known, read = options.read(here.environ, facts.audience)
        yield read
        yield from _check_app(here, known)
        if known is not None:
            yield from options.check_rules(known, facts.root)
        reached = _reach(facts)
        yield from reached
        if not _fail(reached):
            yield from permissions.check(facts, known)
            yield from _check_cluster(facts, known)
    if is_caller:
        yield from tokens.check(facts, None if is_server else facts.audience)


def _diagnose_account(facts: Environment, account: ServiceAccount, side: str | None) -> Iterator[Finding]:
    reached = _reach(facts)
    if not _fail(reached):
        reached += permissions.check_account(facts, account)
    yield from reached
    if _fail(reached):
        return
    pods, reason = _pods(facts, account)
    if not pods:
        yield warn(
            "pods",
            f"{reason}: the app's options, server and volumes could not be looked at",
            f"kubectl get pods --namespace {account.namespace} "
            "--output custom-columns=POD:.metadata.name,ACCOUNT:.spec.serviceAccountName",
        )
    known = options.read({}, facts.audience)[0] if facts.audience else None
    is_app = not pods and side != "caller"
    for pod in pods:
        found: list[Finding] = []
        is_server, is_caller = _sides(side, server=_is_server(pod), caller=bool(podspec.audiences(pod.spec)))
        if is_server:
            is_app = True
            known, read = options.read(pod.environ, facts.audience)
            found += [read, *_check_app(pod, known), *podspec.check_server(pod.spec)]
        if is_caller:
            found += podspec.check_caller(pod.spec, None if is_server else facts.audience, account)
        yield from (replace(finding, seen=f"{pod.name}: {finding.seen}") for finding in found)
    if is_app:
        yield from permissions.check(facts, known)
        yield from _check_cluster(facts, known)


def _reach(facts: Environment) -> list[Finding]:
    """Call the API server, if there is anything to call it with."""
    found = list(credential.check(facts))
    return found if _fail(found) else [*found, *api.check(facts)]


def _pods(facts: Environment, account: ServiceAccount) -> tuple[list[Workload], str]:
    """Return a service account's pods, and why there are none."""
    try:
        return workload.of(facts, account), f"none runs as {account}"
    except Unavailable as trouble:
        return [], trouble.reason


def _sides(side: str | None, *, server: bool, caller: bool) -> tuple[bool, bool]:
    """Return whether to look at the server's and the caller's side; with nothing to tell, at the server's.

    An audience that is given is the server's own, and where there is none of those, the one that a caller needs.
    """
    if side is not None:
        return side in ("server", "both"), side in ("caller", "both")
    return server or not caller, caller


def _is_server(pod: Workload) -> bool:
    return any(name.startswith("PODPROOF_") and name != "PODPROOF_TOKEN_FILE" for name in pod.environ)


def _fail(findings: Iterable[Finding]) -> bool:
    return any(finding.level is Level.FAIL for finding in findings)


def _check_app(app: Workload, known: Options | None) -> Iterator[Finding]:
    if known is not None:
        yield from options.check(known)
        yield from options.check_proxies(known, app.addresses)
    yield from servers.check(app.commands, app.environ)


def _check_cluster(facts: Environment, known: Options | None) -> Iterator[Finding]:
    if known is not None:
        yield from issuer.check(facts, known)
        yield from allow.check(facts, known)
