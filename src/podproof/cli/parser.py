"""The command line of `podproof`: its options, and the texts of `--help`."""

from __future__ import annotations

import re
from argparse import ArgumentParser, ArgumentTypeError, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from podproof._token.header_name import AUTHORIZATION
from podproof._version import __version__
from podproof.cli.proxy_configurations import PROXIES
from podproof.identity import ServiceAccount

_DEMO = """\
Starts an emulated API server and an app behind podproof, sends requests to the
app from several loopback addresses, and prints each request with its result.
Needs no cluster. The exit status is 0 if all results are as expected, else 1."""

_DOCTOR = """\
Diagnoses why callers are rejected, and prints each finding with a suggested
fix. Run it in the app's pod or in the caller's pod; or outside of the cluster
with a kubeconfig and --as, which impersonates the app's service account and
examines its pods.

The exit status is the highest severity: 0 ok, 1 warn, 2 fail. A check that
cannot be made is printed as skip."""

_DOCTOR_EXAMPLES = """\
examples:
  kubectl exec deployment/bob -- podproof doctor
  kubectl exec deployment/alice -- podproof doctor
  podproof doctor --as default/bob
  podproof doctor --context staging --namespace default --as bob
  podproof doctor --as default/bob --side server --audience bob
  podproof doctor --as default/alice --audience bob --side caller
  kubectl exec deployment/bob -- podproof doctor --metrics http://localhost:8080/metrics
  podproof doctor --json | jq '.findings[] | select(.level != "ok")'"""

_CALL = """\
Sends a request with the mounted token, as an app does with TokenClient, and
explains the response: what its status means for the caller, and what to do.
The token is never printed.

The exit status is the highest severity: 0 ok, 1 warn, 2 fail."""

_CALL_EXAMPLES = """\
examples:
  kubectl exec deployment/alice -- podproof call http://bob/whoami
  kubectl exec deployment/alice -- podproof call --audience bob http://bob/whoami
  podproof call --header X-Pod-Authorization http://bob/whoami
  podproof call -X POST --token-file token http://localhost:8080/orders"""

_INSPECT = """\
Shows what a service-account token contains: its service account and pod, its
audience and lifetime, and what it can be used for. The token is not verified,
which only the API server can do. Neither it nor its signature is printed.

Without FILE, the token is read from standard input, or from where it is mounted
in a pod. The exit status is 0 if a token was read, else 1."""

_INSPECT_EXAMPLES = """\
examples:
  kubectl exec deployment/alice -- podproof inspect
  kubectl create token alice --audience bob | podproof inspect
  podproof inspect /var/run/secrets/kubernetes.io/serviceaccount/token
  podproof inspect --reverse /etc/podproof/keys issued-token
  podproof inspect --reverse /etc/podproof/keys --subject iWo3... --audience ledger"""

_REPORT = """\
Reads a decision log, and shows who was denied or would be (enforce=False): how
often, from where, for which request and why, and what brings each caller back
in. The log has one JSON object a line, as podproof.audit.JSONFormatter writes
it; other lines are counted.

Without FILE, it is read from standard input. The exit status is 0 if nothing
was or would be denied, else 1."""

_REPORT_EXAMPLES = """\
examples:
  kubectl logs deployment/bob --since 24h | podproof report
  kubectl logs -l app=bob --prefix --tail -1 | podproof report"""

_MANIFESTS = """\
Prints the YAML for a server and its callers: service accounts, Deployments to
complete, the volume with the caller's token, and the least RBAC permissions
that the server needs."""

_MANIFESTS_EXAMPLES = """\
examples:
  podproof manifests --caller default/alice --audience bob --server default/bob
  podproof manifests --caller shop/cart --caller shop/till --audience prices \\
    --server shop/prices --policy rbac
  podproof manifests --only rbac --server default/bob | kubectl apply -f -
  podproof manifests --exchange --server default/bridge --audience bridge \\
    --caller default/alice
  podproof manifests --forward-auth nginx --server default/shop --audience shop \\
    --caller default/alice"""

