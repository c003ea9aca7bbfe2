from __future__ import annotations

import pytest

from podproof._authentication.claims import MAX_TOKEN, check_token_alphabet
from podproof._request import credential
from podproof.errors import MalformedCredential, NoCredential


def bearer_token(headers: list[str]) -> str:
    token = credential.bearer_token(headers)
    check_token_alphabet(token)
    return token


@pytest.mark.parametrize("header", ["Bearer a.b-c_d", "bearer a.b-c_d", "BEARER a.b-c_d"])
def test_the_scheme_may_be_written_in_any_case(header: str) -> None:
    assert bearer_token([header]) == "a.b-c_d"


def test_a_token_may_have_every_character_of_the_alphabet() -> None:
    token = "ABCXYZabcxyz0123456789-._~+/"
    assert bearer_token([f"Bearer {token}"]) == token


@pytest.mark.parametrize(
    "headers", [[], ["Basic YWxpY2U6"], ["Negotiate"], ["Token abc"], ["Bearers abc"], ["AWS4-HMAC-SHA256 a=b"]]
)
def test_no_bearer_credential_is_no_credential(headers: list[str]) -> None:
    with pytest.raises(NoCredential):
        bearer_token(headers)


@pytest.mark.trap(1, 2)
@pytest.mark.parametrize(
    "header",
    [
        "",
        " ",
        "\xff",
        "Bearer",
        "Bearer ",
        "Bearer  token",
        " Bearer token",
        "Bearer token ",
        "Bearer token junk",
        "Bearer\ttoken",
        "Bearer \ttoken",
        "Bearer token\t",
        "Bearer token=",
        "Bearer tok==en",
        "Bearer tok\xa0en",
        "Bearer tok\x85en",
        "Bearer toke\xf1",
        "Bearer token\n",
        "Bearer token\x00",
        "Bearer \xa0token",
        "Bearer Bearer token",
        'Bearer "token"',
        "Bearer:token",
        "Bearer=token",
    ],
)
def test_there_is_one_way_to_write_a_token(header: str) -> None:
    with pytest.raises(MalformedCredential):
        bearer_token([header])


@pytest.mark.trap(34)
@pytest.mark.parametrize(
    "headers",
    [
        ["Bearer a", "Bearer b"],
        ["Bearer a", "Bearer a"],
        ["Basic a", "Bearer b"],
        ["Bearer a", ""],
        ["Bearer a, Bearer b"],  # as gunicorn joins them
        ["Bearer a,Bearer b"],
        ["Bearer a,"],
        [",Bearer a"],
    ],
)
def test_two_headers_are_refused_joined_or_not(headers: list[str]) -> None:
    with pytest.raises(MalformedCredential):
        bearer_token(headers)


@pytest.mark.trap(29)
def test_a_token_longer_than_8_kib_is_not_looked_at() -> None:
    assert MAX_TOKEN == 8 * 1024
    assert len(bearer_token(["Bearer " + "a" * MAX_TOKEN])) == MAX_TOKEN
    with pytest.raises(MalformedCredential, match="longer than 8192 bytes"):
        bearer_token(["Bearer " + "a" * (MAX_TOKEN + 1)])


@pytest.mark.trap(33)
@pytest.mark.parametrize(
    "header", ["Bearer s3cret s3cret", "s3cret!", "Bearer s3cret,", "Basic s3cret", "Bearer  s3cret"]
)
def test_no_reason_quotes_what_was_sent(header: str) -> None:
    with pytest.raises((MalformedCredential, NoCredential)) as raised:
        bearer_token([header])
    assert "s3cret" not in str(raised.value)
