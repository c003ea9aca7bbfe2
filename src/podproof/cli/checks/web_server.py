"""The web server's command line: whether callers reach it, and whether it keeps their address."""

from __future__ import annotations

import json
import re
import shlex
from argparse import SUPPRESS, ArgumentError, ArgumentParser, Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

from podproof.cli.command_line import ServerCommand, find_server, is_shell, shell_script
from podproof.cli.finding import Finding, fail, ok, skip, warn

# The prefix of the variables that a server reads its options from.
_PREFIXES = {"uvicorn": "UVICORN_", "granian": "GRANIAN_"}
_DEFAULT_HOSTS = {"fastapi run": "0.0.0.0"}  # noqa: S104  the default of others is 127.0.0.1, or not checked
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")
_ADD_EXEC = "Make the server the last command of the shell's script, with exec before it:\nexec SERVER ..."
_IN_POD = "Run the doctor in the pod, where all processes are visible:\nkubectl exec POD -- podproof doctor"


def check_web_servers(
    commands: Sequence[Sequence[str]], variables: Mapping[str, str], *, running: bool = False
) -> list[Finding]:
    """Check the options of each web server among some command lines, given as arguments or variables.

    If they are those of `running` processes, the first one is PID 1's.
    """
    found: dict[Finding, None] = {}  # workers have the command line of their server
    for command in commands:
        server = find_server(command, variables)
        if server is not None:
            found |= dict.fromkeys(_check_server(server, variables))
            if server.waited_for and not running:
                found[_report_waiting_shell(server.name)] = None
    if not commands:
        return []
    if not found and any("podproof" in " ".join(command) and "serve" in command for command in commands):
        return []  # it listens and reads addresses as it should
    if not found:
        return [_report_unknown(commands[0])]
    if running and is_shell(commands[0]):
        found[_report_shell(commands[0])] = None
    return list(found)


def _check_server(server: ServerCommand, variables: Mapping[str, str]) -> Iterator[Finding]:
    name, arguments = server.name, server.arguments
    if arguments is None:
        yield skip(
            "server",
            f"{name} has changed its process title, so its options are not visible and were not checked",
            "pip uninstall setproctitle",
        )
        return
    flags = _parse_flags(name, arguments, {**variables, **server.variables})
    yield from _check_bind(name, flags)
    yield from _check_peer(name, flags)


def _report_unknown(command: Sequence[str]) -> Finding:
    if not command:
        message = "the command is in the container's image"
    else:
        shown = shlex.join(command)
        message = f"no known web server in the command {shown[:60]}{'...' * (len(shown) > 60)}"
    return skip("server", f"{message}: which address it listens on and trusts was not checked", _IN_POD)


def _report_shell(command: Sequence[str]) -> Finding:
    return warn(
        "server",
        f"PID 1 is the shell {command[0]}, which does not pass SIGTERM on: the server is killed after the pod's "
        "termination grace period, in the middle of requests",
        _add_exec(shell_script(command)),
    )


def _report_waiting_shell(name: str) -> Finding:
    return warn(
        "server",
        f"a shell starts {name} and waits for it, and does not pass SIGTERM on: the server is killed after the pod's "
        "termination grace period, in the middle of requests",
        _ADD_EXEC,
    )


def _add_exec(script: str) -> str:
    """Return the shell's script with exec before its last command, if that is a simple one."""
    *before, last = re.split(r"(&&|\|\||;|\n)", script.rstrip())
    if not last.strip() or "|" in last or "&" in last:
        return _ADD_EXEC
    changed = "".join(before) + re.sub(r"^(\s*(?:\w+=\S*\s+)*)", r"\1exec ", last)
    return "In the container's spec:\ncommand: " + json.dumps(["sh", "-c", changed])


