"""All that is asked of a response beside the conversation, held to the official client's types."""

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
    Asked,
    Media,
    Part,
    asked,
    call,
    function,
    result,
    spec_of,
    text,
)
from tests.providers.openai_responses import WHOLE, answer_of, fixture

from trunkline.v1 import completion_pb2, generation_pb2, message_pb2
from trunkline_server.errors import LLMError
from trunkline_server.providers import KINDS, build, usual_key, usual_keys
from trunkline_server.providers import ProviderOptions as Options
from trunkline_server.providers.base import Notes, Target
from trunkline_server.providers.dialects.openai_responses import OpenAIResponses
from trunkline_server.providers.responses import RESPONSES_ROWS

KIND, MODEL = "openai-responses", "gpt-5.4"
NAMED = {"type": "function", "name": "f"}
Choice, Tool = completion_pb2.ToolChoice, completion_pb2.Tool


def responses(spec: completion_pb2.CompletionSpec, model: str = MODEL, kind: str = KIND, **more: Any) -> Asked:
    return asked(spec, kind, model, **more)


def own_tool(kind: str, config: str = "") -> completion_pb2.Tool:
    return Tool(provider=completion_pb2.ProviderTool(type=kind, config_json=config))


# -- tools ------------------------------------------------------------------------------------------------------------


def test_functions_are_flat_and_their_schemas_verbatim():
    request = responses(spec_of(tools=[function(description="does"), function("g", "", strict=False)]))

    first, second = request.body["tools"]
    assert list(first) == ["type", "name", "description", "parameters"]
    assert SCHEMA in request.raw
    assert second == {
        "type": "function",
        "name": "g",
        "parameters": {"type": "object", "properties": {}},
        "strict": False,
    }


def test_the_strict_form_is_made_where_it_is_asked_for():
    (tool,) = responses(spec_of(tools=[function()], strict_tools=True)).body["tools"]

    assert tool["strict"] is True
    assert tool["parameters"]["additionalProperties"] is False
    assert tool["parameters"]["required"] == ["b", "a"]


def test_an_argument_is_injected_where_it_is_asked_for():
    argument = completion_pb2.ReasoningArgument(name="why")

    (tool,) = responses(spec_of(tools=[function()], reasoning_argument=argument)).body["tools"]

    assert list(tool["parameters"]["properties"]) == ["why", "b", "a"]


def test_tools_of_the_provider_are_sent_as_they_are():
    tools = [own_tool("web_search", '{"search_context_size":"low"}'), own_tool("tool_search")]

    assert responses(spec_of(tools=tools)).body["tools"] == [
        {"type": "web_search", "search_context_size": "low"},
        {"type": "tool_search"},
    ]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (Choice(mode=completion_pb2.TOOL_CHOICE_MODE_AUTO), "auto"),
        (Choice(mode=completion_pb2.TOOL_CHOICE_MODE_NONE), "none"),
        (Choice(mode=completion_pb2.TOOL_CHOICE_MODE_REQUIRED), "required"),
        (Choice(tool_name="f"), NAMED),
        (Choice(tool_name="query"), {"type": "custom", "name": "query"}),
        (Choice(tool_name="web_search_preview"), {"type": "web_search_preview"}),
        (Choice(tool_name="shop"), {"type": "mcp", "server_label": "shop"}),
        (
            Choice(allowed=completion_pb2.AllowedTools(tool_names=["f", "web_search_preview"])),
            {"type": "allowed_tools", "mode": "auto", "tools": [NAMED, {"type": "web_search_preview"}]},
        ),
        (
            Choice(
                allowed=completion_pb2.AllowedTools(tool_names=["f"], mode=completion_pb2.TOOL_CHOICE_MODE_REQUIRED)
            ),
            {"type": "allowed_tools", "mode": "required", "tools": [NAMED]},
        ),
        (Choice(), None),
    ],
)
def test_tool_choice_in_all_its_forms(choice, expected):
    tools = [
        function(),
        own_tool("custom", '{"name":"query"}'),
        own_tool("web_search_preview"),
        own_tool("mcp", '{"server_label":"shop"}'),
    ]

    request = responses(spec_of(tools=tools, tool_choice=choice))

    assert request.body.get("tool_choice") == expected
    assert request.unsupported == {}


