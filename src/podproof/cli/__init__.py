"""The `podproof` command."""

from __future__ import annotations

import os
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from podproof._extras import MissingExtra, require_extra
from podproof.cli.errors import CommandError
from podproof.cli.parser import parse_arguments

if TYPE_CHECKING:
    from podproof._apiserver.client import APIServerClient

# Each command imports what it needs: a caller's image has no server's dependencies.


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit status."""
    try:
        try:
            return _run(parse_arguments(arguments))
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # as in `podproof doctor | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more at its end
        return _SIGPIPE


def _run(options: Namespace) -> int:
    try:
        return _COMMANDS[options.command](options)
    except MissingExtra as error:
        print(error, file=sys.stderr)
        return 1
    except CommandError as error:
        print(f"podproof {options.command}: {error}", file=sys.stderr)
        return 1


_SIGPIPE = 128 + 13
"""The exit status of other programs that write into a closed pipe."""


def _demo(options: Namespace) -> int:
    require_extra("podproof demo", "testing", "wsgi")
    from podproof.cli.demo import run_demo  # noqa: PLC0415

    return run_demo(sys.stdout, options.verify)


def _call(options: Namespace) -> int:
    from podproof.cli.call import CallOptions, make_call  # noqa: PLC0415
    from podproof.cli.report import print_findings  # noqa: PLC0415

    call = CallOptions(
        options.url, options.method, options.audience, options.token_file, options.timeout, options.header
    )
    return print_findings(list(make_call(call, time.time())), sys.stdout, os.environ, as_json=options.json)


def _doctor(options: Namespace) -> int:
    from podproof.cli.doctor import diagnose  # noqa: PLC0415
    from podproof.cli.environment import Environment  # noqa: PLC0415
    from podproof.cli.report import print_findings  # noqa: PLC0415

    clients: list[APIServerClient] = []

    def connect(username: str | None) -> APIServerClient:
        require_extra("podproof doctor", "server")  # not in a caller's image
        from podproof._apiserver.client import APIServerClient  # noqa: PLC0415
        from podproof._apiserver.connection import load_configuration  # noqa: PLC0415

        load = partial(load_configuration, environ=variables, context=options.context)
        clients.append(APIServerClient(load=load, impersonate=username))
        return clients[-1]

    variables = {**os.environ, **_select_kubeconfig(options)}
    environment = Environment(
        connect,
        variables,
        options.account,
        options.audience,
        timeout=options.timeout,
        context=options.context,
        metrics_url=options.metrics,
    )
    try:
        findings = list(diagnose(environment, options.side))
    finally:
        for client in clients:
            client.close()
    return print_findings(findings, sys.stdout, os.environ, as_json=options.json)


def _select_kubeconfig(options: Namespace) -> dict[str, str]:
    """Return KUBECONFIG if an option selects it, also in a pod, where the mounted credential would be used."""
    if options.kubeconfig:
        return {"KUBECONFIG": options.kubeconfig}
    if options.context and not os.environ.get("KUBECONFIG"):
        return {"KUBECONFIG": os.path.expanduser("~/.kube/config")}  # noqa: PTH111  text for a variable
    return {}


def _inspect(options: Namespace) -> int:
    from podproof.cli.inspect import format_tokens, read_tokens  # noqa: PLC0415
    from podproof.cli.table import use_colour  # noqa: PLC0415

    if options.reverse is not None:
        require_extra("podproof inspect --reverse", "server")
        from podproof.cli.reverse import reverse, reverse_tokens  # noqa: PLC0415

        if options.subject is not None:
            sys.stdout.write(reverse(options.reverse, options.subject, options.audience))
        else:
            sys.stdout.write(reverse_tokens(options.reverse, read_tokens(options.file, sys.stdin, os.environ)))
        return 0
    tokens = read_tokens(options.file, sys.stdin, os.environ)
    sys.stdout.write(format_tokens(tokens, time.time(), coloured=use_colour(sys.stdout)))
    return 0


def _report(options: Namespace) -> int:
    from podproof.cli.denials import format_report, read_decisions  # noqa: PLC0415
    from podproof.cli.table import use_colour  # noqa: PLC0415

    counts = read_decisions(options.file, sys.stdin)
    sys.stdout.write(format_report(counts, coloured=use_colour(sys.stdout)))
    return 1 if counts.denials else 0


def _manifests(options: Namespace) -> int:
    if options.exchange:
        require_extra("podproof manifests --exchange", "exchange")
    from podproof.cli.manifests import render_manifests  # noqa: PLC0415

    sys.stdout.write(
        render_manifests(
            options.audience,
            options.server,
            options.caller,
            rbac=options.policy == "rbac",
            keys=options.verify == "keys",
            namespace_labels=options.namespace_labels,
            exchange=options.exchange,
            forward_auth=options.forward_auth,
            only=options.only,
        )
    )
    return 0


def _serve(options: Namespace) -> int:
    require_extra(f"podproof serve {options.what}", options.what)
    from podproof.cli.serve import Listener, serve  # noqa: PLC0415

    listener = Listener(options.host, options.port, options.tls_certificate, options.tls_key)
    given = {name: value for name, value in vars(options).items() if name not in _OF_SERVER and value is not None}
    try:
        if options.what == "exchange":
            from podproof.exchange.app import TokenExchange  # noqa: PLC0415

            serve(TokenExchange(**cast("Any", given)), listener)
        else:
            from podproof.forward_auth import ForwardAuth  # noqa: PLC0415

            forward_auth = ForwardAuth(**cast("Any", given))
            serve(forward_auth, listener, forward_auth.is_asked_by)
    except ValueError as error:  # ConfigurationError is one
        raise CommandError(str(error)) from None
    return 0


_OF_SERVER = {"command", "what", "host", "port", "tls_certificate", "tls_key"}


def _completion(options: Namespace) -> int:
    from podproof.cli.completion import completion_script  # noqa: PLC0415

    sys.stdout.write(completion_script(options.shell))
    return 0


_COMMANDS = {
    "demo": _demo,
    "doctor": _doctor,
    "call": _call,
    "inspect": _inspect,
    "report": _report,
    "manifests": _manifests,
    "serve": _serve,
    "completion": _completion,
}
