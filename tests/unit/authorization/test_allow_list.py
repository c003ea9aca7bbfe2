from __future__ import annotations

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
def test_whom_a_pattern_matches_may_call(patterns: list[str]) -> None:
    AllowList(patterns).authorize(ServiceAccount("default", "alice"))


@pytest.mark.parametrize(
    "patterns",
    [
        ["default/bob"],
        ["default/alic"],
        ["default/lice"],
        ["default/Alice"],
        ["efault/alice"],
        ["kube-*/*"],
        ["default/[!a]*"],
        ["default/alice?"],
        ["a*/default"],
        ["default/a", "default/b"],
    ],
)
def test_whom_none_matches_may_not(patterns: list[str]) -> None:
    with pytest.raises(NotAllowed, match="default/alice is not among"):
        AllowList(patterns).authorize(ServiceAccount("default", "alice"))


def test_a_dot_in_a_name_is_a_dot() -> None:
    AllowList(["default/a.b"]).authorize(ServiceAccount("default", "a.b"))
    with pytest.raises(NotAllowed):
        AllowList(["default/a.b"]).authorize(ServiceAccount("default", "axb"))


@pytest.mark.parametrize(
    "patterns", [[], ["alice"], ["/alice"], ["default/"], ["/"], [""], ["default/a/b"], ["a", "b/c"]]
)
def test_a_pattern_out_of_form_is_an_error(patterns: list[str]) -> None:
    with pytest.raises(ValueError, match=r"pattern|form"):
        AllowList(patterns)


def test_an_allow_list_shows_its_patterns() -> None:
    assert repr(AllowList(["default/*", "a/b"])) == "AllowList(['default/*', 'a/b'])"