def test_allowed_tools_are_all_that_is_shown_where_they_cannot_be_named():
    choice = Choice(allowed=completion_pb2.AllowedTools(tool_names=["g"]))

    body = responses(spec_of(tools=[function(), function("g")], tool_choice=choice), "x", "xai-responses").body

    assert [tool["name"] for tool in body["tools"]] == ["g"]
    assert body["tool_choice"] == "auto"


@pytest.mark.parametrize(
    ("fields", "tools", "expected", "dropped"),
    [
        ({"params": {"parallel_tool_calls": True}}, [function()], {"parallel_tool_calls": True}, {}),
        ({"params": {"parallel_tool_calls": False}}, [function()], {"parallel_tool_calls": False}, {}),
        ({"max_tool_calls": 1}, [function()], {"parallel_tool_calls": False}, {}),
        ({"max_tool_calls": 3}, [function()], {}, {"max_tool_calls"}),
        ({"max_tool_calls": 3}, [function(), own_tool("web_search")], {"max_tool_calls": 3}, set()),
        (
            {"max_tool_calls": 1},
            [own_tool("web_search")],
            {"parallel_tool_calls": False, "max_tool_calls": 1},
            set(),
        ),
        ({"max_tool_calls": 3, "params": {"parallel_tool_calls": False}}, [], {}, set()),
    ],
)
def test_how_many_tools_may_be_called(fields, tools, expected, dropped):
    request = responses(spec_of(tools=tools, **fields))

    found = {name: request.body[name] for name in ("parallel_tool_calls", "max_tool_calls") if name in request.body}
    assert (found, set(request.unsupported)) == (expected, set(dropped))


# -- the shape of the answer ------------------------------------------------------------------------------------------


def test_a_schema_for_the_answer_is_verbatim():
    wanted = completion_pb2.JsonSchemaFormat(json_schema=SCHEMA, description="x", strict=True)

    request = responses(spec_of(response_format=completion_pb2.ResponseFormat(json_schema=wanted)))

    assert list(request.body["text"]["format"]) == ["type", "name", "description", "schema", "strict"]
    assert request.body["text"]["format"]["name"] == "response"
    assert SCHEMA in request.raw


def test_any_object_and_free_text():
    anything = completion_pb2.ResponseFormat(json_object=completion_pb2.JsonObjectFormat())
    free = completion_pb2.ResponseFormat(text=completion_pb2.TextFormat())

    assert responses(spec_of(response_format=anything)).body["text"] == {"format": {"type": "json_object"}}
    assert "text" not in responses(spec_of(response_format=free)).body


def test_a_grammar_is_for_tools_only():
    grammar = completion_pb2.ResponseFormat(grammar=completion_pb2.GrammarFormat(regex="a+"))

    assert responses(spec_of(response_format=grammar)).unsupported == {
        "response_format.grammar.regex": "PARAMETER_DROPPED"
    }


def test_verbosity_stands_beside_the_format():
    anything = completion_pb2.ResponseFormat(json_object=completion_pb2.JsonObjectFormat())
    params = generation_pb2.GenerationParams(verbosity=generation_pb2.VERBOSITY_LOW)

    assert responses(spec_of(response_format=anything, params=params)).body["text"] == {
        "format": {"type": "json_object"},
        "verbosity": "low",
    }


# -- parameters -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"max_output_tokens": 5}, {"max_output_tokens": 5}),
        ({"temperature": 0.5, "top_p": 0.9}, {"temperature": 0.5, "top_p": 0.9}),
        ({"service_tier": "flex"}, {"service_tier": "flex"}),
        ({"logprobs": True}, {"include": ["message.output_text.logprobs"]}),
        ({"logprobs": False}, {}),
        ({"top_logprobs": 3}, {"include": ["message.output_text.logprobs"], "top_logprobs": 3}),
        (
            {"logprobs": True, "top_logprobs": 3},
            {"include": ["message.output_text.logprobs"], "top_logprobs": 3},
        ),
        ({"reasoning": {"effort": generation_pb2.REASONING_EFFORT_LOW}}, {"reasoning": {"effort": "low"}}),
        ({"reasoning": {"effort": generation_pb2.REASONING_EFFORT_MAX}}, {"reasoning": {"effort": "max"}}),
        ({"reasoning": {"include": True}}, {"reasoning": {"summary": "auto"}}),
        ({"reasoning": {"include": False}}, {}),
        ({"reasoning": {}}, {}),
        ({"n": 1}, {}),
    ],
)
def test_parameters_have_their_names(params, expected):
    request = responses(spec_of(params=params))

    assert {name: value for name, value in request.body.items() if name not in ("model", "input")} == expected
    assert request.unsupported == {}


