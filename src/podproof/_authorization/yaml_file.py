"""Configuration in YAML files, read strictly: what is wrong is named with its line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import yaml

from podproof.errors import ConfigurationError

T = TypeVar("T")


class InvalidNode(Exception):
    """A part of a file is invalid: says what was expected, and on which line."""

    def __init__(self, node: yaml.Node, message: str) -> None:
        super().__init__(message)
        self.line = node.start_mark.line + 1


def read_yaml(path: Path, what: str, parse: Callable[[yaml.Node], T]) -> T:
    """Return what `parse` makes of a file's document; `what` names the file in messages, and its top key.

    Raises ConfigurationError with the line.
    """
    try:
        document = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        if document is None:
            raise ConfigurationError(f"invalid {what} file {path}: expected a mapping with {what}, got an empty file")
        return parse(document)
    except OSError as error:
        raise ConfigurationError(f"cannot read {what} file {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"invalid {what} file {path}: no YAML, {_describe(error)}") from None
    except InvalidNode as invalid:
        raise ConfigurationError(f"invalid {what} file {path}: line {invalid.line}: {invalid}") from None


def read_mapping(node: yaml.Node, *, required: Sequence[str], optional: Sequence[str] = ()) -> dict[str, yaml.Node]:
    """Return the values of a mapping by key. Raises InvalidNode, for an unknown, missing or duplicate key too."""
    names = ", ".join([*required, *optional])
    if not isinstance(node, yaml.MappingNode):
        raise InvalidNode(node, f"expected a mapping with {names}")
    fields: dict[str, yaml.Node] = {}
    for key, value in node.value:
        if key.value not in (*required, *optional):
            raise InvalidNode(key, f"unknown key {key.value!r:.100}, expected {names}")
        if key.value in fields:
            raise InvalidNode(key, f"duplicate key {key.value!r}")
        fields[key.value] = value
    for name in required:
        if name not in fields:
            raise InvalidNode(node, f"missing key {name!r}")
    return fields


def read_text_mapping(node: yaml.Node, name: str) -> dict[str, str]:
    """Return a mapping of texts. Raises InvalidNode."""
    if not isinstance(node, yaml.MappingNode):
        raise InvalidNode(node, f"invalid {name}: expected a mapping")
    labels: dict[str, str] = {}
    for key, value in node.value:
        label = read_string(key, name)
        if label in labels:
            raise InvalidNode(key, f"duplicate key {label!r:.100}")
        labels[label] = read_string(value, name)
    return labels


def read_list(node: yaml.Node, name: str) -> list[yaml.Node]:
    """Return the items of a list. Raises InvalidNode."""
    if not isinstance(node, yaml.SequenceNode):
        raise InvalidNode(node, f"invalid {name}: expected a list")
    items: list[yaml.Node] = node.value
    return items


def read_string(node: yaml.Node, name: str) -> str:
    """Return a text. Raises InvalidNode."""
    if not isinstance(node, yaml.ScalarNode) or node.tag != "tag:yaml.org,2002:str":
        raise InvalidNode(node, f"invalid {name}: expected a string; numbers, booleans and null need quotes")
    text: str = node.value
    return text


def read_strings(node: yaml.Node, name: str) -> list[str]:
    """Return a list of texts. Raises InvalidNode."""
    return [read_string(item, name) for item in read_list(node, name)]


def read_flag(node: yaml.Node, name: str) -> bool:
    """Return true or false. Raises InvalidNode."""
    if not isinstance(node, yaml.ScalarNode) or node.value not in ("true", "false"):
        raise InvalidNode(node, f"invalid {name}: expected true or false")
    return bool(node.value == "true")


def _describe(error: Exception) -> str:
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return "it has bytes or characters that text cannot have"
    hint = '; a value that begins with "*" needs quotes' if "alias" in f"{error.context} {error.problem}" else ""
    return f"line {error.problem_mark.line + 1}: {error.problem}{hint}"
