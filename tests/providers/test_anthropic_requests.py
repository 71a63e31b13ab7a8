"""Anthropic's requests: parameters, tools and options, and what is said of that which cannot be sent."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.providers.anthropic_specs import DIALECT, TOOLS, USER, body_of, encoded, paths, spec_of, target_of

from trunkline_server.errors import LLMBadRequestError
from trunkline_server.providers.base import Capabilities, Notes, Target

# -- parameters -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "model", "wanted"),
    [
        ("", "claude-sonnet-4-5", {"max_tokens": 64_000}),
        ("", "a-model-of-someone-else", {"max_tokens": 4096}),
        ("reasoning { budget_tokens: 9000 }", "a-model-of-someone-else", {
            "max_tokens": 9000 + 4096, "thinking": {"type": "enabled", "budget_tokens": 9000},
        }),
        ("max_output_tokens: 9 temperature: 0.5 top_k: 7 stop_sequences: 'a' stop_sequences: 'b'", "claude-haiku-4-5", {
            "max_tokens": 9, "temperature": 0.5, "top_k": 7, "stop_sequences": ["a", "b"],
        }),
        ("top_p: 0.0 service_tier: 'standard_only' n: 1 logprobs: false", "claude-opus-4-1-20250805", {
            "max_tokens": 32_000, "top_p": 0.0, "service_tier": "standard_only",
        }),
        ("temperature: 0.2 top_p: 0.9", "claude-3-haiku-20240307", {
            "max_tokens": 4096, "temperature": 0.2, "top_p": 0.9,
        }),
        ("temperature: 1.0", "claude-opus-4-8", {"max_tokens": 128_000}),
        ("max_output_tokens: 4000 reasoning { budget_tokens: 2000 }", "claude-sonnet-4-5", {
            "max_tokens": 4000, "thinking": {"type": "enabled", "budget_tokens": 2000},
        }),
        ("max_output_tokens: 10000 reasoning { effort: REASONING_EFFORT_MEDIUM }", "claude-sonnet-4-5", {
            "max_tokens": 10_000, "thinking": {"type": "enabled", "budget_tokens": 5000},
        }),
        ("max_output_tokens: 1025 reasoning { effort: REASONING_EFFORT_MAX }", "claude-sonnet-4-5", {
            "max_tokens": 1025, "thinking": {"type": "enabled", "budget_tokens": 1024},
        }),
        ("reasoning { effort: REASONING_EFFORT_NONE }", "claude-sonnet-4-5", {
            "max_tokens": 64_000, "thinking": {"type": "disabled"},
        }),
        ("reasoning { budget_tokens: 0 }", "claude-sonnet-4-5", {
            "max_tokens": 64_000, "thinking": {"type": "disabled"},
        }),
        ("reasoning { effort: REASONING_EFFORT_NONE }", "claude-sonnet-5-5", {
            "max_tokens": 128_000, "thinking": {"type": "between_tools"},
        }),
        ("reasoning { effort: REASONING_EFFORT_NONE }", "claude-3-5-haiku-latest", {"max_tokens": 8192}),
        ("reasoning { effort: REASONING_EFFORT_MINIMAL }", "us.anthropic.claude-opus-4-6-v1", {
            "max_tokens": 128_000, "thinking": {"type": "adaptive"}, "output_config": {"effort": "low"},
        }),
        ("reasoning { effort: REASONING_EFFORT_MAX include: true }", "claude-opus-4-6", {
            "max_tokens": 128_000, "thinking": {"type": "adaptive"}, "output_config": {"effort": "max"},
        }),
        ("reasoning { effort: REASONING_EFFORT_XHIGH include: true }", "claude-opus-5", {
            "max_tokens": 128_000, "thinking": {"type": "adaptive", "display": "summarized"},
            "output_config": {"effort": "xhigh"},
        }),
        ("reasoning { effort: REASONING_EFFORT_HIGH include: false }", "claude-opus-4-5-20251101", {
            "max_tokens": 64_000, "thinking": {"type": "enabled", "budget_tokens": 51_200, "display": "omitted"},
            "output_config": {"effort": "high"},
        }),
        ("reasoning { include: true }", "claude-fable-5", {
            "max_tokens": 128_000, "thinking": {"type": "adaptive", "display": "summarized"},
        }),
        ("reasoning { include: true }", "claude-sonnet-4-5", {"max_tokens": 64_000}),
        ("reasoning { budget_tokens: 3000 effort: REASONING_EFFORT_LOW }", "claude-sonnet-4-6", {
            "max_tokens": 128_000, "thinking": {"type": "enabled", "budget_tokens": 3000},
            "output_config": {"effort": "low"},
        }),
        ("temperature: 1.0 top_p: 0.95 reasoning { budget_tokens: 2000 }", "claude-sonnet-4-0", {
            "max_tokens": 64_000, "temperature": 1.0, "top_p": 0.95,
            "thinking": {"type": "enabled", "budget_tokens": 2000},
        }),
    ],
)  # fmt: skip
def test_parameters_are_sent_as_the_model_takes_them(params: str, model: str, wanted: dict[str, Any]):
    body = body_of(f"{USER} params {{ {params} }}", model)

    assert {name: value for name, value in body.items() if name not in ("model", "messages")} == wanted


@pytest.mark.parametrize(
    ("spec", "model", "noted"),
    [
        ("params { n: 2 }", "", ["dropped params.n"]),
        ("params { seed: 7 }", "", ["dropped params.seed"]),
        ("params { min_p: 0.1 }", "", ["dropped params.min_p"]),
        ("params { frequency_penalty: 1 presence_penalty: 1 repetition_penalty: 2 }", "", [
            "dropped params.frequency_penalty", "dropped params.presence_penalty", "dropped params.repetition_penalty",
        ]),
        ("params { logit_bias { key: '1' value: 1 } }", "", ["dropped params.logit_bias"]),
        ("params { logprobs: true top_logprobs: 2 }", "", ["dropped params.logprobs", "dropped params.top_logprobs"]),
        ("params { verbosity: VERBOSITY_LOW }", "", ["dropped params.verbosity"]),
        ("params { temperature: 1.5 }", "", ["altered params.temperature"]),
        ("params { temperature: 0.5 top_p: 0.5 }", "", ["dropped params.top_p"]),
        ("params { temperature: 0.5 top_k: 3 }", "claude-opus-5", [
            "dropped params.temperature", "dropped params.top_k",
        ]),
        ("params { temperature: 0.5 top_p: 0.5 reasoning { budget_tokens: 2000 } }", "", [
            "dropped params.temperature", "dropped params.top_p",
        ]),
        ("params { max_output_tokens: 2000 reasoning { budget_tokens: 2000 } }", "", [
            "altered params.reasoning.budget_tokens",
        ]),
        ("params { reasoning { budget_tokens: 10 } }", "", ["altered params.reasoning.budget_tokens"]),
        ("params { max_output_tokens: 100 reasoning { effort: REASONING_EFFORT_LOW } }", "", [
            "dropped params.reasoning.effort",
        ]),
        ("params { reasoning { budget_tokens: 2000 } }", "claude-opus-4-8", ["altered params.reasoning.budget_tokens"]),
        ("params { reasoning { effort: REASONING_EFFORT_NONE } }", "claude-opus-5-5", [
            "dropped params.reasoning.effort",
        ]),
        ("params { reasoning { effort: REASONING_EFFORT_LOW } }", "claude-3-5-haiku-latest", [
            "dropped params.reasoning.effort",
        ]),
        ("params { reasoning { effort: REASONING_EFFORT_XHIGH } }", "claude-opus-4-6", [
            "altered params.reasoning.effort",
        ]),
        ("params { reasoning { effort: REASONING_EFFORT_LOW budget_tokens: 2000 } }", "", [
            "dropped params.reasoning.effort",
        ]),
        ("response_format { json_object {} }", "", ["dropped response_format.json_object"]),
        ("response_format { grammar { regex: 'a' } }", "", ["dropped response_format.grammar"]),
        ("response_format { json_schema { json_schema: '{}' } }", "claude-3-haiku-20240307", [
            "dropped response_format.json_schema",
        ]),
        ("response_format { json_schema { json_schema: '{}' description: 'd' } }", "", [
            "dropped response_format.json_schema.description",
        ]),
        ("previous_response_id: 'r'", "", ["dropped previous_response_id"]),
        ("store: true", "", ["dropped store"]),
        ("audio_output { voice: 'v' format: 'f' }", "", ["dropped audio_output"]),
        ("tools { function { name: 'f' } } max_tool_calls: 2", "", ["dropped max_tool_calls"]),
        ("tools { function { name: 'f' } } tool_choice { tool_name: 'f' }", "claude-opus-5-5", ["altered tool_choice"]),
        ("messages { role: ROLE_USER name: 'n' parts { text { text: 'x' } } }", "", ["dropped messages[1].name"]),
    ],
)  # fmt: skip
def test_what_anthropic_cannot_express_is_named(spec: str, model: str, noted: list[str]):
    _, notes = encoded(f"{USER} {spec}", model or "claude-sonnet-4-5")

    assert paths(notes) == noted


@pytest.mark.parametrize("text", ["store: false", "params { n: 1 logprobs: false }", "response_format { text {} }"])
def test_what_is_so_anyway_is_not_worth_a_word(text: str):
    assert set(body_of(f"{USER} {text}")) == {"model", "max_tokens", "messages"}


def test_a_parameter_that_the_target_does_not_take_is_named():
    target = Target("a", "anthropic", "claude-sonnet-4-5", Capabilities(params=frozenset({"max_output_tokens"})))
    spec = spec_of(USER + "params { max_output_tokens: 5000 temperature: 0.5 reasoning { budget_tokens: 2000 } }")
    notes = Notes()

    made = DIALECT.encode(spec, target, notes, stream=False)

    assert set(json.loads(made.body)) == {"model", "max_tokens", "messages"}
    assert paths(notes) == ["dropped params.temperature", "dropped params.reasoning"]


# -- tools ------------------------------------------------------------------------------------------------------------

FUNCTION = {"name": "f", "description": "does f", "input_schema": {"type": "object"}, "strict": True}


def test_tools_are_sent_with_their_schemas_and_marks():
    assert body_of(USER + TOOLS)["tools"] == [
        FUNCTION,
        {
            "name": "g",
            "input_schema": {"type": "object", "properties": {}},
            "cache_control": {"type": "ephemeral", "ttl": "1h"},
        },
        {
            "type": "web_search_20250305",
            "name": "web_search",
            "max_uses": 2,
            "cache_control": {"type": "ephemeral"},
        },
    ]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", None),
        ("tool_choice { mode: TOOL_CHOICE_MODE_AUTO }", {"type": "auto"}),
        ("tool_choice { mode: TOOL_CHOICE_MODE_NONE } max_tool_calls: 1", {"type": "none"}),
        ("tool_choice { mode: TOOL_CHOICE_MODE_REQUIRED }", {"type": "any"}),
        ('tool_choice { tool_name: "f" }', {"type": "tool", "name": "f"}),
        ("params { parallel_tool_calls: true }", None),
        ("params { parallel_tool_calls: false }", {"type": "auto", "disable_parallel_tool_use": True}),
        ("max_tool_calls: 1", {"type": "auto", "disable_parallel_tool_use": True}),
        (
            'tool_choice { tool_name: "f" } params { parallel_tool_calls: false }',
            {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
        ),
    ],
)
def test_the_choice_of_tools_is_sent(text: str, wanted: dict[str, Any] | None):
    assert body_of(USER + TOOLS + text).get("tool_choice") == wanted


def test_of_allowed_tools_only_those_are_sent():
    body = body_of(
        USER + TOOLS + 'tool_choice { allowed { tool_names: ["f", "web_search"] mode: TOOL_CHOICE_MODE_REQUIRED } }'
    )

    assert [tool["name"] for tool in body["tools"]] == ["f", "web_search"]
    assert body["tool_choice"] == {"type": "any"}


def test_strict_tools_close_every_object_and_leave_optional_properties_optional():
    schema = '{"type":"object","properties":{"a":{"type":"object","properties":{"b":{"type":"string"}}}}}'

    tool = body_of(
        f"{USER} strict_tools: true tools {{ function {{ name: 'f' parameters_json_schema: '{schema}' }} }}"
    )["tools"][0]

    assert tool["strict"] is True
    assert tool["input_schema"]["additionalProperties"] is False
    assert tool["input_schema"]["properties"]["a"] == {
        "type": "object", "properties": {"b": {"type": "string"}}, "additionalProperties": False,
    }  # fmt: skip


def test_the_argument_in_which_the_model_says_why_goes_into_schemas_and_earlier_calls():
    body = body_of(
        """
        messages { role: ROLE_ASSISTANT
          parts { tool_call { id: "a" name: "f" arguments_json: '{"x": 1}' reasoning: "because" } } }
        messages { role: ROLE_TOOL parts { tool_result { tool_call_id: "a" } } }
        tools { function { name: "f" parameters_json_schema: '{"type":"object","properties":{"x":{}}}' } }
        reasoning_argument { name: "why" }
        """
    )

    assert list(body["tools"][0]["input_schema"]["properties"]) == ["why", "x"]
    assert body["messages"][0]["content"][0]["input"] == {"why": "because", "x": 1}


# -- the rest ---------------------------------------------------------------------------------------------------------


def test_a_schema_and_an_end_user_are_sent():
    body = body_of(
        f"""{USER} end_user_id: "u-1" labels {{ key: "team" value: "a" }}
        response_format {{ json_schema {{ name: "answer" json_schema: '{{"type":"object"}}' strict: true }} }}"""
    )

    assert body["output_config"] == {"format": {"type": "json_schema", "schema": {"type": "object"}}}
    assert body["metadata"] == {"user_id": "u-1"}
    assert "labels" not in body


def test_options_of_the_provider_are_merged_last():
    made, _ = encoded(
        USER
        + """
        params { max_output_tokens: 9 temperature: 0.5 }
        response_format { json_schema { json_schema: '{"type":"object"}' } }
        provider_options_json {
          key: "anthropic" value: '{"temperature":null,"output_config":{"effort":"low"},"betas":["b-1"]}'
        }
        provider_options_json { key: "anthropic-eu" value: '{"max_tokens":10,"context_management":{"edits":[]}}' }
        provider_options_json { key: "openai" value: '{"seed":1}' }
        """
    )

    body = json.loads(made.body)
    assert body["max_tokens"] == 10
    assert "temperature" not in body
    assert "seed" not in body
    assert body["output_config"] == {"effort": "low", "format": {"type": "json_schema", "schema": {"type": "object"}}}
    assert dict(made.headers)["anthropic-beta"] == "b-1,context-management-2025-06-27"


@pytest.mark.parametrize(
    ("text", "model", "beta"),
    [
        (USER, "claude-sonnet-4-5", None),
        (
            'messages { role: ROLE_USER parts { document { file_id: "f" } } parts { text { text: "x" } } }',
            "claude-sonnet-4-5",
            "files-api-2025-04-14",
        ),
        (USER + 'tools { provider { type: "computer_20251124" } }', "claude-opus-4-6", "computer-use-2025-11-24"),
        (USER + "params { reasoning { effort: REASONING_EFFORT_LOW } }", "claude-opus-4-5", "effort-2025-11-24"),
        (USER + "params { reasoning { effort: REASONING_EFFORT_LOW } }", "claude-opus-4-6", None),
    ],
)
def test_beta_headers_follow_from_what_is_used(text: str, model: str, beta: str | None):
    made, _ = encoded(text, model)

    assert dict(made.headers).get("anthropic-beta") == beta
    assert dict(made.headers)["anthropic-version"] == "2023-06-01"


def test_a_stream_is_asked_for_at_the_same_place():
    whole, _ = encoded(USER)
    stream, _ = encoded(USER, stream=True)

    assert (whole.path, whole.method) == (stream.path, stream.method) == ("/messages", "POST")
    assert json.loads(stream.body) == {**json.loads(whole.body), "stream": True}


def test_a_count_is_asked_for_without_what_only_an_answer_needs():
    notes = Notes()
    spec = spec_of(
        USER + TOOLS + "params { max_output_tokens: 3000 stop_sequences: 'x' reasoning { budget_tokens: 2000 } }"
    )

    made = DIALECT.encode_count(spec, target_of("claude-sonnet-4-5"), notes)

    body = json.loads(made.body)
    assert made.path == "/messages/count_tokens"
    assert set(body) == {"model", "messages", "tools", "thinking"}
    assert all("strict" not in tool for tool in body["tools"])
    assert DIALECT.decode_count(b'{"input_tokens":14}') == 14


def test_a_json_text_that_does_not_parse_is_the_callers_error():
    for text in (
        "tools { function { name: 'f' parameters_json_schema: '{' } }",
        "tools { provider { type: 'x' config_json: '[]' } }",
        "messages { role: ROLE_USER parts { opaque { type: 'x' json: '7' } } }",
        "response_format { json_schema { json_schema: '{' } }",
    ):
        with pytest.raises(LLMBadRequestError):
            encoded(USER + text)
