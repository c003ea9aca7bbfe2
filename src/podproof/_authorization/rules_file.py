"""Rules in a YAML file, which may be a mounted ConfigMap: read again when it changes."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import yaml

from podproof._authorization.policy import Decision
from podproof._authorization.reloaded import Reloaded
from podproof._authorization.rules import Rule, Rules
from podproof.errors import ConfigurationError
from podproof.identity import PodIdentity

class RulesFile:
    """The rules of a file, reloaded when it changes: see `Reloaded`, whose arguments `more` are.

    Raises ConfigurationError for a file that is invalid from the start.
    """

    def __init__(self, path: Path, **more: Any) -> None:
        self._rules = Reloaded(path, read_rules, what="rules", **more)

    def check(self, identity: PodIdentity, method: str, path: str) -> Future[Decision] | None:
        """Decide at once, by the rules loaded last. Raises NotAllowed."""
        return self._rules.get().check(identity, method, path)


def read_rules(path: Path) -> Rules:
    """Return the rules of a file: `rules`, a list of mappings with the arguments of `Rule`.

    Raises ConfigurationError with the line.
    """
    try:
        document = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        if document is None:
            raise ConfigurationError(f"invalid rules file {path}: expected a mapping with rules, got an empty file")
        top = _read_mapping(document, required=("rules",))
        return Rules([_read_rule(node) for node in _read_list(top["rules"], "rules")])
    except OSError as error:
        raise ConfigurationError(f"cannot read rules file {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"invalid rules file {path}: no YAML, {_describe(error)}") from None
    except _InvalidNode as invalid:
        raise ConfigurationError(f"invalid rules file {path}: line {invalid.line}: {invalid}") from None


class _InvalidNode(Exception):
    """A part of the file is invalid: says what was expected, and on which line."""

    def __init__(self, node: yaml.Node, message: str) -> None:
        super().__init__(message)
        self.line = node.start_mark.line + 1


def _read_rule(node: yaml.Node) -> Rule:
    fields = _read_mapping(node, required=("path", "allow"), optional=("methods", "labels", "owner"))
    methods, labels, owner = map(fields.get, ("methods", "labels", "owner"))
    try:
        return Rule(
            _read_string(fields["path"], "path"),
            methods=None if methods is None else _read_strings(methods, "methods"),
            allow=_read_strings(fields["allow"], "allow"),
            labels=None if labels is None else _read_labels(labels, "labels"),
            owner=None if owner is None else _read_string(owner, "owner"),
        )
    except ValueError as error:
        raise _InvalidNode(node, str(error)) from None


def _read_mapping(node: yaml.Node, *, required: Sequence[str], optional: Sequence[str] = ()) -> dict[str, yaml.Node]:
    names = ", ".join([*required, *optional])
    if not isinstance(node, yaml.MappingNode):
        raise _InvalidNode(node, f"expected a mapping with {names}")
    fields: dict[str, yaml.Node] = {}
    for key, value in node.value:
        if key.value not in (*required, *optional):
            raise _InvalidNode(key, f"unknown key {key.value!r:.100}, expected {names}")
        if key.value in fields:
            raise _InvalidNode(key, f"duplicate key {key.value!r}")
        fields[key.value] = value
    for name in required:
        if name not in fields:
            raise _InvalidNode(node, f"missing key {name!r}")
    return fields


def _read_labels(node: yaml.Node, name: str) -> dict[str, str]:
    if not isinstance(node, yaml.MappingNode):
        raise _InvalidNode(node, f"invalid {name}: expected a mapping")
    labels: dict[str, str] = {}
    for key, value in node.value:
        label = _read_string(key, name)
        if label in labels:
            raise _InvalidNode(key, f"duplicate key {label!r:.100}")
        labels[label] = _read_string(value, name)
    return labels


def _read_list(node: yaml.Node, name: str) -> list[yaml.Node]:
    if not isinstance(node, yaml.SequenceNode):
        raise _InvalidNode(node, f"invalid {name}: expected a list")
    items: list[yaml.Node] = node.value
    return items


def _read_string(node: yaml.Node, name: str) -> str:
    if not isinstance(node, yaml.ScalarNode) or node.tag != "tag:yaml.org,2002:str":
        raise _InvalidNode(node, f"invalid {name}: expected a string; numbers, booleans and null need quotes")
    text: str = node.value
    return text


def _read_strings(node: yaml.Node, name: str) -> list[str]:
    return [_read_string(item, name) for item in _read_list(node, name)]


def _describe(error: Exception) -> str:
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return "it has bytes or characters that text cannot have"
    hint = '; a value that begins with "*" needs quotes' if "alias" in f"{error.context} {error.problem}" else ""
    return f"line {error.problem_mark.line + 1}: {error.problem}{hint}"
