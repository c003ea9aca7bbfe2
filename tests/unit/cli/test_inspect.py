from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import pytest

from podproof.cli.errors import CommandError
from podproof.cli.inspect import find, show
from podproof.testing import Cluster

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


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines(cluster: Cluster, **changes: Any) -> dict[str, str]:
    claims = {name: value for name, value in (CLAIMS | changes).items() if value is not None}
    text = show({"-": cluster.sign(claims)}, NOW)
    return {name: value.strip() for name, _, value in (line.partition("  ") for line in text.splitlines())}


def test_a_pods_token_is_shown_claim_by_claim(cluster: Cluster) -> None:
    assert lines(cluster) == {
        "subject": "system:serviceaccount:default:alice",
        "service account": "default/alice (uid u-1)",
        "pod": "default/alice-1 (uid u-2)",
        "node": "node1 (uid u-3)",
        "audience": "bob",
        "issuer": "https://issuer.example",
        "issued": "2027-01-15 07:50:00 UTC, 10 min ago",
        "expires": "2027-01-15 08:50:00 UTC, in 50 min",
        "verified": "no: only the API server can tell whether it is genuine",
        "good for": "calling bob as default/alice, from pod default/alice-1 alone, for another 50 min",
    }


@pytest.mark.parametrize(
    ("changes", "use"),
    [
        ({"sub": "admin"}, "nothing here: it is no service account's token"),
        ({"sub": None}, "nothing here: it is no service account's token"),
        ({"exp": NOW - 90}, "nothing any more: it expired 1 min 30 s ago"),
        ({"nbf": NOW + 90}, "nothing yet: it begins in 1 min 30 s"),
        ({"aud": "https://issuer.example"}, "calling the Kubernetes API as default/alice: keep it to yourself"),
        ({"aud": None}, "calling the Kubernetes API as default/alice: keep it to yourself"),
        ({"kubernetes.io": {"namespace": "default"}}, "no app that asks for a pod: it is bound to none"),
        ({"kubernetes.io": "default"}, "no app that asks for a pod: it is bound to none"),
        (
            {"aud": ["bob", "carol"], "exp": None},
            "calling bob or carol as default/alice, from pod default/alice-1 alone",
        ),
    ],
)
def test_what_a_token_is_good_for_is_told(changes: dict[str, Any], use: str, cluster: Cluster) -> None:
    assert lines(cluster, **changes)["good for"].startswith(use)


def test_a_token_that_begins_later_or_never_ends_is_shown_as_such(cluster: Cluster) -> None:
    shown = lines(cluster, nbf=NOW + 60, exp=None, jti="id-1")
    assert (shown["begins"], shown["expires"]) == ("2027-01-15 08:01:00 UTC, in 1 min", "never")
    assert shown["credential id"] == "JTI=id-1"


@pytest.mark.parametrize("value", ["soon", -1, 1e30, True and [1]])
def test_a_claim_that_is_not_a_time_is_shown_as_such(value: object, cluster: Cluster) -> None:
    assert lines(cluster, exp=value)["expires"] == "not a time"


def test_a_token_without_a_begin_is_shown(cluster: Cluster) -> None:
    assert "issued" not in lines(cluster, iat=None, nbf=None)


def test_what_would_steer_a_terminal_is_not_shown(cluster: Cluster) -> None:
    assert lines(cluster, iss="\x1b[31mred\n\ud800")["issuer"] == "?[31mred??"


def test_neither_the_token_nor_its_signature_is_shown(cluster: Cluster, podproof_caller: Any) -> None:
    token = podproof_caller.token("bob")
    text = show({"a": token, "b": token}, time.time(), coloured=True)
    assert not any(part in text for part in token.split("."))


def test_several_tokens_have_headings(cluster: Cluster) -> None:
    token = cluster.sign(CLAIMS)
    text = show({"a": token, "b": f"Authorization: Bearer {token}\n"}, NOW)
    first, second = text.split("\n\n")
    assert (first.splitlines()[0], second.splitlines()[0]) == ("a", "b")
    assert first.splitlines()[1:] == second.splitlines()[1:]


def test_what_is_no_token_is_said_without_its_text() -> None:
    with pytest.raises(CommandError, match="standard input: the token is not") as refused:
        show({"standard input": "secret"}, NOW)
    assert "secret" not in str(refused.value)


def test_a_token_is_read_from_the_file_that_is_named(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("text")
    assert find(str(file), io.StringIO("other"), {}) == {str(file): "text"}
    with pytest.raises(CommandError, match="cannot be read: No such file"):
        find(str(tmp_path / "none"), io.StringIO(), {})


def test_a_token_that_is_given_as_a_file_is_not_repeated(cluster: Cluster) -> None:
    token = cluster.sign(CLAIMS)
    with pytest.raises(CommandError, match="that is a token, not a file") as refused:
        find(token, io.StringIO(), {})
    assert token not in str(refused.value)


def test_without_a_file_standard_input_is_read_and_else_what_is_mounted(tmp_path: Path) -> None:
    for audience in ("bob", "carol"):
        (tmp_path / "var/run/secrets/podproof" / audience).mkdir(parents=True)
        (tmp_path / "var/run/secrets/podproof" / audience / "token").write_text(audience)
    mounted = {str(tmp_path / f"var/run/secrets/podproof/{one}/token"): one for one in ("bob", "carol")}
    assert find(None, io.StringIO("text"), {}, tmp_path) == {"standard input": "text"}
    assert find("-", io.StringIO(""), {}, tmp_path) == {"standard input": ""}
    assert find(None, io.StringIO("\n"), {}, tmp_path) == mounted
    assert find(None, Terminal("typed"), {}, tmp_path) == mounted


def test_the_file_that_the_environment_names_is_read_too(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("text")
    assert find(None, Terminal(), {"PODPROOF_TOKEN_FILE": "/mine"}, tmp_path) == {str(tmp_path / "mine"): "text"}


def test_where_there_is_nothing_to_be_read_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="no token is mounted here: name its file"):
        find(None, Terminal(), {}, tmp_path)
