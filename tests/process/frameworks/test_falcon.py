from __future__ import annotations

import falcon
import falcon.asgi
import pytest

from podproof import asgi as podproof_asgi
from podproof import wsgi as podproof_wsgi
from podproof.falcon import CallerMiddleware
from tests.process.frameworks.framework_clients import ALICE, asgi_client, wsgi_get
from tests.support.fake_api import AuthenticatorFactory


def respond_with_caller(req: falcon.Request, resp: falcon.Response) -> None:
    caller = req.context.caller
    resp.text = caller and f"{caller.service_account} in {caller.pod}"


class Whoami:
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        respond_with_caller(req, resp)


class AsyncWhoami:
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        respond_with_caller(req, resp)

    async def on_websocket(self, req: falcon.asgi.Request, ws: falcon.asgi.WebSocket) -> None:
        await ws.accept()
        await ws.send_text(f"{req.context.caller.service_account} in {req.context.caller.pod}")


@pytest.fixture
def wsgi_app() -> falcon.App[falcon.Request, falcon.Response]:
    app: falcon.App[falcon.Request, falcon.Response] = falcon.App(middleware=[CallerMiddleware()])
    app.add_route("/", Whoami())
    return app


@pytest.fixture
def asgi_app() -> falcon.asgi.App[falcon.asgi.Request, falcon.asgi.Response]:
    app: falcon.asgi.App[falcon.asgi.Request, falcon.asgi.Response] = falcon.asgi.App(middleware=[CallerMiddleware()])
    app.add_route("/", AsyncWhoami())
    return app


def test_a_resource_gets_its_caller(
    wsgi_app: falcon.App[falcon.Request, falcon.Response], make_authenticator: AuthenticatorFactory
) -> None:
    assert wsgi_get(podproof_wsgi.PodAuthMiddleware(wsgi_app, authenticator=make_authenticator()), "/") == (200, ALICE)


def test_an_async_resource_gets_its_caller(
    asgi_app: falcon.asgi.App[falcon.asgi.Request, falcon.asgi.Response], make_authenticator: AuthenticatorFactory
) -> None:
    client = asgi_client(podproof_asgi.PodAuthMiddleware(asgi_app, authenticator=make_authenticator()))
    assert client.get("/").text == ALICE
    with client.websocket_connect("/") as connection:
        assert connection.receive_text() == ALICE


def test_an_anonymous_request_has_no_caller(
    wsgi_app: falcon.App[falcon.Request, falcon.Response],
    asgi_app: falcon.asgi.App[falcon.asgi.Request, falcon.asgi.Response],
    make_authenticator: AuthenticatorFactory,
) -> None:
    authenticator = make_authenticator(optional=True)
    wrapped = podproof_wsgi.PodAuthMiddleware(wsgi_app, authenticator=authenticator)
    assert wsgi_get(wrapped, "/", anonymous=True) == (200, "")
    client = asgi_client(podproof_asgi.PodAuthMiddleware(asgi_app, authenticator=authenticator), anonymous=True)
    assert (client.get("/").status_code, client.get("/").text) == (200, "")


def test_a_request_that_did_not_pass_through_the_middleware_is_an_error(
    wsgi_app: falcon.App[falcon.Request, falcon.Response],
    asgi_app: falcon.asgi.App[falcon.asgi.Request, falcon.asgi.Response],
) -> None:
    assert wsgi_get(wsgi_app, "/")[0] == 500
    assert asgi_client(asgi_app).get("/").status_code == 500
