"""Bob in Django, with podproof in `MIDDLEWARE`, and an API by REST framework.

`PODPROOF_AUDIENCE=bob gunicorn examples.django_middleware_bob:app`
"""

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path

settings.configure(
    MIDDLEWARE=["podproof.django.PodAuthMiddleware"],
    PODPROOF={"exempt": ["/healthz"]},
    REST_FRAMEWORK={"UNAUTHENTICATED_USER": None},
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["*"],
)
app = get_wsgi_application()

from rest_framework.views import APIView  # noqa: E402

from podproof.rest_framework import PodAuthentication, PodPermission  # noqa: E402


def whoami(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"service_account": str(request.caller.service_account), "pod": str(request.caller.pod)})


class Api(APIView):  # type: ignore[misc]  # REST framework has no types
    authentication_classes = (PodAuthentication,)
    permission_classes = (PodPermission.allow("default/*"),)

    def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse(request.user.get_username())


urlpatterns = [path("whoami", whoami), path("api", Api.as_view()), path("healthz", lambda _: HttpResponse("ok"))]
