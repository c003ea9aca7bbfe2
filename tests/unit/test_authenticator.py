"""`podproof.authenticator`: the plain call and its awaitable twin."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import anyio
import pytest

from podproof.authenticator import Authenticator
from podproof.errors import (
    ConfigurationError,
    MalformedCredential,
    NotAllowed,
    PeerUnknown,
    PodAuthError,
    Unavailable,
    WrongAddress,
    WrongAudience,
)
from podproof.identity import PodIdentity
from podproof.testing import Cluster, EmulatedPod
from tests.support.startup import wait_for_startup_check

ALICE = "127.0.0.1"
Call = Callable[[str, str | None], PodIdentity]


@pytest.fixture
def authenticator(podproof_cluster: Cluster) -> Iterator[Authenticator]:
    with Authenticator(audience="bob", allow=["default/*"], timeout=1) as authenticator:
        yield authenticator
    wait_for_startup_check()


@pytest.fixture(params=["thread", "asyncio", "trio"])
def authenticate(request: pytest.FixtureRequest, authenticator: Authenticator) -> Call:
    """Return the plain call, or its twin on an event loop."""
    if request.param == "thread":
        return authenticator.authenticate
    return lambda token, peer: anyio.run(authenticator.authenticate_async, token, peer, backend=request.param)


def test_a_caller_is_known_by_its_token_and_its_address(authenticate: Call, podproof_caller: EmulatedPod) -> None:
    token = podproof_caller.token("bob")
    identity = authenticate(token, ALICE)
    assert str(identity.pod) == "default/caller"
    assert authenticate(token, "::ffff:127.0.0.1") is identity


@pytest.mark.parametrize(
    ("audience", "prefix", "peer", "error"),
    [
        ("carol", "", ALICE, WrongAudience),
        ("bob", " ", ALICE, MalformedCredential),
        ("bob", "€", ALICE, MalformedCredential),
        ("bob", "", "127.0.0.2", WrongAddress),
        ("bob", "", None, PeerUnknown),
        ("bob", "", "", PeerUnknown),
        ("bob", "", "alice", PeerUnknown),
    ],
)
def test_every_other_token_and_address_is_denied(
    authenticate: Call,
    podproof_caller: EmulatedPod,
    *,
    audience: str,
    prefix: str,
    peer: str | None,
    error: type[PodAuthError],
) -> None:
    with pytest.raises(error):
        authenticate(prefix + podproof_caller.token(audience), peer)


def test_the_allow_list_decides_and_an_outage_can_be_tried_again(authenticate: Call, podproof_cluster: Cluster) -> None:
    with pytest.raises(NotAllowed):
        authenticate(podproof_cluster.pod("other/pod").token("bob"), ALICE)
    podproof_cluster.fail(500)
    with pytest.raises(Unavailable) as raised:
        authenticate(podproof_cluster.pod("default/new").token("bob"), ALICE)
    assert raised.value.retryable


@pytest.mark.usefixtures("podproof_cluster")
@pytest.mark.parametrize("given", [{"policy": "rbac"}, {"rules": []}, {"rules_file": "rules.yaml"}, {"enforce": False}])
def test_what_needs_a_request_is_no_option(given: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        Authenticator(audience="bob", **given)  # type: ignore[arg-type]


@pytest.mark.usefixtures("podproof_cluster")
def test_no_option_lets_an_empty_token_in() -> None:
    with (
        Authenticator(audience="bob", optional=True, exempt=["/healthz"]) as authenticator,
        pytest.raises(PodAuthError),
    ):
        authenticator.authenticate("", ALICE)
