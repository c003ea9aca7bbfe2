"""`header="X-Pod-Authorization"`: the interceptors read that entry of the metadata alone."""

from __future__ import annotations

from typing import Any

import pytest

from podproof import current_caller
from podproof.errors import TokenReviewFailed
from tests.support.fake_api import FakeAPI, token
from tests.support.grpc_servers import Metadata, bearer, call, status_of
from tests.unit.grpc.conftest import Serve

HEADER = "X-Pod-Authorization"
NAME = HEADER.lower()
POD = (NAME, f"Bearer {token()}")
PERSON = ("authorization", "Bearer a-person")


def test_the_token_is_read_from_that_entry_and_taken_off(serve: Serve, kind: str, fake_api: FakeAPI) -> None:
    seen: list[dict[str, Any]] = []

    def inside(context: Any) -> None:
        caller = current_caller()
        seen.append({"caller": caller and str(caller.service_account), **dict(context.invocation_metadata())})

    target = serve(inside, header=HEADER)
    for _ in range(2):
        call(target, kind, [PERSON, POD])
    assert fake_api.reviews == 1
    for one in seen:
        assert (one["caller"], one["authorization"], one.get(NAME)) == ("default/alice", PERSON[1], None)


@pytest.mark.parametrize(
    "metadata",
    [
        bearer(token()),
        [PERSON],
        [POD, POD],
        [POD, (NAME.replace("-", "_"), POD[1])],
        [(NAME, token())],
        [(NAME, f"Basic {token()}")],
    ],
    ids=["in authorization", "a person", "twice", "with underscores too", "without a scheme", "another scheme"],
)
@pytest.mark.parametrize("known", [False, True])
def test_no_other_metadata_authenticates(serve: Serve, metadata: Metadata, known: bool) -> None:
    reached: list[Any] = []
    target = serve(reached.append, header=HEADER)
    if known:
        call(target, "unary_unary", [POD])
    assert status_of(target, "unary_unary", metadata) == "UNAUTHENTICATED"
    assert len(reached) == known


def test_a_bad_token_is_not_anonymous_beside_a_person(serve: Serve, fake_api: FakeAPI) -> None:
    fake_api.review = TokenReviewFailed("no")
    callers: list[Any] = []
    target = serve(lambda _: callers.append(current_caller()), header=HEADER, optional=True)
    assert status_of(target, "unary_unary", [PERSON, POD]) == "UNAUTHENTICATED"
    assert status_of(target, "unary_unary", [PERSON]) == "OK"
    assert callers == [None]
