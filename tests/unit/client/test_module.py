from __future__ import annotations

import doctest
import subprocess
import sys
from typing import TYPE_CHECKING

import httpx
import pytest
from werkzeug.wrappers import Response

import podproof.client
from tests.unit.client.conftest import mint

if TYPE_CHECKING:
    from tests.unit.client.conftest import Server, Volume

WHOAMI = '{"service_account": "default/alice", "pod": "default/alice-pod"}'


def test_the_module_is_light_to_import() -> None:
    heavy = ["requests", "urllib3", "kubernetes", "httpx", "httpx2", "starlette", "werkzeug", "jwt"]
    code = f"import sys, podproof.client; print([name for name in {heavy} if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_the_examples_in_the_docstrings_work(volume: Volume, bob: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    # As a proxy, Bob answers for the name that the examples call.
    monkeypatch.setenv("http_proxy", bob.url)
    monkeypatch.setenv("PODPROOF_TOKEN_FILE", str(volume.file))
    token = mint(aud=["bob"], exp=4e9)
    volume.write(token)
    bob.answer = lambda _: Response(WHOAMI, mimetype="application/json")
    results = doctest.testmod(podproof.client, extraglobs={"httpx": httpx})
    assert results.failed == 0
    assert bob.authorizations == [f"Bearer {token}"] * 2
