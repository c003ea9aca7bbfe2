from __future__ import annotations

import os
import subprocess
import sys

import pytest

import podproof

HEAVY = {"aiohttp", "cryptography", "django", "fastapi", "flask", "jwt", "kubernetes", "requests", "urllib3", "yaml"}


def modules_after(statement: str) -> set[str]:
    """Return the names of the modules that a fresh interpreter has loaded after a statement."""
    program = f"import sys\n{statement}\nprint(*sys.modules)"
    # Without coverage's own modules, which a subprocess has where coverage measures it too.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    command = [sys.executable, "-c", program]
    return {*subprocess.run(command, env=environ, check=True, capture_output=True, text=True).stdout.split()}


def loaded_after(statement: str) -> set[str]:
    """Return the top-level names of those modules."""
    return {name.partition(".")[0] for name in modules_after(statement)}


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


@pytest.mark.parametrize(
    ("ours", "beside"),
    [
        ("podproof", "starlette.middleware.authentication"),
        ("podproof.asgi", "starlette.middleware.authentication"),
        ("podproof.wsgi", "werkzeug.middleware.proxy_fix"),
    ],
)
def test_an_import_loads_at_most_one_and_a_half_times_the_modules_of_the_frameworks_own(ours: str, beside: str) -> None:
    without_extras = "sys.modules['prometheus_client'] = sys.modules['opentelemetry'] = None"
    nothing, own, other = (
        len(modules_after(f"{without_extras}\n{statement}"))
        for statement in ("pass", f"import {ours}", f"import {beside}")
    )
    print(f"\nimport {ours}: {own - nothing} modules, import {beside}: {other - nothing}")
    assert 0 < own - nothing <= 1.5 * (other - nothing)


def test_each_public_name_is_there() -> None:
    for name in podproof.__all__:
        assert getattr(podproof, name).__name__ == name


def test_there_is_no_other_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'TokenCleint'"):
        _ = podproof.TokenCleint
