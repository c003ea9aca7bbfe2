"""The `podproof` command."""

from __future__ import annotations

import os
import sys
import time
from argparse import Namespace
from collections.abc import Sequence

from podproof._extras import MissingExtra, require_extra
from podproof.cli.errors import CommandError
from podproof.cli.parser import parser

# What one command needs, the others do not load: each imports its own.


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit status."""
    options = parser().parse_args(arguments)
    try:
        return _COMMANDS[options.command](options)
    except MissingExtra as error:
        print(error, file=sys.stderr)
        return 1
    except CommandError as error:
        print(f"podproof {options.command}: {error}", file=sys.stderr)
        return 1


def _demo(_: Namespace) -> int:
    require_extra("podproof demo", "testing", "wsgi")
    from podproof.cli.demo import demo  # noqa: PLC0415

    return demo(sys.stdout)


def _doctor(options: Namespace) -> int:
    require_extra("podproof doctor", "server")
    from podproof._apiserver.client import APIServerClient  # noqa: PLC0415
    from podproof.cli.doctor import doctor  # noqa: PLC0415
    from podproof.cli.environment import Environment  # noqa: PLC0415

    own = APIServerClient()
    app = APIServerClient(impersonate=options.account.username) if options.account else own
    facts = Environment(own, app, os.environ, options.account, options.audience, timeout=options.timeout)
    try:
        return doctor(facts, options.side, sys.stdout, as_json=options.json)
    finally:
        app.close()
        own.close()


def _inspect(options: Namespace) -> int:
    from podproof.cli.inspect import find, show  # noqa: PLC0415
    from podproof.cli.table import wants_colour  # noqa: PLC0415

    texts = find(options.file, sys.stdin, os.environ)
    sys.stdout.write(show(texts, time.time(), coloured=wants_colour(sys.stdout)))
    return 0


def _manifests(options: Namespace) -> int:
    from podproof.cli.manifests import manifests  # noqa: PLC0415

    sys.stdout.write(
        manifests(options.audience, options.server, options.caller, rbac=options.policy == "rbac", only=options.only)
    )
    return 0


def _completion(options: Namespace) -> int:
    from podproof.cli.completion import completion  # noqa: PLC0415

    sys.stdout.write(completion(options.shell))
    return 0


_COMMANDS = {
    "demo": _demo,
    "doctor": _doctor,
    "inspect": _inspect,
    "manifests": _manifests,
    "completion": _completion,
}
