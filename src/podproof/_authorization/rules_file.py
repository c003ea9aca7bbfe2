"""Rules in a YAML file, which may be a mounted ConfigMap: read again when it changes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import yaml

from podproof._authorization.policy import Decision, Namespaces
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

_OPTIONAL = ("methods", "labels", "owner", "namespace_labels")


class RulesFile:
    """The rules of a file, reloaded when it changes: see `Reloaded`, whose arguments `more` are, and `Rules`.

    Raises ConfigurationError for a file that is invalid from the start.
    """

    def __init__(self, path: Path, namespaces: Namespaces | None = None, **more: Any) -> None:
        self._rules = Reloaded(path, lambda path: Rules(read_rules(path), namespaces), what="rules", **more)

    def check(
        self, identity: PodIdentity, method: str, path: str, deadline: float = math.inf
    ) -> Future[Decision] | None:
        """Decide by the rules loaded last, as `Rules.check`."""
        return self._rules.get().check(identity, method, path, deadline)


def read_rules(path: Path) -> Sequence[Rule]:
    """Return the rules of a file: `rules`, a list of mappings with the arguments of `Rule`.

    Raises ConfigurationError with the line.
    """
    return read_yaml(path, "rules", _read_rules)


def _read_rules(document: yaml.Node) -> Sequence[Rule]:
    top = read_mapping(document, required=("rules",))
    return [_read_rule(node) for node in read_list(top["rules"], "rules")]


def _read_rule(node: yaml.Node) -> Rule:
    fields = read_mapping(node, required=("path", "allow"), optional=_OPTIONAL)
    methods, labels, owner, namespace_labels = map(fields.get, _OPTIONAL)
    try:
        return Rule(
            read_string(fields["path"], "path"),
            methods=None if methods is None else read_strings(methods, "methods"),
            allow=read_strings(fields["allow"], "allow"),
            labels=None if labels is None else read_text_mapping(labels, "labels"),
            owner=None if owner is None else read_string(owner, "owner"),
            namespace_labels=(
                None if namespace_labels is None else read_text_mapping(namespace_labels, "namespace_labels")
            ),
        )
    except ValueError as error:
        raise InvalidNode(node, str(error)) from None
