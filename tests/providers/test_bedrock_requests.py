"""Converse's requests: what is sent, what AWS's own client would say of it, and what is said of what cannot be sent."""

from __future__ import annotations

import json
from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator
from tests.providers.bedrock_wire import WIRE
from tests.providers.wires import paths

from trunkline.v1 import completion_pb2, message_pb2
from trunkline_server.providers.base import Notes

USER = 'messages { role: ROLE_USER parts { text { text: "hello" } } }'
TOOLS = """
tools {
  function { name: "f" description: "does f" parameters_json_schema: '{"type":"object","b":1,"a":2}' strict: true }
}
tools { function { name: "g" } cache_control { ttl: CACHE_TTL_1H } }
"""
CALLS = """
messages { role: ROLE_USER parts { text { text: "hello" } } }
messages { role: ROLE_ASSISTANT parts { tool_call { id: "t1" name: "f" arguments_json: '{"x": 1.50}' } } }
messages { role: ROLE_TOOL parts { tool_result { tool_call_id: "t1" parts { text { text: "4" } } } } }
"""
NOVA, TITAN, LLAMA = "us.amazon.nova-2-lite-v1:0", "amazon.titan-text-express-v1", "us.meta.llama3-3-70b-instruct-v1:0"
GPT, QWEN, COMMAND = "openai.gpt-oss-120b-1:0", "qwen.qwen3-32b-v1:0", "cohere.command-r-plus-v1:0"
CLAUDE_3, CLAUDE_46 = "anthropic.claude-3-haiku-20240307-v1:0", "us.anthropic.claude-sonnet-4-6"
PROFILE = "arn:aws:bedrock:eu-central-1:123456789012:application-inference-profile/abc123"

_SERVICE = botocore.session.Session().get_service_model("bedrock-runtime")


def faults(operation: str, body: dict[str, Any]) -> str:
    """What AWS's client says of a request."""
    shape = _SERVICE.operation_model(operation).input_shape
    found: str = ParamValidator().validate({"modelId": "m", **body}, shape).generate_report()
    return found


def body_of(spec: str, model: str = "") -> dict[str, Any]:
    body = WIRE.body_of(spec, model)
    assert faults("Converse", body) == ""
    return body


# -- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "stream", "path"),
    [
        ("amazon.nova-lite-v1:0", False, "/model/amazon.nova-lite-v1%3A0/converse"),
        ("eu.anthropic.claude-haiku-4-5-20251001-v1:0", True,
         "/model/eu.anthropic.claude-haiku-4-5-20251001-v1%3A0/converse-stream"),
        (PROFILE, False, ("/model/arn%3Aaws%3Abedrock%3Aeu-central-1%3A123456789012%3A"
         "application-inference-profile%2Fabc123/converse")),
        ("a b/../é?#", False, "/model/a%20b%2F..%2F%C3%A9%3F%23/converse"),
    ],
)  # fmt: skip
def test_a_model_is_one_step_of_the_path_whatever_its_name(model: str, stream: bool, path: str):
    assert WIRE.encoded(USER, model, stream=stream)[0].path == path


@pytest.mark.parametrize("region", ["us", "eu", "apac", "global", "jp"])
def test_tokens_are_counted_by_the_model_and_not_by_its_profile(region: str):
    spec = completion_pb2.CompletionSpec()
    spec.messages.add(role=message_pb2.ROLE_USER).parts.add().text.text = "hi"
    spec.params.temperature = 0.5
    dialect, notes = WIRE.dialect, Notes()

    made = dialect.encode_count(spec, WIRE.target(f"{region}.anthropic.claude-sonnet-4-v1:0"), notes)

    assert made.path == "/model/anthropic.claude-sonnet-4-v1%3A0/count-tokens"
    assert json.loads(made.body) == {"input": {"converse": {"messages": [
        {"role": "user", "content": [{"text": "hi"}]},
    ]}}}  # fmt: skip
    assert faults("CountTokens", json.loads(made.body)) == ""


# -- parameters -------------------------------------------------------------------------------------------------------

