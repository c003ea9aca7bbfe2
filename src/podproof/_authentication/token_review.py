"""TokenReview: the API server says whether a token is valid for one of our audiences, and what it is bound to."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from podproof._apiserver.protocols import TokenReviewer
from podproof.errors import NotPodBound, TokenReviewFailed, Unavailable
from podproof.identity import ServiceAccount

POD_NAME = "authentication.kubernetes.io/pod-name"
POD_UID = "authentication.kubernetes.io/pod-uid"
CREDENTIAL_ID = "authentication.kubernetes.io/credential-id"

# RFC 1123 subdomain: what may stand as a pod's name, and so in a URL's path.
_POD_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*")
_UID = re.compile(r"[A-Za-z0-9-]{1,128}")


@dataclass(frozen=True, slots=True)
class ReviewedToken:
    """What a TokenReview says about a valid token: its service account, and the pod that it is bound to."""

    service_account: ServiceAccount
    pod_name: str
    pod_uid: str
    audience: str
    credential_id: str | None
    groups: tuple[str, ...]
    extra: Mapping[str, tuple[str, ...]]


class TokenReviewVerifier:
    """Verifies tokens by TokenReviews for our audiences."""

    def __init__(self, reviewer: TokenReviewer, audiences: Sequence[str]) -> None:
        self._reviewer = reviewer
        self._audiences = tuple(audiences)

    def verify(self, token: str, deadline: float) -> ReviewedToken:
        """Return what the API server says about a valid token. `deadline` is in monotonic seconds.

        Raises InvalidToken of some kind, or Unavailable.
        """
        return parse_token_review(self._reviewer.review_token(token, self._audiences, deadline), self._audiences)


def parse_token_review(review: Mapping[str, Any], audiences: Sequence[str]) -> ReviewedToken:
    """Return what a TokenReview says; each field must be exactly as it is for a pod's token for one of our audiences.

    `status.error` reads the same for every failure, and for some successes: it decides nothing.

    Raises TokenReviewFailed, NotPodBound, or Unavailable if this is not a TokenReview with a status.
    """
    status = review.get("status")
    if not isinstance(status, dict):
        raise Unavailable("the API server's TokenReview has no status")
    if status.get("authenticated") is not True:
        raise TokenReviewFailed("the TokenReview says that the token is not authenticated")
    # An authenticator that knows no audiences echoes none: such a token may be meant for anybody (KEP-1205).
    echoed = _strings(status.get("audiences"))
    audience = next((one for one in audiences if one in echoed), None)
    if audience is None:
        raise TokenReviewFailed("TokenReview returned none of our audiences in status.audiences")
    user = status.get("user")
    if not isinstance(user, dict):
        raise TokenReviewFailed("TokenReview returned no user")
    username, uid = user.get("username"), user.get("uid")
    if not isinstance(username, str) or not isinstance(uid, str) or not uid:
        raise TokenReviewFailed("TokenReview returned a user without a name or a UID")
    try:
        service_account = _service_account(username, uid)
    except ValueError:
        raise TokenReviewFailed("the token's user is not a service account") from None
    extra = _extra(user.get("extra"))
    pod_name, pod_uid = _only(extra, POD_NAME, _POD_NAME), _only(extra, POD_UID, _UID)
    if pod_name is None or pod_uid is None:
        raise NotPodBound("TokenReview returned no pod that the token is bound to")
    return ReviewedToken(
        service_account=service_account,
        pod_name=pod_name,
        pod_uid=pod_uid,
        audience=audience,
        credential_id=next(iter(extra.get(CREDENTIAL_ID, ())), None),
        groups=_strings(user.get("groups")),
        extra=MappingProxyType(extra),  # all requests of a token share it
    )


def _strings(value: object) -> tuple[str, ...]:
    """Return a list of strings as a tuple, an empty one if it holds anything else."""
    strings = isinstance(value, list) and all(isinstance(one, str) for one in value)
    return _shared(tuple(value)) if strings else ()  # type: ignore[arg-type]  # a list, by the line above


def _extra(value: object) -> dict[str, tuple[str, ...]]:
    return {sys.intern(key): _strings(values) for key, values in value.items()} if isinstance(value, dict) else {}


# What is the same for many pods is kept once: this halves the memory of a cached caller.
_service_account = lru_cache(maxsize=4096)(ServiceAccount.from_username)


@lru_cache(maxsize=4096)
def _shared(strings: tuple[str, ...]) -> tuple[str, ...]:
    return strings


def _only(extra: Mapping[str, tuple[str, ...]], key: str, form: re.Pattern[str]) -> str | None:
    """Return the one value of a key, None where there is not exactly one, or not of its form."""
    values = extra.get(key, ())
    return values[0] if len(values) == 1 and form.fullmatch(values[0]) else None
