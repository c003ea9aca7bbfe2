from __future__ import annotations

import subprocess
import sys

import pytest

import podproof

HEAVY = {"aiohttp", "cryptography", "django", "fastapi", "flask", "jwt", "kubernetes", "requests", "urllib3", "yaml"}


def loaded_after(statement: str) -> set[str]:
    """Return the top-level names of the modules that a fresh interpreter has loaded after a statement."""
    program = f"import sys\n{statement}\nprint(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    return {name.partition(".")[0] for name in out.split()}


@pytest.mark.parametrize(
    ("statement", "besides"),
    [
        ("import podproof", {"starlette", "werkzeug", "anyio"}),
        ("from podproof import PodIdentity, PodAuthError, current_caller", {"starlette", "werkzeug", "anyio"}),
        ("import podproof.wsgi", {"starlette", "anyio"}),
        ("import podproof.asgi", set()),
    ],
)
def test_an_import_loads_only_what_it_is_about(statement: str, besides: set[str]) -> None:
    assert loaded_after(statement) & (HEAVY | besides) == set()


def test_each_public_name_is_there() -> None:
    for name in podproof.__all__:
        assert getattr(podproof, name).__name__ == name


def test_there_is_no_other_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'TokenCleint'"):
        _ = podproof.TokenCleint