EFFORT = "reasoning { effort: REASONING_EFFORT_%s }"


@pytest.mark.parametrize(
    ("params", "model", "wanted"),
    [
        ("", "", {}),
        ("max_output_tokens: 9 temperature: 0.5 stop_sequences: 'a' stop_sequences: 'b'", "", {
            "inferenceConfig": {"maxTokens": 9, "temperature": 0.5, "stopSequences": ["a", "b"]},
        }),
        ("temperature: 0 top_p: 0.25", NOVA, {"inferenceConfig": {"temperature": 0.0, "topP": 0.25}}),
        ("top_k: 7", "", {"additionalModelRequestFields": {"top_k": 7}}),
        ("top_k: 7", NOVA, {"additionalModelRequestFields": {"inferenceConfig": {"topK": 7}}}),
        ("top_k: 7", COMMAND, {"additionalModelRequestFields": {"k": 7}}),
        ("service_tier: 'flex' n: 1 logprobs: false", GPT, {"serviceTier": {"type": "flex"}}),
        ("max_output_tokens: 4000 reasoning { budget_tokens: 2000 }", "", {
            "inferenceConfig": {"maxTokens": 4000},
            "additionalModelRequestFields": {"thinking": {"type": "enabled", "budget_tokens": 2000}},
        }),
        (EFFORT % "NONE", "", {"additionalModelRequestFields": {"thinking": {"type": "disabled"}}}),
        (EFFORT % "LOW", CLAUDE_46, {
            "additionalModelRequestFields": {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}},
        }),
        (EFFORT % "HIGH", "us.anthropic.claude-opus-4-5-20251101-v1:0", {
            "additionalModelRequestFields": {
                "thinking": {"type": "enabled", "budget_tokens": 51_200}, "output_config": {"effort": "high"},
                "anthropic_beta": ["effort-2025-11-24"],
            },
        }),
        (EFFORT % "MEDIUM", NOVA, {
            "additionalModelRequestFields": {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "medium"}},
        }),
        (EFFORT % "NONE", NOVA, {"additionalModelRequestFields": {"reasoningConfig": {"type": "disabled"}}}),
        (EFFORT % "HIGH", GPT, {"additionalModelRequestFields": {"reasoning_effort": "high"}}),
        (EFFORT % "HIGH", QWEN, {"additionalModelRequestFields": {"reasoning_config": "high"}}),
        (EFFORT % "NONE", QWEN, {}),
        (EFFORT % "NONE", LLAMA, {}),
        ("reasoning { budget_tokens: 0 }", LLAMA, {}),
    ],
)  # fmt: skip
def test_parameters_are_sent_as_the_model_takes_them(params: str, model: str, wanted: dict[str, Any]):
    body = body_of(f"{USER} params {{ {params} }}", model)

    assert {name: value for name, value in body.items() if name != "messages"} == wanted


