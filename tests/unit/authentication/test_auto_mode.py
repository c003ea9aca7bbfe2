from __future__ import annotations

import logging
from dataclasses import dataclass, field

import pytest

from podproof import Pod, ServiceAccount
from podproof._apiserver.permissions import GET_SIGNING_KEYS, LIST_PODS, Permission
from podproof._authentication.auto_mode import AutoMode, Mode
from podproof._authentication.jws import JWS
from podproof._authentication.own_issuer import OwnIssuerVerifier
from podproof._authentication.pods import FoundPod
from podproof._authentication.token_review import ReviewedToken
from podproof.errors import Unavailable

ALICE = ServiceAccount("default", "alice")


@dataclass
class NamedVerifier:
    """Says by the audience who has verified a token."""

    name: str

    def verify(self, token: str, deadline: float) -> ReviewedToken:
        return ReviewedToken(ALICE, "alice-pod", "uid", self.name, None, (), {})

    def verify_at_once(self, token: JWS) -> None:
        return None


@dataclass
class NamedPods:
    """Says by the node who knows a pod."""

    name: str

    def get(self, service_account: ServiceAccount, name: str, uid: str, deadline: float) -> FoundPod:
        return self.last_known(service_account, name, uid)

    def last_known(self, service_account: ServiceAccount, name: str, uid: str) -> FoundPod:
        return FoundPod(Pod("default", name, uid, node=self.name))


@dataclass
class Permissions:
    missing: set[Permission] = field(default_factory=set)
    away: bool = False
    asked: int = 0

    def own_token(self) -> str | None:
        return None

    def is_allowed(self, permission: Permission, deadline: float) -> bool:
        self.asked += 1
        if self.away:
            raise Unavailable("away")
        return permission not in self.missing


def auto_mode(permissions: Permissions) -> AutoMode:
    keys, review = (Mode(NamedVerifier(name), NamedPods(name)) for name in ("keys", "review"))
    return AutoMode(permissions, [GET_SIGNING_KEYS, LIST_PODS], keys=keys, review=review)


def chosen(mode: AutoMode) -> tuple[str, str | None]:
    return mode.verify("token", 5).audience, mode.get(ALICE, "alice-pod", "uid", 5).pod.node


@pytest.mark.parametrize(
    ("missing", "expected", "words"),
    [
        (set(), "keys", "tokens are verified by the signing keys of their issuer"),
        ({GET_SIGNING_KEYS}, "review", "verified by TokenReviews: this app may not get /openid/v1/jwks"),
        ({LIST_PODS}, "review", "verified by TokenReviews: this app may not list pods"),
    ],
)
def test_the_mode_is_what_the_permissions_allow_and_is_logged_once(
    caplog: pytest.LogCaptureFixture, missing: set[Permission], expected: str, words: str
) -> None:
    caplog.set_level(logging.INFO)
    permissions = Permissions(missing)
    mode = auto_mode(permissions)
    assert permissions.asked == 0
    assert chosen(mode) == chosen(mode) == (expected, expected)
    assert permissions.asked == 2
    assert [words in message for message in caplog.messages] == [True]


def test_until_the_api_server_answers_tokens_are_reviewed() -> None:
    permissions = Permissions(away=True)
    mode = auto_mode(permissions)
    assert chosen(mode) == ("review", "review")
    permissions.away = False
    assert chosen(mode) == ("keys", "keys")


def test_the_issuer_is_read_with_the_first_token_and_once() -> None:
    class Reader:
        reads = 0

        def issuer(self, deadline: float) -> str:
            self.reads += 1
            if self.reads == 1:
                raise Unavailable("away")
            return "https://issuer"

    reader = Reader()
    verifier = OwnIssuerVerifier(reader, NamedVerifier)
    with pytest.raises(Unavailable):
        verifier.verify("token", 5)
    assert [verifier.verify("token", 5).audience for _ in range(2)] == ["https://issuer"] * 2
    assert reader.reads == 2
