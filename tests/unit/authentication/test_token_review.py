from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from podproof._authentication.token_review import (
    CREDENTIAL_ID,
    MAX_ERROR,
    POD_NAME,
    POD_UID,
    TokenReviewVerifier,
    parse_token_review,
)
from podproof.errors import InvalidToken, NotPodBound, PodAuthError, TokenReviewFailed, Unavailable
from podproof.identity import ServiceAccount
from tests.support.fake_api import FakeAPI, review, reviewed_user, token

EXTRA: dict[str, Any] = review()["status"]["user"]["extra"]


def test_an_authenticated_token_has_a_service_account_a_pod_and_an_audience() -> None:
    reviewed = parse_token_review(review(), ["bob"])
    assert reviewed.service_account == ServiceAccount("default", "alice", "account-uid")
    assert (reviewed.pod_name, reviewed.pod_uid) == ("alice-pod", "pod-uid")
    assert reviewed.audience == "bob"
    assert reviewed.credential_id == "JTI=1"
    assert reviewed.groups == ("system:serviceaccounts", "system:authenticated")
    assert reviewed.extra[POD_NAME] == ("alice-pod",)


def test_a_verifier_reviews_for_its_own_audiences(fake_api: FakeAPI) -> None:
    assert TokenReviewVerifier(fake_api, ["bob"]).verify("token", 0).pod_name == "alice-pod"
    with pytest.raises(TokenReviewFailed):
        TokenReviewVerifier(fake_api, ["carol"]).verify("token", 0)


@pytest.mark.trap(3)
def test_the_audience_is_one_of_ours_that_the_review_returned() -> None:
    assert parse_token_review(review(audiences=["eve", "bob"]), ["carol", "bob"]).audience == "bob"


@pytest.mark.trap(3, 9)
@pytest.mark.parametrize("audiences", [None, [], ["eve"], "bob", {"bob": 1}, ["bob", 7], [["bob"]], ["bobby"], ["BOB"]])
def test_a_token_authenticated_for_other_audiences_is_rejected(audiences: object) -> None:
    with pytest.raises(TokenReviewFailed, match="none of our audiences"):
        parse_token_review(review(audiences=audiences), ["bob"])


@pytest.mark.trap(9)
@pytest.mark.parametrize("authenticated", [False, None, "true", 1, "True", [True]])
def test_only_true_is_authenticated(authenticated: object) -> None:
    with pytest.raises(TokenReviewFailed, match="is not authenticated"):
        parse_token_review(review(authenticated=authenticated), ["bob"])


@pytest.mark.trap(6)
def test_an_error_beside_an_authenticated_token_decides_nothing() -> None:
    assert parse_token_review(review(error="[invalid bearer token, etcdserver: request timed out]"), ["bob"])


RECORDED = Path(__file__).parents[1] / "testing" / "recorded"


def recorded_errors() -> set[str]:
    """Return the error of each TokenReview in what real API servers answered; each is about the token it reviewed."""
    answers = [
        answer.get("content")
        for recording in RECORDED.glob("*.json")
        for answers in json.loads(recording.read_text()).values()
        for answer in answers
    ]
    reviews = [one for one in answers if isinstance(one, dict) and one.get("kind") == "TokenReview"]
    return {one["status"]["error"] for one in reviews if "error" in one["status"]}


EXPIRED = "service account token has expired"
SERVER_ERRORS = [
    "etcdserver: request timed out",
    "etcdserver: leader changed",
    "context deadline exceeded",
    "context canceled",
    "error validating audiences",
    "Unauthorized",
    "unexpected EOF",
    "Internal error occurred: error resolving resource",
    "the server is currently unable to handle the request",
    "Timeout: request did not complete within requested timeout - context deadline exceeded",
    'Post "https://hook.example/authenticate?timeout=30s": dial tcp 10.0.0.1:443: connect: connection refused',
    'Post "https://hook.example/authenticate": tls: failed to verify certificate: x509: certificate has expired',
    'Get "https://10.0.0.1:443/api/v1/namespaces/default/serviceaccounts/alice": net/http: TLS handshake timeout',
    "rpc error: code = Unavailable desc = transport is closing",
    "oidc: authenticator not initialized",
    "no such host",
    "too many requests",
    "token lookup failed",
    "a text that no API server has sent before",
]


