"""Arguments of tool calls that were cut off, and the argument that the gateway injected."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline_server.providers.arguments import completed, without_argument

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text(max_size=4), VALUES, max_size=5)


def within(part: Any, whole: Any) -> bool:
    """Is all of `part` what `whole` says?"""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(key in whole and within(part[key], whole[key]) for key in part)
    if isinstance(part, list):
        return isinstance(whole, list) and len(part) <= len(whole) and all(map(within, part, whole))
    return type(part) is type(whole) and part == whole


@given(OBJECTS, st.booleans())
@settings(deadline=None)
def test_a_copy_of_any_prefix_says_what_is_complete_in_it_and_nothing_that_the_whole_does_not_say(
    value: dict[str, Any], ascii_only: bool
) -> None:
    text, ends = "{", {}
    for name, inner in value.items():
        text += json.dumps(name, ensure_ascii=ascii_only) + ": " + json.dumps(inner, ensure_ascii=ascii_only)
        # What follows a number says that it has ended.
        ends[name] = len(text) + 1
        text += ", "
    text = text.removesuffix(", ") + "}"
    assert json.loads(text) == value

    for end in range(1, len(text)):
        copy = completed(text[:end])

        assert copy is not None
        found = json.loads(copy)
        assert within(found, value)
        assert {name for name, ended in ends.items() if ended <= end} <= found.keys()
        assert all(found[name] == value[name] for name, ended in ends.items() if ended <= end)


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


@pytest.mark.parametrize("numerals", ["1", "-", "1.5e", "1,"])
def test_a_long_number_costs_no_more_than_its_length(numerals: str) -> None:
    """As a runaway model writes it: it is neither an error nor a reason to hold up everybody else."""
    text = '{"a": 1, "b": [' + numerals * 200_000

    began = time.perf_counter()
    copy = completed(text)

    assert time.perf_counter() - began < 5
    assert copy is None or json.loads(copy)["a"] == 1


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