@pytest.mark.parametrize(
    ("model", "params", "paths"),
    [
        (MODEL, {"seed": 1, "stop_sequences": ["x"]}, {"params.seed", "params.stop_sequences"}),
        (MODEL, {"n": 2, "top_k": 1, "logit_bias": {"1": 1}}, {"params.n", "params.top_k", "params.logit_bias"}),
        (MODEL, {"reasoning": {"budget_tokens": 100}}, {"params.reasoning.budget_tokens"}),
        ("o3", {"temperature": 0.5}, {"params.temperature"}),
        ("o3", {"temperature": 1.0}, set()),
        ("gpt-4.1", {"reasoning": {"effort": 4}}, {"params.reasoning"}),
    ],
)
def test_what_a_model_does_not_take_is_noted(model, params, paths):
    request = responses(spec_of(params=params), model)

    assert set(request.unsupported) == paths
    assert request.body.keys() == {"model", "input"}


def test_thinking_in_other_words():
    params = {"reasoning": {"effort": generation_pb2.REASONING_EFFORT_MAX, "budget_tokens": 100, "include": False}}

    request = responses(spec_of(params=params), "x", "openrouter-responses")

    assert request.body["reasoning"] == {"effort": "xhigh", "max_tokens": 100}
    assert request.unsupported == {
        "params.reasoning.effort": "PARAMETER_ALTERED",
        "params.reasoning.include": "PARAMETER_DROPPED",
    }


def test_the_rest_of_the_spec():
    spec = spec_of(end_user_id="u", store=False, previous_response_id="resp_1")
    spec.audio_output.voice = "alloy"

    request = responses(spec, "gpt-4.1")

    assert request.body == {
        "model": "gpt-4.1",
        "input": [{"role": "user", "content": "hi"}],
        "safety_identifier": "u",
        "store": False,
        "previous_response_id": "resp_1",
    }
    assert request.unsupported == {"audio_output": "PARAMETER_DROPPED"}


def test_options_of_the_callers_own_are_merged_and_what_they_include_is_included_besides():
    spec = spec_of(store=False)
    spec.provider_options_json[KIND] = '{"truncation":"auto","include":["web_search_call.results"],"store":null}'
    spec.provider_options_json["mine"] = '{"truncation":"disabled"}'

    body = responses(spec, name="mine").body

    assert body["truncation"] == "disabled"
    assert body["include"] == ["reasoning.encrypted_content", "web_search_call.results"]
    assert "store" not in body


def test_tools_that_the_model_does_not_take_are_noted():
    spec = spec_of(tools=[function()])
    capabilities = KINDS[KIND].capabilities_of("m")
    notes = Notes()

    target = Target("x", "x", "m", type(capabilities)(tools=False, quirks=capabilities.quirks))
    request = OpenAIResponses().encode(spec, target, notes, stream=False)

    assert "tools" not in json.loads(request.body)
    assert [path for _, path, _ in notes.unsupported] == ["tools"]


def test_text_that_is_no_json_where_json_must_be_is_an_error_and_no_crash():
    with pytest.raises(LLMError):
        responses(spec_of(tools=[function(schema="{")]))


# -- counting ---------------------------------------------------------------------------------------------------------


def test_tokens_are_counted_for_what_the_model_would_read():
    params = {"max_output_tokens": 5, "reasoning": {"effort": 4}}
    spec = spec_of((SYSTEM, [text("a")]), (USER, [text("b")]), tools=[function()], params=params, store=False)
    notes = Notes()

    target = Target(KIND, KIND, MODEL, KINDS[KIND].capabilities_of(MODEL))
    request = OpenAIResponses().encode_count(spec, target, notes)

    assert request.path == "/responses/input_tokens"
    assert json.loads(request.body).keys() == {"model", "instructions", "input", "tools", "reasoning"}
    official.openai_count(json.loads(request.body))


# -- as the official client has it ------------------------------------------------------------------------------------

