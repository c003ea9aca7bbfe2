"""Rules in a YAML file, which may be a mounted ConfigMap: read again when it changes."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import Any

import yaml

from podproof._authorization.policy import Decision
from podproof._authorization.reloaded import Reloaded
from podproof._authorization.rules import Rule, Rules
from podproof._authorization.yaml_file import (
    InvalidNode,
    read_list,
    read_mapping,
    read_string,
    read_strings,
    read_text_mapping,
    read_yaml,
)
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
    return read_yaml(path, "rules", _read_rules)


def _read_rules(document: yaml.Node) -> Rules:
    top = read_mapping(document, required=("rules",))
    return Rules([_read_rule(node) for node in read_list(top["rules"], "rules")])


def _read_rule(node: yaml.Node) -> Rule:
    fields = read_mapping(node, required=("path", "allow"), optional=("methods", "labels", "owner"))
    methods, labels, owner = map(fields.get, ("methods", "labels", "owner"))
    try:
        return Rule(
            read_string(fields["path"], "path"),
            methods=None if methods is None else read_strings(methods, "methods"),
            allow=read_strings(fields["allow"], "allow"),
            labels=None if labels is None else read_text_mapping(labels, "labels"),
            owner=None if owner is None else read_string(owner, "owner"),
        )
    except ValueError as error:
        raise InvalidNode(node, str(error)) from None
