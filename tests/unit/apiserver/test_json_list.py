"""Lists of the Kubernetes API, decoded one item after the other."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podproof._apiserver.json_list import parse_list

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def unchanged(item: Any) -> Any:
    return item


@pytest.mark.usefixtures("without_coverage")
@given(
    items=st.lists(VALUES, max_size=4),
    metadata=st.dictionaries(st.text(), VALUES, max_size=3),
    more=st.dictionaries(st.text().filter(lambda name: name not in ("items", "metadata")), VALUES, max_size=3),
    first=st.booleans(),
    style=st.fixed_dictionaries({"indent": st.sampled_from([None, 1, "\t"]), "ensure_ascii": st.booleans()}),
)
def test_a_list_says_what_json_loads_says(
    items: list[Any], metadata: dict[str, Any], more: dict[str, Any], first: bool, style: Any
) -> None:
    listed: dict[str, Any] = {"items": items, "metadata": metadata}
    document = listed | more if first else more | listed
    text = json.dumps(document, **style).encode(errors="surrogatepass")
    try:
        expected = json.loads(text)
    except UnicodeDecodeError:  # a lone surrogate is no UTF-8
        with pytest.raises(ValueError, match="decode"):
            parse_list(text, unchanged)
        return
    assert parse_list(b" \r\n" + text + b"\n", unchanged) == (expected["items"], expected["metadata"])


WHOLE = b'{"kind": "PodList", "metadata": {"resourceVersion": "5"}, "items": [{"a": [1, 2]}, {}], "x": {}}'


def is_list(text: bytes) -> bool:
    try:
        parse_list(text, unchanged)
    except ValueError:
        return False
    return True


def test_a_list_that_is_cut_off_is_none() -> None:
    assert is_list(WHOLE)
    assert not any(is_list(WHOLE[:length]) for length in range(len(WHOLE)))


@pytest.mark.parametrize(
    "text",
    [
        WHOLE + b"{}",
        WHOLE.replace(b", {}]", b" {}]"),
        WHOLE.replace(b", {}]", b", ]"),
        WHOLE.replace(b'"items": [', b'"items" ['),
        WHOLE.replace(b'"items": [', b'"items": {'),
        WHOLE.replace(b'"items"', b'"item"'),
        WHOLE.replace(b'"metadata"', b'"meta"'),
        WHOLE.replace(b'{"resourceVersion": "5"}', b"5"),
        b'{"items": null, "metadata": {}}',
        b"[]",
        b"\xff",
    ],
)
def test_what_is_no_list_is_denied(text: bytes) -> None:
    assert not is_list(text)


def test_an_empty_list_has_no_items() -> None:
    assert parse_list(b'{"items":[],"metadata":{}}', unchanged) == ([], {})
    with pytest.raises(ValueError, match="items and metadata"):
        parse_list(b"{}", unchanged)


def test_each_item_is_decoded_when_the_one_before_is_done_with() -> None:
    seen: list[Any] = []
    with pytest.raises(ValueError, match="Expecting value"):
        parse_list(WHOLE.replace(b", {}]", b", junk]"), seen.append)
    assert seen == [{"a": [1, 2]}]
