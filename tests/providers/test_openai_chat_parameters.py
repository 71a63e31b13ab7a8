"""Tools, formats and parameters of Chat Completions: sent in the provider's words, or named in the notes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.providers import official
from tests.providers.openai_chat_requests import (
    ASSISTANT,
    SCHEMA,
    SYSTEM,
    TOOL,
    USER,
    Media,
    Part,
    asked,
    call,
    function,
    result,
    spec_of,
    text,
)

from trunkline.v1 import completion_pb2, generation_pb2, message_pb2
from trunkline_server.errors import LLMError

NAMED = {"type": "function", "function": {"name": "f"}}
LITTLE, NO_EFFORT = generation_pb2.REASONING_EFFORT_LOW, generation_pb2.REASONING_EFFORT_NONE


# -- tools ------------------------------------------------------------------------------------------------------------


def test_a_function_is_sent_with_its_schema_byte_for_byte():
    spec = spec_of(tools=[function(description="does it", strict=False), function("g", "")])

    request = asked(spec)

    first, second = request.body["tools"]
    assert first == {
        "type": "function",
        "function": {"name": "f", "description": "does it", "parameters": json.loads(SCHEMA), "strict": False},
    }
    assert SCHEMA in request.raw
    assert second["function"]["parameters"] == {"type": "object", "properties": {}}


def test_a_provider_tool_is_sent_as_it_is():
    tool = completion_pb2.Tool(provider=completion_pb2.ProviderTool(type="web_search", config_json='{"depth": 2}'))

    assert asked(spec_of(tools=[tool]), "zai", "m").body["tools"] == [{"type": "web_search", "depth": 2}]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"mode": completion_pb2.TOOL_CHOICE_MODE_AUTO}, "auto"),
        ({"mode": completion_pb2.TOOL_CHOICE_MODE_NONE}, "none"),
        ({"mode": completion_pb2.TOOL_CHOICE_MODE_REQUIRED}, "required"),
        ({"tool_name": "f"}, NAMED),
        (
            {"allowed": completion_pb2.AllowedTools(tool_names=["f"])},
            {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [NAMED]}},
        ),
    ],
)
def test_every_tool_choice_has_its_form(choice, expected):
    spec = spec_of(tools=[function(), function("g")], tool_choice=completion_pb2.ToolChoice(**choice))

    assert asked(spec).body["tool_choice"] == expected


def test_allowed_tools_are_the_only_ones_where_there_is_no_word_for_it():
    allowed = completion_pb2.AllowedTools(tool_names=["g"], mode=completion_pb2.TOOL_CHOICE_MODE_REQUIRED)
    spec = spec_of(tools=[function(), function("g")], tool_choice=completion_pb2.ToolChoice(allowed=allowed))

    request = asked(spec, "groq", "m")

    assert [tool["function"]["name"] for tool in request.body["tools"]] == ["g"]
    assert request.body["tool_choice"] == "required"


def test_a_model_that_chooses_by_itself_gets_no_tools_instead_of_none():
    none = completion_pb2.ToolChoice(mode=completion_pb2.TOOL_CHOICE_MODE_NONE)
    required = completion_pb2.ToolChoice(mode=completion_pb2.TOOL_CHOICE_MODE_REQUIRED)

    assert "tools" not in asked(spec_of(tools=[function()], tool_choice=none), "zai", "m").body
    assert asked(spec_of(tools=[function()], tool_choice=required), "zai", "m").unsupported == {
        "tool_choice": "PARAMETER_DROPPED"
    }


def test_one_call_at_a_time_is_asked_for_by_either_field():
    only_one = spec_of(tools=[function()], max_tool_calls=1)
    three = spec_of(tools=[function()], max_tool_calls=3)
    not_parallel = spec_of(tools=[function()], params=generation_pb2.GenerationParams(parallel_tool_calls=False))

    for spec in (only_one, not_parallel):
        assert asked(spec).body["parallel_tool_calls"] is False
    assert asked(not_parallel, "deepseek", "m").unsupported == {"params.parallel_tool_calls": "PARAMETER_DROPPED"}
    assert asked(only_one, "deepseek", "m").unsupported == {"max_tool_calls": "PARAMETER_DROPPED"}
    assert asked(three).unsupported == {"max_tool_calls": "PARAMETER_DROPPED"}
    assert "parallel_tool_calls" not in asked(spec_of(params=not_parallel.params)).body


def test_strict_tools_and_the_reasoning_argument_change_the_schema_sent():
    spec = spec_of(
        (USER, [text("?")]),
        (
            ASSISTANT,
            [Part(tool_call=message_pb2.ToolCall(id="c", name="f", arguments_json='{"b":"x"}', reasoning="so"))],
        ),
        (TOOL, [result(text("ok"), call_id="c")]),
        tools=[function()],
        strict_tools=True,
        reasoning_argument=completion_pb2.ReasoningArgument(name="why"),
    )

    request = asked(spec)

    sent = request.body["tools"][0]["function"]
    assert sent["strict"] is True
    assert list(sent["parameters"]["properties"]) == ["why", "b", "a"]
    assert sent["parameters"]["required"] == ["why", "b", "a"]
    assert sent["parameters"]["additionalProperties"] is False
    assert request.messages[1]["tool_calls"][0]["function"]["arguments"] == '{"why":"so","b":"x"}'


# -- the shape of the answer ------------------------------------------------------------------------------------------


def formatted(**kind: Any) -> completion_pb2.CompletionSpec:
    return spec_of(response_format=completion_pb2.ResponseFormat(**kind))


def test_a_schema_for_the_answer_is_sent_byte_for_byte():
    spec = formatted(json_schema=completion_pb2.JsonSchemaFormat(json_schema=SCHEMA, description="d", strict=True))

    request = asked(spec)

    assert request.body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "response", "description": "d", "schema": json.loads(SCHEMA), "strict": True},
    }
    assert SCHEMA in request.raw


def test_json_is_asked_for_where_no_schema_is_taken():
    spec = formatted(json_schema=completion_pb2.JsonSchemaFormat(json_schema=SCHEMA))

    request = asked(spec, "deepseek", "m")

    assert request.body["response_format"] == {"type": "json_object"}
    assert request.unsupported == {"response_format.json_schema": "PARAMETER_ALTERED"}


def test_plain_text_and_any_json_are_asked_for_as_such():
    assert "response_format" not in asked(formatted(text=completion_pb2.TextFormat())).body
    assert asked(formatted(json_object=completion_pb2.JsonObjectFormat())).body["response_format"] == {
        "type": "json_object"
    }


def test_grammars_go_where_a_provider_takes_them():
    grammar = formatted(grammar=completion_pb2.GrammarFormat(ebnf='root ::= "a"'))

    assert asked(grammar, "llamacpp", "m").body["grammar"] == 'root ::= "a"'
    assert asked(grammar, "vllm", "m").body["structured_outputs"] == {"grammar": 'root ::= "a"'}
    assert asked(grammar, "fireworks", "m").body["response_format"] == {"type": "grammar", "grammar": 'root ::= "a"'}
    assert asked(grammar).unsupported == {"response_format.grammar.ebnf": "PARAMETER_DROPPED"}


# -- parameters -------------------------------------------------------------------------------------------------------


def with_params(**params: Any) -> completion_pb2.CompletionSpec:
    return spec_of(params=generation_pb2.GenerationParams(**params))


def test_parameters_are_sent_under_their_names():
    spec = with_params(
        max_output_tokens=10,
        temperature=0.5,
        top_p=0.25,
        frequency_penalty=1,
        presence_penalty=-1,
        seed=2**40,
        stop_sequences=["a", "b"],
        logit_bias={"50256": -100, "1": 0.5},
        top_logprobs=3,
        n=2,
        service_tier="flex",
    )

    request = asked(spec)

    body = {name: value for name, value in request.body.items() if name not in ("model", "messages")}
    assert body == {
        "max_completion_tokens": 10,
        "temperature": 0.5,
        "top_p": 0.25,
        "frequency_penalty": 1.0,
        "presence_penalty": -1.0,
        "seed": 2**40,
        "stop": ["a", "b"],
        "logit_bias": {"50256": -100, "1": 0.5},
        "logprobs": True,
        "top_logprobs": 3,
        "n": 2,
        "service_tier": "flex",
    }
    assert request.unsupported == {}


def test_parameters_have_the_providers_own_names():
    sampled = with_params(seed=1, repetition_penalty=1.1, max_output_tokens=5, top_logprobs=2)

    assert asked(sampled, "mistral", "m").body["random_seed"] == 1
    assert asked(sampled, "llamacpp", "m").body["repeat_penalty"] == 1.1
    assert asked(sampled, "groq", "m").body["max_completion_tokens"] == 5
    assert asked(sampled, "together", "m").body["logprobs"] == 2
    assert asked(with_params(logprobs=True), "together", "m").body["logprobs"] == 1


def test_parameters_that_a_model_does_not_take_are_named():
    spec = with_params(temperature=0.5, top_k=4, logit_bias={"1": 1}, verbosity=generation_pb2.VERBOSITY_LOW)

    assert set(asked(spec, "openai", "gpt-5-mini").unsupported) == {
        "params.temperature", "params.top_k", "params.logit_bias",
    }  # fmt: skip
    assert set(asked(spec, "openai", "gpt-5.2").unsupported) == {"params.top_k"}
    assert set(asked(spec, "openai", "gpt-4o").unsupported) == {"params.top_k", "params.verbosity"}


def test_asking_for_what_happens_anyway_is_nothing_to_refuse():
    usual = with_params(temperature=1, top_p=1, n=1, logprobs=False)

    request = asked(usual, "openai", "o3")

    assert request.unsupported == {}
    assert not {"temperature", "top_p", "logprobs"} & request.body.keys()
    assert asked(usual, "perplexity", "sonar").unsupported == {}


@pytest.mark.parametrize(
    ("kind", "config", "expected"),
    [
        ("openai", {"effort": LITTLE}, {"reasoning_effort": "low"}),
        ("openrouter", {"effort": LITTLE, "include": False}, {"reasoning": {"effort": "low", "exclude": True}}),
        ("openrouter", {"budget_tokens": 2000}, {"reasoning": {"max_tokens": 2000}}),
        ("zai", {"effort": NO_EFFORT}, {"thinking": {"type": "disabled"}}),
        ("zai", {"effort": LITTLE}, {"thinking": {"type": "enabled"}}),
        ("zai", {"include": True}, {"thinking": {"type": "enabled"}}),
        ("deepseek", {"effort": LITTLE}, {"thinking": {"type": "enabled"}, "reasoning_effort": "low"}),
        ("deepseek", {"effort": NO_EFFORT}, {"thinking": {"type": "disabled"}}),
        ("alibaba", {"budget_tokens": 100}, {"enable_thinking": True, "thinking_budget": 100}),
        ("alibaba", {"effort": NO_EFFORT}, {"enable_thinking": False}),
        ("vllm", {"effort": NO_EFFORT}, {"chat_template_kwargs": {"enable_thinking": False}}),
        ("vllm", {"effort": LITTLE}, {"reasoning_effort": "low"}),
        ("groq", {"include": False}, {"include_reasoning": False}),
    ],
)
def test_effort_is_told_in_the_providers_way(kind, config, expected):
    request = asked(with_params(reasoning=generation_pb2.ReasoningConfig(**config)), kind, "gpt-5.2")

    assert {name: value for name, value in request.body.items() if name not in ("model", "messages")} == expected
    assert request.unsupported == {}


@pytest.mark.parametrize(
    ("kind", "model", "effort", "word"),
    [
        ("zai", "glm-5.2", "HIGH", "high"),
        ("zai", "glm-5.3", "MEDIUM", "high"),
        ("zai", "glm-4.7", "HIGH", None),
        ("groq", "openai/gpt-oss-120b", "LOW", "low"),
        ("groq", "qwen/qwen3-32b", "LOW", "default"),
        ("groq", "qwen/qwen3-32b", "NONE", "none"),
    ],
)
def test_effort_is_told_in_the_words_of_the_model(kind, model, effort, word):
    level = generation_pb2.ReasoningEffort.Value(f"REASONING_EFFORT_{effort}")
    request = asked(with_params(reasoning=generation_pb2.ReasoningConfig(effort=level)), kind, model)

    assert request.body.get("reasoning_effort") == word
    altered = word not in (None, "default", effort.lower())
    assert request.unsupported == ({"params.reasoning.effort": "PARAMETER_ALTERED"} if altered else {})


@pytest.mark.parametrize(
    ("kind", "config", "path"),
    [
        ("openai", {"budget_tokens": 5}, "params.reasoning.budget_tokens"),
        ("openai", {"include": True}, "params.reasoning.include"),
        ("openai", {"effort": generation_pb2.REASONING_EFFORT_MAX}, "params.reasoning.effort"),
        ("zai", {"include": False}, "params.reasoning.include"),
    ],
)
def test_reasoning_that_cannot_be_had_is_named(kind, config, path):
    request = asked(with_params(reasoning=generation_pb2.ReasoningConfig(**config)), kind, "gpt-5.2")

    assert list(request.unsupported) == [path]


# -- the rest ---------------------------------------------------------------------------------------------------------


def test_the_end_user_is_named_in_the_providers_words():
    spec = spec_of(end_user_id="u1")

    assert asked(spec).body["safety_identifier"] == "u1"
    assert asked(spec, "groq", "m").body["user"] == "u1"
    assert "u1" not in asked(spec, "mistral", "m").raw


def test_storing_and_going_on_are_sent_or_named():
    assert asked(spec_of(store=True)).body["store"] is True
    assert asked(spec_of(store=True), "groq", "m").unsupported == {"store": "PARAMETER_DROPPED"}
    assert asked(spec_of(store=False), "groq", "m").unsupported == {}
    assert asked(spec_of(previous_response_id="resp_1")).unsupported == {"previous_response_id": "PARAMETER_DROPPED"}


def test_an_answer_with_sound_is_asked_for():
    spec = spec_of(audio_output=completion_pb2.AudioOutput(voice="alloy", format="mp3"))

    body = asked(spec, model="gpt-audio").body

    assert (body["modalities"], body["audio"]) == (["text", "audio"], {"voice": "alloy", "format": "mp3"})
    assert asked(spec, "groq", "m").unsupported == {"audio_output": "PARAMETER_DROPPED"}


def test_labels_are_never_sent():
    assert "secret-project" not in asked(spec_of(labels={"team": "secret-project"})).raw


def test_provider_options_are_merged_last_and_only_to_their_provider():
    spec = spec_of(
        params=generation_pb2.GenerationParams(temperature=0.5, max_output_tokens=5),
        provider_options_json={
            "openai": '{"temperature": null, "prediction": {"type": "content"}, "max_completion_tokens": 7}',
            "groq": '{"citation_options": "enabled"}',
        },
    )

    request = asked(spec, stream=True)

    assert "temperature" not in request.body
    assert request.body["prediction"] == {"type": "content"}
    assert request.body["max_completion_tokens"] == 7
    assert "citation_options" not in request.body


def test_options_of_the_configured_name_win_over_those_of_the_kind():
    spec = spec_of(provider_options_json={"openai": '{"a": 1, "b": 1}', "openai-eu": '{"b": 2}'})

    request = asked(spec, name="openai-eu")

    assert (request.body["a"], request.body["b"]) == (1, 2)


def test_requests_are_what_the_official_client_would_send():
    spec = spec_of(
        (SYSTEM, [text("Be brief.")]),
        (USER, [text("see"), Part(image=Media(data=b"\x89PNG", mime_type="image/png"))]),
        (ASSISTANT, [text("ok"), call()]),
        (TOOL, [result(text("one"))]),
        tools=[function()],
        tool_choice=completion_pb2.ToolChoice(tool_name="f"),
        response_format=completion_pb2.ResponseFormat(
            json_schema=completion_pb2.JsonSchemaFormat(json_schema=SCHEMA, strict=True)
        ),
        params=generation_pb2.GenerationParams(
            max_output_tokens=5, stop_sequences=["x"], verbosity=generation_pb2.VERBOSITY_LOW, seed=1
        ),
        end_user_id="u",
        store=False,
    )

    for stream in (False, True):
        official.openai_chat(asked(spec, model="gpt-5.2", stream=stream).body)


def test_text_that_is_no_json_where_json_must_be_is_an_error_and_no_crash():
    with pytest.raises(LLMError):
        asked(spec_of(tools=[function(schema="{")]))
