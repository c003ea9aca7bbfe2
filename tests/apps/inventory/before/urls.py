"""Inventory: a Django project with the admin, and an API of Django REST framework for the groups of its users."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import Group
from django.http import HttpRequest, HttpResponse
from django.urls import include, path
from rest_framework.authentication import BasicAuthentication, SessionAuthentication
from rest_framework.permissions import IsAuthenticated
from rest_framework.routers import SimpleRouter
from rest_framework.serializers import ModelSerializer
from rest_framework.viewsets import ModelViewSet


class GroupSerializer(ModelSerializer):  # type: ignore[misc]
    class Meta:
        model = Group
        fields = ("id", "name")


class GroupViewSet(ModelViewSet):  # type: ignore[misc]
    queryset = Group.objects.order_by("name")
    serializer_class = GroupSerializer
    authentication_classes = (BasicAuthentication, SessionAuthentication)
    permission_classes = (IsAuthenticated,)


@login_required(login_url="/admin/login/")  # type: ignore[untyped-decorator]
def home(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"Hello, {request.user.get_username()}")


router = SimpleRouter()
router.register("groups", GroupViewSet)
urlpatterns: list[Any] = [
    path("admin/", admin.site.urls),
    path("api/", include(router.urls)),
    path("", home),
]