@pytest.mark.parametrize(
    ("spec", "model", "noted"),
    [
        ("params { n: 2 }", "", ["dropped params.n"]),
        ("params { seed: 7 min_p: 0.1 }", "", ["dropped params.min_p", "dropped params.seed"]),
        ("params { frequency_penalty: 1 presence_penalty: 1 repetition_penalty: 2 }", "", [
            "dropped params.frequency_penalty", "dropped params.presence_penalty", "dropped params.repetition_penalty",
        ]),
        ("params { logit_bias { key: '1' value: 1 } verbosity: VERBOSITY_LOW }", NOVA, [
            "dropped params.logit_bias", "dropped params.verbosity",
        ]),
        ("params { logprobs: true top_logprobs: 2 }", NOVA, ["dropped params.logprobs", "dropped params.top_logprobs"]),
        ("params { temperature: 1.5 }", "", ["altered params.temperature"]),
        ("params { temperature: 1.5 }", NOVA, ["altered params.temperature"]),
        ("params { temperature: 0.5 top_p: 0.5 }", "", ["dropped params.top_p"]),
        ("params { top_k: 5 }", LLAMA, ["dropped params.top_k"]),
        ("params { top_k: 5 }", PROFILE, ["dropped params.top_k"]),
        ("params { reasoning { effort: REASONING_EFFORT_MAX } }", NOVA, ["altered params.reasoning.effort"]),
        ("params { reasoning { budget_tokens: 5 } }", GPT, ["dropped params.reasoning.budget_tokens"]),
        ("params { reasoning { effort: REASONING_EFFORT_NONE } }", GPT, ["dropped params.reasoning.effort"]),
        ("params { reasoning { effort: REASONING_EFFORT_HIGH budget_tokens: 5 } }", LLAMA, [
            "dropped params.reasoning.effort", "dropped params.reasoning.budget_tokens",
        ]),
        ("params { reasoning { effort: REASONING_EFFORT_NONE } }", "us.deepseek.r1-v1:0", [
            "dropped params.reasoning.effort",
        ]),
        ("params { reasoning { effort: REASONING_EFFORT_HIGH } }", CLAUDE_3, ["dropped params.reasoning.effort"]),
        ("end_user_id: 'u'", "", ["dropped end_user_id"]),
        ("store: true previous_response_id: 'r'", "", ["dropped previous_response_id", "dropped store"]),
        ("store: false", "", []),
        ("audio_output { voice: 'a' format: 'mp3' }", "", ["dropped audio_output"]),
        ("tools { function { name: 'f' } } max_tool_calls: 3", "", ["dropped max_tool_calls"]),
        ("response_format { json_object {} }", "", ["dropped response_format.json_object"]),
        ("response_format { grammar { regex: 'a' } }", "", ["dropped response_format.grammar"]),
        ("response_format { json_schema { json_schema: '{}' } }", NOVA, ["dropped response_format.json_schema"]),
        ("response_format { text {} }", NOVA, []),
    ],
)  # fmt: skip
def test_what_converse_cannot_say_is_noted_by_its_path(spec: str, model: str, noted: list[str]):
    body, found = WIRE.noted(f"{USER} {spec}", model)

    assert sorted(found) == sorted(noted)
    assert faults("Converse", body) == ""


def test_an_answer_is_held_to_a_schema_as_the_caller_wrote_it():
    schema = '{"type":"object",  "properties":{"b":{},"a":{}}}'
    spec = f"{USER} response_format {{ json_schema {{ name: 'n' description: 'd' json_schema: '{schema}' }} }}"

    assert body_of(spec)["outputConfig"] == {
        "textFormat": {
            "type": "json_schema",
            "structure": {"jsonSchema": {"schema": schema, "name": "n", "description": "d"}},
        }
    }


def test_the_callers_own_options_come_last():
    options = '{"guardrailConfig":{"guardrailIdentifier":"g","guardrailVersion":"1"},"inferenceConfig":{"topP":null}}'
    given = f"provider_options_json {{ key: 'bedrock' value: '{options}' }}"
    spec = f"{USER} params {{ temperature: 0.5 max_output_tokens: 3 }} {given}"

    body = body_of(spec)

    assert body["guardrailConfig"] == {"guardrailIdentifier": "g", "guardrailVersion": "1"}
    assert body["inferenceConfig"] == {"maxTokens": 3, "temperature": 0.5}


# -- tools ------------------------------------------------------------------------------------------------------------


def test_tools_are_declared_with_their_schemas_byte_for_byte():
    body = body_of(USER + TOOLS)

    assert body["toolConfig"] == {
        "tools": [
            {"toolSpec": {"name": "f", "description": "does f", "strict": True,
                          "inputSchema": {"json": {"type": "object", "b": 1, "a": 2}}}},
            {"toolSpec": {"name": "g", "inputSchema": {"json": {"type": "object", "properties": {}}}}},
            {"cachePoint": {"type": "default", "ttl": "1h"}},
        ]
    }  # fmt: skip
    assert b'{"type":"object","b":1,"a":2}' in WIRE.encoded(USER + TOOLS)[0].body