_SERVE = """\
Serves what podproof has of its own, with probes (/livez, /readyz), /metrics, a
drain at SIGTERM, and the decision log as JSON on standard error. Each needs the
extra of its name: podproof[exchange], podproof[forward-auth]."""

_SERVE_EXAMPLES = """\
examples:
  podproof serve exchange --help
  podproof serve forward-auth --help"""

_FORWARD_AUTH = """\
Answers a proxy that asks whether a request may pass, for apps in other
languages: Envoy's HTTP ext_authz, nginx's auth_request, Caddy's forward_auth.
Its other options are those of a middleware, as variables PODPROOF_<NAME>.
docs/forward-auth.md has the configuration of each proxy."""

_FORWARD_AUTH_EXAMPLES = """\
examples:
  podproof serve forward-auth --proxy nginx --trusted-proxies 127.0.0.1 --audience bob"""

_EXCHANGE = """\
Serves a token exchange: pods trade their projected tokens for short-lived ones
of your own system. Its options are those of podproof.exchange.TokenExchange, as
variables PODPROOF_EXCHANGE_<NAME>, and those of a middleware, PODPROOF_<NAME>;
some are arguments too."""

_EXCHANGE_EXAMPLES = """\
examples:
  podproof serve exchange --issuer https://bridge --audience bridge \\
    --keys /etc/podproof/keys --grants /etc/podproof/grants.yaml"""

_COMPLETION = """\
Prints the script that completes this command in a shell. Needs the extra
podproof[completion]."""

_COMPLETION_EXAMPLES = """\
examples:
  podproof completion bash > ~/.local/share/bash-completion/completions/podproof
  podproof completion zsh > ~/.zsh/completions/_podproof   (a folder in $fpath)
  podproof completion fish > ~/.config/fish/completions/podproof.fish
  podproof completion tcsh > ~/.podproof.tcsh   (source it in ~/.tcshrc)"""


