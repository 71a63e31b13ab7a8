"""JSON of providers is read even where it is sloppy, and what we only carry stays as it is."""

from __future__ import annotations

import json
import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from trunkline_server.errors import LLMBadRequestError, LLMInvalidResponseError
from trunkline_server.providers.jsontext import Reader, dumps, embed, loads, merged, text_of, try_loads


class Inner(msgspec.Struct):
    raw: Raw = Raw(b"")


class Outer(msgspec.Struct):
    text: str | None = None
    raw: Raw = Raw(b"")
    inner: Inner | None = None
    many: list[Inner] | None = None
    named: dict[str, Raw] | None = None
    number: float | None = None


READER = Reader(Outer)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def test_verbatim_members_keep_their_bytes():
    assert text_of(READER.read(b'{"raw": {"b" : 1.0,"a":2}, "text":null}').raw) == '{"b" : 1.0,"a":2}'
    assert text_of(READER.read(b'{"raw": null}').raw) == ""
    assert text_of(READER.read(b"{}").raw) == ""


def test_half_a_character_does_not_make_an_answer_unreadable():
    body = b'{"text":"\\ud83d","raw":{"x":"\\ud83d"},"inner":{"raw":[1]},"many":[{"raw":2}],"named":{"a":{"b":3}}}'

    found = READER.read(body)

    assert found.text == "\ud83d"
    assert json.loads(text_of(found.raw)) == {"x": "\ud83d"}
    assert found.inner is not None
    assert found.many is not None
    assert found.named is not None
    assert [text_of(found.inner.raw), text_of(found.many[0].raw), text_of(found.named["a"])] == ["[1]", "2", '{"b": 3}']


def test_bytes_that_are_no_utf8_and_numbers_that_are_none_are_read():
    assert READER.read(b'{"text":"caf\xe9"}').text == "caf�"
    number = READER.read(b'{"number":NaN}').number
    assert number is not None
    assert math.isnan(number)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"null", b"[]", b"<html>", b'{"text":3}', b'{"text":"\\ud83d","many":3}', b"[" * 100_000]
)
def test_what_is_not_the_promised_json_says_so_and_is_kept(body):
    with pytest.raises(LLMInvalidResponseError) as caught:
        READER.read(body)

    assert caught.value.body == body


@given(JSON)
def test_what_is_written_is_read_again(value):
    assert loads(dumps(value)) == value


def test_half_a_character_is_written_as_an_escape():
    assert json.loads(dumps({"a": ["\ud83d", Raw(b"[1]")]})) == {"a": ["\ud83d", [1]]}


def test_reading_what_may_be_no_json():
    assert try_loads(b"[1]") == [1]
    assert try_loads("{") is None


def test_json_of_the_callers_is_embedded_byte_for_byte():
    text = ' {"b": 1.50, "a":[ ]} '

    assert dumps({"x": embed(text)}).decode() == f'{{"x":{text}}}'
    with pytest.raises(LLMBadRequestError):
        embed("{")


@pytest.mark.parametrize(
    ("target", "patch", "expected"),
    [
        # The examples of RFC 7396, appendix A.
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
        ({"a": Raw(b'{"b":1}')}, {"a": {"c": 2}}, {"a": {"b": 1, "c": 2}}),
    ],
)
def test_a_patch_is_merged_as_the_rfc_says(target, patch, expected):
    assert merged(target, patch) == expected


def test_merging_changes_neither_side():
    target, patch = {"a": {"b": 1}}, {"a": {"c": {"d": None}}}

    merged(target, patch)

    assert (target, patch) == ({"a": {"b": 1}}, {"a": {"c": {"d": None}}})