def test_tools_of_aws_are_named_and_those_of_anthropic_are_told_to_its_models():
    ours = 'tools { provider { type: "nova_grounding" } }'
    theirs = """tools { provider { type: "computer_20250124" config_json: '{"display_width_px":9}' } }"""

    assert body_of(USER + ours, NOVA)["toolConfig"] == {"tools": [{"systemTool": {"name": "nova_grounding"}}]}
    assert body_of(USER + theirs)["additionalModelRequestFields"] == {
        "tools": [{"type": "computer_20250124", "name": "computer", "display_width_px": 9}],
        "anthropic_beta": ["computer-use-2025-01-24"],
    }


@pytest.mark.parametrize(
    ("choice", "model", "wanted", "noted"),
    [
        ("", "", None, []),
        ("tool_choice { mode: TOOL_CHOICE_MODE_AUTO }", "", {"auto": {}}, []),
        ("tool_choice { mode: TOOL_CHOICE_MODE_REQUIRED }", "", {"any": {}}, []),
        ("tool_choice { tool_name: 'g' }", NOVA, {"tool": {"name": "g"}}, []),
        ("tool_choice { mode: TOOL_CHOICE_MODE_REQUIRED }", LLAMA, None, ["altered tool_choice"]),
        ("tool_choice { mode: TOOL_CHOICE_MODE_AUTO }", LLAMA, {"auto": {}}, []),
        ("tool_choice { allowed { tool_names: 'f' mode: TOOL_CHOICE_MODE_REQUIRED } }", NOVA, {"any": {}}, []),
        ("tool_choice { allowed { tool_names: 'f' } }", "", {"auto": {}}, []),
        ("params { parallel_tool_calls: false }", NOVA, None, ["dropped params.parallel_tool_calls"]),
        ("max_tool_calls: 1", NOVA, None, ["dropped max_tool_calls"]),
        ("params { parallel_tool_calls: true }", NOVA, None, []),
    ],
)  # fmt: skip
def test_a_choice_of_tools_is_said_in_converses_words(
    choice: str, model: str, wanted: dict[str, Any] | None, noted: list[str]
):
    tools = 'tools { function { name: "f" } } tools { function { name: "g" } }'
    body, found = WIRE.noted(f"{USER} {tools} {choice}", model)

    assert body["toolConfig"].get("toolChoice") == wanted
    assert len(body["toolConfig"]["tools"]) == (1 if "allowed" in choice else 2)
    assert found == noted
    assert faults("Converse", body) == ""


@pytest.mark.parametrize(
    ("choice", "wanted"),
    [
        ("max_tool_calls: 1", {"type": "auto"}),
        ("max_tool_calls: 1 tool_choice { mode: TOOL_CHOICE_MODE_REQUIRED }", {"type": "any"}),
        ("params { parallel_tool_calls: false } tool_choice { tool_name: 'f' }", {"type": "tool", "name": "f"}),
    ],
)
def test_claude_is_told_to_call_one_tool_at_a_time_in_its_own_words(choice: str, wanted: dict[str, Any]):
    body = body_of(f'{USER} tools {{ function {{ name: "f" }} }} {choice}')

    assert body["additionalModelRequestFields"] == {"tool_choice": {**wanted, "disable_parallel_tool_use": True}}
    assert "toolChoice" not in body["toolConfig"]


def test_no_tools_are_sent_where_none_may_be_called_unless_the_conversation_holds_calls():
    tools = 'tools { function { name: "f" } } tool_choice { mode: TOOL_CHOICE_MODE_NONE }'
    declared = {"name": "f", "inputSchema": {"json": {"type": "object", "properties": {}}}}

    assert "toolConfig" not in body_of(USER + tools)
    body, noted = WIRE.noted(CALLS + tools)
    assert body["toolConfig"] == {"tools": [{"toolSpec": declared}]}
    assert noted == ["altered tool_choice"]
    assert body_of(CALLS)["toolConfig"] == {"tools": [{"toolSpec": declared}]}


def test_a_model_that_calls_no_tools_is_not_given_any():
    body, noted = WIRE.noted(USER + TOOLS, TITAN)

    assert (noted, "toolConfig" in body) == (["dropped tools"], False)


