"""`require` in each framework and form: a denial is one response, one record, and no error of the app's."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import bottle
import falcon
import falcon.asgi
import fastapi
import flask
import litestar
import pytest
import quart
from django.core.asgi import get_asgi_application
from django.core.handlers.wsgi import WSGIHandler
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import path as django_path
from django.utils.decorators import method_decorator
from django.views import View
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocket, WebSocketDisconnect
from werkzeug.test import Client

import podproof.starlette
from podproof import PodIdentity, require
from podproof.asgi import PodAuthMiddleware as ASGIMiddleware
from podproof.litestar import CallerPlugin
from podproof.wsgi import PodAuthMiddleware as WSGIMiddleware
from tests.process.frameworks import django_project
from tests.process.frameworks.framework_clients import AUTHORIZATION
from tests.support.fake_api import PEER, AuthenticatorFactory

ALICE, BATCH = "default/alice", "batch/*"
PATTERNS = {"/alice": ALICE, "/batch": BATCH}
"""Two views of each app: one that Alice may call, and one that only others may."""

Wrap = Callable[[Any], Any]
APPS: dict[str, Callable[[Wrap], Any]] = {}


def app(make: Callable[[Wrap], Any]) -> Callable[[Wrap], Any]:
    APPS[make.__name__.replace("_", "-")] = make
    return make


def leak(error: Exception) -> str:
    """Return what an app's own handler of all errors may send: it is never called for a denial."""
    return f"leaked: {error} {getattr(error, 'reason', '')}"


# Flask and Quart


def flask_app(kind: Any, add: Callable[[Any, str, str], object]) -> Any:
    made = kind("bob")
    for route, pattern in PATTERNS.items():
        add(made, route, pattern)
    made.register_error_handler(Exception, leak)
    return made


def wrapped_flask(made: flask.Flask, wrap: Wrap) -> flask.Flask:
    made.wsgi_app = wrap(made.wsgi_app)  # type: ignore[method-assign]
    return made


def add_decorated(made: Any, route: str, pattern: str) -> None:
    made.add_url_rule(route, route, require(pattern)(lambda: "ok"))


def add_decorated_async(made: Any, route: str, pattern: str) -> None:
    @require(pattern)
    async def view() -> str:
        return "ok"

    made.add_url_rule(route, route, view)


def add_calling(made: Any, route: str, pattern: str) -> None:
    made.add_url_rule(route, route, lambda: require(pattern).check().display_name and "ok")


def add_calling_async(made: Any, route: str, pattern: str) -> None:
    async def view() -> str:
        require(pattern).check()
        return "ok"

    made.add_url_rule(route, route, view)


def add_blueprint(made: Any, route: str, pattern: str) -> None:
    kind = flask.Blueprint if isinstance(made, flask.Flask) else quart.Blueprint
    blueprint: Any = kind(route.strip("/"), "bob", url_prefix=route)
    blueprint.before_request(require(pattern))
    blueprint.add_url_rule("", "view", lambda: "ok")
    made.register_blueprint(blueprint)


@app
def flask_decorator(wrap: Wrap) -> Any:
    return wrapped_flask(flask_app(flask.Flask, add_decorated), wrap)


@app
def flask_async_decorator(wrap: Wrap) -> Any:
    return wrapped_flask(flask_app(flask.Flask, add_decorated_async), wrap)


@app
def flask_call(wrap: Wrap) -> Any:
    return wrapped_flask(flask_app(flask.Flask, add_calling), wrap)


@app
def flask_before_request(wrap: Wrap) -> Any:
    return wrapped_flask(flask_app(flask.Flask, add_blueprint), wrap)


@app
def quart_decorator(wrap: Wrap) -> Any:
    return wrap(flask_app(quart.Quart, add_decorated))


@app
def quart_async_decorator(wrap: Wrap) -> Any:
    return wrap(flask_app(quart.Quart, add_decorated_async))


