"""TokenReview: the API server says whether a token is valid for one of our audiences, and what it is bound to."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from podproof._apiserver.protocols import TokenReviewer
from podproof.errors import NotPodBound, TokenReviewFailed, Unavailable
from podproof.identity import ServiceAccount, frozen_dict

POD_NAME = "authentication.kubernetes.io/pod-name"
POD_UID = "authentication.kubernetes.io/pod-uid"
CREDENTIAL_ID = "authentication.kubernetes.io/credential-id"
NODE_NAME = "authentication.kubernetes.io/node-name"
NODE_UID = "authentication.kubernetes.io/node-uid"

# RFC 1123 subdomain: what may stand as a pod's name, and so in a URL's path.
_POD_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*")
_UID = re.compile(r"[A-Za-z0-9-]{1,128}")

# What the API server's authenticator of service account tokens says of a token that it has examined and rejected
# (pkg/serviceaccount/jwt.go and claims.go; RAN v1.20, v1.36).
_VERDICT = re.compile(
    r"""\btoken\ (?:has\ been\ invalidated|has\ expired|is\ not\ valid\ yet|is\ issued\ in\ the\ future)
    | \btoken\ (?:claims\ )?could\ not\ be\ validated\b
    | \bUID\ \([^()]*\)\ does\ not\ match\b
    | \b(?:serviceaccounts|secrets|pods|nodes)\ "[^"]*"\ not\ found
    | \btoken\ audiences\ .*\ is\ invalid\ for\ the\ target\ audiences\b
    | \binvalid\ signature,\ no\ keys\ found
    | \bgo-jose:\ error\ in\ cryptographic\ primitive""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
_NOT_RECOGNIZED = "invalid bearer token"
"""The error of a token that no authenticator recognizes. The others follow it in a list, those of the server too."""

MAX_ERROR = 300
"""How many characters of `status.error` are logged."""

_QUOTED = 12
"""How many characters in a row of a token may stand in an error that is logged, at the most."""


@dataclass(slots=True)
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

    def verify_at_once(self, _: object) -> None:
        """Return None: the API server has to be asked."""

    def verify(self, token: str, deadline: float) -> ReviewedToken:
        """Return what the API server says about a valid token. `deadline` is in monotonic seconds.

        Raises InvalidToken of some kind, or Unavailable.
        """
        review = self._reviewer.review_token(token, self._audiences, deadline)
        return parse_token_review(review, self._audiences, token)


def parse_token_review(review: Mapping[str, Any], audiences: Sequence[str], token: str = "") -> ReviewedToken:
    """Return what a TokenReview says; each field must be exactly as it is for a pod's token for one of our audiences.

    `status.error` is there for some successes too, and never decides who is accepted. Where a token is not, it decides
    whose fault that is: the token's if there is no error, if no authenticator recognizes the token, or if the one of
    service account tokens has rejected it. Whatever else it says may be about the server (etcd, a webhook, a timeout).

    Raises TokenReviewFailed, NotPodBound, or Unavailable if this is not a TokenReview with a status, or if its error
    says nothing about the token. Reasons quote the error without the `token`.
    """
    status = review.get("status")
    if not isinstance(status, dict):
        raise Unavailable("the API server's TokenReview has no status")
    if status.get("authenticated") is not True:
        raise _explain_failure(status.get("error"), token)
    # An authenticator that knows no audiences echoes none: such a token may be meant for anybody (KEP-1205).
    echoed = strings(status.get("audiences"))
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
        service_account = service_account_of(username, uid)
    except ValueError:
        raise TokenReviewFailed("the token's user is not a service account") from None
    extra = _extra(user.get("extra"))
    return bound_token(service_account, audience, groups=strings(user.get("groups")), extra=extra)


def bound_token(
    service_account: ServiceAccount, audience: str, *, groups: tuple[str, ...], extra: Mapping[str, tuple[str, ...]]
) -> ReviewedToken:
    """Return a valid token, if its user's `extra` names exactly one pod that it is bound to.

    Raises NotPodBound, also for a name or a UID that no pod can have.
    """
    pod_name, pod_uid = _only(extra, POD_NAME, _POD_NAME), _only(extra, POD_UID, _UID)
    if pod_name is None or pod_uid is None:
        raise NotPodBound("the token's user has no pod that the token is bound to")
    return ReviewedToken(
        service_account=service_account,
        pod_name=pod_name,
        pod_uid=pod_uid,
        audience=audience,
        credential_id=next(iter(extra.get(CREDENTIAL_ID, ())), None),
        groups=groups,
        extra=frozen_dict(extra),  # all requests of a token share it
    )


def _explain_failure(error: object, token: str) -> TokenReviewFailed | Unavailable:
    if not error:
        return TokenReviewFailed("the TokenReview says that the token is not authenticated")
    text = error if isinstance(error, str) else ""
    shown = repr(_without(token, text[:MAX_ERROR]))
    if text == _NOT_RECOGNIZED or _VERDICT.search(text):
        return TokenReviewFailed(f"the TokenReview says that the token is not authenticated: {shown}")
    return Unavailable(f"the TokenReview failed with an error that is not known to be about the token: {shown}")


def _without(token: str, text: str) -> str:
    """Return a text in which no longer part of a token stands."""
    parts = {token[start : start + _QUOTED] for start in range(len(token) - _QUOTED + 1)}
    hidden = {
        place
        for start in range(len(text) - _QUOTED + 1)
        if text[start : start + _QUOTED] in parts
        for place in range(start, start + _QUOTED)
    }
    return "".join("*" if place in hidden else character for place, character in enumerate(text))


def strings(value: object) -> tuple[str, ...]:
    """Return a list of strings as a tuple, an empty one if it holds anything else."""
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return _shared(tuple(value))
    return ()


def _extra(value: object) -> dict[str, tuple[str, ...]]:
    return {sys.intern(key): strings(values) for key, values in value.items()} if isinstance(value, dict) else {}


# What is the same for many pods is kept once: this halves the memory of a cached caller.
service_account_of = lru_cache(maxsize=4096)(ServiceAccount.from_username)


@lru_cache(maxsize=4096)
def _shared(strings: tuple[str, ...]) -> tuple[str, ...]:
    return strings


def _only(extra: Mapping[str, tuple[str, ...]], key: str, form: re.Pattern[str]) -> str | None:
    """Return the one value of a key, None where there is not exactly one, or not of its form."""
    values = extra.get(key, ())
    return values[0] if len(values) == 1 and form.fullmatch(values[0]) else None
