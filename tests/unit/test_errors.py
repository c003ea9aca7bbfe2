from __future__ import annotations

import pytest

from podproof import errors
from podproof.errors import (
    ConfigurationError,
    Forbidden,
    HostNotAllowed,
    InvalidToken,
    PodAuthError,
    TokenUnavailable,
    Unavailable,
)


def family(base: type[PodAuthError]) -> list[type[PodAuthError]]:
    """Return a class and all its subclasses of this module: denials in a framework's form are made elsewhere."""
    children = [child for child in base.__subclasses__() if child.__module__ == errors.__name__]
    return [base, *(one for child in children for one in family(child))]


VISIBLE_TO_THE_CALLER = ("status", "error", "title", "detail", "retry_after")


@pytest.mark.parametrize("base", [InvalidToken, Forbidden, Unavailable])
def test_all_errors_of_a_family_look_the_same_to_the_caller(base: type[PodAuthError]) -> None:
    assert len(family(base)) > 1
    assert len({tuple(getattr(one, name) for name in VISIBLE_TO_THE_CALLER) for one in family(base)}) == 1


@pytest.mark.trap(39)
@pytest.mark.parametrize(
    ("kind", "status", "rfc6750_error", "retry_after"),
    [
        (errors.NoCredential, 401, None, None),
        (errors.MalformedCredential, 400, "invalid_request", None),
        (errors.InvalidToken, 401, "invalid_token", None),
        (errors.Forbidden, 403, "insufficient_scope", None),
        (errors.Unavailable, 503, None, 1),
    ],
)
def test_each_family_has_the_status_and_error_code_of_its_rfc(
    kind: type[PodAuthError], status: int, rfc6750_error: str | None, retry_after: int | None
) -> None:
    assert (kind.status, kind.error, kind.retry_after) == (status, rfc6750_error, retry_after)


def test_each_error_has_its_own_code() -> None:
    codes = [one.code for one in family(PodAuthError)]
    assert len(set(codes)) == len(codes)


def test_errors_with_retry_after_are_retryable() -> None:
    assert [one for one in family(PodAuthError) if one.retryable] == [
        one for one in family(PodAuthError) if one.retry_after is not None
    ]
    assert {one.code for one in family(PodAuthError) if one.retryable} == {
        "unavailable",
        "overloaded",
        "no-address-yet",
    }


@pytest.mark.parametrize("kind", [ConfigurationError, TokenUnavailable, HostNotAllowed])
def test_errors_that_need_a_change_first_are_not_retryable(
    kind: type[ConfigurationError | TokenUnavailable | HostNotAllowed],
) -> None:
    assert not kind.retryable


def test_an_error_holds_its_reason_and_who_was_denied() -> None:
    error = errors.NotAllowed("not on the list").with_subject("default/alice", "default/alice-pod")
    assert str(error) == error.reason == "not on the list"
    assert (error.service_account, error.pod) == ("default/alice", "default/alice-pod")


def test_a_copy_without_traceback_holds_the_same_and_no_frames() -> None:
    with pytest.raises(errors.TokenReviewFailed) as raised:
        raise errors.TokenReviewFailed("no").with_subject("default/alice", "default/alice-pod")
    again = raised.value.without_traceback()
    assert (type(again), again.reason, again.service_account) == (errors.TokenReviewFailed, "no", "default/alice")
    assert again.__traceback__ is None
    assert again.__context__ is None


def test_all_public_errors_are_listed() -> None:
    classes = [value for value in vars(errors).values() if isinstance(value, type)]
    defined = {one.__name__ for one in classes if one.__module__ == errors.__name__}
    assert defined == set(errors.__all__)