@app
def quart_call(wrap: Wrap) -> Any:
    return wrap(flask_app(quart.Quart, add_calling_async))


@app
def quart_before_request(wrap: Wrap) -> Any:
    return wrap(flask_app(quart.Quart, add_blueprint))


# Starlette and FastAPI, with the middleware in the app and around it


async def starlette_leak(_: Request, error: Exception) -> PlainTextResponse:
    return PlainTextResponse(leak(error))


def starlette_app(view: Callable[[str], Any], wrap: Wrap, *, inside: bool) -> Any:
    routes = [Route(route, view(pattern)) for route, pattern in PATTERNS.items()]
    made = Starlette(routes=routes, exception_handlers={Exception: starlette_leak})
    return within(made, wrap) if inside else wrap(made)


def within(made: Any, wrap: Wrap) -> Any:
    """Put the middleware into an app, as `add_middleware` does."""
    made.add_middleware(wrap)
    return made


def starlette_decorated(pattern: str) -> Any:
    @require(pattern)
    async def view(request: Request) -> PlainTextResponse:
        return PlainTextResponse("ok")

    return view


def starlette_decorated_sync(pattern: str) -> Any:
    return require(pattern)(lambda _: PlainTextResponse("ok"))


def starlette_calling(pattern: str) -> Any:
    async def view(request: Request) -> PlainTextResponse:
        require(pattern).check()
        return PlainTextResponse("ok")

    return view


for name, starlette_view in {
    "decorator": starlette_decorated,
    "sync-decorator": starlette_decorated_sync,
    "call": starlette_calling,
}.items():
    APPS[f"starlette-{name}"] = partial(starlette_app, starlette_view, inside=False)
    APPS[f"starlette-{name}-inside"] = partial(starlette_app, starlette_view, inside=True)


def fastapi_app(add: Callable[[fastapi.FastAPI, str, str], object]) -> fastapi.FastAPI:
    made = fastapi.FastAPI()
    for route, pattern in PATTERNS.items():
        add(made, route, pattern)
    made.add_exception_handler(Exception, starlette_leak)
    return made


def wrapped_fastapi(add: Callable[[fastapi.FastAPI, str, str], object], wrap: Wrap, *, inside: bool) -> Any:
    return within(fastapi_app(add), wrap) if inside else wrap(fastapi_app(add))


def fastapi_decorated(made: fastapi.FastAPI, route: str, pattern: str) -> None:
    @made.get(route)
    @require(pattern)
    def view(number: int = 3) -> str:
        return "ok"


def fastapi_dependency(made: fastapi.FastAPI, route: str, pattern: str) -> None:
    required: Any = fastapi.Depends(require(pattern))

    @made.get(route)
    async def view(caller: PodIdentity = required) -> str:
        assert caller.display_name == ALICE
        return "ok"


def fastapi_async_dependency(made: fastapi.FastAPI, route: str, pattern: str) -> None:
    @made.get(route, dependencies=[fastapi.Depends(require(pattern).dependency)])
    async def view() -> str:
        return "ok"


def fastapi_calling(made: fastapi.FastAPI, route: str, pattern: str) -> None:
    @made.get(route)
    def view() -> str:
        require(pattern).check()
        return "ok"


for name, add_view in {
    "decorator": fastapi_decorated,
    "dependency": fastapi_dependency,
    "async-dependency": fastapi_async_dependency,
    "call": fastapi_calling,
}.items():
    APPS[f"fastapi-{name}"] = partial(wrapped_fastapi, add_view, inside=False)
    APPS[f"fastapi-{name}-inside"] = partial(wrapped_fastapi, add_view, inside=True)


# Django


def ok(_: HttpRequest) -> HttpResponse:
    return HttpResponse("ok")


async def ok_async(_: HttpRequest) -> HttpResponse:
    return HttpResponse("ok")


def calling(pattern: str) -> Callable[[HttpRequest], HttpResponse]:
    def view(_: HttpRequest) -> HttpResponse:
        require(pattern).check()
        return HttpResponse("ok")

    return view


