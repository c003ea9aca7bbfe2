"""The web server's command line: whether callers reach it, and whether it keeps their address."""

from __future__ import annotations

import shlex
from argparse import SUPPRESS, ArgumentError, ArgumentParser, Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import PurePath

from podproof.cli.finding import Finding, fail, ok, warn

# Each server, and the prefix of its options as variables.
_SERVERS = {"uvicorn": "UVICORN_", "gunicorn": None, "hypercorn": None, "granian": "GRANIAN_"}
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")


def check_web_servers(commands: Sequence[Sequence[str]], variables: Mapping[str, str]) -> list[Finding]:
    """Check the options of each web server among some command lines, given as arguments or variables."""
    found: dict[Finding, None] = {}  # workers have the command line of their server
    for command in commands:
        name, arguments = _server(command)
        if name:
            given = _parse_flags(name, arguments, variables)
            found |= dict.fromkeys([*_check_bind(name, given), *_check_peer(name, given)])
    return list(found)


def _server(command: Sequence[str]) -> tuple[str, Sequence[str]]:
    """Return the server that a command line starts, "" if none, and its arguments."""
    for index, word in enumerate(command[:5]):  # /usr/bin/python3 -u -m uvicorn
        name = PurePath(word).name
        if name in _SERVERS:
            return name, command[index + 1 :]
    return "", ()


def _parse_flags(name: str, arguments: Sequence[str], variables: Mapping[str, str]) -> Namespace:
    """Return the options that matter here, from the arguments and variables."""
    prefix = _SERVERS[name]
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
        host="127.0.0.1",  # uvicorn's and granian's default
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
    if name in ("uvicorn", "granian"):
        binds = [f"unix:{given.uds}"] if given.uds else [f"{given.host}:"]
        flag = "--host 0.0.0.0"
    else:
        binds = given.bind  # the default is not checked: a configuration file may replace it
        flag = "--bind 0.0.0.0:8080"
    for bind in binds:
        if bind.startswith("unix:"):
            yield fail(
                "server",
                f"{name} listens on a Unix socket, where callers have no address (peer-unknown)",
                f"{name} {flag}   (instead of the Unix socket)",
            )
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
    elif name == "uvicorn":
        yield _check_forwarded("uvicorn", given, "uvicorn --no-proxy-headers")
    elif name == "gunicorn" and "uvicorn" in given.worker_class.lower():
        yield _check_forwarded(
            "gunicorn's uvicorn worker",
            given,
            "kubectl set env deployment/NAME FORWARDED_ALLOW_IPS=   (set to the empty string)",
        )
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