def build_parser(file_completion: object = None) -> ArgumentParser:
    """Return the parser. `file_completion` is shtab's completion for file names."""
    top = ArgumentParser(
        prog="podproof", description="Tells a web app which pod is calling it.", formatter_class=_HelpFormatter
    )
    top.add_argument("--version", action="version", version=f"podproof {__version__}")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND", dest="command")

    def add(name: str, summary: str, description: str, examples: str = "") -> ArgumentParser:
        return commands.add_parser(
            name,
            help=summary,
            description=description,
            epilog=examples,
            formatter_class=_HelpFormatter,
        )

    demo = add("demo", "show allowed and denied requests, without a cluster", _DEMO)
    demo.add_argument(
        "--verify",
        choices=("review", "keys"),
        default="review",
        help="how tokens are verified: by TokenReviews, or by the cluster's keys (default: review)",
    )

    doctor = add("doctor", "diagnose why callers are rejected, and suggest fixes", _DOCTOR, _DOCTOR_EXAMPLES)
    doctor.add_argument("--json", action="store_true", help="print JSON")
    doctor.add_argument(
        "--audience", help="the app's audience if PODPROOF_AUDIENCE does not set it, or the one that a caller needs"
    )
    doctor.add_argument(
        "--as",
        dest="account",
        metavar="[NAMESPACE/]NAME",
        help="the service account to impersonate and examine",
    )
    doctor.add_argument("-n", "--namespace", help="the namespace of --as NAME")
    kubeconfig: Any = doctor.add_argument("--kubeconfig", metavar="FILE", help="the kubeconfig (default: $KUBECONFIG)")
    doctor.add_argument("--context", help="the kubeconfig's context (default: its current context)")
    doctor.add_argument(
        "--side",
        choices=("server", "caller", "both"),
        help="the side to examine; by default, whichever is found",
    )
    doctor.add_argument(
        "--metrics",
        metavar="URL",
        help="where the app serves its metrics: how old its view of the pods and its keys are",
    )
    doctor.add_argument(
        "--timeout",
        type=_seconds,
        default=5.0,
        metavar="SECONDS",
        help="for each call to the API server (default: 5)",
    )

    call = add("call", "make a caller's request, and explain the response", _CALL, _CALL_EXAMPLES)
    call.add_argument("url", metavar="URL", help="the URL to call, such as http://bob/whoami")
    call.add_argument("--audience", help="the server's audience, which the token must have")
    token_file: Any = call.add_argument("--token-file", metavar="FILE", help="the token (default: the mounted one)")
    call.add_argument("--header", default=AUTHORIZATION, help="the header for the token, if the server has another one")
    call.add_argument("-X", "--method", default="GET", help="the HTTP method (default: GET)")
    call.add_argument("--json", action="store_true", help="print JSON")
    call.add_argument("--timeout", type=_seconds, default=10.0, metavar="SECONDS", help="for the request (default: 10)")

    inspect = add("inspect", "show what a token contains, and what it can be used for", _INSPECT, _INSPECT_EXAMPLES)
    file: Any = inspect.add_argument("file", nargs="?", metavar="FILE", help="a token file; - is standard input")

    inspect.add_argument(
        "--reverse",
        type=Path,
        metavar="DIRECTORY",
        help="show who is behind the pairwise subject of an issued token, by the secrets of a token exchange",
    )
    inspect.add_argument("--subject", help="with --reverse: a subject, in the place of a token")
    inspect.add_argument("--audience", help="with --subject: the audience that has seen it")

    report = add("report", "show who was denied, or would be, by a decision log", _REPORT, _REPORT_EXAMPLES)
    log_file: Any = report.add_argument(
        "file", nargs="?", default="-", metavar="FILE", help="the log; - is standard input"
    )

    manifests = add("manifests", "print the YAML for a server and its callers", _MANIFESTS, _MANIFESTS_EXAMPLES)
    manifests.add_argument(
        "--server", type=_service_account, metavar="NAMESPACE/NAME", help="the app's service account"
    )
    manifests.add_argument(
        "--caller",
        type=_service_account,
        action="append",
        default=[],
        metavar="NAMESPACE/NAME",
        help="a caller's service account; can be repeated",
    )
    manifests.add_argument("--audience", type=_audience, help="the audience of the callers' tokens, such as bob")
    manifests.add_argument(
        "--verify",
        "--mode",
        choices=("review", "keys"),
        default="review",
        help="how the server verifies tokens: by TokenReviews, or by the cluster's keys (default: review)",
    )
    manifests.add_argument(
        "--policy",
        choices=("allow", "rbac"),
        default="allow",
        help="what decides who may call: a list in the app's environment, or the cluster's RBAC (default: allow)",
    )
    manifests.add_argument(
        "--namespace-labels", action="store_true", help="the server's rules ask for labels of the callers' namespaces"
    )
    manifests.add_argument(
        "--exchange", action="store_true", help="the server is a token exchange; its Secret has new keys"
    )
    manifests.add_argument(
        "--forward-auth",
        choices=PROXIES,
        help="the server is an app in another language, behind this proxy, which asks podproof",
    )
    manifests.add_argument("--only", choices=("rbac", "server", "caller"), help="print only this part")

    serve = add("serve", "serve a token exchange, or forward auth", _SERVE, _SERVE_EXAMPLES)
    _add_served(serve.add_subparsers(title="servers", required=True, metavar="SERVER", dest="what"))

    shells = add("completion", "print a shell completion script", _COMPLETION, _COMPLETION_EXAMPLES)
    shells.add_argument("shell", choices=("bash", "zsh", "fish", "tcsh"))

    for argument in (file, kubeconfig, token_file, log_file) if file_completion is not None else ():
        argument.complete = file_completion
    return top


