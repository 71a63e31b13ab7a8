"""What Ollama is asked in its own words, and what it cannot be asked."""

from __future__ import annotations

import base64
import json
from typing import Any

import ollama
import pytest
from ollama import _types as client
from tests.providers.wires import Wire, calls_of, parts_of

from trunkline.v1 import completion_pb2, message_pb2
from trunkline_server.errors import LLMBadRequestError
from trunkline_server.providers.ids import is_made, made_call_id

WIRE = Wire("ollama-native", "qwen3:8b")
OSS = "gpt-oss:20b"
USER = "messages { role: ROLE_USER parts { text { text: 'Hi' } } }"
TOOLS = """
tools { function { name: 'f' description: 'does f' parameters_json_schema: '{"type": "object", "properties": {}}' } }
tools { function { name: 'g' strict: false } }
"""
NOTHING = {"type": "object", "properties": {}}
F = {"type": "function", "function": {"name": "f", "description": "does f", "parameters": NOTHING}}
G = {"type": "function", "function": {"name": "g", "parameters": NOTHING}}

#: What the server takes and its Python client does not name.
_NEWER = {"id", "tool_call_id", "min_p"}


def accepted(body: dict[str, Any]) -> dict[str, Any]:
    """The body, if the official client could have sent it."""
    client.ChatRequest.model_validate(body)
    assert body.keys() <= set(client.ChatRequest.model_fields)
    assert (body.get("options") or {}).keys() <= set(ollama.Options.model_fields) | _NEWER
    for message in body["messages"]:
        # The client itself makes base64 of pictures.
        pictures = [{"value": base64.b64decode(image, validate=True)} for image in message.get("images", ())]
        ollama.Message.model_validate({**message, "images": pictures})
        assert message.keys() <= set(ollama.Message.model_fields) | _NEWER
        for call in message.get("tool_calls") or ():
            assert call.keys() <= set(ollama.Message.ToolCall.model_fields) | _NEWER
    return body


# -- the conversation -------------------------------------------------------------------------------------------------


def test_each_message_is_one_text_and_whether_to_stream_is_always_said():
    spec = """
        messages { role: ROLE_SYSTEM parts { text { text: 'Be brief.' } } }
        messages { role: ROLE_DEVELOPER parts { text { text: 'In German.' } } }
        messages { role: ROLE_USER parts { text { text: 'a' } } parts { text { text: 'b' } } }
        messages { role: ROLE_ASSISTANT
          parts { reasoning { text: 'hm' } } parts { text { text: 'Hal' } } parts { text { text: 'lo' } } }
        messages { role: ROLE_USER parts { image { data: 'PNG' mime_type: 'image/png' } } }
    """
    made, notes = WIRE.encoded(spec, stream=True)

    assert (made.path, notes.unsupported, notes.foreign) == ("/api/chat", [], [])
    assert accepted(json.loads(made.body)) == {
        "model": "qwen3:8b",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "system", "content": "In German."},
            {"role": "user", "content": "a\n\nb"},
            {"role": "assistant", "content": "Hallo", "thinking": "hm"},
            {"role": "user", "content": "", "images": ["UE5H"]},
        ],
        "stream": True,
    }
    assert WIRE.body_of(spec)["stream"] is False


def test_calls_are_objects_and_results_name_their_tool():
    made = made_call_id("r", 0, 0)
    body = WIRE.body_of(f"""
        messages {{ role: ROLE_USER parts {{ text {{ text: 'go' }} }} }}
        messages {{ role: ROLE_ASSISTANT
          parts {{ tool_call {{ id: '{made}' name: 'f' arguments_json: '{{"a": 1.0}}' }} }}
          parts {{ tool_call {{ id: 'call_k3x9' name: 'g' }} }} }}
        messages {{ role: ROLE_TOOL
          parts {{ tool_result {{ tool_call_id: '{made}' name: 'f' parts {{ text {{ text: 'one' }} }} }} }}
          parts {{ tool_result {{ tool_call_id: 'call_k3x9' name: 'g'
            parts {{ image {{ data: 'PNG' mime_type: 'image/png' }} }} }} }} }}
    """)

    # An id that the gateway made is one that the server never heard of.
    assert accepted(body)["messages"][1:] == [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"function": {"name": "f", "arguments": {"a": 1.0}}},
                {"id": "call_k3x9", "function": {"name": "g", "arguments": {}}},
            ],
        },
        {"role": "tool", "content": "one", "tool_name": "f"},
        {"role": "tool", "content": "", "tool_call_id": "call_k3x9", "tool_name": "g", "images": ["UE5H"]},
    ]


