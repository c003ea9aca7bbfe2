"""The `podproof` command."""

from __future__ import annotations

import os
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from podproof.cli.errors import CommandError
from podproof.cli.parser import build_parser

if TYPE_CHECKING:
    from podproof._apiserver.client import APIServerClient

# Each command imports what it needs: a caller's image has no server's dependencies.


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit status."""
    options = build_parser().parse_args(arguments)
    try:
        return _COMMANDS[options.command](options)
    except CommandError as error:
        print(f"podproof {options.command}: {error}", file=sys.stderr)
        return 1


def _demo(_: Namespace) -> int:
    from podproof.cli.demo import run_demo  # noqa: PLC0415

    return run_demo(sys.stdout)


def _doctor(options: Namespace) -> int:
    from podproof.cli.doctor import diagnose  # noqa: PLC0415
    from podproof.cli.environment import Environment  # noqa: PLC0415
    from podproof.cli.report import print_findings  # noqa: PLC0415

    clients: list[APIServerClient] = []

    def connect(username: str | None) -> APIServerClient:
        from podproof._apiserver.client import APIServerClient  # noqa: PLC0415  not in a caller's image

        clients.append(APIServerClient(impersonate=username))
        return clients[-1]

    environment = Environment(connect, os.environ, options.account, options.audience, timeout=options.timeout)
    try:
        findings = list(diagnose(environment, options.side))
    finally:
        for client in clients:
            client.close()
    return print_findings(findings, sys.stdout, os.environ, as_json=options.json)


def _inspect(options: Namespace) -> int:
    from podproof.cli.inspect import format_tokens, read_tokens  # noqa: PLC0415
    from podproof.cli.table import use_colour  # noqa: PLC0415

    tokens = read_tokens(options.file, sys.stdin, os.environ)
    sys.stdout.write(format_tokens(tokens, time.time(), coloured=use_colour(sys.stdout)))
    return 0


def _manifests(options: Namespace) -> int:
    from podproof.cli.manifests import render_manifests  # noqa: PLC0415

    sys.stdout.write(
        render_manifests(
            options.audience, options.server, options.caller, rbac=options.policy == "rbac", only=options.only
        )
    )
    return 0


def _completion(options: Namespace) -> int:
    from podproof.cli.completion import completion_script  # noqa: PLC0415

    sys.stdout.write(completion_script(options.shell))
    return 0


_COMMANDS = {
    "demo": _demo,
    "doctor": _doctor,
    "inspect": _inspect,
    "manifests": _manifests,
    "completion": _completion,
}