@pytest.mark.trap(60)
@pytest.mark.parametrize("error", sorted(recorded_errors()))
def test_an_error_that_real_servers_have_about_a_token_is_held_against_it(error: str) -> None:
    for status in ({"error": error}, {"error": error, "authenticated": False}):
        with pytest.raises(TokenReviewFailed) as raised:
            parse_token_review({"status": status}, ["bob"])
        assert repr(error) in str(raised.value)


@pytest.mark.trap(60)
@pytest.mark.parametrize(
    "error",
    [
        "Token could not be validated.",
        "service account token claims could not be validated due to unexpected validation error",
    ],
)
def test_an_error_about_odd_claims_is_held_against_the_token(error: str) -> None:
    with pytest.raises(TokenReviewFailed):
        parse_token_review({"status": {"authenticated": False, "error": f"[invalid bearer token, {error}]"}}, ["bob"])


@pytest.mark.trap(60)
@pytest.mark.parametrize("form", ["{}", "[invalid bearer token, {}]", "[{}, invalid bearer token]"])
@pytest.mark.parametrize("error", SERVER_ERRORS)
def test_an_error_of_the_server_is_not_held_against_a_token(error: str, form: str) -> None:
    with pytest.raises(Unavailable) as raised:
        parse_token_review({"status": {"authenticated": False, "error": form.format(error)}}, ["bob"])
    assert error[:20] in str(raised.value)


@pytest.mark.trap(60)
@pytest.mark.parametrize("error", SERVER_ERRORS)
def test_a_rejection_counts_whatever_other_authenticators_say(error: str) -> None:
    for form in ("[invalid bearer token, {}, {}]", "[invalid bearer token, [{}, {}]]"):
        for errors in ((EXPIRED, error), (error, EXPIRED)):
            with pytest.raises(TokenReviewFailed):
                parse_token_review({"status": {"error": form.format(*errors)}}, ["bob"])


@pytest.mark.trap(60)
@pytest.mark.parametrize("error", [7, ["etcd"], {"etcd": 1}, True])
def test_an_error_that_is_no_text_says_nothing_about_a_token(error: object) -> None:
    with pytest.raises(Unavailable):
        parse_token_review({"status": {"error": error}}, ["bob"])


@pytest.mark.trap(33, 60)
@pytest.mark.parametrize(
    "quote", ["{}", "Post https://hook/?token={}: EOF", "token is expired: {}", "\n{}\n", "{} " * 50]
)
@pytest.mark.parametrize("part", [slice(None), slice(0, 40), slice(30, 90), slice(-30, None)])
def test_the_logged_error_is_short_has_one_line_and_no_part_of_the_token(quote: str, part: slice) -> None:
    with pytest.raises(PodAuthError) as raised:
        parse_token_review({"status": {"error": quote.replace("{}", token()[part])}}, ["bob"], token())
    reason = str(raised.value)
    assert len(reason) < MAX_ERROR + 120
    assert reason.isprintable()
    assert not any(token()[start : start + 12] in reason for start in range(len(token()) - 12))


@pytest.mark.trap(9)
@pytest.mark.parametrize("response", [{}, {"status": None}, {"status": []}, {"status": "fine"}])
def test_a_review_without_a_status_is_an_unusable_response(response: dict[str, Any]) -> None:
    with pytest.raises(Unavailable, match="no status"):
        parse_token_review(response, ["bob"])


@pytest.mark.trap(9)
@pytest.mark.parametrize("user", [None, [], "alice", {}])
def test_a_review_without_a_user_is_rejected(user: object) -> None:
    with pytest.raises(TokenReviewFailed, match="user"):
        parse_token_review(review(user=user), ["bob"])


