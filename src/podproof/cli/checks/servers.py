"""The web server, by its command line: that callers reach it, and that it leaves their address alone."""

from __future__ import annotations

import shlex
from argparse import SUPPRESS, ArgumentError, ArgumentParser, Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import PurePath

from podproof.cli.finding import Finding, fail, ok, warn

# Each server, and what its options' environment variables begin with.
_SERVERS = {"uvicorn": "UVICORN_", "gunicorn": None, "hypercorn": None, "granian": "GRANIAN_"}
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")


def check(commands: Sequence[Sequence[str]], environ: Mapping[str, str]) -> list[Finding]:
    """Look at the flags of each web server among some command lines, and at the variables that it reads."""
    found: dict[Finding, None] = {}  # a server's workers have its command line too
    for command in commands:
        name, arguments = _server(command)
        if name:
            given = _parse(name, arguments, environ)
            found |= dict.fromkeys([*_check_bind(name, given), *_check_peer(name, given)])
    return list(found)


def _server(command: Sequence[str]) -> tuple[str, Sequence[str]]:
    """Return which server a command line starts, "" for none, and its arguments."""
    for index, word in enumerate(command[:5]):  # /usr/bin/python3 -u -m uvicorn
        name = PurePath(word).name
        if name in _SERVERS:
            return name, command[index + 1 :]
    return "", ()


def _parse(name: str, arguments: Sequence[str], environ: Mapping[str, str]) -> Namespace:
    """Return the flags that matter here, as the server has them by its arguments and its environment."""
    prefix = _SERVERS[name]
    if name == "gunicorn":
        arguments = [*shlex.split(environ.get("GUNICORN_CMD_ARGS", "")), *arguments]
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
        forwarded_allow_ips=environ.get("FORWARDED_ALLOW_IPS", "127.0.0.1,::1"),
        proxy_headers="true",
        proxy_protocol="off",
    )
    for option in vars(given) if prefix else ():
        setattr(given, option, environ.get(f"{prefix}{option.upper()}", getattr(given, option)))
    with suppress(ArgumentError):  # a flag without its value: the server says so itself
        flags.parse_known_args(arguments, given)
    return given


def _check_bind(name: str, given: Namespace) -> Iterator[Finding]:
    if name in ("uvicorn", "granian"):
        binds = [f"unix:{given.uds}"] if given.uds else [f"{given.host}:"]
        flag = "--host 0.0.0.0"
    else:
        binds = given.bind  # the default is not judged: a configuration file may say otherwise
        flag = "--bind 0.0.0.0:8080"
    for bind in binds:
        if bind.startswith("unix:"):
            yield fail(
                "server",
                f"{name} listens on a Unix socket, where callers have no address",
                f"{name} {flag}, and no Unix socket",
            )
        elif bind.rpartition(":")[0] in _LOOPBACK:
            yield fail(
                "server", f"{name} listens on {bind.rstrip(':')} alone: no other pod reaches it", f"{name} {flag}"
            )


def _check_peer(name: str, given: Namespace) -> Iterator[Finding]:
    if name == "gunicorn" and given.proxy_protocol not in ("off", "False", "false"):
        yield fail(
            "server",
            "gunicorn takes the peer address from the PROXY protocol: whoever speaks it may name any address",
            "Leave out --proxy-protocol; let the proxy write X-Forwarded-For, and name it in PODPROOF_TRUSTED_PROXIES.",
        )
    elif name == "uvicorn":
        yield _check_forwarded("uvicorn", given, "uvicorn --no-proxy-headers")
    elif name == "gunicorn" and "uvicorn" in given.worker_class.lower():
        yield _check_forwarded(
            "gunicorn's uvicorn worker",
            given,
            "kubectl set env deployment/NAME FORWARDED_ALLOW_IPS=   (set, and empty)",
        )
    else:
        yield ok("server", f"{name} leaves the peer address alone")


def _check_forwarded(name: str, given: Namespace, mend: str) -> Finding:
    believed = [one for one in map(str.strip, given.forwarded_allow_ips.split(",")) if one]
    if given.proxy_headers.lower() in ("0", "false", "no", "off", "n", "f") or not believed:
        return ok("server", f"{name} leaves the peer address alone")
    if "*" in believed:
        return fail(
            "server",
            f"{name} believes X-Forwarded-For from everybody (forwarded-allow-ips *): callers write their own address",
            mend,
        )
    return warn(
        "server",
        f"{name} believes X-Forwarded-For from {' and '.join(believed)}, and leaves no trace of the true peer: such "
        "requests are refused (peer-unknown)",
        mend,
    )
