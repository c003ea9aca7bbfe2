"""The WSGI examples behind one port, selected by the Host header, so that each server is started once for all of them.

Each gets one more route, `/headers`, which responds with the headers that the framework passes to the app.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import bottle
import django.http
import django.urls
import falcon
import flask
from django.core.handlers.wsgi import WSGIHandler
from django.test import override_settings
from granian.utils.proxies import wrap_wsgi_with_proxy_headers
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.serving import run_simple

from examples import bottle_bob, django_bob, falcon_bob, flask_blueprint_bob, flask_bob

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


# A blueprint takes no more routes when it is registered, but hooks of it are for its names.
@flask_blueprint_bob.app.get("/headers", endpoint="pods.headers")
@flask_bob.app.get("/headers")
def flask_headers() -> dict[str, str]:
    return dict(flask.request.headers)


@bottle_bob.bottle.get("/headers")
def bottle_headers() -> dict[str, str]:
    return dict(bottle.request.headers)


def django_headers(request: django.http.HttpRequest) -> django.http.JsonResponse:
    return django.http.JsonResponse(dict(request.headers))


class FalconHeaders:
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.media = dict(req.headers)


django_bob.urlpatterns.append(django.urls.path("headers", django_headers))
falcon_bob.bob.add_route("/headers", FalconHeaders())

with override_settings(MIDDLEWARE=["podproof.django.PodAuthMiddleware"], PODPROOF={"exempt": ["/healthz"]}):
    django_middleware = WSGIHandler()

APPS: dict[str, WSGIApplication] = {
    "flask": flask_bob.app,
    "django": django_bob.wsgi,
    "falcon": falcon_bob.app,
    "bottle": bottle_bob.app,
    "flask-blueprint": flask_blueprint_bob.app,
    "django-middleware": django_middleware,
    "werkzeug-proxy-fix": ProxyFix(flask_bob.app),
    "granian-proxy-headers": wrap_wsgi_with_proxy_headers(flask_bob.app, trusted_hosts="*"),
}


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    return APPS[environ["HTTP_HOST"]](environ, start_response)


if __name__ == "__main__":
    run_simple("127.0.0.1", int(sys.argv[1]), app, threaded=True)
