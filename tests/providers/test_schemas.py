"""Schemas of tools are sent as given, unless the strict form or an argument that says why was asked for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from trunkline.v1 import completion_pb2
from trunkline_server.errors import LLMError
from trunkline_server.providers.arguments import without_argument
from trunkline_server.providers.schemas import (
    NO_ARGUMENTS,
    arguments_with_reasoning,
    parameters_of,
    strict_schema,
    with_argument,
)

LAST = completion_pb2.REASONING_ARGUMENT_POSITION_LAST
SCHEMA = (
    '{"type": "object", "properties": {"z": {"type":"string" , "title":"Z"}, "a": {"$ref":"#/$defs/A"}}, '
    '"required": ["z"]}'
)


def argument(name: str = "why", position: completion_pb2.ReasoningArgumentPosition.ValueType = 0) -> Any:  # type: ignore[assignment]
    return completion_pb2.ReasoningArgument(name=name, position=position)


def strict(schema: Any) -> Any:
    return json.loads(strict_schema(json.dumps(schema)))


def test_a_schema_is_sent_as_given_or_as_one_without_arguments():
    spec = completion_pb2.CompletionSpec()

    assert parameters_of(completion_pb2.FunctionTool(parameters_json_schema=SCHEMA), spec) == SCHEMA
    assert parameters_of(completion_pb2.FunctionTool(), spec) == NO_ARGUMENTS


def test_the_injected_argument_is_required_and_the_others_keep_their_bytes():
    first, last = with_argument(SCHEMA, argument()), with_argument(SCHEMA, argument(position=LAST))

    assert list(json.loads(first)["properties"]) == ["why", "z", "a"]
    assert list(json.loads(last)["properties"]) == ["z", "a", "why"]
    assert json.loads(first)["required"] == ["why", "z"]
    assert json.loads(last)["required"] == ["z", "why"]
    for text in (first, last):
        assert '{"type":"string" , "title":"Z"}' in text
        assert json.loads(text)["properties"]["why"]["type"] == "string"


@pytest.mark.parametrize("schema", [NO_ARGUMENTS, "{}", '{"type":"object"}', "[]"])
def test_the_argument_goes_into_a_schema_without_any(schema):
    made = json.loads(with_argument(schema, argument()))

    assert (made["type"], list(made["properties"]), made["required"]) == ("object", ["why"], ["why"])


@pytest.mark.parametrize("position", [0, LAST])
def test_what_was_taken_out_of_the_arguments_goes_back_in(position):
    sent = arguments_with_reasoning('{"a":1.0,"b":{"x":"é"}}', "because", argument(position=position))

    rest, reasoning = without_argument(sent, "why")
    assert (json.loads(rest), reasoning) == ({"a": 1.0, "b": {"x": "é"}}, "because")
    assert list(json.loads(sent)).index("why") == (2 if position else 0)


def test_the_strict_form_closes_objects_and_requires_all():
    made = strict(json.loads(SCHEMA))

    assert made["additionalProperties"] is False
    assert made["required"] == ["z", "a"]
    assert made["properties"]["z"] == {"type": "string", "title": "Z"}
    assert made["properties"]["a"] == {"anyOf": [{"$ref": "#/$defs/A"}, {"type": "null"}]}


@pytest.mark.parametrize(
    ("optional", "nullable"),
    [
        ({"type": "string"}, {"type": ["string", "null"]}),
        ({"type": ["string", "integer"]}, {"type": ["string", "integer", "null"]}),
        ({"type": ["string", "null"]}, {"type": ["string", "null"]}),
        ({"type": "null"}, {"type": "null"}),
        ({"type": "string", "enum": ["a"]}, {"type": ["string", "null"], "enum": ["a", None]}),
        ({"anyOf": [{"type": "string"}]}, {"anyOf": [{"type": "string"}, {"type": "null"}]}),
        ({"anyOf": [{"type": "null"}, {"type": "string"}]}, {"anyOf": [{"type": "null"}, {"type": "string"}]}),
        ({"const": 1}, {"anyOf": [{"const": 1}, {"type": "null"}]}),
        (True, True),
        (False, {"anyOf": [False, {"type": "null"}]}),
    ],
)
def test_an_optional_property_becomes_nullable(optional, nullable):
    assert strict({"type": "object", "properties": {"a": optional}})["properties"]["a"] == nullable


def test_the_strict_form_reaches_every_object():
    inner = {"type": "object", "properties": {"x": {"type": "string"}}, "required": ["x"]}
    schema = {
        "type": "object",
        "properties": {"list": {"type": "array", "items": inner}, "either": {"anyOf": [inner]}},
        "required": ["list", "either"],
        "$defs": {"Inner": inner},
    }

    made = strict(schema)

    for found in (
        made["properties"]["list"]["items"],
        made["properties"]["either"]["anyOf"][0],
        made["$defs"]["Inner"],
    ):
        assert found["additionalProperties"] is False


def test_an_object_that_is_open_on_purpose_stays_open():
    a_map = {"type": "object", "additionalProperties": {"type": "string"}}

    assert strict(a_map) == a_map
    assert strict({"type": "object"}) == {
        "type": "object",
        "properties": {},
        "required": [],
        "additionalProperties": False,
    }


def test_the_callers_schema_is_not_changed_by_the_strict_form_twice():
    once = strict_schema(SCHEMA)

    assert strict_schema(once) == once


def test_a_schema_nested_without_end_is_an_error():
    schema = '{"items":' * 5000 + "{}" + "}" * 5000

    with pytest.raises(LLMError):
        strict_schema(schema)
