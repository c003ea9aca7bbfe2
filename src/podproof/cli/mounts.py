"""Where callers' tokens are mounted in a pod."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

TOKENS = Path("/var/run/secrets/podproof")
"""The folder that `TokenClient` looks in: a token, or a folder for each audience with its token."""


def below(root: Path, path: str | Path) -> Path:
    """Return where a path of a pod's file tree lies when that tree begins at `root`."""
    return root / str(path).lstrip("/")


def token_files(root: Path, environ: Mapping[str, str]) -> list[Path]:
    """Return the files of the tokens that are there, after the one that the environment says is there."""
    folder = below(root, TOKENS)
    files = [one for one in (folder / "token", *sorted(folder.glob("[!.]*/token"))) if one.exists()]
    named = environ.get("PODPROOF_TOKEN_FILE")
    return [below(root, named), *files] if named else files
