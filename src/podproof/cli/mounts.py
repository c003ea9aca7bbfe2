"""Where the kubelet mounts tokens in a pod."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

CREDENTIAL_DIRECTORY = "/var/run/secrets/kubernetes.io/serviceaccount"
"""Where a pod's own credential for the API server is mounted."""

TOKEN_DIRECTORY = Path("/var/run/secrets/podproof")
"""Where `TokenClient` looks: a file `token`, or a directory for each audience with such a file."""


def path_below(root: Path, path: str | Path) -> Path:
    """Return an absolute path of a pod's file tree as it is found when that tree starts at `root`."""
    return root / str(path).lstrip("/")


def token_files(root: Path, variables: Mapping[str, str]) -> list[Path]:
    """Return the token files that exist, after the one that PODPROOF_TOKEN_FILE names."""
    directory = path_below(root, TOKEN_DIRECTORY)
    found = [file for file in (directory / "token", *sorted(directory.glob("[!.]*/token"))) if _may_exist(file)]
    named = variables.get("PODPROOF_TOKEN_FILE")
    return [path_below(root, named), *found] if named else found


def _may_exist(file: Path) -> bool:
    try:
        return file.exists()
    except PermissionError:  # its directory cannot be searched: reading it tells
        return True
