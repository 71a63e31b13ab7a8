"""Gemini's requests: parameters, tools and options, and what is said of that which cannot be sent."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.genai import types
from tests.providers.gemini_wire import DIALECT, USER, body_of, encoded, paths, spec_of, target_of

from trunkline_server.errors import LLMBadRequestError
from trunkline_server.providers.base import Notes

TOOLS = """
tools { function { name: "f" description: "does f" parameters_json_schema: '{"type":"object","properties":{}}' } }
tools { function { name: "g" } }
tools { provider { type: "googleSearch" } }
tools { provider { type: "fileSearch" config_json: '{"fileSearchStoreNames":["fileSearchStores/a"]}' } }
"""


# -- parameters -------------------------------------------------------------------------------------------------------

LEVEL, BUDGET = "reasoning { effort: REASONING_EFFORT_%s }", "reasoning { budget_tokens: %s }"


@pytest.mark.parametrize(
    ("params", "model", "wanted"),
    [
        ("max_output_tokens: 9 temperature: 0.5 top_p: 0.25 top_k: 7 seed: 3 n: 2", "gemini-2.5-flash", {
            "maxOutputTokens": 9, "temperature": 0.5, "topP": 0.25, "topK": 7, "seed": 3, "candidateCount": 2,
        }),
        ("frequency_penalty: 0.5 presence_penalty: -0.5 stop_sequences: 'a' stop_sequences: 'b'", "gemini-2.0-flash", {
            "frequencyPenalty": 0.5, "presencePenalty": -0.5, "stopSequences": ["a", "b"],
        }),
        ("logprobs: true", "gemini-2.5-flash", {"responseLogprobs": True}),
        ("top_logprobs: 4", "gemini-2.5-flash", {"responseLogprobs": True, "logprobs": 4}),
        ("logprobs: false temperature: 0", "gemini-2.5-flash", {"temperature": 0.0}),
        (LEVEL % "NONE", "gemini-2.5-flash", {"thinkingConfig": {"thinkingBudget": 0}}),
        (LEVEL % "NONE", "gemini-2.0-flash", {}),
        (LEVEL % "MINIMAL", "gemini-2.5-flash", {"thinkingConfig": {"thinkingBudget": 1024}}),
        (LEVEL % "MEDIUM", "gemini-2.5-pro", {"thinkingConfig": {"thinkingBudget": 8192}}),
        (LEVEL % "HIGH", "gemini-2.5-flash-lite", {"thinkingConfig": {"thinkingBudget": 24_576}}),
        (LEVEL % "MAX", "gemini-2.5-pro", {"thinkingConfig": {"thinkingBudget": 32_768}}),
        (LEVEL % "LOW", "gemini-3-pro-preview", {"thinkingConfig": {"thinkingLevel": "low"}}),
        (LEVEL % "MINIMAL", "gemini-3-pro-preview", {"thinkingConfig": {"thinkingLevel": "low"}}),
        (LEVEL % "MINIMAL", "gemini-3.5-flash", {"thinkingConfig": {"thinkingLevel": "minimal"}}),
        (LEVEL % "MEDIUM", "gemini-3.1-pro-preview", {"thinkingConfig": {"thinkingLevel": "medium"}}),
        (LEVEL % "MAX", "gemini-3-flash-preview", {"thinkingConfig": {"thinkingLevel": "high"}}),
        (BUDGET % 512, "gemini-2.5-flash", {"thinkingConfig": {"thinkingBudget": 512}}),
        (BUDGET % 0, "gemini-2.5-flash-lite", {"thinkingConfig": {"thinkingBudget": 0}}),
        (BUDGET % 6400, "gemini-3-pro-preview", {"thinkingConfig": {"thinkingBudget": 6400}}),
        (BUDGET % 100, "tunedModels/mine", {"thinkingConfig": {"thinkingBudget": 100}}),
        ("reasoning { include: true }", "gemini-2.5-flash", {"thinkingConfig": {"includeThoughts": True}}),
        ("reasoning { effort: REASONING_EFFORT_LOW include: false }", "gemini-3.5-flash", {
            "thinkingConfig": {"thinkingLevel": "low", "includeThoughts": False},
        }),
    ],
)  # fmt: skip
def test_parameters_are_sent_as_the_model_takes_them(params: str, model: str, wanted: dict[str, Any]):
    body = body_of(f"{USER} params {{ {params} }}", model)

    assert body.get("generationConfig", {}) == wanted
    types.GenerationConfig.model_validate(wanted)


@pytest.mark.parametrize(
    ("spec", "model", "noted"),
    [
        ("params { min_p: 0.1 }", "", ["dropped params.min_p"]),
        ("params { repetition_penalty: 2 }", "", ["dropped params.repetition_penalty"]),
        ("params { logit_bias { key: '1' value: 1 } }", "", ["dropped params.logit_bias"]),
        ("params { verbosity: VERBOSITY_LOW }", "", ["dropped params.verbosity"]),
        (f"params {{ {LEVEL % 'LOW'} }}", "gemini-2.0-flash", ["dropped params.reasoning.effort"]),
        (f"params {{ {BUDGET % 9} }}", "gemini-1.5-pro", ["dropped params.reasoning.budget_tokens"]),
        (f"params {{ {LEVEL % 'NONE'} }}", "gemini-2.5-pro", ["altered params.reasoning.effort"]),
        (f"params {{ {BUDGET % 0} }}", "gemini-3-pro-preview", ["altered params.reasoning.budget_tokens"]),
        (f"params {{ {LEVEL % 'MEDIUM'} }}", "gemini-3-pro-preview", ["altered params.reasoning.effort"]),
        (f"params {{ {LEVEL % 'XHIGH'} }}", "gemini-3.5-flash", ["altered params.reasoning.effort"]),
        (f"params {{ {BUDGET % 100} }}", "gemini-2.5-flash-lite", ["altered params.reasoning.budget_tokens"]),
        (f"params {{ {BUDGET % 100} }}", "gemini-3-pro-image-preview", ["dropped params.reasoning.budget_tokens"]),
        ("params { reasoning { effort: REASONING_EFFORT_LOW budget_tokens: 2000 } }", "", [
            "dropped params.reasoning.effort",
        ]),
        ("params { parallel_tool_calls: false } tools { function { name: 'f' } }", "", [
            "dropped params.parallel_tool_calls",
        ]),
        ("tools { function { name: 'f' } } max_tool_calls: 1", "", ["dropped max_tool_calls"]),
        ("response_format { grammar { regex: 'a' } }", "", ["dropped response_format.grammar"]),
        ("response_format { json_object {} }", "gemini-2.5-flash-image", ["dropped response_format.json_object"]),
        ("response_format { json_schema { json_schema: '{}' description: 'd' } }", "", [
            "dropped response_format.json_schema.description",
        ]),
        ("tools { function { name: 'f' } }", "gemini-2.5-flash-preview-tts", ["dropped tools"]),
        ("audio_output { voice: 'Kore' format: 'mp3' }", "", ["altered audio_output.format"]),
        ("previous_response_id: 'r'", "", ["dropped previous_response_id"]),
        ("store: true", "", ["dropped store"]),
        ("end_user_id: 'u'", "", ["dropped end_user_id"]),
    ],
)  # fmt: skip
def test_what_gemini_cannot_express_is_named(spec: str, model: str, noted: list[str]):
    _, notes = encoded(USER + spec, model or "gemini-2.5-flash")

    assert paths(notes) == noted


@pytest.mark.parametrize("text", ["store: false", "params { parallel_tool_calls: true logprobs: false }"])
def test_what_is_so_anyway_is_not_worth_a_word(text: str):
    assert set(body_of(USER + text)) == {"contents"}


# -- tools and formats ------------------------------------------------------------------------------------------------


def test_functions_stand_in_one_list_and_tools_of_the_provider_beside_it():
    tools = body_of(USER + TOOLS)["tools"]

    assert tools == [
        {
            "functionDeclarations": [
                {"name": "f", "description": "does f", "parametersJsonSchema": {"type": "object", "properties": {}}},
                {"name": "g"},
            ]
        },
        {"googleSearch": {}},
        {"fileSearch": {"fileSearchStoreNames": ["fileSearchStores/a"]}},
    ]
    for tool in tools:
        types.Tool.model_validate(tool)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", None),
        ("tool_choice { mode: TOOL_CHOICE_MODE_AUTO }", {"mode": "AUTO"}),
        ("tool_choice { mode: TOOL_CHOICE_MODE_NONE }", {"mode": "NONE"}),
        ("tool_choice { mode: TOOL_CHOICE_MODE_REQUIRED }", {"mode": "ANY"}),
        ("tool_choice { tool_name: 'f' }", {"mode": "ANY", "allowedFunctionNames": ["f"]}),
        ("tool_choice { allowed { tool_names: ['f', 'g'] mode: TOOL_CHOICE_MODE_REQUIRED } }", {
            "mode": "ANY", "allowedFunctionNames": ["f", "g"],
        }),
        ("tool_choice { allowed { tool_names: 'g' } }", {"mode": "VALIDATED", "allowedFunctionNames": ["g"]}),
        ("strict_tools: true", {"mode": "VALIDATED"}),
        ("strict_tools: true tool_choice { mode: TOOL_CHOICE_MODE_REQUIRED }", {"mode": "ANY"}),
        ("tools { function { name: 'h' strict: true } }", {"mode": "VALIDATED"}),
        ("tools { function { name: 'h' strict: true } } strict_tools: false", None),
    ],
)  # fmt: skip
def test_the_choice_of_tools_is_sent(text: str, wanted: dict[str, Any] | None):
    sent = body_of(USER + TOOLS + text).get("toolConfig", {}).get("functionCallingConfig")

    assert sent == wanted
    if wanted is not None:
        types.FunctionCallingConfig.model_validate(wanted)


def test_strict_tools_close_every_object_and_leave_optional_properties_optional():
    schema = '{"type":"object","properties":{"a":{"type":"object","properties":{}}}}'
    text = f"tools {{ function {{ name: 'f' parameters_json_schema: '{schema}' }} }} strict_tools: true"

    (tool,) = body_of(USER + text)["tools"]

    sent = tool["functionDeclarations"][0]["parametersJsonSchema"]
    assert (sent["additionalProperties"], sent["properties"]["a"]["additionalProperties"]) == (False, False)
    assert "required" not in sent


def test_the_argument_in_which_the_model_says_why_goes_into_schemas_and_earlier_calls():
    text = """
    messages { role: ROLE_USER parts { text { text: "go" } } }
    messages { role: ROLE_ASSISTANT parts { tool_call {
        id: "1" name: "g" arguments_json: '{"a":1}' reasoning: "so"
    } } }
    messages { role: ROLE_TOOL parts { tool_result { tool_call_id: "1" } } }
    reasoning_argument { name: "why" }
    """
    body = body_of(text + "tools { function { name: 'g' } }")

    schema = body["tools"][0]["functionDeclarations"][0]["parametersJsonSchema"]
    assert schema["required"] == ["why"]
    assert body["contents"][1]["parts"][0]["functionCall"]["args"] == {"why": "so", "a": 1}


def test_formats_are_sent_as_types_and_schemas():
    schema = '{"type": "object", "properties": {"a": {"type": "integer"}}}'

    assert body_of(USER + "response_format { json_object {} }")["generationConfig"] == {
        "responseMimeType": "application/json"
    }
    assert body_of(USER + f"response_format {{ json_schema {{ name: 'n' json_schema: '{schema}' }} }}")[
        "generationConfig"
    ] == {"responseMimeType": "application/json", "responseJsonSchema": json.loads(schema)}
    assert set(body_of(USER + "response_format { text {} }")) == {"contents"}


def test_a_voice_is_asked_for():
    config = body_of(USER + "audio_output { voice: 'Kore' format: 'pcm16' }", "gemini-2.5-flash-preview-tts")[
        "generationConfig"
    ]

    assert config == {
        "responseModalities": ["AUDIO"],
        "speechConfig": {"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": "Kore"}}},
    }
    types.GenerationConfig.model_validate(config)


def test_options_of_the_provider_are_merged_last():
    options = {
        "safetySettings": [{"category": "HARM_CATEGORY_HATE_SPEECH", "threshold": "OFF"}],
        "cachedContent": "c/1",
    }
    spec = spec_of(USER + "params { temperature: 1 service_tier: 'flex' }")
    spec.provider_options_json["gemini"] = json.dumps({**options, "generationConfig": {"mediaResolution": "M"}})
    spec.provider_options_json["gemini-eu"] = '{"serviceTier": null, "generationConfig": {"topK": 3}}'
    spec.provider_options_json["openai"] = '{"never": 1}'

    body = json.loads(DIALECT.encode(spec, target_of("gemini-2.5-flash"), Notes(), stream=False).body)

    assert {name: body[name] for name in options} == options
    assert body["generationConfig"] == {"temperature": 1.0, "mediaResolution": "M", "topK": 3}
    assert not {"never", "serviceTier"} & body.keys()


# -- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("gemini-2.5-flash", "/models/gemini-2.5-flash"),
        ("models/gemini-2.5-flash", "/models/gemini-2.5-flash"),
        ("tunedModels/mine-7", "/tunedModels/mine-7"),
        ("a b?c#d", "/models/a%20b%3Fc%23d"),
        ("../files", "/%2E%2E/files"),
        (":deleteAll", "/models/%3AdeleteAll"),
    ],
)
def test_a_model_is_a_place_and_never_another_one(model: str, path: str):
    assert encoded(USER, model)[0].path == f"{path}:generateContent"
    assert encoded(USER, model, stream=True)[0].path == f"{path}:streamGenerateContent?alt=sse"


def test_a_count_is_asked_of_the_whole_request():
    made = DIALECT.encode_count(spec_of(USER + TOOLS), target_of("gemini-2.5-flash"), Notes())

    asked = json.loads(made.body)["generateContentRequest"]
    assert made.path == "/models/gemini-2.5-flash:countTokens"
    assert asked["model"] == "models/gemini-2.5-flash"
    assert set(asked) == {"model", "contents", "tools"}


@pytest.mark.parametrize(
    "text",
    [
        "tools { function { name: 'f' parameters_json_schema: '{' } }",
        "tools { provider { type: 'googleSearch' config_json: '[' } }",
        "response_format { json_schema { json_schema: 'x' } }",
    ],
)
def test_a_json_text_that_does_not_parse_is_the_callers_error(text: str):
    with pytest.raises(LLMBadRequestError):
        encoded(USER + text)
