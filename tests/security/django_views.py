"""The views of the Django project under attack; `record` is called with each request that is allowed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import path
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from podproof.rest_framework import PodAuthentication, PodPermission

record: Callable[[Any], None] = print


async def root(request: HttpRequest) -> HttpResponse:
    record(request.scope if hasattr(request, "scope") else request.environ)
    assert request.caller is None or "Authorization" not in request.headers
    return HttpResponse()


class RESTView(APIView):  # type: ignore[misc]  # REST framework has no types
    authentication_classes = (PodAuthentication,)
    permission_classes = (PodPermission,)
    renderer_classes = (JSONRenderer,)

    def get(self, request: Request) -> Response:
        record(request._request.environ)
        assert "Authorization" not in request.headers
        return Response()


urlpatterns = [path("", root), path("rest", RESTView.as_view())]
