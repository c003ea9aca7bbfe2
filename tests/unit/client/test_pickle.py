"""A client, its auth and its session can be pickled and copied; none of the copies holds a token."""

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING, Any

import httpx
import httpx2
import pytest
import requests

from podproof.client import TokenClient
from tests.unit.client.conftest import mint

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.client.conftest import RecordingServer, Volume

COPIES: list[Callable[[Any], Any]] = [lambda value: pickle.loads(pickle.dumps(value)), copy.copy, copy.deepcopy]
IDS = ["pickle", "copy", "deepcopy"]


@pytest.fixture
def token(volume: Volume) -> str:
    token = mint(aud=["bob"], exp=4e9)
    volume.write(token)
    return token


@pytest.fixture
def client(volume: Volume, token: str) -> TokenClient:
    """Return a client that has read its token."""
    client = TokenClient("bob", path=volume.file, hosts=["127.0.0.1"])
    assert client.token() == token
    return client


@pytest.mark.parametrize("make_copy", COPIES, ids=IDS)
def test_a_copy_of_a_client_sends_the_token(
    make_copy: Callable[[Any], Any], client: TokenClient, token: str, server: RecordingServer
) -> None:
    copied = make_copy(client)
    assert repr(copied) == repr(client)
    with copied.session() as http:
        http.get(server.url, timeout=10)
    assert server.authorizations == [f"Bearer {token}"]


@pytest.mark.parametrize("make_copy", COPIES, ids=IDS)
def test_a_copy_of_an_auth_serves_every_library(
    make_copy: Callable[[Any], Any], client: TokenClient, token: str, server: RecordingServer
) -> None:
    auth = make_copy(client.auth)
    assert {httpx.Auth, httpx2.Auth} <= set(type(auth).mro())
    requests.get(server.url, auth=auth, timeout=10)
    httpx.get(server.url, auth=auth)
    assert server.authorizations == [f"Bearer {token}"] * 2


@pytest.mark.parametrize("make_copy", COPIES, ids=IDS)
def test_a_copy_of_a_session_sends_the_token(
    make_copy: Callable[[Any], Any], client: TokenClient, token: str, server: RecordingServer
) -> None:
    with client.session() as http, make_copy(http) as copied:
        copied.get(server.url, timeout=10)
    assert server.authorizations == [f"Bearer {token}"]


def test_no_pickle_holds_a_token(client: TokenClient, token: str, server: RecordingServer) -> None:
    auth = client.auth
    with client.session() as http:
        http.get(server.url, timeout=10)
        requests.get(server.url, auth=auth, timeout=10)
        pickles = [pickle.dumps(value) for value in (client, auth, http)]
    assert server.authorizations == [f"Bearer {token}"] * 2
    for part in token.encode().split(b"."):
        assert not [data for data in pickles if part in data]


def test_a_deep_copy_reads_the_file_itself(client: TokenClient, volume: Volume) -> None:
    volume.file.unlink()
    assert client.token()
    with pytest.raises(Exception, match="cannot be read"):
        copy.deepcopy(client).token()