def class_based(pattern: str) -> Any:
    class Bob(View):  # type: ignore[misc]
        @require(pattern)
        def get(self, request: HttpRequest) -> HttpResponse:
            return HttpResponse("ok")

    return Bob.as_view()


def class_based_by_django(pattern: str) -> Any:
    @method_decorator(require(pattern), name="dispatch")
    class Bob(View):  # type: ignore[misc]
        def get(self, request: HttpRequest) -> HttpResponse:
            return HttpResponse("ok")

    return Bob.as_view()


DJANGO_VIEWS: dict[str, Callable[[str], Any]] = {
    "decorator": lambda pattern: require(pattern)(ok),
    "async-decorator": lambda pattern: require(pattern)(ok_async),
    "class": class_based,
    "method-decorator": class_based_by_django,
    "call": calling,
}
urlpatterns = [
    django_path(f"{kind}{route}", view(pattern))
    for kind, view in DJANGO_VIEWS.items()
    for route, pattern in PATTERNS.items()
]


@pytest.fixture(scope="module", autouse=True)
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    django_project.configure(tmp_path_factory.mktemp("db"))
    with override_settings(ROOT_URLCONF=__name__):
        yield


@pytest.mark.parametrize("server", ["wsgi", "asgi"])
@pytest.mark.parametrize("kind", DJANGO_VIEWS)
@pytest.mark.parametrize("middleware", ["podproof.django.CallerMiddleware", "podproof.django.PodAuthMiddleware", None])
@pytest.mark.trap(64)
def test_each_form_in_django_is_the_middlewares_response(
    make_authenticator: AuthenticatorFactory,
    caplog: pytest.LogCaptureFixture,
    server: str,
    kind: str,
    middleware: str | None,
) -> None:
    authenticator = make_authenticator(optional=True)
    settings = {"MIDDLEWARE": [middleware] if middleware else [], "PODPROOF": {"authenticator": authenticator}}
    with override_settings(**settings):
        made: Any = get_wsgi_application() if server == "wsgi" else get_asgi_application()
        if middleware != "podproof.django.PodAuthMiddleware":
            door: Any = WSGIMiddleware if server == "wsgi" else ASGIMiddleware
            made = door(made, authenticator=authenticator)
        # Without its middleware, Django takes what `check` raises for an error, and logs it.
        check_responses(made, f"/{kind}", caplog, logs_the_error=kind == "call" and middleware is None)


# Litestar


def litestar_leak(_: Any, error: Exception) -> litestar.Response[str]:
    return litestar.Response(leak(error))


def wrapped_litestar(handler: Callable[[str, str], Any], plugins: list[Any], wrap: Wrap) -> Any:
    handlers = [handler(route, pattern) for route, pattern in PATTERNS.items()]
    leaks: Any = {500: litestar_leak}
    return wrap(litestar.Litestar(handlers, logging_config=None, exception_handlers=leaks, plugins=plugins))


def litestar_decorated(route: str, pattern: str) -> Any:
    @litestar.get(route)
    @require(pattern)
    async def view() -> str:
        return "ok"

    return view


def litestar_guarded(route: str, pattern: str) -> Any:
    @litestar.get(route, guards=[require(pattern)])
    async def view() -> str:
        return "ok"

    return view


def litestar_calling(route: str, pattern: str) -> Any:
    @litestar.get(route)
    async def view() -> str:
        require(pattern).check()
        return "ok"

    return view


for name, handler in {
    "decorator": litestar_decorated,
    "guard": litestar_guarded,
    "call": litestar_calling,
}.items():
    APPS[f"litestar-{name}"] = partial(wrapped_litestar, handler, [])
    APPS[f"litestar-{name}-plugin"] = partial(wrapped_litestar, handler, [CallerPlugin()])


# Falcon


def falcon_app(kind: Any, resource: Callable[[str], Any]) -> Any:
    made = kind()
    for route, pattern in PATTERNS.items():
        made.add_route(route, resource(pattern))
    return made


