"""From the Authorization header to the token."""

from __future__ import annotations

import pytest

from podproof._authentication.claims import MAX_TOKEN, check_token_alphabet
from podproof._request.credential import bearer_token
from podproof.errors import MalformedCredential, NoCredential


def accepted_token(headers: list[str]) -> str:
    """Return the token of these headers, after the check of its alphabet."""
    token = bearer_token(headers)
    check_token_alphabet(token)
    return token


@pytest.mark.parametrize("header", ["Bearer a.b-c_d", "bearer a.b-c_d", "BEARER a.b-c_d"])
def test_the_scheme_may_be_written_in_any_case(header: str) -> None:
    assert accepted_token([header]) == "a.b-c_d"


def test_a_token_may_have_every_character_of_the_alphabet() -> None:
    token = "ABCXYZabcxyz0123456789-._~+/"
    assert accepted_token([f"Bearer {token}"]) == token


@pytest.mark.parametrize(
    "headers", [[], ["Basic YWxpY2U6"], ["Negotiate"], ["Token abc"], ["Bearers abc"], ["AWS4-HMAC-SHA256 a=b"]]
)
def test_a_header_of_another_scheme_is_no_credential(headers: list[str]) -> None:
    with pytest.raises(NoCredential):
        accepted_token(headers)


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
def test_any_other_spelling_of_a_credential_is_denied(header: str) -> None:
    with pytest.raises(MalformedCredential):
        accepted_token([header])


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
def test_two_headers_are_denied_joined_or_not(headers: list[str]) -> None:
    with pytest.raises(MalformedCredential):
        accepted_token(headers)


@pytest.mark.trap(29)
def test_a_token_longer_than_8_kib_is_denied() -> None:
    assert MAX_TOKEN == 8 * 1024
    assert len(accepted_token(["Bearer " + "a" * MAX_TOKEN])) == MAX_TOKEN
    with pytest.raises(MalformedCredential, match="longer than 8192 bytes"):
        accepted_token(["Bearer " + "a" * (MAX_TOKEN + 1)])


@pytest.mark.trap(33)
@pytest.mark.parametrize(
    "header", ["Bearer s3cret s3cret", "s3cret!", "Bearer s3cret,", "Basic s3cret", "Bearer  s3cret"]
)
def test_no_reason_quotes_the_header(header: str) -> None:
    with pytest.raises((MalformedCredential, NoCredential)) as raised:
        accepted_token([header])
    assert "s3cret" not in str(raised.value)