# -- conversations ----------------------------------------------------------------------------------------------------


def test_a_conversation_is_said_in_turns_with_results_first():
    spec = """
    messages { role: ROLE_SYSTEM parts { text { text: "Be brief." } cache_control {} } }
    messages { role: ROLE_DEVELOPER parts { text { text: "And kind." } } }
    messages { role: ROLE_USER parts { text { text: "hello" } } parts { text { text: " " } } }
    messages { role: ROLE_USER parts { text { text: "again" } cache_control { ttl: CACHE_TTL_5M } } }
    messages { role: ROLE_ASSISTANT
      parts { reasoning { text: "hm" } signature: "c2ln" } parts { reasoning { encrypted: "ZGF0YQ==" redacted: true } }
      parts { tool_call { id: "t:1" name: "f" arguments_json: '{"x": 1.50}' } }
      parts { tool_call { id: "t/1" name: "g" arguments_json: "" } } }
    messages { role: ROLE_TOOL
      parts { tool_result { tool_call_id: "t:1" parts { text { text: "4" } } } }
      parts { tool_result { tool_call_id: "t/1" is_error: true } } }
    messages { role: ROLE_USER parts { refusal { text: "no" } } }
    """
    body = body_of(spec)

    assert body["system"] == [{"text": "Be brief."}, {"cachePoint": {"type": "default"}}, {"text": "And kind."}]
    assert body["messages"] == [
        {"role": "user", "content": [
            {"text": "hello"}, {"text": "again"}, {"cachePoint": {"type": "default", "ttl": "5m"}},
        ]},
        {"role": "assistant", "content": [
            {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "c2ln"}}},
            {"reasoningContent": {"redactedContent": "ZGF0YQ=="}},
            {"toolUse": {"toolUseId": "t:1", "name": "f", "input": {"x": 1.5}}},
            {"toolUse": {"toolUseId": "t_1", "name": "g", "input": {}}},
        ]},
        {"role": "user", "content": [
            {"toolResult": {"toolUseId": "t:1", "content": [{"text": "4"}]}},
            {"toolResult": {"toolUseId": "t_1", "content": [], "status": "error"}},
            {"text": "no"},
        ]},
    ]  # fmt: skip
    assert b'{"x": 1.50}' in WIRE.encoded(spec)[0].body


def test_ids_of_calls_fit_and_stay_apart():
    calls = "".join(f'parts {{ tool_call {{ id: "{"x" * 70}{n}" name: "f" arguments_json: "{{}}" }} }}' for n in "ab")
    body = body_of(f"messages {{ role: ROLE_ASSISTANT {calls} }}")

    first, second = (block["toolUse"]["toolUseId"] for block in body["messages"][0]["content"])
    assert len(first) == len(second) == 64
    assert first != second


