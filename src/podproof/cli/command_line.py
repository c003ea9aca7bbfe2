"""Which web server a command line starts: directly, or behind interpreters, shells and wrappers."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import PurePath
from typing import NamedTuple

SERVERS = ("uvicorn", "gunicorn", "hypercorn", "granian")

_SHELLS = ("sh", "bash", "dash", "ash", "zsh", "ksh", "busybox")

# Programs that start another one; those with a subcommand do so only by that.
_WRAPPERS = {
    "opentelemetry-instrument": "",
    "ddtrace-run": "",
    "newrelic-admin": "run-program",
    "poetry": "run",
    "uv": "run",
    "pipenv": "run",
    "pdm": "run",
    "uvx": "",
    "tini": "",
    "dumb-init": "",
    "catatonit": "",
    "env": "",
    "exec": "",
    "command": "",
    "nohup": "",
    "time": "",
    "nice": "",
    "timeout": "",
    "gosu": "",
    "su-exec": "",
    "setpriv": "",
}
_PYTHON = re.compile(r"(python|pypy)[\d.]*")
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
_SHELL_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(?::?-([^}]*))?\})")
_SCRIPT_ASSIGNMENT = re.compile(r"(?:^|[;&\s])(?:export\s+)?([A-Za-z_]\w*)=([^\s;&|]*)")


class ServerCommand(NamedTuple):
    """The command of a web server: its name, arguments and the variables that are set for it alone.

    `arguments` is None if they are unknown. `waited_for` is True if a shell cannot replace itself by the server: the
    shell then stays the parent process.
    """

    name: str
    arguments: Sequence[str] | None
    variables: Mapping[str, str] = {}
    waited_for: bool = False


def find_server(command: Sequence[str], variables: Mapping[str, str]) -> ServerCommand | None:
    """Return the web server that a command line starts, None if there is none that is known.

    `variables` are those of the container; a shell expands them.
    """
    if not command:
        return None
    name, arguments = PurePath(command[0]).name, command[1:]
    if name in SERVERS:
        return ServerCommand(name, arguments)
    if command[0].startswith("gunicorn: "):  # the process title that setproctitle leaves
        return ServerCommand("gunicorn", None)
    if name == "fastapi":
        subcommand = next((word for word in arguments if word in ("run", "dev")), None)
        return ServerCommand(f"fastapi {subcommand}", arguments) if subcommand else None
    return _find_started(command, variables)


def _find_started(command: Sequence[str], variables: Mapping[str, str]) -> ServerCommand | None:
    name, arguments = PurePath(command[0]).name, command[1:]
    if _PYTHON.fullmatch(name):
        return find_server(_skip_interpreter_options(arguments), variables)
    if is_shell(command):
        return _find_in_script(shell_script(command), variables)
    if name in _WRAPPERS:
        return _find_behind_wrapper(name, arguments, variables)
    return None


def is_shell(command: Sequence[str]) -> bool:
    """Return True if a command line starts a shell."""
    return bool(command) and PurePath(command[0]).name.removeprefix("-") in _SHELLS


def _skip_interpreter_options(arguments: Sequence[str]) -> Sequence[str]:
    """Return what Python runs, as a command line: a module's name or a script, with its arguments."""
    index = 0
    while index < len(arguments) and arguments[index].startswith("-"):
        if arguments[index] in ("-m", "-X", "-W"):
            if arguments[index] == "-m":
                return arguments[index + 1 :]
            index += 1
        index += 1
    return arguments[index:]


def _find_behind_wrapper(wrapper: str, arguments: Sequence[str], variables: Mapping[str, str]) -> ServerCommand | None:
    """Skip the options of a wrapper: what it starts is the first word that is known to start something."""
    subcommand = _WRAPPERS[wrapper]
    if subcommand:
        if subcommand not in arguments:
            return None
        arguments = arguments[arguments.index(subcommand) + 1 :]
    for index, word in enumerate(arguments):
        if found := find_server(arguments[index:], variables):
            return found._replace(variables={**_assignments(arguments[:index]), **found.variables})
        if _starts_program(word):
            return None
    return None


def _assignments(words: Sequence[str]) -> dict[str, str]:
    return {match[1]: match[2] for word in words if (match := _ASSIGNMENT.fullmatch(word))}


def _starts_program(word: str) -> bool:
    name = PurePath(word).name
    return name in _WRAPPERS or name in _SHELLS or _PYTHON.fullmatch(name) is not None


def shell_script(command: Sequence[str]) -> str:
    """Return the script that a shell gets by -c, "" if it is in a file."""
    arguments = command[1:]
    options = list(takewhile(lambda word: word.startswith("-") or word in _SHELLS, arguments))
    given = any(re.fullmatch(r"-[a-z]*c", option) for option in options)
    return arguments[len(options)] if given and len(arguments) > len(options) else ""


def _find_in_script(script: str, variables: Mapping[str, str]) -> ServerCommand | None:
    known = {**variables, **dict(_SCRIPT_ASSIGNMENT.findall(script))}
    text = _SHELL_VARIABLE.sub(lambda match: _expand(match, known), script.replace("\\\n", " ")).replace("\n", " ; ")
    lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError:  # an unclosed quotation mark: the shell reports that itself
        return None
    while words:
        command = list(takewhile(lambda word: not set(word) <= set("();<>|&"), words))
        rest = words[len(command) :]
        prefix = list(takewhile(_ASSIGNMENT.fullmatch, command))
        program = command[len(prefix) :]
        if found := find_server(program, variables):
            waited_for = program[0] != "exec" and (found.waited_for or bool(rest))
            return found._replace(variables={**_assignments(prefix), **found.variables}, waited_for=waited_for)
        words = rest[1:]
    return None


def _expand(match: re.Match[str], variables: Mapping[str, str]) -> str:
    """Return the value of a shell variable, or the reference itself if it is unknown."""
    return variables.get(match[1] or match[2], match[0] if match[3] is None else match[3])
