"""Arguments of tool calls that were cut off, and the argument that the gateway injected."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline_server.providers.arguments import completed, without_argument

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text(), VALUES, max_size=5)


def within(part: Any, whole: Any) -> bool:
    """Is all of `part` what `whole` says?"""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(key in whole and within(part[key], whole[key]) for key in part)
    if isinstance(part, list):
        return isinstance(whole, list) and len(part) <= len(whole) and all(map(within, part, whole))
    return type(part) is type(whole) and part == whole


@given(OBJECTS, st.booleans(), st.data())
def test_a_copy_of_a_prefix_says_nothing_that_the_whole_does_not_say(
    value: dict[str, Any], ascii_only: bool, data: st.DataObject
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    prefix = text[: data.draw(st.integers(1, len(text) - 1))]

    copy = completed(prefix)

    assert copy is not None
    assert within(json.loads(copy), value)


@pytest.mark.parametrize(
    ("text", "copy"),
    [
        ('{"a": "x", "b": 12', '{"a":"x"}'),
        ('{"a": 12345', "{}"),
        ('{"amount": 1000, "to": "acct-1234', '{"amount":1000}'),
        ('{"a": true', '{"a":true}'),
        ('{"a": tru', "{}"),
        ('{"a": [1, {"b": 2}, {"c', '{"a":[1,{"b":2},{}]}'),
        ('{"code": "if (x) {', "{}"),
        ('{"s": "say \\"hi', "{}"),
    ],
)
def test_only_complete_members_are_in_the_copy(text: str, copy: str) -> None:
    assert completed(text) == copy


@pytest.mark.parametrize(
    "text",
    ['{"a": 1}', "{}", "", "[1, 2", "no JSON", '{"a": 1,}x', '{"a": 1e400, "b', "{" * 100_000],
)
def test_there_is_no_copy_of_what_was_not_cut_off(text: str) -> None:
    assert completed(text) is None


def test_the_injected_argument_is_taken_out() -> None:
    assert without_argument('{"why": "to know", "city": "Paris"}', "why") == ('{"city":"Paris"}', "to know")


@pytest.mark.parametrize("text", ['{"city": "Paris"}', '{"city": "Par', "[]"])
def test_arguments_without_the_injected_one_stay_as_they_are(text: str) -> None:
    assert without_argument(text, "why") == (text, None)
