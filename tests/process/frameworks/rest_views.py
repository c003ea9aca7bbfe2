"""Views of Django REST framework, which reads the project's settings when it is imported."""

from __future__ import annotations

from django.urls import path
from rest_framework.authentication import SessionAuthentication
from rest_framework.permissions import AllowAny, IsAdminUser, IsAuthenticated
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from podproof import current_caller
from podproof.identity import PodIdentity
from podproof.rest_framework import PodAuthentication, PodPermission


class View(APIView):  # type: ignore[misc]  # REST framework has no types
    authentication_classes = (PodAuthentication, SessionAuthentication)
    permission_classes = (IsAuthenticated,)
    renderer_classes = (JSONRenderer,)

    def get(self, request: Request) -> Response:
        assert request.auth is None or "Authorization" not in request.headers
        assert request.auth is None or isinstance(request.auth, PodIdentity)
        pods = [identity and str(identity.pod) for identity in (request.auth, current_caller())]
        return Response([request.user.get_username(), *pods])

    post = get


class Open(View):
    permission_classes = (AllowAny,)


class Pods(View):
    permission_classes = (PodPermission,)


class Batch(View):
    permission_classes = (PodPermission.allow("batch/*"),)


class Alice(View):
    permission_classes = (PodPermission.allow("default/a*"),)


class BatchOrAdmins(View):
    permission_classes = (PodPermission.allow("batch/*") | IsAdminUser,)


urlpatterns = [
    path("users", View.as_view()),
    path("open", Open.as_view()),
    path("pods", Pods.as_view()),
    path("batch", Batch.as_view()),
    path("alice", Alice.as_view()),
    path("batch-or-admins", BatchOrAdmins.as_view()),
]
