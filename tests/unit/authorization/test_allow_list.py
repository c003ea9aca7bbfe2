from __future__ import annotations

import copy
import pickle

import pytest

from podproof._authorization.allow_list import AllowList
from podproof.errors import NotAllowed
from podproof.identity import ServiceAccount


@pytest.mark.parametrize(
    "patterns",
    [
        ["default/alice"],
        ["other/*", "default/alice"],
        ["default/*"],
        ["*/alice"],
        ["*/*"],
        ["def*/al?ce"],
        ["default/[ab]lice"],
    ],
)
def test_a_service_account_that_a_pattern_matches_is_allowed(patterns: list[str]) -> None:
    AllowList(patterns).authorize(ServiceAccount("default", "alice"))


@pytest.mark.parametrize(
    "patterns",
    [
        ["default/bob"],
        ["default/alic"],
        ["default/lice"],
        ["efault/alice"],
        ["kube-*/*"],
        ["default/[!a]*"],
        ["default/alice?"],
        ["a*/default"],
        ["default/a", "default/b"],
    ],
)
def test_a_service_account_that_no_pattern_matches_is_denied(patterns: list[str]) -> None:
    with pytest.raises(NotAllowed, match="default/alice is not among"):
        AllowList(patterns).authorize(ServiceAccount("default", "alice"))


def test_a_dot_in_a_pattern_matches_a_dot_alone() -> None:
    AllowList(["default/a.b"]).authorize(ServiceAccount("default", "a.b"))
    with pytest.raises(NotAllowed):
        AllowList(["default/a.b"]).authorize(ServiceAccount("default", "axb"))


@pytest.mark.parametrize("patterns", [["alice"], ["/alice"], ["default/"], ["/"], [""], ["default/a/b"], ["a", "b/c"]])
def test_a_pattern_without_a_namespace_and_a_name_is_an_error(patterns: list[str]) -> None:
    with pytest.raises(ValueError, match=r'^invalid pattern .*: expected the form "namespace/name"'):
        AllowList(patterns)


def test_an_allow_list_without_a_pattern_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one pattern"):
        AllowList([])


@pytest.mark.parametrize(
    "pattern",
    [
        "kube-system/alice",
        "7/7",
        "a--b/c--d",
        "[a-d]?*/*.[!.]*",
        "[!x]/[]a]",
        "*-*/*.*",
        "n" * 63 + "/" + "a" * 253,
        "*" * 300 + "/a",
    ],
)
def test_a_pattern_that_a_kubernetes_name_can_match_is_accepted(pattern: str) -> None:
    AllowList([pattern])


@pytest.mark.parametrize(
    ("pattern", "part"),
    [
        ("Default/alice", "namespace can match 'Default'"),
        ("default/Alice", "service account can match 'Alice'"),
        ('["default/alice"]', "namespace can match"),
        ("default/[A-Z]*", "service account can match"),
        ("default/alice ", "service account can match"),
        ("default/al_ce", "service account can match"),
        ("default/system:serviceaccount:default:alice", "service account can match"),
        ("default/*Alice*", "service account can match"),
        ("default/[alice", "service account can match"),
        ("-a/alice", "namespace can match"),
        ("a-/alice", "namespace can match"),
        ("a*-/alice", "namespace can match"),
        ("a.b/alice", "namespace can match"),
        ("default/.a", "service account can match"),
        ("default/a.", "service account can match"),
        ("default/a..b", "service account can match"),
        ("default/a.-b", "service account can match"),
        ("default/a-.b", "service account can match"),
        ("n" * 64 + "/a", "namespace can match"),
        ("default/" + "?" * 254, "service account can match"),
        ("\xe4/a", "namespace can match"),
    ],
)
def test_a_pattern_that_no_kubernetes_name_can_match_is_an_error(pattern: str, part: str) -> None:
    with pytest.raises(ValueError, match=part.replace("[", r"\[")) as raised:
        AllowList(["default/*", pattern])
    assert "expected lower-case letters, digits" in str(raised.value)
    assert len(str(raised.value)) < 300


def test_an_allow_list_is_a_value() -> None:
    allow = AllowList(["default/*", "a/b"])
    for copied in (AllowList(("default/*", "a/b")), copy.deepcopy(allow), pickle.loads(pickle.dumps(allow))):
        assert (copied, hash(copied)) == (allow, hash(allow))
        copied.authorize(ServiceAccount("default", "alice"))
    assert allow != AllowList(["default/*"])
    assert allow != ("default/*", "a/b")


def test_an_allow_list_shows_its_patterns() -> None:
    assert repr(AllowList(["default/*", "a/b"])) == "AllowList(['default/*', 'a/b'])"
