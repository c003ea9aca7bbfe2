from __future__ import annotations

import falcon
import falcon.asgi
import pytest

from podproof import asgi as podproof_asgi
from podproof import wsgi as podproof_wsgi
from podproof.falcon import CallerMiddleware
from tests.process.frameworks.requests_sent import KNOWN, asgi, wsgi
from tests.support.fake_api import AuthenticatorFactory


def tell(req: falcon.Request, resp: falcon.Response) -> None:
    caller = req.context.caller
    resp.text = caller and f"{caller.service_account} in {caller.pod}"


class Whoami:
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        tell(req, resp)


class AsyncWhoami:
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        tell(req, resp)

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


def test_a_resource_knows_its_caller(
    wsgi_app: falcon.App[falcon.Request, falcon.Response], make_authenticator: AuthenticatorFactory
) -> None:
    assert wsgi(podproof_wsgi.PodAuthMiddleware(wsgi_app, authenticator=make_authenticator()), "/") == (200, KNOWN)


def test_an_async_resource_knows_its_caller(
    asgi_app: falcon.asgi.App[falcon.asgi.Request, falcon.asgi.Response], make_authenticator: AuthenticatorFactory
) -> None:
    bob = asgi(podproof_asgi.PodAuthMiddleware(asgi_app, authenticator=make_authenticator()))
    assert bob.get("/").text == KNOWN
    with bob.websocket_connect("/") as connection:
        assert connection.receive_text() == KNOWN


def test_of_an_anonymous_request_nobody_is_the_caller(
    wsgi_app: falcon.App[falcon.Request, falcon.Response],
    asgi_app: falcon.asgi.App[falcon.asgi.Request, falcon.asgi.Response],
    make_authenticator: AuthenticatorFactory,
) -> None:
    authenticator = make_authenticator(optional=True)
    bob = podproof_wsgi.PodAuthMiddleware(wsgi_app, authenticator=authenticator)
    assert wsgi(bob, "/", known=False) == (200, "")
    async_bob = asgi(podproof_asgi.PodAuthMiddleware(asgi_app, authenticator=authenticator), known=False)
    assert (async_bob.get("/").status_code, async_bob.get("/").text) == (200, "")


def test_without_the_middleware_nothing_is_believed(
    wsgi_app: falcon.App[falcon.Request, falcon.Response],
    asgi_app: falcon.asgi.App[falcon.asgi.Request, falcon.asgi.Response],
) -> None:
    assert wsgi(wsgi_app, "/")[0] == 500
    assert asgi(asgi_app).get("/").status_code == 500