def test_media_are_bytes_or_places_in_s3():
    spec = """
    messages { role: ROLE_USER
      parts { image { data: "png" mime_type: "image/png" } }
      parts { image { uri: "s3://b/a.JPG" } }
      parts { document { data: "pdf" mime_type: "application/pdf" filename: "Année 2025 -- (v1).pdf" } }
      parts { document { data: "csv" mime_type: "text/csv; charset=utf-8" } }
      parts { document { data: "py" mime_type: "text/x-python" } }
      parts { document { uri: "s3://b/d.docx?bucketOwner=123456789012"
        mime_type: "application/vnd.openxmlformats-officedocument.wordprocessingml.document" } }
      parts { video { uri: "s3://b/v" mime_type: "video/3gpp" } } }
    """
    content = body_of(spec, NOVA)["messages"][0]["content"]

    assert content == [
        {"image": {"format": "png", "source": {"bytes": "cG5n"}}},
        {"image": {"format": "jpeg", "source": {"s3Location": {"uri": "s3://b/a.JPG"}}}},
        {"document": {"format": "pdf", "name": "Ann e 2025 -- (v1)", "source": {"bytes": "cGRm"}}},
        {"document": {"format": "csv", "name": "Document 1", "source": {"bytes": "Y3N2"}}},
        {"document": {"format": "txt", "name": "Document 2", "source": {"bytes": "cHk="}}},
        {"document": {"format": "docx", "name": "Document 3", "source": {
            "s3Location": {"uri": "s3://b/d.docx", "bucketOwner": "123456789012"}}}},
        {"video": {"format": "three_gp", "source": {"s3Location": {"uri": "s3://b/v"}}}},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("part", "model", "noted"),
    [
        ('image { uri: "https://example.org/a.png" }', "", "dropped messages[0].parts[1]"),
        ('image { data: "x" mime_type: "image/tiff" }', "", "dropped messages[0].parts[1]"),
        ('image { data: "x" mime_type: "image/png" detail: MEDIA_DETAIL_HIGH }', "",
         "dropped messages[0].parts[1].image.detail"),
        ('image { data: "x" mime_type: "image/png" }', LLAMA, "dropped messages[0].parts[1]"),
        ('video { data: "x" mime_type: "video/mp4" }', "", "dropped messages[0].parts[1]"),
        ('audio { data: "x" mime_type: "audio/wav" }', "", "dropped messages[0].parts[1]"),
        ('document { file_id: "f" mime_type: "application/pdf" }', "", "dropped messages[0].parts[1]"),
        ('document { data: "x" mime_type: "application/zip" }', "", "dropped messages[0].parts[1]"),
        ('text { text: "x" } cache_control {}', LLAMA, "dropped messages[0].parts[1].cache_control"),
        ('text { text: "x" } cache_control { ttl: CACHE_TTL_24H }', "",
         "altered messages[0].parts[1].cache_control.ttl"),
        ('tool_result { tool_call_id: "a" parts { text { text: "x" } cache_control {} } } cache_control {}', "",
         "dropped messages[0].parts[1].tool_result.parts[0].cache_control"),
        ('text { text: "x" citations { title: "t" } }', "", "dropped messages[0].parts[1].text.citations"),
        ('tool_call { id: "a" name: "f" arguments_json: "[1" }', "",
         "altered messages[0].parts[1].tool_call.arguments_json"),
    ],
)  # fmt: skip
def test_what_a_conversation_cannot_say_is_noted(part: str, model: str, noted: str):
    body, found = WIRE.noted(
        f'messages {{ role: ROLE_USER parts {{ text {{ text: "a" }} }} parts {{ {part} }} }}', model
    )

    assert found == [noted]
    assert faults("Converse", body) == ""


def test_instructions_in_the_midst_go_where_the_model_takes_them():
    spec = """
    messages { role: ROLE_USER parts { text { text: "a" } } }
    messages { role: ROLE_SYSTEM parts { text { text: "b" } } parts { image { data: "x" mime_type: "image/png" } } }
    """
    early, early_noted = WIRE.noted(spec)
    turn, _ = WIRE.noted(spec, "us.anthropic.claude-opus-4-8")
    said, said_noted = WIRE.noted(spec, TITAN)

    assert (early["system"], early_noted) == (
        [{"text": "b"}], ["dropped messages[1].parts[1]", "altered messages[1]"],
    )  # fmt: skip
    assert turn["messages"][1] == {"role": "system", "content": [{"text": "b"}]}
    assert (said["messages"], said_noted[-1]) == (
        [{"role": "user", "content": [{"text": "a"}, {"text": "b"}]}], "altered messages[1]",
    )  # fmt: skip


def test_data_of_another_provider_is_left_out_and_told():
    spec = """
    messages { role: ROLE_USER parts { text { text: "a" } } }
    messages { role: ROLE_ASSISTANT
      parts { reasoning { text: "hm" } signature: "s" origin_provider: "gemini" }
      parts { reasoning { text: "unsigned" } }
      parts { opaque { type: "x" json: "{}" } origin_provider: "anthropic" }
      parts { tool_call { id: "s1" name: "web" provider_executed: true } origin_provider: "openai" }
      parts { text { text: "b" citations { raw_json: "{}" } } origin_provider: "anthropic" } }
    """
    made, notes = WIRE.encoded(spec)

    assert json.loads(made.body)["messages"] == [
        {"role": "user", "content": [{"text": "a"}]}, {"role": "assistant", "content": [{"text": "b"}]},
    ]  # fmt: skip
    assert notes.unsupported == []
    assert sorted(paths(notes)) == [
        "foreign messages[1].parts[0]", "foreign messages[1].parts[1]", "foreign messages[1].parts[2]",
        "foreign messages[1].parts[3]", "foreign messages[1].parts[4].text.citations",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["tools.json", "cited.json"])
