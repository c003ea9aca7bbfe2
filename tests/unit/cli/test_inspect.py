from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import pytest

from podproof.cli.errors import CommandError
from podproof.cli.inspect import format_tokens, read_tokens
from podproof.testing import Cluster
from tests.support.terminal import Terminal

NOW = 1_800_000_000.0
CLAIMS: dict[str, Any] = {
    "iss": "https://issuer.example",
    "sub": "system:serviceaccount:default:alice",
    "aud": ["bob"],
    "iat": NOW - 600,
    "nbf": NOW - 600,
    "exp": NOW + 3000,
    "kubernetes.io": {
        "namespace": "default",
        "serviceaccount": {"name": "alice", "uid": "u-1"},
        "pod": {"name": "alice-1", "uid": "u-2"},
        "node": {"name": "node1", "uid": "u-3"},
    },
}


def lines(cluster: Cluster, **changes: Any) -> dict[str, str]:
    claims = {name: value for name, value in (CLAIMS | changes).items() if value is not None}
    text = format_tokens({"-": cluster.sign(claims)}, NOW)
    return {name: value.strip() for name, _, value in (line.partition("  ") for line in text.splitlines())}


def test_each_claim_of_a_pods_token_is_shown(cluster: Cluster) -> None:
    assert lines(cluster) == {
        "subject": "system:serviceaccount:default:alice",
        "service account": "default/alice (uid u-1)",
        "pod": "default/alice-1 (uid u-2)",
        "node": "node1 (uid u-3)",
        "audience": "bob",
        "issuer": "https://issuer.example",
        "issued": "2027-01-15 07:50:00 UTC, 10 min ago",
        "expires": "2027-01-15 08:50:00 UTC, in 50 min",
        "verified": "no: only the API server can verify it",
        "usable for": "calling bob as default/alice, only from pod default/alice-1, for 50 min",
    }


@pytest.mark.parametrize(
    ("changes", "use"),
    [
        ({"sub": "admin"}, "nothing: it is not a service account's token"),
        ({"sub": None}, "nothing: it is not a service account's token"),
        ({"exp": NOW - 90}, "nothing: it expired 1 min 30 s ago"),
        ({"nbf": NOW + 90}, "nothing yet: it becomes valid in 1 min 30 s"),
        ({"aud": "https://issuer.example"}, "the Kubernetes API as default/alice: do not send it to an app"),
        ({"aud": None}, "the Kubernetes API as default/alice: do not send it to an app"),
        ({"kubernetes.io": {"namespace": "default"}}, "nothing: it is not bound to a pod (not-pod-bound)"),
        ({"kubernetes.io": "default"}, "nothing: it is not bound to a pod (not-pod-bound)"),
        (
            {"aud": ["bob", "carol"], "exp": None},
            "calling bob or carol as default/alice, only from pod default/alice-1",
        ),
    ],
)
def test_what_a_token_can_be_used_for_is_shown(changes: dict[str, Any], use: str, cluster: Cluster) -> None:
    assert lines(cluster, **changes)["usable for"].startswith(use)


def test_a_token_that_is_not_yet_valid_or_never_expires_is_shown(cluster: Cluster) -> None:
    shown = lines(cluster, nbf=NOW + 60, exp=None, jti="id-1")
    assert (shown["not before"], shown["expires"]) == ("2027-01-15 08:01:00 UTC, in 1 min", "never")
    assert shown["credential id"] == "JTI=id-1"


@pytest.mark.parametrize("value", ["soon", -1, 1e30, True and [1]])
def test_an_invalid_expiry_is_shown_as_not_a_time(value: object, cluster: Cluster) -> None:
    assert lines(cluster, exp=value)["expires"] == "not a time"


def test_a_token_without_iat_and_nbf_is_shown(cluster: Cluster) -> None:
    assert "issued" not in lines(cluster, iat=None, nbf=None)


def test_control_characters_in_claims_are_replaced(cluster: Cluster) -> None:
    assert lines(cluster, iss="\x1b[31mred\n\ud800")["issuer"] == "?[31mred??"


def test_neither_the_token_nor_its_signature_is_shown(podproof_caller: Any) -> None:
    token = podproof_caller.token("bob")
    text = format_tokens({"a": token, "b": token}, time.time(), coloured=True)
    assert not any(part in text for part in token.split("."))


def test_several_tokens_have_headings(cluster: Cluster) -> None:
    token = cluster.sign(CLAIMS)
    text = format_tokens({"a": token, "b": f"X-Pod-Authorization: Bearer {token}\n"}, NOW)
    first, second = text.split("\n\n")
    assert (first.splitlines()[0], second.splitlines()[0]) == ("a", "b")
    assert first.splitlines()[1:] == second.splitlines()[1:]


def test_a_text_that_is_not_a_token_is_rejected_without_printing_it() -> None:
    with pytest.raises(CommandError, match="standard input: the token is not") as error:
        format_tokens({"standard input": "secret"}, NOW)
    assert "secret" not in str(error.value)


def test_a_token_is_read_from_the_named_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("text")
    assert read_tokens(str(file), io.StringIO("other"), {}) == {str(file): "text"}
    with pytest.raises(CommandError, match="cannot be read: No such file"):
        read_tokens(str(tmp_path / "none"), io.StringIO(), {})


def test_a_token_given_instead_of_a_file_name_is_not_printed(cluster: Cluster) -> None:
    token = cluster.sign(CLAIMS)
    with pytest.raises(CommandError, match="FILE is a token, not a file name") as error:
        read_tokens(token, io.StringIO(), {})
    assert token not in str(error.value)


def test_without_a_file_standard_input_or_else_the_mounted_tokens_are_read(tmp_path: Path) -> None:
    for audience in ("bob", "carol"):
        (tmp_path / "var/run/secrets/podproof" / audience).mkdir(parents=True)
        (tmp_path / "var/run/secrets/podproof" / audience / "token").write_text(audience)
    mounted = {str(tmp_path / f"var/run/secrets/podproof/{one}/token"): one for one in ("bob", "carol")}
    assert read_tokens(None, io.StringIO("text"), {}, tmp_path) == {"standard input": "text"}
    assert read_tokens("-", io.StringIO(""), {}, tmp_path) == {"standard input": ""}
    assert read_tokens(None, io.StringIO("\n"), {}, tmp_path) == mounted
    assert read_tokens(None, Terminal("typed"), {}, tmp_path) == mounted


def test_the_file_in_podproof_token_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("text")
    assert read_tokens(None, Terminal(), {"PODPROOF_TOKEN_FILE": "/mine"}, tmp_path) == {str(tmp_path / "mine"): "text"}


def test_without_any_token_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="no token is mounted here: name a token file"):
        read_tokens(None, Terminal(), {}, tmp_path)
