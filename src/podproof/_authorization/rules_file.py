"""Rules in a YAML file, which may be a mounted ConfigMap: read again when it has changed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path

import yaml

from podproof._authorization.policy import Decision
from podproof._authorization.rules import Rule, Rules
from podproof.errors import ConfigurationError
from podproof.identity import PodIdentity

log = logging.getLogger("podproof")

CHECK_INTERVAL = 1.0
"""Seconds for which a file is taken to be as it was."""

_Stamp = tuple[int, ...] | None


def _in_a_thread(work: Callable[[], None]) -> None:
    threading.Thread(target=work, name="podproof-rules", daemon=True).start()


class RulesFile:
    """The rules that a file holds.

    One that has become wrong, or cannot be read, leaves the rules as they were, which is said in the log once a change.
    On the way of a request the file is looked at, once a second at the most, and never read.

    Raises ConfigurationError for a file that is wrong at the start.
    """

    def __init__(
        self,
        path: Path,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        start: Callable[[Callable[[], None]], None] = _in_a_thread,
    ) -> None:
        self._path = path
        self._monotonic = monotonic
        self._start = start
        self._look_at = monotonic() + CHECK_INTERVAL
        self._stamp = _look(path)
        self._rules = read_rules(path)

    def check(self, identity: PodIdentity, method: str, path: str) -> Future[Decision] | None:
        """Decide at once, by the rules of now. Raises NotAllowed."""
        now = self._monotonic()
        if now >= self._look_at:
            self._look_at = now + CHECK_INTERVAL
            stamp = _look(self._path)
            if stamp != self._stamp:
                self._stamp = stamp
                self._start(lambda: self._read(stamp))
        return self._rules.check(identity, method, path)

    def _read(self, stamp: _Stamp) -> None:
        try:
            rules = read_rules(self._path)
        except ConfigurationError as error:
            log.error("the rules stay as they were: %s", error)
            return
        if self._stamp == stamp:  # else it has changed once more, and who reads that may be done before us
            self._rules = rules
            log.info("the rules were read anew from %s", self._path)


def _look(path: Path) -> _Stamp:
    """Return what changes when a file does: a ConfigMap's is a link that is led to another one. None if it is gone."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def read_rules(path: Path) -> Rules:
    """Read a file: `rules`, a list of mappings with `path`, `allow` and, where not for all, `methods`; see `Rule`.

    Raises ConfigurationError, which names the line.
    """
    try:
        document = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        if document is None:
            raise ConfigurationError(f"the rules file {path} is empty")
        top = _fields(document, needed=("rules",))
        return Rules([_rule(node) for node in _items(top["rules"], "rules")])
    except OSError as error:
        raise ConfigurationError(f"the rules file {path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the rules file {path} is no YAML: {_describe(error)}") from None
    except _Wrong as wrong:
        raise ConfigurationError(f"the rules file {path}, line {wrong.line}: {wrong}") from None


class _Wrong(Exception):
    """Something is not as it must be, at a line of the file."""

    def __init__(self, node: yaml.Node, what: str) -> None:
        super().__init__(what)
        self.line = node.start_mark.line + 1


def _rule(node: yaml.Node) -> Rule:
    fields = _fields(node, needed=("path", "allow"), possible=("methods",))
    methods = fields.get("methods")
    try:
        return Rule(
            _text(fields["path"], "path"),
            methods=None if methods is None else _texts(methods, "methods"),
            allow=_texts(fields["allow"], "allow"),
        )
    except ValueError as error:
        raise _Wrong(node, str(error)) from None


def _fields(node: yaml.Node, *, needed: Sequence[str], possible: Sequence[str] = ()) -> dict[str, yaml.Node]:
    names = ", ".join([*needed, *possible])
    if not isinstance(node, yaml.MappingNode):
        raise _Wrong(node, f"there should be a mapping with {names}")
    fields: dict[str, yaml.Node] = {}
    for key, value in node.value:
        if key.value not in (*needed, *possible):
            raise _Wrong(key, f"there is no key {key.value!r:.100}; possible is {names}")
        if key.value in fields:
            raise _Wrong(key, f"{key.value} is there twice")
        fields[key.value] = value
    for name in needed:
        if name not in fields:
            raise _Wrong(node, f"{name} is missing")
    return fields


def _items(node: yaml.Node, name: str) -> list[yaml.Node]:
    if not isinstance(node, yaml.SequenceNode):
        raise _Wrong(node, f"{name} is to be a list")
    items: list[yaml.Node] = node.value
    return items


def _text(node: yaml.Node, name: str) -> str:
    if not isinstance(node, yaml.ScalarNode) or node.tag != "tag:yaml.org,2002:str":
        raise _Wrong(node, f"{name} is to be text; what YAML reads as something else needs quotes")
    text: str = node.value
    return text


def _texts(node: yaml.Node, name: str) -> list[str]:
    return [_text(item, name) for item in _items(node, name)]


def _describe(error: Exception) -> str:
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return "it holds bytes or characters that text does not have"
    hint = '; what begins with "*" needs quotes' if "alias" in f"{error.context} {error.problem}" else ""
    return f"line {error.problem_mark.line + 1}: {error.problem}{hint}"
