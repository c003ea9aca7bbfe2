"""The caller on a request itself; `current_caller` is tested with the middlewares."""

from __future__ import annotations

import pytest

from podproof import Pod, PodIdentity, ServiceAccount
from podproof._request.context import IDENTITY, get_caller

ALICE = PodIdentity(ServiceAccount("default", "alice"), Pod("default", "alice-pod", "uid"), "bob", 0)


@pytest.mark.parametrize("caller", [ALICE, None])
def test_the_caller_is_read_from_an_environ_or_a_scope(caller: PodIdentity | None) -> None:
    assert get_caller({IDENTITY: caller}) is caller


def test_a_request_that_did_not_pass_through_the_middleware_has_no_caller_to_read() -> None:
    with pytest.raises(RuntimeError, match="did not pass through PodAuthMiddleware"):
        get_caller({})
