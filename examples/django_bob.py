"""Bob in Django.

`PODPROOF_AUDIENCE=bob gunicorn examples.django_bob:wsgi`
`PODPROOF_AUDIENCE=bob uvicorn --no-proxy-headers examples.django_bob:asgi`

In a project of several files, MIDDLEWARE is in the settings, and the last two lines are in `wsgi.py` and `asgi.py`.
"""

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path

from podproof import asgi as podproof_asgi
from podproof import wsgi as podproof_wsgi

settings.configure(MIDDLEWARE=["podproof.django.CallerMiddleware"], ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"])


def whoami(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"service_account": str(request.caller.service_account), "pod": str(request.caller.pod)})


def echo(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.body, content_type=request.content_type)


def healthz(_: HttpRequest) -> HttpResponse:
    return HttpResponse("ok")


urlpatterns = [path("whoami", whoami), path("echo", echo), path("healthz", healthz)]
wsgi = podproof_wsgi.PodAuthMiddleware(get_wsgi_application(), exempt=["/healthz"])
asgi = podproof_asgi.PodAuthMiddleware(get_asgi_application(), exempt=["/healthz"])
