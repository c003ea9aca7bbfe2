"""Grants in a YAML file, which may be a mounted ConfigMap."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from podproof._authorization.yaml_file import (
    InvalidNode,
    read_flag,
    read_list,
    read_mapping,
    read_string,
    read_strings,
    read_yaml,
)
from podproof.exchange.grants import Grant

_READERS: dict[str, Any] = {
    "audience": read_string,
    "allow": read_strings,
    "scopes": read_strings,
    "users": read_strings,
    "introspect": read_strings,
    "subject": read_string,
    "pod": read_flag,
}


def read_grants(path: Path) -> Sequence[Grant]:
    """Return the grants of a file: `grants`, a list of mappings with the arguments of `Grant`.

    Raises ConfigurationError with the line.
    """
    return read_yaml(path, "grants", _read_grants)


def _read_grants(document: yaml.Node) -> Sequence[Grant]:
    return [_read_grant(node) for node in read_list(read_mapping(document, required=("grants",))["grants"], "grants")]


def _read_grant(node: yaml.Node) -> Grant:
    required = ("audience", "allow")
    fields = read_mapping(node, required=required, optional=[name for name in _READERS if name not in required])
    try:
        return Grant(**{name: _READERS[name](value, name) for name, value in fields.items()})
    except ValueError as error:
        raise InvalidNode(node, str(error)) from None
