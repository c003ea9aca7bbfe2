"""`podproof.fastapi.PodAuth`: a dependency in the place of the middleware.

Annotations are evaluated here: they name dependencies that are made in the function around.
"""

import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import PlainTextResponse, RedirectResponse
from starlette.authentication import SimpleUser
from starlette.routing import Mount
from starlette.testclient import WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect

from podproof import Rule, current_caller, require
from podproof.errors import ConfigurationError
from podproof.fastapi import Caller, PodAuth
from podproof.identity import Pod, PodIdentity, ServiceAccount
from tests.process.frameworks.framework_clients import ALICE, AUTHORIZATION, asgi_client
from tests.support.fake_api import NOW, AuthenticatorFactory, token

MakeApp = Callable[..., FastAPI]


@pytest.fixture
def make_app(make_authenticator: AuthenticatorFactory) -> MakeApp:
    """Return what makes an app whose routes below /pods have the dependency, with these options."""

    def make(**options: object) -> FastAPI:
        app = FastAPI()
        app.state.auth = auth = PodAuth(authenticator=make_authenticator(**options))
        pods = APIRouter(prefix="/pods", dependencies=[Depends(auth)])

        @app.get("/open")
        async def for_all() -> str:
            return repr(current_caller())

        @pods.get("/whoami")
        async def whoami(caller: Annotated[PodIdentity, Depends(auth)], same: Caller, request: Request) -> list[str]:
            assert caller is same is request.user is current_caller()
            assert "authorization" not in request.headers
            return [f"{caller.service_account} in {caller.pod}", *request.auth.scopes]

        @pods.get("/sync")
        def in_a_thread() -> str:
            return str(current_caller() and current_caller().pod)  # type: ignore[union-attr]

        @pods.get("/batch", dependencies=[Depends(require("batch/*"))])
        async def for_batch() -> None:
            raise AssertionError

        @pods.get("/decorated")
        @require("batch/*")
        async def for_batch_too() -> None:
            raise AssertionError

        @pods.get("/teapot")
        async def teapot() -> None:
            raise HTTPException(418)

        @pods.get("/redirect")
        async def redirect() -> RedirectResponse:
            return RedirectResponse("/open", 302)

        @pods.get("/broken")
        async def broken() -> None:
            raise ValueError

        @pods.websocket("/ws")
        async def ws(websocket: WebSocket) -> None:
            await websocket.accept()
            await websocket.send_text(str(current_caller() and current_caller().pod))  # type: ignore[union-attr]

        @pods.websocket("/waits")
        async def waits(websocket: WebSocket) -> None:
            await websocket.accept()
            await websocket.receive_text()

        @pods.websocket("/late")
        async def late(websocket: WebSocket) -> None:
            await websocket.accept()
            require("batch/*").check()

        app.include_router(pods)
        return app

    return make


def test_an_endpoint_gets_its_caller_and_no_token(make_app: MakeApp) -> None:
    caller, *scopes = asgi_client(make_app()).get("/pods/whoami").json()
    assert (caller, scopes[-1]) == (ALICE, "serviceaccount:default/alice")
    assert asgi_client(make_app()).get("/pods/sync").json() == "default/alice-pod"


def test_the_token_stays_on_the_request_if_it_is_kept(make_authenticator: AuthenticatorFactory) -> None:
    app = FastAPI()

    @app.get("/", dependencies=[Depends(PodAuth(authenticator=make_authenticator(keep_authorization=True)))])
    async def root(request: Request) -> bool:
        return request.headers["authorization"] == AUTHORIZATION["Authorization"]

    assert asgi_client(app).get("/").json() is True


def test_only_the_routes_with_the_dependency_need_a_token(make_app: MakeApp) -> None:
    client = asgi_client(make_app(), anonymous=True)
    assert client.get("/open").json() == "None"
    assert client.get("/pods/whoami").status_code == 401


def test_a_denial_is_the_middleware_s_and_passes_by_the_app_s_handlers(make_app: MakeApp) -> None:
    app = make_app()
    for kind in (HTTPException, 401, 403):
        app.add_exception_handler(kind, lambda *_: PlainTextResponse("mine"))
    for path, status in (("whoami", 401), ("batch", 403), ("decorated", 403)):
        response = asgi_client(app, anonymous=status == 401).get(f"/pods/{path}")
        assert (response.status_code, response.json()["status"]) == (status, status)
        assert response.headers["content-type"] == "application/problem+json"
        assert response.headers["www-authenticate"].startswith('Bearer realm="bob"')
        assert response.headers["cache-control"] == "no-store"
    assert asgi_client(app).get("/pods/teapot").text == "mine"


def test_the_padlock_is_on_the_routes_with_the_dependency(make_app: MakeApp) -> None:
    document = make_app().openapi()
    scheme = document["components"]["securitySchemes"]["podproof"]
    assert (scheme["type"], scheme["scheme"], scheme["bearerFormat"]) == ("http", "bearer", "JWT")
    assert document["paths"]["/pods/sync"]["get"]["security"] == [{"podproof": []}]
    assert "security" not in document["paths"]["/open"]["get"]


def test_another_header_is_an_api_key_in_the_openapi_document(make_app: MakeApp) -> None:
    document = make_app(header="X-Pod-Authorization").openapi()
    assert document["paths"]["/pods/sync"]["get"]["security"] == [{"podproof-X-Pod-Authorization": []}]
    assert document["components"]["securitySchemes"]["podproof-X-Pod-Authorization"] == {
        "type": "apiKey",
        "in": "header",
        "name": "X-Pod-Authorization",
        "description": "`Bearer`, a blank and the caller's service-account token.",
    }


