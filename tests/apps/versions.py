"""Five small apps as they were, and as podproof protects them: `before` and `after` of each."""

from __future__ import annotations

import sys
from difflib import SequenceMatcher
from importlib import import_module
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).parent
APPS = ("orders", "inventory", "notes", "ticker", "billing")
VERSIONS = ("before", "after")


def load(app: str, version: str, module: str = "app") -> ModuleType:
    """Return a module of an app, imported anew."""
    name = f"tests.apps.{app}.{version}.{module}"
    sys.modules.pop(name, None)
    return import_module(name)


def changed_lines(app: str) -> list[str]:
    """Return the lines that protect an app: new, changed or gone; blank ones do not count."""
    changed = []
    for before in sorted((FOLDER / app / "before").iterdir()):
        if before.suffix != ".py":
            continue
        old, new = (
            [line for line in path.read_text().splitlines() if line.strip()]
            for path in (before, FOLDER / app / "after" / before.name)
        )
        for _, i, j, k, m in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
            if old[i:j] != new[k:m]:
                changed += new[k:m] if m - k > j - i else old[i:j]
    return changed
