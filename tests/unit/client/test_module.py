from __future__ import annotations

import doctest
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from werkzeug.wrappers import Response

import podproof.client
from tests.unit.client.conftest import mint

if TYPE_CHECKING:
    from tests.unit.client.conftest import RecordingServer, Volume

WHOAMI = '{"service_account": "default/alice", "pod": "default/alice-pod"}'

# Blocks every third-party import but requests and what it depends on.
WITH_REQUESTS_ALONE = """
import sys

ALLOWED = {"requests", "urllib3", "idna", "certifi", "charset_normalizer", "chardet", "simplejson", "podproof"}

class Blocker:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in ALLOWED and top not in sys.stdlib_module_names:
            raise ImportError(f"blocked: {name}")

sys.meta_path.insert(0, Blocker())
from podproof import HostNotAllowed, TokenClient, TokenUnavailable

with TokenClient("bob").session() as http:
    print(http.get(sys.argv[1], timeout=10).text)
"""


def test_the_module_is_light_to_import() -> None:
    heavy = ["requests", "urllib3", "kubernetes", "httpx", "httpx2", "starlette", "werkzeug", "jwt"]
    code = f"import sys, podproof.client; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_client_works_with_requests_alone(
    volume: Volume, server: RecordingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PODPROOF_TOKEN_FILE", str(volume.file))
    token = mint(aud=["bob"], exp=4e9)
    volume.write(token)
    command = [sys.executable, "-c", WITH_REQUESTS_ALONE, server.url]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "fine\n"
    assert server.authorizations == [f"Bearer {token}"]


def test_the_examples_in_the_docstrings_work(
    volume: Volume, server: RecordingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = socket.getaddrinfo

    def resolve_bob(host: Any, port: Any, *options: Any, **named: Any) -> Any:
        """Resolve `http://bob` to the server."""
        assert (host, int(port)) == ("bob", 80)
        return resolve("127.0.0.1", int(server.url.rpartition(":")[2]), *options, **named)

    monkeypatch.setattr(socket, "getaddrinfo", resolve_bob)
    monkeypatch.setenv("PODPROOF_TOKEN_FILE", str(volume.file))
    token = mint(aud=["bob"], exp=4e9)
    volume.write(token)
    server.respond = lambda _: Response(WHOAMI, mimetype="application/json")
    results = doctest.testmod(podproof.client, extraglobs={"httpx": httpx})
    assert results.failed == 0
    assert server.authorizations == [f"Bearer {token}"] * 2