def test_arguments_that_are_no_object_are_sent_inside_of_one():
    spec = (
        USER
        + """
        messages { role: ROLE_ASSISTANT parts { tool_call { id: 'c' name: 'f' arguments_json: '{"a": ' } } }
        messages { role: ROLE_TOOL parts { tool_result { tool_call_id: 'c' name: 'f' is_error: true } } }
    """
    )

    body, noted = WIRE.noted(spec)
    assert accepted(body)["messages"][1]["tool_calls"][0]["function"]["arguments"] == {"malformed_arguments": '{"a": '}
    assert noted == [
        "altered messages[1].parts[0].tool_call.arguments_json",
        "remark messages[2].parts[0].tool_result.is_error",
    ]


@pytest.mark.parametrize(
    ("part", "content", "noted"),
    [
        ("image { uri: 'https://x/a.png' }", "x", "dropped messages[0].parts[0].image"),
        ("image { file_id: 'a' }", "x", "dropped messages[0].parts[0].image"),
        ("audio { data: 'x' mime_type: 'audio/wav' }", "x", "dropped messages[0].parts[0]"),
        ("document { data: 'x' mime_type: 'application/pdf' }", "x", "dropped messages[0].parts[0]"),
        ("document { data: 'A lake.' mime_type: 'text/plain' filename: 'l.txt' }", "l.txt:\nA lake.\n\nx",
         "remark messages[0].parts[0].document"),
        ("opaque { type: 'x' json: '{}' } origin_provider: 'openai'", "x", "foreign messages[0].parts[0]"),
        ("opaque { type: 'x' json: '{}' }", "x", "dropped messages[0].parts[0]"),
    ],
)  # fmt: skip
def test_what_a_message_cannot_hold_is_named(part, content, noted):
    body, found = WIRE.noted(f"messages {{ role: ROLE_USER parts {{ {part} }} parts {{ text {{ text: 'x' }} }} }}")

    assert found == [noted]
    assert accepted(body)["messages"][0]["content"] == content


def test_names_and_closeness_are_remarked_on():
    _, noted = WIRE.noted("""
        messages { role: ROLE_USER name: 'ann'
          parts { image { data: 'x' mime_type: 'image/png' detail: MEDIA_DETAIL_HIGH } } }
    """)

    assert noted == ["remark messages[0].parts[0].image.detail", "remark messages[0].name"]


def test_a_result_without_the_tools_name_has_that_of_its_call():
    body = WIRE.body_of("""
        messages { role: ROLE_USER parts { text { text: 'go' } } }
        messages { role: ROLE_ASSISTANT
          parts { tool_call { id: '0' name: 'f' } } parts { tool_call { id: '1' name: 'g' } } }
        messages { role: ROLE_TOOL
          parts { tool_result { tool_call_id: '1' } } parts { tool_result { tool_call_id: '0' name: 'own' } } }
        messages { role: ROLE_ASSISTANT parts { tool_call { id: '0' name: 'h' } } }
        messages { role: ROLE_TOOL parts { tool_result { tool_call_id: '0' } } }
    """)

    results = [message for message in accepted(body)["messages"] if message["role"] == "tool"]
    assert [result["tool_name"] for result in results] == ["g", "own", "h"]


# -- answers go back --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["stream.ndjson", "tools.ndjson", "text.json", "tools.json"])
def test_an_answer_goes_back_as_it_came(name):
    answer = WIRE.answer_of(WIRE.fixture(name))
    spec = completion_pb2.CompletionSpec()
    spec.messages.add(role=message_pb2.ROLE_USER).parts.add().text.text = "go"
    spec.messages.add().CopyFrom(answer.choices[0].message)

    message = accepted(WIRE.body_of(spec))["messages"][1]

    thought, text = (
        "".join(getattr(part, kind).text for part in parts_of(answer) if part.HasField(kind))
        for kind in ("reasoning", "text")
    )
    assert (message.get("thinking", ""), message["content"]) == (thought, text)
    assert [
        (call.get("id"), call["function"]["name"], call["function"]["arguments"])
        for call in message.get("tool_calls", ())
    ] == [
        (None if is_made(call_id) else call_id, name, json.loads(arguments))
        for call_id, name, arguments in calls_of(answer)
    ]


