"""The ASGI examples behind one port, selected by the Host header, so that each server is started once for all of them.

Each gets one more route, `/headers`, which responds with the headers that the framework passes to the app.
"""

from __future__ import annotations

from typing import Any

import django.http
import django.urls
import falcon.asgi
import fastapi
import litestar
import quart
from django.core.handlers.asgi import ASGIHandler
from django.test import override_settings
from granian.utils.proxies import wrap_asgi_with_proxy_headers
from hypercorn.middleware import ProxyFixMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from examples import (
    django_bob,
    falcon_asgi_bob,
    fastapi_bob,
    fastapi_dependency_bob,
    litestar_bob,
    quart_bob,
    starlette_backend_bob,
    starlette_bob,
)


async def starlette_headers(request: Request) -> JSONResponse:
    return JSONResponse(dict(request.headers))


@fastapi_dependency_bob.app.get("/headers", dependencies=[fastapi.Depends(fastapi_dependency_bob.auth)])
@fastapi_bob.app.get("/headers")
async def fastapi_headers(request: fastapi.Request) -> dict[str, str]:
    return dict(request.headers)


@litestar.get("/headers")
async def litestar_headers(request: litestar.Request[Any, Any, Any]) -> dict[str, str]:
    return dict(request.headers)


@quart_bob.app.get("/headers")
async def quart_headers() -> dict[str, str]:
    return dict(quart.request.headers)


async def django_headers(request: django.http.HttpRequest) -> django.http.JsonResponse:
    return django.http.JsonResponse(dict(request.headers))


class FalconHeaders:
    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        resp.media = dict(req.headers)


for starlette_app in (starlette_bob.app, starlette_backend_bob.app):
    starlette_app.add_route("/headers", starlette_headers)
litestar_bob.litestar.register(litestar_headers)
django_bob.urlpatterns.append(django.urls.path("headers", django_headers))
falcon_asgi_bob.bob.add_route("/headers", FalconHeaders())

with override_settings(MIDDLEWARE=["podproof.django.PodAuthMiddleware"], PODPROOF={"exempt": ["/healthz"]}):
    django_middleware = ASGIHandler()

starlette: Any = starlette_bob.app
APPS: dict[str, Any] = {
    "starlette": starlette,
    "fastapi": fastapi_bob.app,
    "litestar": litestar_bob.app,
    "django": django_bob.asgi,
    "quart": quart_bob.app,
    "falcon": falcon_asgi_bob.app,
    "fastapi-dependency": fastapi_dependency_bob.app,
    "starlette-backend": starlette_backend_bob.app,
    "django-middleware": django_middleware,
    "uvicorn-proxy-headers": ProxyHeadersMiddleware(starlette, trusted_hosts="*"),
    "hypercorn-proxy-fix": ProxyFixMiddleware(starlette),
    "hypercorn-proxy-fix-modern": ProxyFixMiddleware(starlette, mode="modern"),
    "granian-proxy-headers": wrap_asgi_with_proxy_headers(starlette, trusted_hosts="*"),
}


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        for kind in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{kind}.complete"})
        return
    await APPS[dict(scope["headers"])[b"host"].decode()](scope, receive, send)
