"""The doors inside an app are small: each drives the one pipeline, and has no check of its own."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

DOORS = ("authenticator", "django", "fastapi", "flask", "rest_framework", "starlette")
PACKAGE = Path(__file__).parents[2] / "src" / "podproof"


def code_lines(source: str) -> int:
    """Return how many lines of a module are code: not its imports, docstrings, comments and blank lines."""
    tree = ast.parse(source)
    left_out: list[ast.stmt] = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            left_out += [node.body[0]] if ast.get_docstring(node) else []
    numbers = {number for one in left_out for number in range(one.lineno, (one.end_lineno or one.lineno) + 1)}
    lines = enumerate(source.splitlines(), 1)
    return sum(number not in numbers and line.strip()[:1] not in ("", "#") for number, line in lines)


def test_lines_of_code_are_counted() -> None:
    assert code_lines('"""Doc."""\n\nimport x\n\n# why\ndef f():\n    """Doc."""\n    return x\n') == 2


@pytest.mark.parametrize("name", DOORS)
def test_a_door_has_under_60_lines(name: str) -> None:
    assert code_lines((PACKAGE / f"{name}.py").read_text()) < 60