def test_what_another_provider_sealed_stays_behind_but_its_words():
    spec = (
        USER
        + """
        messages { role: ROLE_ASSISTANT
          parts { reasoning { text: 'hm' } signature: 's' origin_provider: 'anthropic' }
          parts { reasoning { encrypted: 'x' redacted: true } origin_provider: 'openai' }
          parts { refusal { text: 'no' } }
          parts { tool_call { id: 'a' name: 'f' provider_executed: true } origin_provider: 'openai' }
          parts { tool_call { id: 'b' name: 'f' } signature: 's' origin_provider: 'gemini' } }
        messages { role: ROLE_TOOL parts { tool_result { tool_call_id: 'b' name: 'f' } } }
    """
    )

    body, noted = WIRE.noted(spec)
    assert accepted(body)["messages"][1] == {
        "role": "assistant",
        "content": "no",
        "thinking": "hm",
        "tool_calls": [{"id": "b", "function": {"name": "f", "arguments": {}}}],
    }
    assert noted == [f"foreign messages[1].parts[{at}]" for at in (0, 1, 3)] + [
        "foreign messages[1].parts[4].signature"
    ]


# -- tools, formats, parameters ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "tools", "noted"),
    [
        ("", [F, G], []),
        ("tool_choice { mode: TOOL_CHOICE_MODE_AUTO }", [F, G], []),
        ("tool_choice { mode: TOOL_CHOICE_MODE_NONE }", None, []),
        ("tool_choice { mode: TOOL_CHOICE_MODE_REQUIRED }", [F, G], ["dropped tool_choice"]),
        ("tool_choice { tool_name: 'g' }", [F, G], ["dropped tool_choice"]),
        ("tool_choice { allowed { tool_names: 'f' } }", [F], []),
        ("tool_choice { allowed { tool_names: 'f' mode: TOOL_CHOICE_MODE_REQUIRED } }", [F], ["dropped tool_choice"]),
        ("params { parallel_tool_calls: false }", [F, G], ["dropped params.parallel_tool_calls"]),
        ("max_tool_calls: 1", [F, G], ["dropped max_tool_calls"]),
    ],
)
def test_which_tools_are_called_is_the_models_to_choose(choice, tools, noted):
    body, found = WIRE.noted(USER + TOOLS + choice)

    assert (accepted(body).get("tools"), found) == (tools, noted)


def test_schemas_of_tools_are_not_enforced():
    assert WIRE.noted(USER + "tools { function { name: 'f' strict: true } }")[1] == ["remark tools[0].function.strict"]
    body, noted = WIRE.noted(USER + "strict_tools: true tools { function { name: 'f' } }")
    assert noted == ["remark strict_tools"]
    assert body["tools"][0]["function"]["parameters"]["additionalProperties"] is False


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ("text {}", None),
        ("json_object {}", "json"),
        ("""json_schema { json_schema: '{"type": "object"}' }""", {"type": "object"}),
    ],
)
def test_the_shape_of_the_answer_is_a_word_or_a_schema(asked, wanted):
    assert accepted(WIRE.body_of(USER + f"response_format {{ {asked} }}")).get("format") == wanted


def test_a_schema_that_does_not_parse_is_a_bad_request():
    with pytest.raises(LLMBadRequestError):
        WIRE.encoded(USER + "response_format { json_schema { json_schema: '{' } }")