def _parse_flags(name: str, arguments: Sequence[str], variables: Mapping[str, str]) -> Namespace:
    """Return the options that matter here, from the arguments and variables."""
    prefix = _PREFIXES.get(name)
    if name == "gunicorn":
        arguments = [*shlex.split(variables.get("GUNICORN_CMD_ARGS", "")), *arguments]
    flags = ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False, argument_default=SUPPRESS)
    flags.add_argument("--host")
    flags.add_argument("--uds")
    flags.add_argument("--bind", "-b", action="append")
    flags.add_argument("--worker-class", "-k")
    flags.add_argument("--forwarded-allow-ips")
    flags.add_argument("--proxy-headers", action="store_const", const="true")
    flags.add_argument("--no-proxy-headers", action="store_const", const="false", dest="proxy_headers")
    flags.add_argument("--proxy-protocol", nargs="?", const="auto")
    given = Namespace(
        host=_DEFAULT_HOSTS.get(name, "127.0.0.1"),
        uds=None,
        bind=[],
        worker_class="sync",
        forwarded_allow_ips=variables.get("FORWARDED_ALLOW_IPS", "127.0.0.1,::1"),
        proxy_headers="true",
        proxy_protocol="off",
    )
    for option in vars(given) if prefix else ():
        setattr(given, option, variables.get(f"{prefix}{option.upper()}", getattr(given, option)))
    with suppress(ArgumentError):  # a flag without its value: the server reports that itself
        flags.parse_known_args(arguments, given)
    return given


def _check_bind(name: str, given: Namespace) -> Iterator[Finding]:
    if name in ("gunicorn", "hypercorn"):
        binds = given.bind  # the default is not checked: a configuration file may replace it
        flag = "--bind 0.0.0.0:8080"
    else:
        binds = [f"unix:{given.uds}"] if given.uds else [f"{given.host}:"]
        flag = "--host 0.0.0.0"
    for bind in binds:
        if bind.startswith("unix:"):
            yield fail(
                "server",
                f"{name} listens on a Unix socket, where callers have no address (peer-unknown)",
                f"{name} {flag}   (instead of the Unix socket)",
            )
        elif "$" in bind:
            yield skip("server", f"{name} listens on {bind.rstrip(':')}, a variable that is unknown here", _IN_POD)
        elif bind.rpartition(":")[0] in _LOOPBACK:
            yield fail(
                "server", f"{name} listens on {bind.rstrip(':')} only: other pods cannot reach it", f"{name} {flag}"
            )


def _check_peer(name: str, given: Namespace) -> Iterator[Finding]:
    if name == "gunicorn" and given.proxy_protocol not in ("off", "False", "false"):
        yield fail(
            "server",
            "gunicorn takes the peer address from the PROXY protocol: any client can claim any address",
            "Remove --proxy-protocol; let the proxy send X-Forwarded-For, and add it to PODPROOF_TRUSTED_PROXIES.",
        )
    elif name == "gunicorn" and "uvicorn" in given.worker_class.lower():
        yield _check_forwarded(
            "gunicorn's uvicorn worker",
            given,
            "kubectl set env deployment/NAME FORWARDED_ALLOW_IPS=   (set to the empty string)",
        )
    elif name == "uvicorn" or name.startswith("fastapi"):
        yield _check_forwarded(name, given, f"{name} --no-proxy-headers")
    else:
        yield ok("server", f"{name} keeps the peer address")


def _check_forwarded(name: str, given: Namespace, fix: str) -> Finding:
    trusted = [one for one in map(str.strip, given.forwarded_allow_ips.split(",")) if one]
    if given.proxy_headers.lower() in ("0", "false", "no", "off", "n", "f") or not trusted:
        return ok("server", f"{name} keeps the peer address")
    if "*" in trusted:
        return fail(
            "server",
            f"{name} trusts X-Forwarded-For from any client (forwarded-allow-ips *): callers can claim any address",
            fix,
        )
    return warn(
        "server",
        f"{name} trusts X-Forwarded-For from {' and '.join(trusted)} and does not keep the real peer address: such "
        "requests are denied (peer-unknown)",
        fix,
    )