@pytest.mark.trap(9)
@pytest.mark.parametrize("changes", [{"username": None}, {"username": 7}, {"uid": None}, {"uid": ""}, {"uid": 7}])
def test_a_user_without_a_name_or_a_uid_is_rejected(changes: dict[str, object]) -> None:
    with pytest.raises(TokenReviewFailed, match="without a name or a UID"):
        parse_token_review(reviewed_user(**changes), ["bob"])


@pytest.mark.trap(1)
@pytest.mark.parametrize(
    "username", ["system:anonymous", "admin", "system:node:node1", "system:serviceaccount:default"]
)
def test_a_user_that_is_not_a_service_account_is_rejected_even_with_our_audience(username: str) -> None:
    with pytest.raises(TokenReviewFailed, match="not a service account"):
        parse_token_review(reviewed_user(username=username), ["bob"])


@pytest.mark.trap(9, 12)
@pytest.mark.parametrize("key", [POD_NAME, POD_UID])
@pytest.mark.parametrize("values", [None, [], ["a", "a"], ["a", "b"], "alice-pod", [7], [None], [""], ["a", 7]])
def test_a_token_without_exactly_one_pod_is_rejected(key: str, values: object) -> None:
    with pytest.raises(NotPodBound):
        parse_token_review(reviewed_user(extra=EXTRA | {key: values}), ["bob"])


def test_extra_is_read_only_because_requests_share_it() -> None:
    extra: Any = parse_token_review(reviewed_user(), ["bob"]).extra
    with pytest.raises(TypeError, match="cannot be changed"):
        extra[POD_NAME] = ("another",)


@pytest.mark.trap(12)
@pytest.mark.parametrize("extra", [None, {}, [], "pod"])
def test_a_token_without_extra_is_bound_to_no_pod(extra: object) -> None:
    with pytest.raises(NotPodBound):
        parse_token_review(reviewed_user(extra=extra), ["bob"])


@pytest.mark.trap(9)
@pytest.mark.parametrize(
    ("key", "value"),
    [
        (POD_NAME, "../secrets/a"),
        (POD_NAME, "a/b"),
        (POD_NAME, "a?b"),
        (POD_NAME, "-a"),
        (POD_NAME, "a..b"),
        (POD_NAME, "A"),
        (POD_NAME, "a\n"),
        (POD_NAME, "a" * 254),
        (POD_UID, "a b"),
        (POD_UID, "a" * 129),
        (POD_UID, "a\n"),
    ],
)
def test_a_malformed_pod_name_or_uid_is_rejected(key: str, value: str) -> None:
    with pytest.raises(NotPodBound):
        parse_token_review(reviewed_user(extra=EXTRA | {key: [value]}), ["bob"])


@pytest.mark.parametrize("name", ["a", "a.b-c.d", "a" * 253])
def test_a_pod_name_may_have_253_characters_and_dots(name: str) -> None:
    assert parse_token_review(reviewed_user(extra=EXTRA | {POD_NAME: [name]}), ["bob"]).pod_name == name


@pytest.mark.trap(11)
def test_before_kubernetes_1_30_there_is_no_credential_id() -> None:
    extra = {key: value for key, value in EXTRA.items() if key != CREDENTIAL_ID}
    assert parse_token_review(reviewed_user(extra=extra), ["bob"]).credential_id is None


@pytest.mark.parametrize("groups", [None, "system:masters", {"a": 1}, ["a", 7]])
def test_groups_that_are_not_a_list_of_strings_are_empty(groups: object) -> None:
    assert parse_token_review(reviewed_user(groups=groups), ["bob"]).groups == ()


@pytest.mark.trap(4)
def test_without_audiences_every_token_is_rejected() -> None:
    with pytest.raises(InvalidToken):
        parse_token_review(review(), [])
