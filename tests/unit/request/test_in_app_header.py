"""Another header than Authorization, where there is no middleware around the app: that one is read and taken off."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from fastapi import Depends, FastAPI, Request
from flask import Flask
from flask import request as flask_request
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import Request as StarletteRequest
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from podproof._authentication.authenticator import Authenticator
from podproof.fastapi import PodAuth as FastAPIPodAuth
from podproof.flask import PodAuth as FlaskPodAuth
from podproof.identity import PodIdentity
from podproof.starlette import PodAuthBackend
from tests.support.fake_api import PEER, AuthenticatorFactory, token

SENT = {"Authorization": "Basic person", "X-Pod-Authorization": f"Bearer {token()}"}


def shown(headers: Any) -> dict[str, str | None]:
    return {name: headers.get(name) for name in SENT}


def get_fastapi(authenticator: Authenticator, headers: Mapping[str, str]) -> tuple[int, object]:
    app = FastAPI()
    pod_auth = FastAPIPodAuth(authenticator=authenticator)

    @app.get("/")
    def index(request: Request, caller: PodIdentity = Depends(pod_auth)) -> dict[str, str | None]:  # noqa: B008
        assert str(caller.service_account) == "default/alice"
        return shown(request.headers)

    response = TestClient(app, client=(PEER, 1)).get("/", headers=headers)
    return response.status_code, response.json()


def get_starlette(authenticator: Authenticator, headers: Mapping[str, str]) -> tuple[int, object]:
    async def index(request: StarletteRequest) -> JSONResponse:
        assert str(request.user.service_account) == "default/alice"
        return JSONResponse(shown(request.headers))

    backend = PodAuthBackend(authenticator=authenticator)
    app = Starlette(routes=[Route("/", index)], middleware=[Middleware(AuthenticationMiddleware, backend=backend)])
    response = TestClient(app, client=(PEER, 1)).get("/", headers=headers)
    return response.status_code, response.json() if response.status_code == 200 else None


def get_flask(authenticator: Authenticator, headers: Mapping[str, str]) -> tuple[int, object]:
    app = Flask("bob")
    FlaskPodAuth(app, authenticator=authenticator)

    @app.get("/")
    def index() -> dict[str, str | None]:
        return shown(flask_request.headers)

    response = app.test_client().get("/", headers=headers, environ_overrides={"REMOTE_ADDR": PEER})
    return response.status_code, response.json


GET = {"fastapi": get_fastapi, "starlette": get_starlette, "flask": get_flask}


@pytest.mark.parametrize("door", GET)
def test_the_other_header_is_taken_off_and_authorization_stays(
    make_authenticator: AuthenticatorFactory, door: str
) -> None:
    authenticator = make_authenticator(header="X-Pod-Authorization")
    kept = {"Authorization": "Basic person", "X-Pod-Authorization": None}
    assert GET[door](authenticator, SENT) == (200, kept)


@pytest.mark.parametrize("door", GET)
def test_a_token_in_authorization_is_nobodys(make_authenticator: AuthenticatorFactory, door: str) -> None:
    authenticator = make_authenticator(header="X-Pod-Authorization")
    status, _ = GET[door](authenticator, {"Authorization": f"Bearer {token()}"})
    assert status in (400, 401)
