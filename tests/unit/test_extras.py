from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from podproof._extras import EXTRAS, MissingExtra, require_extra

DECLARED = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["optional-dependencies"]
MISSING = "podproof.wsgi needs packages that are not installed ({}): pip install 'podproof[wsgi]'"


def declared(extra: str, *, nested: bool) -> set[str]:
    """Return the distributions that pyproject.toml declares for an extra, with those of its `podproof[...]` or not."""
    names = set()
    for requirement in DECLARED[extra]:
        name, inner = re.match(r"([\w-]+)(?:\[([\w,-]+)\])?", requirement).groups()  # type: ignore[union-attr]
        if name != "podproof":
            names.add(name)
        elif nested:
            names |= {one for part in inner.split(",") for one in declared(part, nested=True)}
    return names


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_table_has_the_extras_of_pyproject(extra: str) -> None:
    assert declared(extra, nested=False) <= set(EXTRAS[extra]) <= declared(extra, nested=True)


def test_all_is_every_extra() -> None:
    every = {name for extra in DECLARED if extra != "all" for name in declared(extra, nested=True)}
    assert declared("all", nested=True) == every


def test_with_its_packages_a_part_is_imported() -> None:
    for extra in EXTRAS:
        require_extra("podproof.part", extra)


def test_a_missing_package_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    with pytest.raises(ModuleNotFoundError) as raised:
        require_extra("podproof.wsgi", "wsgi")
    assert str(raised.value) == MISSING.format("kubernetes")
    assert raised.value.name == "kubernetes"


def test_several_missing_packages_are_named_as_they_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("jwt", "yaml", "cryptography"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra) as raised:
        require_extra("podproof demo", "testing", "wsgi")
    assert str(raised.value) == (
        "podproof demo needs packages that are not installed (cryptography, pyjwt, pyyaml): "
        "pip install 'podproof[testing,wsgi]'"
    )


def test_a_package_that_was_loaded_in_an_unusual_way_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kubernetes", ModuleType("kubernetes"))
    require_extra("podproof.wsgi", "wsgi")


def import_in_a_new_process(module: str, folder: Path) -> str:
    """Import a module with a folder first on the path, and return the last line of the traceback."""
    code = f"import sys; sys.path.insert(0, {str(folder)!r}); import {module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return done.stderr.strip().rpartition("\n")[2]


def test_a_folder_of_the_same_name_is_not_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kubernetes").mkdir()
    monkeypatch.delitem(sys.modules, "kubernetes", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(sys, "meta_path", sys.meta_path[-1:])
    with pytest.raises(MissingExtra, match="kubernetes"):
        require_extra("podproof.wsgi", "wsgi")


def test_a_package_that_is_installed_and_broken_raises_its_own_error(tmp_path: Path) -> None:
    (tmp_path / "flask.py").write_text("import flasks_missing_dependency")
    error = import_in_a_new_process("podproof.flask", tmp_path)
    assert error == "ModuleNotFoundError: No module named 'flasks_missing_dependency'"
