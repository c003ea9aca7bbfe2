from __future__ import annotations

import pytest

from podproof import errors
from podproof.errors import Forbidden, InvalidToken, PodAuthError, Unavailable


def family(base: type[PodAuthError]) -> list[type[PodAuthError]]:
    return [base, *(one for child in base.__subclasses__() for one in family(child))]


SHOWN = ("status", "error", "title", "detail", "retry_after")


@pytest.mark.parametrize("base", [InvalidToken, Forbidden, Unavailable])
def test_a_caller_cannot_tell_one_of_a_family_from_another(base: type[PodAuthError]) -> None:
    assert len(family(base)) > 1
    assert len({tuple(getattr(one, name) for name in SHOWN) for one in family(base)}) == 1


@pytest.mark.trap(39)
@pytest.mark.parametrize(
    ("refusal", "status", "word", "retry_after"),
    [
        (errors.NoCredential, 401, None, None),
        (errors.MalformedCredential, 400, "invalid_request", None),
        (errors.InvalidToken, 401, "invalid_token", None),
        (errors.Forbidden, 403, "insufficient_scope", None),
        (errors.Unavailable, 503, None, 1),
    ],
)
def test_each_family_has_the_status_and_word_of_its_rfc(
    refusal: type[PodAuthError], status: int, word: str | None, retry_after: int | None
) -> None:
    assert (refusal.status, refusal.error, refusal.retry_after) == (status, word, retry_after)


def test_each_refusal_has_a_code_of_its_own() -> None:
    codes = [one.code for one in family(PodAuthError)]
    assert len(set(codes)) == len(codes)


def test_a_refusal_says_its_reason_and_whom_it_refuses() -> None:
    refusal = errors.NotAllowed("not on the list").with_subject("default/alice", "default/alice-pod")
    assert str(refusal) == refusal.reason == "not on the list"
    assert (refusal.service_account, refusal.pod) == ("default/alice", "default/alice-pod")


def test_a_refusal_raised_again_says_the_same_and_remembers_no_frames() -> None:
    with pytest.raises(errors.TokenReviewFailed) as raised:
        raise errors.TokenReviewFailed("no").with_subject("default/alice", "default/alice-pod")
    again = raised.value.without_traceback()
    assert (type(again), again.reason, again.service_account) == (errors.TokenReviewFailed, "no", "default/alice")
    assert again.__traceback__ is None
    assert again.__context__ is None