def falcon_decorated(pattern: str) -> Any:
    class Bob:
        @require(pattern)
        def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
            resp.text = "ok"

    return Bob()


def falcon_decorated_async(pattern: str) -> Any:
    class Bob:
        @require(pattern)
        async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
            resp.text = "ok"

    return Bob()


def falcon_hooked(pattern: str) -> Any:
    class Bob:
        @falcon.before(require(pattern))
        def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
            resp.text = "ok"

    return Bob()


def falcon_hooked_async(pattern: str) -> Any:
    class Bob:
        @falcon.before(require(pattern))
        async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
            resp.text = "ok"

    return Bob()


def falcon_calling(pattern: str) -> Any:
    class Bob:
        def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
            require(pattern).check()
            resp.text = "ok"

    return Bob()


def falcon_calling_async(pattern: str) -> Any:
    class Bob:
        async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
            require(pattern).check()
            resp.text = "ok"

    return Bob()


APPS |= {
    "falcon-decorator": lambda wrap: wrap(falcon_app(falcon.App, falcon_decorated)),
    "falcon-hook": lambda wrap: wrap(falcon_app(falcon.App, falcon_hooked)),
    "falcon-call": lambda wrap: wrap(falcon_app(falcon.App, falcon_calling)),
    "falcon-asgi-decorator": lambda wrap: wrap(falcon_app(falcon.asgi.App, falcon_decorated_async)),
    "falcon-asgi-hook": lambda wrap: wrap(falcon_app(falcon.asgi.App, falcon_hooked_async)),
    "falcon-asgi-call": lambda wrap: wrap(falcon_app(falcon.asgi.App, falcon_calling_async)),
}


# Bottle


def bottle_app(wrap: Wrap, view: Callable[[str], Callable[[], str]], **given: Any) -> Any:
    made = bottle.Bottle()
    for route, pattern in PATTERNS.items():
        made.route(route, callback=view(pattern), **{name: give(pattern) for name, give in given.items()})
    return wrap(made)


APPS |= {
    "bottle-decorator": lambda wrap: bottle_app(wrap, lambda pattern: require(pattern)(lambda: "ok")),
    "bottle-plugin": lambda wrap: bottle_app(wrap, lambda _: lambda: "ok", apply=lambda pattern: [require(pattern)]),
    "bottle-call": lambda wrap: bottle_app(wrap, lambda pattern: lambda: f"ok {require(pattern).check()}"),
}


# Plain WSGI and ASGI


def pattern_of(path: str) -> str:
    return PATTERNS[path]


@app
def wsgi_call(wrap: Wrap) -> Any:
    def served(environ: Any, start_response: Any) -> Iterable[bytes]:
        require(pattern_of(environ["PATH_INFO"])).check()
        start_response("200 OK", [])
        return [b"ok"]

    return wrap(served)


