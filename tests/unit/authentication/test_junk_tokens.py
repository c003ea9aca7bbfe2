"""What a token that could never be accepted costs: no call to the API server, and few calls of our own."""

from __future__ import annotations

import json

import pytest

from podproof.errors import PodAuthError
from podproof.options import Options
from tests.support.call_counter import count_calls
from tests.support.fake_api import ALICE, NOW, PEER, ClaimsAPI, Clock, TokenFactory, authenticator_for, segment

MAX_CALLS = 40
"""Of our own functions, to deny one junk token, its cache lookups and its error included."""

make_token = TokenFactory()

TWICE = json.dumps({"aud": ["eve"]}).encode()[:-1] + b"," + json.dumps(ALICE).encode()[1:]


@pytest.mark.trap(29)
@pytest.mark.parametrize(
    ("token", "code"),
    [
        (make_token(issued_at=NOW) + ".A", "malformed-token"),
        (make_token(issued_at=NOW, audience="carol"), "wrong-audience"),
        (make_token(issued_at=NOW - 7200), "expired"),
        (f"{segment(b'{}')}.{segment(TWICE)}.AAAA", "malformed-token"),
        (f"{segment(json.dumps({'crit': ['b64'], 'b64': False}).encode())}.{segment(b'{}')}.AAAA", "malformed-token"),
    ],
    ids=["wrong form", "wrong audience", "expired", "a member twice", "a critical header"],
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
