from __future__ import annotations

import json

import pytest

from podproof import errors
from podproof._request.problem import problem_response
from podproof.errors import PodAuthError


@pytest.mark.trap(39)
@pytest.mark.parametrize(
    ("error", "status", "challenge"),
    [
        (errors.NoCredential, 401, 'Bearer realm="bob"'),
        (errors.MalformedCredential, 400, 'Bearer realm="bob", error="invalid_request"'),
        (errors.Expired, 401, 'Bearer realm="bob", error="invalid_token"'),
        (errors.WrongAddress, 403, 'Bearer realm="bob", error="insufficient_scope"'),
        (errors.Overloaded, 503, None),
    ],
)
def test_a_denial_has_its_status_challenge_and_retry_after(
    error: type[PodAuthError], status: int, challenge: str | None
) -> None:
    response = problem_response(error("why"), realm="bob", request_id="17")
    headers = dict(response.headers)
    assert response.status == status
    assert headers.get("WWW-Authenticate") == challenge
    assert headers.get("Retry-After") == ("1" if status == 503 else None)
    assert len(headers) == len(response.headers)


@pytest.mark.trap(6)
def test_the_body_is_problem_details_without_the_reason() -> None:
    response = problem_response(
        errors.TokenReviewFailed("s3cret").with_subject("default/s3cret", "default/s3cret"),
        realm="bob",
        request_id="17",
    )
    headers = dict(response.headers)
    assert headers["Content-Type"] == "application/problem+json"
    assert headers["Content-Length"] == str(len(response.body))
    assert headers["Cache-Control"] == "no-store"
    assert "s3cret" not in repr(response)
    assert json.loads(response.body) == {
        "type": "about:blank",
        "title": "Unauthorized",
        "status": 401,
        "detail": "The token is not accepted here.",
        "request_id": "17",
    }