def test_an_answer_goes_into_the_next_request_as_it_came(name: str):
    answer = WIRE.answer_of(WIRE.fixture(name))
    spec = completion_pb2.CompletionSpec()
    spec.messages.add(role=message_pb2.ROLE_USER).parts.add().text.text = "hi"
    spec.messages.append(answer.choices[0].message)

    body = json.loads(WIRE.encoded(spec)[0].body)

    recorded = json.loads(WIRE.fixture(name))["output"]["message"]["content"]
    for block in recorded:
        if block.get("toolUse", {}).get("type") == "tool_use":
            del block["toolUse"]["type"]
    assert body["messages"][1]["content"] == recorded
    assert faults("Converse", body) == ""


# -- embeddings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "model", "wanted", "noted"),
    [
        ("dimensions: 256", "amazon.titan-embed-text-v2:0", {"inputText": "hi", "dimensions": 256}, []),
        ("dimensions: 256 task: EMBEDDING_TASK_QUERY", "amazon.titan-embed-text-v1", {"inputText": "hi"}, [
            "dropped dimensions", "dropped task",
        ]),
        ("dimensions: 384", "amazon.titan-embed-image-v1", {
            "inputText": "hi", "embeddingConfig": {"outputEmbeddingLength": 384},
        }, []),
        ("", "cohere.embed-english-v3", {"texts": ["hi"], "input_type": "search_document"}, []),
        ("task: EMBEDDING_TASK_QUERY dimensions: 512", "us.cohere.embed-v4:0", {
            "texts": ["hi"], "input_type": "search_query", "output_dimension": 512,
        }, []),
        ("task: EMBEDDING_TASK_SIMILARITY dimensions: 512 end_user_id: 'u'", "cohere.embed-multilingual-v3", {
            "texts": ["hi"], "input_type": "search_document",
        }, ["dropped task", "dropped dimensions", "dropped end_user_id"]),
        ("dimensions: 1024", "amazon.nova-2-multimodal-embeddings-v1:0", {
            "taskType": "SINGLE_EMBEDDING",
            "singleEmbeddingParams": {
                "embeddingPurpose": "GENERIC_INDEX", "embeddingDimension": 1024,
                "text": {"value": "hi", "truncationMode": "NONE"},
            },
        }, []),
    ],
)  # fmt: skip
def test_each_maker_of_embeddings_has_its_own_body(spec: str, model: str, wanted: dict[str, Any], noted: list[str]):
    path, body, found = WIRE.vectors_body(f"inputs {{ text: 'hi' }} {spec}", model)

    assert path.endswith("/invoke")
    assert (body, found) == (wanted, noted)


@pytest.mark.parametrize(
    ("body", "vectors", "tokens"),
    [
        ('{"embedding":[0.5,1],"inputTextTokenCount":3}', [[0.5, 1.0]], 3),
        ('{"embeddings":[[1,2],[3,4]],"texts":["a","b"]}', [[1.0, 2.0], [3.0, 4.0]], None),
        ('{"embeddings":{"float":[[1,2]]}}', [[1.0, 2.0]], None),
        ('{"embeddings":[{"embeddingType":"TEXT","embedding":[1,2]}]}', [[1.0, 2.0]], None),
    ],
)
def test_vectors_come_in_four_shapes(body: str, vectors: list[list[float]], tokens: int | None):
    found = WIRE.dialect.decode_embeddings(body.encode())

    assert found.vectors == vectors
    assert (found.usage.input_tokens if found.usage else None) == tokens