def test_a_test_can_override_the_dependency(make_authenticator: AuthenticatorFactory) -> None:
    app, auth = FastAPI(), PodAuth(authenticator=make_authenticator())

    @app.get("/")
    async def whoami(caller: Annotated[PodIdentity, Depends(auth)]) -> str:
        return str(caller.service_account)

    carol = PodIdentity(ServiceAccount("default", "carol"), Pod("default", "carol-1", "1"), "bob", expires_at=NOW)
    app.dependency_overrides[auth] = lambda: carol
    assert asgi_client(app, anonymous=True).get("/").json() == "default/carol"


def test_a_websocket_has_its_caller_or_is_denied(make_app: MakeApp) -> None:
    app = make_app()
    with asgi_client(app).websocket_connect("/pods/ws") as connection:
        assert connection.receive_text() == "default/alice-pod"
    client = asgi_client(app, anonymous=True)
    with pytest.raises(WebSocketDenialResponse) as raised, client.websocket_connect("/pods/ws"):
        raise AssertionError
    assert raised.value.status_code == 401
    assert raised.value.headers["www-authenticate"] == 'Bearer realm="bob"'


@pytest.mark.parametrize("path", ["/pods/waits", "/pods/late"])
def test_a_websocket_is_closed_when_its_token_expires_or_when_it_is_denied_later(make_app: MakeApp, path: str) -> None:
    lifetime = 0.05 if path == "/pods/waits" else 3600
    headers = {"Authorization": f"Bearer {token(exp=NOW + lifetime)}"}
    client = asgi_client(make_app())
    with client.websocket_connect(path, headers=headers) as connection, pytest.raises(WebSocketDisconnect) as raised:
        connection.receive_text()
    assert raised.value.code == 1008


def test_a_websocket_that_the_app_has_closed_is_left_alone(make_authenticator: AuthenticatorFactory) -> None:
    app = FastAPI()

    @app.websocket("/", dependencies=[Depends(PodAuth(authenticator=make_authenticator()))])
    async def closed(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close(1000)
        require("batch/*").check()

    with asgi_client(app).websocket_connect("/") as connection, pytest.raises(WebSocketDisconnect) as raised:
        connection.receive_text()
    assert raised.value.code == 1000


def test_each_request_is_one_record_and_a_denied_one_has_its_status(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    client = asgi_client(make_app())
    with caplog.at_level("INFO", "podproof.audit"):
        for path in ("whoami", "batch", "teapot", "broken", "redirect"):
            client.get(f"/pods/{path}", follow_redirects=False)
        asgi_client(client.app, anonymous=True).get("/pods/whoami")
        with client.websocket_connect("/pods/ws") as connection:
            connection.receive_text()
    records: list[Any] = [record for record in caplog.records if record.name == "podproof.audit"]
    assert [(record.decision, record.code, getattr(record, "status", None)) for record in records] == [
        ("allowed", "authenticated", None),
        ("denied", "not-allowed", 403),
        ("allowed", "authenticated", None),
        ("allowed", "authenticated", None),
        ("allowed", "authenticated", None),
        ("denied", "no-credential", 401),
        ("allowed", "authenticated", None),
    ]


def test_an_identity_ends_with_its_request(make_authenticator: AuthenticatorFactory) -> None:
    app, ended, seen = FastAPI(), threading.Event(), []
    threads: list[threading.Thread] = []

    def later() -> None:
        ended.wait(10)
        seen.append(current_caller())

    @app.get("/", dependencies=[Depends(PodAuth(authenticator=make_authenticator()))])
    def start() -> bool:
        threads.append(threading.Thread(target=copy_context().run, args=(later,)))
        threads[-1].start()
        return current_caller() is not None

    for _ in range(2):
        assert asgi_client(app).get("/").json() is True
    ended.set()
    for thread in threads:
        thread.join()
    assert seen == [None, None]


def test_an_optional_caller_is_none_and_the_user_of_the_app_s_own_middleware_stays(
    make_authenticator: AuthenticatorFactory,
) -> None:
    app, auth = FastAPI(), PodAuth(authenticator=make_authenticator(optional=True))

    @app.middleware("http")
    async def people(request: Request, call_next: Any) -> Any:
        request.scope["user"] = SimpleUser("ann")
        return await call_next(request)

    @app.get("/")
    async def whoami(caller: Annotated[PodIdentity | None, Depends(auth)], request: Request) -> list[str | None]:
        return [caller and str(caller.pod), request.user.display_name]

    assert asgi_client(app, anonymous=True).get("/").json() == [None, "ann"]
    assert asgi_client(app).get("/").json() == ["default/alice-pod", "default/alice"]
    assert asgi_client(app, anonymous=True).get("/", headers={"Authorization": "Bearer x"}).status_code == 401


@pytest.mark.parametrize("mounted", [False, True])
def test_a_rule_is_about_the_whole_path_through_mounts_and_roots(
    make_authenticator: AuthenticatorFactory, *, mounted: bool
) -> None:
    rules = [Rule("/api/whoami", allow=["default/alice"])]
    auth = PodAuth(authenticator=make_authenticator(rules=rules))
    router = APIRouter(dependencies=[Depends(auth)])

    @router.get("/whoami")
    @router.get("/other")
    async def whoami() -> str:
        return "ok"

    app = FastAPI()
    if mounted:
        inner = FastAPI()
        inner.include_router(router)
        app.router.routes.append(Mount("/api", inner))
    else:
        app.include_router(router, prefix="/api")
    client = asgi_client(app)
    assert [client.get(path).status_code for path in ("/api/whoami", "/api/other")] == [200, 403]


def test_a_wrong_option_raises_where_the_dependency_is_made() -> None:
    with pytest.raises(ConfigurationError, match="unknown option"):
        PodAuth(audience="bob", alow=["default/*"])  # type: ignore[call-arg]
