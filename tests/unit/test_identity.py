from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from podproof.identity import Pod, PodIdentity, ServiceAccount

ALICE = PodIdentity(
    service_account=ServiceAccount("default", "alice", "account-uid"),
    pod=Pod("default", "alice-pod", "pod-uid", ("10.1.2.3",)),
    audience="bob",
    expires_at=1_800_000_000.0,
)


@pytest.mark.trap(10)
@pytest.mark.parametrize(
    ("username", "namespace", "name"),
    [
        ("system:serviceaccount:default:alice", "default", "alice"),
        ("system:serviceaccount:a:b", "a", "b"),
        ("system:serviceaccount:team-1:alice.v2.example", "team-1", "alice.v2.example"),
        (f"system:serviceaccount:{'n' * 63}:{'s' * 253}", "n" * 63, "s" * 253),
    ],
)
def test_a_service_account_is_read_from_its_username(username: str, namespace: str, name: str) -> None:
    account = ServiceAccount.from_username(username, "uid")
    assert account == ServiceAccount(namespace, name, "uid")
    assert account.username == username


@pytest.mark.trap(1, 10)
@pytest.mark.parametrize(
    "username",
    [
        "",
        "alice",
        "system:anonymous",
        "system:node:node1",
        "system:serviceaccount",
        "system:serviceaccount:default",
        "system:serviceaccount:default:",
        "system:serviceaccount::alice",
        "system:serviceaccount:default:alice:extra",
        "system:serviceaccount:default:alice ",
        "system:serviceaccount:default:alice\n",
        " system:serviceaccount:default:alice",
        "SYSTEM:serviceaccount:default:alice",
        "system:serviceaccount:Default:alice",
        "system:serviceaccount:default:Alice",
        "system:serviceaccount:name.space:alice",
        "system:serviceaccount:default:-alice",
        "system:serviceaccount:default:alice.",
        "system:serviceaccount:default:a..b",
        "system:serviceaccount:default:a/b",
        "system:serviceaccount:default:alicé",
        f"system:serviceaccount:{'n' * 64}:alice",
        f"system:serviceaccount:default:{'s' * 254}",
    ],
)
def test_the_username_of_any_other_user_is_an_error(username: str) -> None:
    with pytest.raises(ValueError, match="not the username of a service account"):
        ServiceAccount.from_username(username)


def test_str_of_a_service_account_and_a_pod_is_namespace_and_name() -> None:
    assert str(ALICE.service_account) == "default/alice"
    assert str(ALICE.pod) == "default/alice-pod"


def test_an_identity_is_a_starlette_user() -> None:
    assert ALICE.is_authenticated
    assert ALICE.display_name == "default/alice"
    assert ALICE.identity == "system:serviceaccount:default:alice"
    assert ALICE.scopes == ("authenticated", "namespace:default", "serviceaccount:default/alice")


def test_an_identity_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        ALICE.audience = "eve"  # type: ignore[misc]  # mypy forbids it too
    with pytest.raises(FrozenInstanceError):
        ALICE.pod.name = "eve"  # type: ignore[misc]  # mypy forbids it too


def test_identities_can_be_members_of_a_set() -> None:
    assert {ALICE, ALICE} == {ALICE}