def _add_served(servers: Any) -> None:
    exchange = servers.add_parser(
        "exchange",
        help="a token exchange",
        description=_EXCHANGE,
        epilog=_EXCHANGE_EXAMPLES,
        formatter_class=_HelpFormatter,
    )
    _add_listener(exchange)
    exchange.add_argument("--issuer", help="the iss of issued tokens, the URL of this server: PODPROOF_EXCHANGE_ISSUER")
    exchange.add_argument("--keys", metavar="DIRECTORY", help="the mounted keys: PODPROOF_EXCHANGE_KEYS")
    exchange.add_argument("--grants", dest="grants_file", metavar="FILE", help="PODPROOF_EXCHANGE_GRANTS_FILE")
    exchange.add_argument("--audience", help="the audience of the callers' projected tokens: PODPROOF_AUDIENCE")
    forward_auth = servers.add_parser(
        "forward-auth",
        help="answers for proxies that ask whether a request may pass",
        description=_FORWARD_AUTH,
        epilog=_FORWARD_AUTH_EXAMPLES,
        formatter_class=_HelpFormatter,
    )
    _add_listener(forward_auth)
    forward_auth.add_argument("--proxy", choices=PROXIES, help="the proxy that asks: PODPROOF_FORWARD_AUTH_PROXY")
    forward_auth.add_argument(
        "--trusted-proxies",
        metavar="NETWORKS",
        help="where it asks from, with commas: PODPROOF_TRUSTED_PROXIES",
    )
    forward_auth.add_argument(
        "--ignore-case",
        action="store_const",
        const=True,
        help="the app's router takes /Admin for /admin: PODPROOF_FORWARD_AUTH_IGNORE_CASE",
    )
    forward_auth.add_argument("--audience", help="the audience of the callers' tokens: PODPROOF_AUDIENCE")


def _add_listener(serve: ArgumentParser) -> None:
    serve.add_argument("--host", default="0.0.0.0", help="the address to listen on (default: 0.0.0.0)")  # noqa: S104
    serve.add_argument("--port", type=int, default=8080, help="the port to listen on (default: 8080)")
    serve.add_argument("--tls-certificate", metavar="FILE", help="the certificate to serve https with, in PEM")
    serve.add_argument("--tls-key", metavar="FILE", help="its private key")


def parse_arguments(arguments: Sequence[str] | None) -> Namespace:
    """Return the parsed command line. Raises SystemExit if it is invalid, or asks for help."""
    top = build_parser()
    options = top.parse_args(arguments)
    if options.command == "inspect" and (options.subject is None) != (options.audience is None):
        top.error("--subject and --audience belong together")
    if options.command == "inspect" and options.subject is not None and options.reverse is None:
        top.error("--subject needs --reverse DIRECTORY")
    if options.command == "doctor":
        namespace, name = options.namespace, options.account
        if name is None and namespace is not None:
            top.error("--namespace needs --as NAME")
        if name is not None and namespace is not None and "/" not in name:
            name = f"{namespace}/{name}"
        try:
            options.account = None if name is None else _service_account(name)
        except ArgumentTypeError as error:
            top.error(f"--as: {error}")
        if options.account is not None and namespace not in (None, options.account.namespace):
            top.error(f"--namespace {namespace} contradicts --as {options.account}")
    return options


class _HelpFormatter(RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34)
        self._action_max_length = len("completion") + 4  # argparse does not count the indentation of commands


def _service_account(text: str) -> ServiceAccount:
    namespace, _, name = text.partition("/")
    try:
        return ServiceAccount.from_username(f"system:serviceaccount:{namespace}:{name}")
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not of the form NAMESPACE/NAME, such as default/alice") from None


def _audience(text: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:-]*", text) is None:
        raise ArgumentTypeError(f"{text!r} cannot name a token's directory: expected a plain name, such as bob")
    return text


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 300:
        raise ArgumentTypeError(f"{text!r}: expected seconds above 0 and up to 300")
    return seconds