@app
def wsgi_call_after_start(wrap: Wrap) -> Any:
    def served(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", "2")])
        require(pattern_of(environ["PATH_INFO"])).check()
        return [b"ok"]

    return wrap(served)


@app
def wsgi_call_in_generator(wrap: Wrap) -> Any:
    def served(environ: Any, start_response: Any) -> Iterator[bytes]:
        require(pattern_of(environ["PATH_INFO"])).check()
        start_response("200 OK", [])
        yield b"ok"

    return wrap(served)


@app
def wsgi_call_in_started_generator(wrap: Wrap) -> Any:
    def served(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        require(pattern_of(environ["PATH_INFO"])).check()
        yield b"ok"

    return wrap(served)


@app
def wsgi_decorator(wrap: Wrap) -> Any:
    def served(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        return [b"ok"]

    guarded = {path: require(pattern)(served) for path, pattern in PATTERNS.items()}
    return wrap(lambda environ, start_response: guarded[environ["PATH_INFO"]](environ, start_response))


@app
def asgi_call(wrap: Wrap) -> Any:
    async def served(scope: Any, receive: Any, send: Any) -> None:
        require(pattern_of(scope["path"])).check()
        await PlainTextResponse("ok")(scope, receive, send)

    return wrap(served)


@app
def asgi_decorator(wrap: Wrap) -> Any:
    guarded = {path: require(pattern)(PlainTextResponse("ok")) for path, pattern in PATTERNS.items()}

    async def served(scope: Any, receive: Any, send: Any) -> None:
        await guarded[scope["path"]](scope, receive, send)

    return wrap(served)


IS_WSGI = ("flask", "falcon-decorator", "falcon-hook", "falcon-call", "bottle", "wsgi")


def get(made: Any, path: str, *, anonymous: bool) -> tuple[int, str, bytes]:
    """Return the status, content type and body of the response to a GET request."""
    headers = {} if anonymous else AUTHORIZATION
    if isinstance(made, WSGIMiddleware | flask.Flask | WSGIHandler):
        with Client(made).get(path, headers=headers, environ_overrides={"REMOTE_ADDR": PEER}) as wsgi:
            return wsgi.status_code, wsgi.headers.get("Content-Type", ""), wsgi.data
    client = TestClient(made, client=(PEER, 4711), headers=headers, raise_server_exceptions=False)
    response = client.get(path)
    return response.status_code, response.headers.get("Content-Type", ""), response.content


def check_responses(made: Any, prefix: str, caplog: pytest.LogCaptureFixture, *, logs_the_error: bool = False) -> None:
    """Check what Alice gets from the two views, and an anonymous caller, and what is logged of it."""
    caplog.set_level(logging.INFO)
    for path, anonymous, status in (("/alice", False, 200), ("/batch", False, 403), ("/alice", True, 401)):
        caplog.clear()
        got, kind, body = get(made, f"{prefix}{path}", anonymous=anonymous)
        assert got == status, body
        records = [record for record in caplog.records if record.name == "podproof.audit"]
        assert [vars(record)["status"] for record in records] == [status]
        if status == 200:
            assert b"ok" in body
            continue
        problem = json.loads(body)
        assert kind == "application/problem+json"
        assert problem["status"] == status
        assert problem["request_id"] == vars(records[0])["request_id"]
        assert b"batch/" not in body
        errors = [record.name for record in caplog.records if record.levelno >= logging.ERROR or record.exc_info]
        assert bool(errors) is logs_the_error, errors


@pytest.mark.parametrize("name", APPS)
@pytest.mark.trap(64)
def test_each_form_in_each_framework_is_the_middlewares_response(
    make_authenticator: AuthenticatorFactory, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    door: Any = WSGIMiddleware if name.startswith(IS_WSGI) else ASGIMiddleware
    authenticator = make_authenticator(optional=True)
    made = APPS[name](lambda app: door(app, authenticator=authenticator))
    check_responses(made, "", caplog)


def test_fastapi_documents_the_security_scheme_of_a_requirement(make_authenticator: AuthenticatorFactory) -> None:
    document = fastapi_app(fastapi_dependency).openapi()
    assert document["components"]["securitySchemes"]["podproof"]["scheme"] == "bearer"
    assert document["paths"]["/alice"]["get"]["security"] == [{"podproof": []}]
    assert "parameters" not in document["paths"]["/alice"]["get"]


def test_a_decorated_endpoint_of_fastapi_keeps_its_parameters() -> None:
    document = fastapi_app(fastapi_decorated).openapi()
    assert [one["name"] for one in document["paths"]["/alice"]["get"]["parameters"]] == ["number"]


@pytest.mark.trap(64)
def test_starlettes_caller_denies_an_anonymous_request_wherever_the_middleware_is(
    make_authenticator: AuthenticatorFactory,
) -> None:
    def whoami(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(podproof.starlette.caller(request)))

    async def ws(websocket: WebSocket) -> None:
        podproof.starlette.caller(websocket)

    made = Starlette(routes=[Route("/", whoami), WebSocketRoute("/ws", ws)])
    served = ASGIMiddleware(made, authenticator=make_authenticator(optional=True))
    assert get(served, "/", anonymous=True)[:2] == (401, "application/problem+json")
    with (
        pytest.raises(WebSocketDenialResponse) as raised,
        TestClient(served, client=(PEER, 4711)).websocket_connect("/ws"),
    ):
        raise AssertionError
    assert raised.value.status_code == 401


@pytest.mark.trap(64)
def test_an_app_may_answer_a_denial_in_its_own_way(
    make_authenticator: AuthenticatorFactory, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "podproof.audit")

    async def page(_: Request, error: Exception) -> PlainTextResponse:
        assert isinstance(error, HTTPException)
        assert str(error) == "403: The caller is not allowed here."
        return PlainTextResponse("a page", 403)

    async def public(request: Request) -> PlainTextResponse:
        try:
            require(BATCH).check()
        except podproof.PodAuthError:
            return PlainTextResponse("less")
        raise AssertionError

    routes = [Route("/page", starlette_calling(BATCH)), Route("/public", public)]
    served = ASGIMiddleware(
        Starlette(routes=routes, exception_handlers={403: page}), authenticator=make_authenticator()
    )
    assert get(served, "/page", anonymous=False)[::2] == (403, b"a page")
    assert get(served, "/public", anonymous=False)[::2] == (200, b"less")
    records = [(vars(record)["decision"], vars(record)["status"]) for record in caplog.records]
    assert records == [("denied", 403), ("allowed", 200)]


@pytest.mark.trap(64)
def test_a_websocket_is_denied_in_each_framework(make_authenticator: AuthenticatorFactory) -> None:
    @litestar.websocket("/ws")
    async def litestar_ws(socket: litestar.WebSocket[Any, Any, Any]) -> None:
        require(BATCH).check()

    @litestar.websocket("/accepted")
    async def litestar_accepted(socket: litestar.WebSocket[Any, Any, Any]) -> None:
        await socket.accept()
        require(BATCH).check()

    class FalconWebSocket:
        async def on_websocket(self, req: falcon.asgi.Request, ws: falcon.asgi.WebSocket) -> None:
            require(BATCH).check()

    class FalconAccepted:
        async def on_websocket(self, req: falcon.asgi.Request, ws: falcon.asgi.WebSocket) -> None:
            await ws.accept()
            require(BATCH).check()

    async def starlette_ws(websocket: WebSocket) -> None:
        require(BATCH).check()

    async def starlette_accepted(websocket: WebSocket) -> None:
        await websocket.accept()
        require(BATCH).check()

    falcon_served = falcon.asgi.App()
    falcon_served.add_route("/ws", FalconWebSocket())
    falcon_served.add_route("/accepted", FalconAccepted())
    quart_served = quart.Quart("bob")

    @quart_served.websocket("/ws")
    @require(BATCH)
    async def quart_ws() -> None:
        raise AssertionError

    @quart_served.websocket("/accepted")
    async def quart_accepted() -> None:
        await quart.websocket.accept()
        require(BATCH).check()

    starlette_served = Starlette(
        routes=[WebSocketRoute("/ws", starlette_ws), WebSocketRoute("/accepted", starlette_accepted)]
    )
    for served in (
        litestar.Litestar([litestar_ws, litestar_accepted], logging_config=None),
        falcon_served,
        quart_served,
        starlette_served,
    ):
        made = ASGIMiddleware(served, authenticator=make_authenticator())
        client = TestClient(made, client=(PEER, 4711), headers=AUTHORIZATION)
        with pytest.raises(WebSocketDenialResponse) as raised, client.websocket_connect("/ws"):
            raise AssertionError
        assert raised.value.status_code == 403
        with client.websocket_connect("/accepted") as websocket, pytest.raises(WebSocketDisconnect) as closed:
            websocket.receive_text()
        assert (closed.value.code, closed.value.reason) == (1008, "the caller is not allowed here")