#: What was said in all of our fixtures, but for items and pieces that the client has no types for.
_TYPED = ("web_search_call", "code_interpreter_call", "mcp_approval_request")
_SAID = [part for name in WHOLE for part in answer_of(fixture(name)).choices[0].message.parts]
_REPLAYED = [part for part in _SAID if not part.HasField("opaque") or part.opaque.type in _TYPED]
_PICTURE = Part(image=Media(data=b"a", mime_type="image/png", detail=message_pb2.MEDIA_DETAIL_LOW))
_FILE = Part(document=Media(data=b"a", mime_type="application/pdf", filename="a.pdf"))

SPECS: dict[str, dict[str, Any]] = {
    "least": {},
    "tools": {
        "tools": [
            function(description="d", strict=True),
            function("g"),
            own_tool("web_search", '{"search_context_size":"low"}'),
            own_tool("code_interpreter", '{"container":{"type":"auto"}}'),
            own_tool("custom", '{"name":"query","format":{"type":"grammar","syntax":"regex","definition":"a+"}}'),
        ],
        "tool_choice": Choice(allowed=completion_pb2.AllowedTools(tool_names=["f", "query"])),
        "max_tool_calls": 2,
        "params": {"parallel_tool_calls": True},
    },
    "forced tool": {"tools": [function()], "tool_choice": Choice(tool_name="f"), "max_tool_calls": 1},
    "forced search": {"tools": [own_tool("web_search_preview")], "tool_choice": Choice(tool_name="web_search_preview")},
    "schema": {
        "response_format": completion_pb2.ResponseFormat(
            json_schema=completion_pb2.JsonSchemaFormat(json_schema=SCHEMA, name="n", description="d", strict=True)
        ),
        "params": {"verbosity": generation_pb2.VERBOSITY_HIGH},
    },
    "object": {"response_format": completion_pb2.ResponseFormat(json_object=completion_pb2.JsonObjectFormat())},
    "parameters": {
        "params": {
            "max_output_tokens": 100,
            "temperature": 0.5,
            "top_p": 0.5,
            "top_logprobs": 2,
            "service_tier": "flex",
            "reasoning": {"effort": generation_pb2.REASONING_EFFORT_XHIGH, "include": True},
        },
        "end_user_id": "u",
        "store": False,
        "previous_response_id": "resp_1",
    },
}
TURNS: dict[str, list[tuple[Any, list[Part]]]] = {
    "text": [(SYSTEM, [text("s")]), (USER, [text("hi")])],
    "media": [(USER, [text("see"), _PICTURE, _FILE, Part(image=Media(file_id="file-1"))])],
    "tools": [
        (USER, [text("hi")]),
        (ASSISTANT, [call()]),
        (TOOL, [result(text("see"), _PICTURE, _FILE)]),
        (ASSISTANT, [text("so"), Part(refusal=message_pb2.Refusal(text="no"))]),
        (USER, [text("?", cache_control=message_pb2.CacheControl()), text("!")]),
    ],
    "replayed": [(USER, [text("hi")]), (ASSISTANT, _REPLAYED), (USER, [text("?")])],
}


@pytest.mark.parametrize("turns", TURNS)
@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("model", [MODEL, "gpt-5.6"])
def test_what_is_sent_is_what_the_official_client_would_send(spec, turns, model):
    request = responses(spec_of(*TURNS[turns], **SPECS[spec]), model)

    official.openai_responses(request.body)
    assert request.unsupported == {}


# -- rows -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", RESPONSES_ROWS)
def test_every_row_speaks_responses(kind):
    assert responses(spec_of(), "m", kind).path == "/responses"
    provider = build(Options("p", kind, base_url="https://example.org"))
    assert provider.dialect.name == "openai_responses"


@pytest.mark.parametrize(
    ("kind", "address"),
    [
        ("openai-responses", "https://api.openai.com/v1"),
        ("xai-responses", "https://api.x.ai/v1"),
        ("chatgpt", "https://chatgpt.com/backend-api/codex"),
    ],
)
def test_a_row_is_where_its_provider_is(kind, address):
    assert RESPONSES_ROWS[kind].address({}) == address


def test_of_two_kinds_with_one_key_one_is_there_without_a_configuration():
    kinds = dict(usual_keys())

    assert kinds["openai"] == usual_key("openai-responses") == "OPENAI_API_KEY"
    assert not kinds.keys() & RESPONSES_ROWS.keys()
    beside = [row.beside for row in RESPONSES_ROWS.values() if row.beside]
    assert all(KINDS[kind].key_env == usual_key(f"{kind}-responses") for kind in beside)