@pytest.mark.parametrize(
    ("params", "model", "wanted"),
    [
        ("max_output_tokens: 9 temperature: 0.5 top_p: 0.25 top_k: 7 min_p: 0.125 seed: 3", "", {"options": {
            "num_predict": 9, "temperature": 0.5, "top_p": 0.25, "top_k": 7, "min_p": 0.125, "seed": 3,
        }}),
        ("frequency_penalty: 0.5 presence_penalty: 0.25 repetition_penalty: 1.5 stop_sequences: 'a'", "", {"options": {
            "frequency_penalty": 0.5, "presence_penalty": 0.25, "repeat_penalty": 1.5, "stop": ["a"],
        }}),
        ("logprobs: true", "", {"logprobs": True}),
        ("logprobs: false", "", {}),
        ("top_logprobs: 3", "", {"logprobs": True, "top_logprobs": 3}),
        ("reasoning { effort: REASONING_EFFORT_NONE include: false }", "", {"think": False}),
        ("reasoning { include: true }", "", {"think": True}),
        ("reasoning { effort: REASONING_EFFORT_LOW }", OSS, {"think": "low"}),
        ("reasoning { effort: REASONING_EFFORT_HIGH include: true }", f"me/{OSS}", {"think": "high"}),
        ("reasoning { effort: REASONING_EFFORT_NONE }", OSS, {"think": False}),
    ],
)  # fmt: skip
def test_parameters_are_options_and_thinking_a_switch_or_a_level(params, model, wanted):
    body = accepted(WIRE.body_of(USER + f"params {{ {params} }}", model))

    assert {name: value for name, value in body.items() if name not in ("model", "messages", "stream")} == wanted


@pytest.mark.parametrize(
    ("params", "model", "think", "noted"),
    [
        ("effort: REASONING_EFFORT_HIGH", "", True, ["remark params.reasoning.effort"]),
        ("effort: REASONING_EFFORT_MINIMAL", OSS, "low", ["altered params.reasoning.effort"]),
        ("effort: REASONING_EFFORT_MAX", OSS, "high", ["altered params.reasoning.effort"]),
        ("budget_tokens: 100", "", None, ["dropped params.reasoning.budget_tokens"]),
        ("include: false", "", None, ["remark params.reasoning.include"]),
        ("effort: REASONING_EFFORT_LOW include: false", OSS, "low", ["dropped params.reasoning.include"]),
    ],
)
def test_thinking_that_is_asked_for_otherwise_is_named(params, model, think, noted):
    body, found = WIRE.noted(USER + f"params {{ reasoning {{ {params} }} }}", model)

    assert (accepted(body).get("think"), found) == (think, noted)


@pytest.mark.parametrize(
    ("asked", "noted"),
    [
        ("params { n: 2 }", ["dropped params.n"]),
        ("params { logit_bias { key: '1' value: 2 } }", ["dropped params.logit_bias"]),
        ("params { service_tier: 'flex' verbosity: VERBOSITY_LOW }", [
            "dropped params.verbosity", "dropped params.service_tier",
        ]),
        ("response_format { grammar { regex: 'a+' } }", ["dropped response_format.grammar"]),
        ("store: true previous_response_id: 'r' audio_output { voice: 'a' format: 'mp3' } end_user_id: 'u'", [
            "dropped store", "dropped previous_response_id", "dropped audio_output", "remark end_user_id",
        ]),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_named(asked, noted):
    body, found = WIRE.noted(USER + asked)

    assert sorted(found) == sorted(noted)
    accepted(body)


def test_options_are_merged_into_the_body_and_into_its_options():
    body = WIRE.body_of(
        USER
        + """
        params { temperature: 0.5 }
        provider_options_json { key: 'ollama-native' value: '{"keep_alive": "5m", "options": {"num_ctx": 8192}}' }
    """
    )

    assert accepted(body)["keep_alive"] == "5m"
    assert body["options"] == {"temperature": 0.5, "num_ctx": 8192}


# -- embeddings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "wanted", "noted"),
    [
        ("inputs { text: 'a' } inputs { text: 'b' } dimensions: 256", {"input": ["a", "b"], "dimensions": 256}, []),
        ("inputs { text: 'a' } inputs { token_ids { ids: 1 } } task: EMBEDDING_TASK_QUERY end_user_id: 'u'", {
            "input": ["a"],
        }, ["dropped inputs", "dropped task", "remark end_user_id"]),
        ("""inputs { text: 'a' } provider_options_json { key: 'ollama-native' value: '{"truncate": false}' }""", {
            "input": ["a"], "truncate": False,
        }, []),
    ],
)  # fmt: skip
def test_texts_are_embedded(spec, wanted, noted):
    path, body, found = WIRE.vectors_body(spec)

    client.EmbedRequest.model_validate(body)
    assert body.keys() <= set(client.EmbedRequest.model_fields)
    assert (path, body, found) == ("/api/embed", {"model": "qwen3:8b", **wanted}, noted)
