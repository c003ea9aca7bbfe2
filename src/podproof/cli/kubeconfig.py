"""Which kubeconfig is used, and the exec plugin of its user."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from podproof._extras import require_extra

DEFAULT_FILE = "~/.kube/config"


class KubeconfigInvalid(Exception):
    """A kubeconfig cannot be used: says which file or name is wrong."""


@dataclass(frozen=True, slots=True)
class Kubeconfig:
    """A kubeconfig's context with its user. `missing` are files that KUBECONFIG names and that do not exist."""

    files: tuple[Path, ...]
    missing: tuple[Path, ...]
    context: str
    user: Mapping[str, Any] = field(repr=False)


def read_kubeconfig(variables: Mapping[str, str], context: str | None = None) -> Kubeconfig | None:
    """Return the kubeconfig that `kubectl` uses, merged from all files; None if there is none.

    Raises KubeconfigInvalid.
    """
    require_extra("podproof doctor", "server")
    import yaml  # noqa: PLC0415  not in a caller's image

    named = variables.get("KUBECONFIG")
    paths = [Path(path).expanduser() for path in (named or DEFAULT_FILE).split(os.pathsep) if path]
    files = [path for path in paths if path.exists()]
    missing = [path for path in paths if path not in files]
    if not files:
        if named:
            raise KubeconfigInvalid(f"KUBECONFIG names {named}, which does not exist")
        return None
    contexts: dict[str, Any] = {}
    users: dict[str, Any] = {}
    current = context
    for file in files:
        try:
            document = yaml.safe_load(file.read_text())
            contexts = {
                entry["name"]: entry.get("context") or {} for entry in document.get("contexts") or ()
            } | contexts
            users = {entry["name"]: entry.get("user") or {} for entry in document.get("users") or ()} | users
            current = current or document.get("current-context")
        except OSError as error:
            raise KubeconfigInvalid(f"the kubeconfig {file} cannot be read: {error.strerror}") from None
        except (yaml.YAMLError, AttributeError, TypeError, KeyError, ValueError):
            raise KubeconfigInvalid(f"{file} is not a kubeconfig") from None
    if current not in contexts:
        raise KubeconfigInvalid(
            f"the kubeconfig has no context {current}: expected one of {', '.join(contexts)}"
            if current
            else "the kubeconfig has no current context"
        )
    return Kubeconfig(tuple(files), tuple(missing), current, users.get(contexts[current].get("user"), {}))
