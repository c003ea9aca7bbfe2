"""How apps are recognised that route in a way of their own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import falcon
import falcon.asgi
import fastapi
import flask
import litestar
import pytest
import quart
from django.core.handlers.asgi import ASGIHandler
from flask import request
from hypercorn.middleware.dispatcher import AsyncioDispatcherMiddleware
from starlette.applications import Starlette
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Mount, Route

from podproof._request import routing
from podproof._request.routing import Routing

AMBIGUOUS = ("",)


def in_a_function(app: Any) -> Callable[..., Any]:
    async def call(*given: Any) -> None:
        await app(*given)

    return call


FALCON = falcon.asgi.App()


async def calls_a_global(scope: Any, receive: Any, send: Any) -> None:
    await FALCON(scope, receive, send)


class Holder:
    def __init__(self, app: Any) -> None:
        self.inner = app

    def __call__(self) -> None:
        raise NotImplementedError

    def run(self) -> None:
        raise NotImplementedError


@pytest.mark.trap(49)
@pytest.mark.parametrize(
    "app",
    [
        FALCON,
        calls_a_global,
        in_a_function(FALCON),
        partial(in_a_function, FALCON),
        partial(lambda app: app, app=FALCON),
        Holder(FALCON),
        Holder(FALCON).run,
        GZipMiddleware(in_a_function(Holder(FALCON))),
    ],
)
def test_a_framework_is_found_behind_other_things(app: Any) -> None:
    assert Routing(app).read_asgi("/api/admin", "/api") == ("/api/admin",)


def test_an_app_that_is_not_known_follows_the_specification() -> None:
    async def app(*_: object) -> None:
        raise NotImplementedError

    for plain in (app, Starlette(), int, SimpleNamespace(), None):
        assert Routing(plain).read_asgi("/api/admin/", "/api") == ("/admin/",)
        assert Routing(plain).read_asgi("/x/api/admin", "/api") == AMBIGUOUS


def test_what_has_no_value_yet_is_passed_over() -> None:
    def app() -> None:
        later()
        flask.request.path.encode()
        request.path.encode()

    routing_of_app = Routing(app)

    def later() -> None:
        raise NotImplementedError

    assert routing_of_app.read_wsgi("/a") == Routing(flask.request).read_wsgi("/a") == ("/a",)


def test_the_search_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    ring = Holder(None)
    ring.inner = ring
    assert Routing(ring).read_wsgi("/a") == ("/a",)
    monkeypatch.setattr(routing, "_MOST_LOOKED_AT", 1)
    assert Routing(Holder(FALCON)).read_asgi("/api/admin", "/api") == ("/admin",)


@pytest.mark.trap(49)
def test_fastapi_takes_off_its_own_root() -> None:
    app = fastapi.FastAPI()
    app.root_path = "/own"
    read = Routing(app).read_asgi
    assert read("/own/admin", "") == read("/own/admin", "/api") == ("/admin",)
    assert read("/x/own/admin", "/api") == AMBIGUOUS
    assert read("/api/admin", "/api") == ("/api/admin",)


@pytest.mark.trap(49)
def test_django_takes_off_the_name_that_is_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    app = ASGIHandler.__new__(ASGIHandler)
    for forced, root, path in (("/own", "", "/own/admin"), (None, "/api", "/api/admin"), (None, "", "/admin")):
        settings = SimpleNamespace(settings=SimpleNamespace(FORCE_SCRIPT_NAME=forced))
        monkeypatch.setitem(sys.modules, "django.conf", settings)
        assert Routing(app).read_asgi(path, root) == ("/admin",)


@pytest.mark.trap(49)
def test_quart_routes_nothing_where_the_root_is_missing() -> None:
    read = Routing(quart.Quart("bob").asgi_app).read_asgi
    assert read("/api/admin", "/api") == read("/admin", "") == ("/admin",)
    assert read("/admin", "/api") == read("/api", "/api") == AMBIGUOUS


@pytest.mark.trap(49)
def test_two_apps_that_read_a_path_in_different_ways_leave_no_reading() -> None:
    both = Holder({"a": FALCON, "b": Starlette()})
    assert Routing(both).read_asgi("/api/admin", "/api") == AMBIGUOUS
    assert Routing(both).read_asgi("/admin", "/api") == ("/admin",)


@pytest.mark.trap(50)
@pytest.mark.parametrize("make", [falcon.App, falcon.asgi.App])
def test_falcon_strips_a_slash_if_told_to(make: Callable[[], Any]) -> None:
    app = make()
    assert Routing(app).read_wsgi("/admin/") == ("/admin/",)
    app.req_options.strip_url_path_trailing_slash = True
    assert Routing(app).read_wsgi("/admin/") == ("/admin/", "/admin")
    assert Routing(app).read_wsgi("/") == ("/",)


@pytest.mark.trap(50)
@pytest.mark.parametrize("make", [flask.Flask, quart.Quart])
def test_flask_and_quart_take_both_forms_for_one_where_slashes_are_not_strict(make: Callable[[str], Any]) -> None:
    app, one_rule = make("bob"), make("bob")
    assert Routing(app).read_wsgi("/admin") == ("/admin",)
    app.url_map.strict_slashes = False
    one_rule.add_url_rule("/tree/", "tree", dict, strict_slashes=False)
    for loose in (app, one_rule):
        assert Routing(loose).read_wsgi("/admin") == ("/admin", "/admin/")
        assert Routing(loose).read_wsgi("/admin/") == ("/admin/", "/admin")


@pytest.mark.trap(50)
def test_litestar_drops_a_slash_and_takes_the_start_of_a_segment_for_a_mount() -> None:
    @litestar.asgi("/mnt", is_mount=True, copy_scope=True)
    async def mounted(scope: Any, receive: Any, send: Any) -> None:
        raise NotImplementedError

    @litestar.asgi("/", is_mount=True, copy_scope=True)
    async def everything(scope: Any, receive: Any, send: Any) -> None:
        raise NotImplementedError

    read = Routing(litestar.Litestar([mounted, everything], logging_config=None)).read_wsgi
    assert read("/admin/") == ("/admin/", "/admin")
    assert read("/") == ("/",)
    assert read("/mnt/x") == ("/mnt/x",)
    assert read("/mntx") == AMBIGUOUS


@pytest.mark.trap(50)
def test_what_is_mounted_in_starlette_reads_the_rest_of_a_path() -> None:
    @litestar.asgi("/mnt", is_mount=True, copy_scope=True)
    async def mounted(scope: Any, receive: Any, send: Any) -> None:
        raise NotImplementedError

    inner: Any = litestar.Litestar([mounted], logging_config=None)
    starlette = Starlette(routes=[Mount("/{tenant}", inner), Route("/m/", dict)])
    for read in (Routing(starlette).read_asgi, Routing(AsyncioDispatcherMiddleware({"/m": inner})).read_asgi):
        assert read("/m/admin/", "") == ("/m/admin/", "/m/admin")
        assert read("/api/m/admin/", "/api") == ("/m/admin/", "/m/admin")
        assert read("/m/mntx", "") == AMBIGUOUS
        assert read("/m", "") == ("/m",)


@pytest.mark.trap(49)
def test_hypercorns_dispatcher_takes_the_start_of_a_segment_for_a_mount() -> None:
    inner: Any = Starlette()
    read = Routing(AsyncioDispatcherMiddleware({"/m": inner, "/n/": inner})).read_asgi
    assert read("/m/admin", "") == ("/m/admin",)
    assert read("/n/admin", "") == ("/n/admin",)
    assert read("/madmin", "") == AMBIGUOUS
