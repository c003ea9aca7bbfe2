"""The command line of `podproof`: what can be given, and what `--help` says of it."""

from __future__ import annotations

import re
from argparse import ArgumentParser, ArgumentTypeError, RawDescriptionHelpFormatter
from typing import Any

from podproof._version import __version__
from podproof.identity import ServiceAccount

_DEMO = """\
Starts an emulated API server, a Bob who asks it, and those who call him from
loopback addresses; prints who called, from where, with what, and what came of
it. Needs no cluster. The exit status is 0 if every call came out as it must,
1 else."""

_DOCTOR = """\
Looks for what keeps callers from being known, and says what mends it. Run it
in the app's pod or the caller's; or outside, with a kubeconfig and --as, which
acts as the app's service account and looks at its pods.

The exit status is the worst that was found: 0 ok, 1 warn, 2 fail."""

_DOCTOR_EXAMPLES = """\
examples:
  kubectl exec deployment/bob -- podproof doctor
  kubectl exec deployment/alice -- podproof doctor
  podproof doctor --as default/bob
  podproof doctor --as default/bob --audience bob   (the app's code names it)
  podproof doctor --as default/alice --audience bob --side caller
  podproof doctor --json | jq '.findings[] | select(.level != "ok")'"""

_INSPECT = """\
Shows what a service-account token says: whose it is, bound to which pod, for
which audience, for how long, and what it is good for. It is not verified,
which the API server alone can do; neither it nor its signature is shown.

Without FILE it is read from standard input, or else where it is mounted in a
pod. The exit status is 0 if there was a token to be read, 1 else."""

_INSPECT_EXAMPLES = """\
examples:
  kubectl exec deployment/alice -- podproof inspect
  kubectl create token alice --audience bob | podproof inspect
  podproof inspect /var/run/secrets/kubernetes.io/serviceaccount/token"""

_MANIFESTS = """\
Prints the YAML for both sides: service accounts, the caller's volume with the
token for the server's audience, Deployments to fill in, and the smallest
permissions with which the server can ask about its callers."""

_MANIFESTS_EXAMPLES = """\
examples:
  podproof manifests --caller default/alice --audience bob --server default/bob
  podproof manifests --caller shop/cart --caller shop/till --audience prices \\
    --server shop/prices --policy rbac
  podproof manifests --only rbac --server default/bob | kubectl apply -f -"""

_COMPLETION = """\
Prints the script with which a shell completes this command. It needs the extra
podproof[completion]."""

_COMPLETION_EXAMPLES = """\
examples:
  podproof completion bash > ~/.local/share/bash-completion/completions/podproof
  podproof completion zsh > ~/.zsh/completions/_podproof   (a folder in $fpath)
  podproof completion tcsh > ~/.podproof.tcsh   (source it in ~/.tcshrc)"""


def parser(file_completion: object = None) -> ArgumentParser:
    """Return the parser. `file_completion` is what shtab completes a file's name with."""
    top = ArgumentParser(prog="podproof", description="Tells a web app which pod is calling it.", formatter_class=_Help)
    top.add_argument("--version", action="version", version=f"podproof {__version__}")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND", dest="command")

    def add(name: str, summary: str, description: str, examples: str = "") -> ArgumentParser:
        return commands.add_parser(
            name,
            help=summary,
            description=description,
            epilog=examples,
            formatter_class=_Help,
        )

    add("demo", "show who is known and who is refused, on an emulated cluster", _DEMO)

    doctor = add("doctor", "find what keeps callers from being known, and what mends it", _DOCTOR, _DOCTOR_EXAMPLES)
    doctor.add_argument("--json", action="store_true", help="print JSON, for other programs")
    doctor.add_argument(
        "--audience", help="the app's audience, where PODPROOF_AUDIENCE does not say it, or the one that a caller needs"
    )
    doctor.add_argument(
        "--as", dest="account", type=_account, metavar="NAMESPACE/SERVICEACCOUNT", help="act as this one"
    )
    doctor.add_argument(
        "--side",
        choices=("server", "caller", "both"),
        help="whose side to look at; by default, what is seen to be there",
    )
    doctor.add_argument(
        "--timeout", type=_seconds, default=5.0, metavar="SECONDS", help="for each question to the API server (5)"
    )

    inspect = add("inspect", "show what a token says, and what it is good for", _INSPECT, _INSPECT_EXAMPLES)
    file: Any = inspect.add_argument("file", nargs="?", metavar="FILE", help="the token's file; - is standard input")
    if file_completion is not None:
        file.complete = file_completion

    manifests = add("manifests", "print the YAML for a server and its callers", _MANIFESTS, _MANIFESTS_EXAMPLES)
    manifests.add_argument("--server", type=_account, metavar="NAMESPACE/NAME", help="the app's service account")
    manifests.add_argument(
        "--caller",
        type=_account,
        action="append",
        default=[],
        metavar="NAMESPACE/NAME",
        help="a caller's service account; may be given several times",
    )
    manifests.add_argument("--audience", type=_audience, help="what the callers' tokens are issued for, such as bob")
    manifests.add_argument("--mode", choices=("review",), default="review", help="how tokens are verified (review)")
    manifests.add_argument(
        "--policy",
        choices=("allow", "rbac"),
        default="allow",
        help="who says who may call: a list in the app's environment, or the cluster's RBAC (allow)",
    )
    manifests.add_argument("--only", choices=("rbac", "server", "caller"), help="print this part alone")

    shells = add("completion", "print the script for a shell's completion", _COMPLETION, _COMPLETION_EXAMPLES)
    shells.add_argument("shell", choices=("bash", "zsh", "tcsh"))
    return top


class _Help(RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34)
        self._action_max_length = len("completion") + 4  # argparse itself forgets that commands are indented


def _account(text: str) -> ServiceAccount:
    namespace, _, name = text.partition("/")
    try:
        return ServiceAccount.from_username(f"system:serviceaccount:{namespace}:{name}")
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not of the form NAMESPACE/NAME, such as default/alice") from None


def _audience(text: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:-]*", text) is None:
        raise ArgumentTypeError(f"{text!r} cannot name the folder of a token: take a plain word, such as bob")
    return text


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds <= 300:
        raise ValueError
    return seconds
