"""What a token that could never be accepted costs: no call to the API server, and few calls of our own."""

from __future__ import annotations

import pytest

from podproof.errors import PodAuthError
from podproof.options import Options
from tests.support.call_counter import count_calls
from tests.support.fake_api import NOW, PEER, ClaimsAPI, Clock, TokenFactory, authenticator_for

MAX_CALLS = 40
"""Of our own functions, to deny one junk token, its cache lookups and its error included."""

make_token = TokenFactory()


@pytest.mark.trap(29)
@pytest.mark.parametrize(
    ("token", "code"),
    [
        (make_token(issued_at=NOW) + ".A", "malformed-token"),
        (make_token(issued_at=NOW, audience="carol"), "wrong-audience"),
        (make_token(issued_at=NOW - 7200), "expired"),
    ],
    ids=["wrong form", "wrong audience", "expired"],
)
def test_a_junk_token_is_denied_without_an_api_call_and_with_few_of_our_own(time: Clock, token: str, code: str) -> None:
    api = ClaimsAPI()
    authenticator = authenticator_for(api, Options(audience=("bob",)), now=time, monotonic=time)

    def deny() -> None:
        with pytest.raises(PodAuthError) as raised:
            authenticator.authenticate(token, PEER)
        assert raised.value.code == code

    deny()  # threads and caches are made once
    calls = count_calls(deny)
    authenticator.close()
    print(f"\n{calls.total()} calls: {dict(calls)}")
    assert 0 < calls.total() <= MAX_CALLS
    assert (api.reviews, api.reads) == (0, 0)
