"""The status of a response, for requests that are judged inside an app."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from podproof._request.in_app import InAppRequest
from podproof._request.observed_app import ObservedApp, end_with_response


async def app(*_: object) -> None:
    raise AssertionError


def test_an_app_is_observed_once_from_its_next_request_on() -> None:
    starlette: Any = SimpleNamespace(middleware_stack=app)
    for _ in range(2):  # of which the second one was on its way already
        assert not end_with_response({"app": starlette}, InAppRequest())
        assert isinstance(starlette.middleware_stack, ObservedApp)
        assert starlette.middleware_stack._app is app


def test_a_router_without_an_app_is_not_observed() -> None:
    assert not end_with_response({}, InAppRequest())
