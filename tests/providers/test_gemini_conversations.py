"""Conversations as Gemini wants them, and what it said coming back as it came."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from google.genai import types
from tests.providers.gemini_wire import (
    DIALECT,
    USER,
    WHOLE,
    answer_of,
    body_of,
    chunk,
    decoded,
    encoded,
    events_of,
    fixture,
    paths,
    target_of,
)

from trunkline.v1 import completion_pb2, message_pb2
from trunkline_server.providers.base import Notes

PIXEL = base64.b64encode(b"\x89PNG").decode()
ASK = 'messages { role: ROLE_USER parts { text { text: "go" } } }'
CALL = """
messages { role: ROLE_ASSISTANT
  parts { tool_call { id: "fc-1" name: "f" arguments_json: '{"a":1}' } signature: "c2lnMQ==" }
  parts { tool_call { id: "fc-2" name: "g" arguments_json: "" } } }
"""


def contents_of(text: str, model: str = "gemini-2.5-flash") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = body_of(text, model)["contents"]
    for content in found:
        types.Content.model_validate_json(json.dumps(content))
    return found


def test_instructions_stand_apart_and_turns_have_the_providers_roles():
    body = body_of(
        """
        messages { role: ROLE_SYSTEM parts { text { text: "Be brief." } } parts { text { text: "Be kind." } } }
        messages { role: ROLE_DEVELOPER parts { text { text: "Be exact." } } }
        messages { role: ROLE_USER parts { text { text: "Hi" } } }
        messages { role: ROLE_ASSISTANT parts { text { text: "Hello" } } parts { refusal { text: "No." } } }
        messages { role: ROLE_USER parts { text { text: "" } } parts { text { text: "Go on" } } }
        """
    )

    assert body == {
        "systemInstruction": {"parts": [{"text": "Be brief."}, {"text": "Be kind."}, {"text": "Be exact."}]},
        "contents": [
            {"role": "user", "parts": [{"text": "Hi"}]},
            {"role": "model", "parts": [{"text": "Hello"}, {"text": "No."}]},
            {"role": "user", "parts": [{"text": "Go on"}]},
        ],
    }


def test_instructions_within_a_conversation_are_moved_and_that_is_said():
    made, notes = encoded(USER + 'messages { role: ROLE_SYSTEM parts { text { text: "late" } } }')

    assert json.loads(made.body)["systemInstruction"] == {"parts": [{"text": "late"}]}
    assert paths(notes) == ["altered messages[1]"]


def test_a_model_without_instructions_reads_them_as_the_users_words():
    body = body_of('messages { role: ROLE_SYSTEM parts { text { text: "Be brief." } } }' + USER, "gemma-3-27b-it")

    assert "systemInstruction" not in body
    assert [content["parts"] for content in body["contents"]] == [[{"text": "Be brief."}], [{"text": "hello"}]]


def test_media_go_as_bytes_or_addresses():
    (content,) = contents_of(
        """
        messages { role: ROLE_USER
          parts { image { data: "\\211PNG" mime_type: "image/png" filename: "a.png" } }
          parts { document { uri: "gs://b/d.pdf" mime_type: "application/pdf" } }
          parts { audio { data: "x" mime_type: "audio/wav" } }
          parts { video { uri: "https://youtu.be/x" } }
          parts { document { file_id: "https://google.test/v1beta/files/f" mime_type: "text/plain" } }
        }
        """
    )

    assert content["parts"] == [
        {"inlineData": {"mimeType": "image/png", "data": PIXEL}},
        {"fileData": {"fileUri": "gs://b/d.pdf", "mimeType": "application/pdf"}},
        {"inlineData": {"mimeType": "audio/wav", "data": "eA=="}},
        {"fileData": {"fileUri": "https://youtu.be/x"}},
        {"fileData": {"fileUri": "https://google.test/v1beta/files/f", "mimeType": "text/plain"}},
    ]


def test_how_closely_to_look_is_said_where_the_model_can_be_told():
    text = 'messages { role: ROLE_USER parts { image { uri: "gs://b/a.png" detail: MEDIA_DETAIL_HIGH } } }'

    (content,) = contents_of(text, "gemini-3-pro-preview")
    _, notes = encoded(text, "gemini-2.5-flash")

    assert content["parts"][0]["mediaResolution"] == {"level": "MEDIA_RESOLUTION_HIGH"}
    assert paths(notes) == ["dropped messages[0].parts[0].image.detail"]


def test_answers_of_tools_stand_in_one_turn_under_the_names_and_ids_of_their_calls():
    contents = contents_of(
        ASK
        + CALL
        + """
        messages { role: ROLE_TOOL parts { tool_result { tool_call_id: "fc-2" parts { text { text: "plain" } } } } }
        messages { role: ROLE_TOOL parts { tool_result {
            tool_call_id: "fc-1" is_error: true parts { text { text: '{"code": 1.50}' } } } } }
        messages { role: ROLE_USER parts { text { text: "and?" } } }
        """
    )

    assert contents[1]["parts"] == [
        {"functionCall": {"name": "f", "args": {"a": 1}, "id": "fc-1"}, "thoughtSignature": "c2lnMQ=="},
        {"functionCall": {"name": "g", "args": {}, "id": "fc-2"}},
    ]
    assert contents[2] == {
        "role": "user",
        "parts": [
            {"functionResponse": {"name": "g", "response": {"output": "plain"}, "id": "fc-2"}},
            {"functionResponse": {"name": "f", "response": {"error": {"code": 1.5}}, "id": "fc-1"}},
        ],
    }
    assert contents[3] == {"role": "user", "parts": [{"text": "and?"}]}


@pytest.mark.parametrize(
    ("parts", "response"),
    [
        ("", {}),
        ("parts { text { text: 'a' } }", {"output": "a"}),
        ("parts { text { text: 'a' } } parts { text { text: 'b' } }", {"output": ["a", "b"]}),
        ("parts { text { text: '[1]' } }", {"output": "[1]"}),
        ("parts { text { text: '{\"a\": 1}' } }", {"a": 1}),
        ("is_error: true parts { text { text: 'no' } }", {"error": "no"}),
    ],
)
def test_what_a_tool_answers_is_an_object(parts: str, response: dict[str, Any]):
    result = f'messages {{ role: ROLE_TOOL parts {{ tool_result {{ tool_call_id: "fc-1" {parts} }} }} }}'

    contents = contents_of(ASK + CALL + result)

    assert contents[2]["parts"][0]["functionResponse"]["response"] == response


def test_pictures_that_a_tool_answers_stand_in_its_answer_or_beside_it():
    text = (
        ASK
        + CALL
        + """
        messages { role: ROLE_TOOL
          parts { tool_result { tool_call_id: "fc-1"
            parts { text { text: "see" } } parts { image { data: "\\211PNG" mime_type: "image/png" } } } }
          parts { tool_result { tool_call_id: "fc-2" } } }
        """
    )
    picture = {"inlineData": {"mimeType": "image/png", "data": PIXEL}}

    new = contents_of(text, "gemini-3.5-flash")[2]["parts"]
    old = contents_of(text, "gemini-2.5-flash")[2]["parts"]

    assert new[0]["functionResponse"]["parts"] == [picture]
    assert ["functionResponse" in part for part in old] == [True, True, False]
    assert old[2] == picture


def test_an_id_that_the_provider_never_saw_is_not_sent():
    made = "call_" + "0" * 24
    contents = contents_of(
        f"""{ASK}
        messages {{ role: ROLE_ASSISTANT parts {{ tool_call {{ id: "{made}" name: "f" arguments_json: "{{}}" }} }} }}
        messages {{ role: ROLE_TOOL parts {{ tool_result {{ tool_call_id: "{made}" name: "other" }} }} }}"""
    )

    assert contents[1]["parts"] == [{"functionCall": {"name": "f", "args": {}}}]
    assert contents[2]["parts"] == [{"functionResponse": {"name": "f", "response": {}}}]


def test_arguments_that_are_no_object_are_sent_inside_one_and_that_is_said():
    made, notes = encoded(
        ASK
        + """messages { role: ROLE_ASSISTANT parts { tool_call { id: "1" name: "f" arguments_json: '{"x": [1' } } }"""
    )

    call = json.loads(made.body)["contents"][1]["parts"][0]["functionCall"]
    assert call["args"] == {"malformed_arguments": '{"x": [1'}
    assert paths(notes) == ["altered messages[1].parts[0].tool_call.arguments_json"]


# -- signatures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*(f"{name}.json" for name in WHOLE), "stream.sse", "arguments.sse"])
def test_what_the_provider_said_goes_back_as_it_came(name: str):
    data = fixture(name)
    answer = answer_of(data) if name.endswith(".json") else decoded(events_of(data)).completion()
    spec = completion_pb2.CompletionSpec()
    spec.messages.add(role=message_pb2.ROLE_USER).parts.add().text.text = "go"
    spec.messages.append(answer.choices[0].message)
    notes = Notes()

    body = json.loads(DIALECT.encode(spec, target_of("gemini-3-flash-preview"), notes, stream=False).body)

    sent = body["contents"][1]
    assert sent["role"] == "model"
    assert notes.unsupported == []
    if name.endswith(".json"):
        said = [dict(part) for part in json.loads(data)["candidates"][0]["content"]["parts"]]
        for part in said:
            if "functionCall" in part:
                part["functionCall"] = {"args": {}, **part["functionCall"]}
        assert sent["parts"] == said
    else:
        signatures = [part["thoughtSignature"] for part in sent["parts"] if "thoughtSignature" in part]
        assert signatures == [part.signature for part in answer.choices[0].message.parts if part.signature]


def test_arguments_and_blocks_go_back_byte_for_byte():
    answer = answer_of(fixture("code.json"))
    spec = completion_pb2.CompletionSpec()
    spec.messages.add(role=message_pb2.ROLE_USER).parts.add().text.text = "go"
    spec.messages.append(answer.choices[0].message)
    call = spec.messages.add(role=message_pb2.ROLE_ASSISTANT).parts.add().tool_call
    call.id, call.name, call.arguments_json = "1", "f", '{"b": 1.50,   "id": 9007199254740993}'

    sent = DIALECT.encode(spec, target_of("gemini-2.5-flash"), Notes(), stream=False).body.decode()

    assert call.arguments_json in sent
    assert answer.choices[0].message.parts[1].opaque.json in sent


def test_what_an_answer_says_of_its_sources_stays_and_is_no_reason_to_refuse():
    spec = completion_pb2.CompletionSpec()
    spec.messages.append(answer_of(fixture("grounded.json")).choices[0].message)
    notes = Notes()

    body = json.loads(DIALECT.encode(spec, target_of("gemini-2.5-flash"), notes, stream=False).body)

    assert [set(part) for part in body["contents"][0]["parts"]] == [{"text"}, {"text"}]
    assert notes.unsupported == []
    assert [path for _, path, _ in notes.foreign] == [
        "messages[0].parts[0].text.citations",
        "messages[0].parts[1].text.citations",
        "messages[0].parts[2]",
        "messages[0].parts[3]",
    ]


def test_signatures_and_blocks_of_another_provider_stay_at_home_and_are_named():
    made, notes = encoded(
        ASK
        + """
        messages { role: ROLE_ASSISTANT
          parts { reasoning { text: "hm" } signature: "x" origin_provider: "anthropic" }
          parts { text { text: "so" } signature: "y" origin_provider: "vertex" }
          parts { opaque { type: "web_search_tool_result" json: "{}" } origin_provider: "anthropic" }
          parts { tool_call { id: "toolu_1" name: "f" arguments_json: "{}" } origin_provider: "anthropic" }
          parts { tool_call { id: "srv" name: "web" provider_executed: true } origin_provider: "xai" } }
        messages { role: ROLE_TOOL
          parts { tool_result { tool_call_id: "toolu_1" } } }
        """
    )

    contents = json.loads(made.body)["contents"]
    assert contents[1]["parts"] == [{"text": "so"}, {"functionCall": {"name": "f", "args": {}}}]
    assert contents[2]["parts"] == [{"functionResponse": {"name": "f", "response": {}}}]
    assert [path for _, path, _ in notes.foreign] == [
        "messages[1].parts[0]",
        "messages[1].parts[1].signature",
        "messages[1].parts[2]",
        "messages[1].parts[4]",
    ]


@pytest.mark.parametrize(
    ("model", "turn", "wanted"),
    [
        ("gemini-3.5-flash", "", [["skip_thought_signature_validator", None], ["c2ln"]]),
        ("gemini-2.5-flash", "", [[None, None], ["c2ln"]]),
        # What came before the turn that is going on is not looked at.
        ("gemini-3.5-flash", USER, [[None, None], ["c2ln"]]),
    ],
)
def test_a_call_that_another_model_made_has_a_stand_in_where_a_signature_is_asked_for(
    model: str, turn: str, wanted: list[Any]
):
    text = (
        ASK
        + """
        messages { role: ROLE_ASSISTANT
          parts { tool_call { id: "a" name: "f" arguments_json: "{}" } signature: "x" origin_provider: "anthropic" }
          parts { tool_call { id: "b" name: "f" arguments_json: "{}" } origin_provider: "anthropic" } }
        messages { role: ROLE_TOOL
          parts { tool_result { tool_call_id: "a" } } parts { tool_result { tool_call_id: "b" } } }
        messages { role: ROLE_ASSISTANT
          parts { tool_call { id: "c" name: "f" arguments_json: "{}" } signature: "c2ln" } }
        messages { role: ROLE_TOOL parts { tool_result { tool_call_id: "c" } } }
        """
        + turn
    )
    made, _ = encoded(text, model)

    contents = json.loads(made.body)["contents"]
    assert [[part.get("thoughtSignature") for part in contents[at]["parts"]] for at in (1, 3)] == wanted


def test_reasoning_goes_back_as_a_thought():
    contents = contents_of(
        ASK
        + """
        messages { role: ROLE_ASSISTANT
          parts { reasoning { text: "hm" is_summary: true } signature: "c2ln" }
          parts { reasoning { text: "" } signature: "dGlt" }
          parts { text { text: "so" } } }
        """
    )

    assert contents[1]["parts"] == [
        {"text": "hm", "thought": True, "thoughtSignature": "c2ln"},
        {"thought": True, "thoughtSignature": "dGlt"},
        {"text": "so"},
    ]


@pytest.mark.parametrize(
    ("part", "path"),
    [
        ("reasoning { encrypted: 'x' redacted: true }", []),
        ("tool_result { tool_call_id: 'fc-1' parts { opaque { type: 'x' json: '{}' } } }", [
            "dropped messages[0].parts[0].tool_result.parts[0]",
        ]),
        ("text { text: 'a' } cache_control {}", []),
    ],
)  # fmt: skip
def test_a_part_that_cannot_be_sent_is_named(part: str, path: list[str]):
    _, notes = encoded(f"messages {{ role: ROLE_USER parts {{ text {{ text: 'q' }} }} parts {{ {part} }} }}")

    assert [found.replace("parts[1]", "parts[0]", 1) for found in paths(notes)] == path


def test_a_name_of_a_participant_is_not_sent_and_named():
    _, notes = encoded('messages { role: ROLE_USER name: "ada" parts { text { text: "q" } } }')

    assert paths(notes) == ["dropped messages[0].name"]


def test_a_thought_without_words_is_read_as_one():
    (part,) = answer_of(chunk({"thought": True, "thoughtSignature": "s"}, finish="STOP")).choices[0].message.parts

    assert (part.reasoning.text, part.signature) == ("", "s")
