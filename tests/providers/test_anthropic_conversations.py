"""Conversations as Anthropic gets them: turns, blocks, what goes back as it came and what stays at home."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.providers import official
from tests.providers.anthropic_specs import DIALECT, TOOLS, USER, body_of, encoded, paths, spec_of, target_of

from trunkline.v1 import completion_pb2
from trunkline_server.providers.assembly import Assembly
from trunkline_server.providers.base import Notes

CONVERSATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "instructions stand apart": (
        """
        messages { role: ROLE_SYSTEM parts { text { text: "Be kind." } } }
        messages { role: ROLE_DEVELOPER parts { text { text: "Be brief." } cache_control { ttl: CACHE_TTL_1H } } }
        messages { role: ROLE_USER parts { text { text: "hello" } } }
        """,
        {
            "system": [
                {"type": "text", "text": "Be kind."},
                {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
            ],
            "messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}],
        },
    ),
    "turns of one role are one turn": (
        """
        messages { role: ROLE_USER parts { text { text: "a" } } }
        messages { role: ROLE_USER parts { text { text: "b" } cache_control {} } }
        messages { role: ROLE_ASSISTANT parts { text { text: "c" } } }
        messages { role: ROLE_ASSISTANT parts { text { text: "d" } } }
        """,
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "a"},
                        {"type": "text", "text": "b", "cache_control": {"type": "ephemeral"}},
                    ],
                },
                {"role": "assistant", "content": [{"type": "text", "text": "c"}, {"type": "text", "text": "d"}]},
            ]
        },
    ),
    "calls and their results, with pictures and failures": (
        """
        messages { role: ROLE_USER parts { text { text: "look" } } }
        messages {
          role: ROLE_ASSISTANT
          parts { text { text: "\\n\\n" } }
          parts { tool_call { id: "functions.look:1" name: "look" arguments_json: "{\\"b\\": 1.0,  \\"a\\": null}" } }
          parts { tool_call { id: "functions_look_1" name: "look" arguments_json: "" } }
        }
        messages {
          role: ROLE_TOOL
          parts {
            tool_result {
              tool_call_id: "functions.look:1"
              parts { text { text: "seen" } }
              parts { image { data: "\\001\\002" mime_type: "image/png" } }
              parts { document { data: "%PDF" mime_type: "application/pdf" filename: "map" } }
            }
            cache_control { ttl: CACHE_TTL_5M }
          }
          parts { tool_result { tool_call_id: "functions_look_1" is_error: true } }
        }
        messages { role: ROLE_USER parts { text { text: "and?" } } }
        """,
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "look"}]},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "tool_use", "id": "functions_look_1", "name": "look", "input": {"b": 1.0, "a": None}},
                        {"type": "tool_use", "id": "functions_look_1_2", "name": "look", "input": {}},
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "tool_result",
                            "tool_use_id": "functions_look_1",
                            "content": [
                                {"type": "text", "text": "seen"},
                                {
                                    "type": "image",
                                    "source": {"type": "base64", "media_type": "image/png", "data": "AQI="},
                                },
                                {
                                    "type": "document",
                                    "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="},
                                    "title": "map",
                                },
                            ],
                            "cache_control": {"type": "ephemeral", "ttl": "5m"},
                        },
                        {"type": "tool_result", "tool_use_id": "functions_look_1_2", "is_error": True},
                        {"type": "text", "text": "and?"},
                    ],
                },
            ]
        },
    ),
    "pictures and documents from anywhere": (
        """
        messages {
          role: ROLE_USER
          parts { image { uri: "https://example.org/a.png" } cache_control {} }
          parts { image { file_id: "file_1" } }
          parts { document { uri: "https://example.org/a.pdf" mime_type: "application/pdf" } }
          parts { document { file_id: "file_2" } }
          parts { document { data: "Gr\\303\\274\\303\\237e" mime_type: "text/markdown" filename: "notes.md" } }
        }
        """,
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "image",
                            "source": {"type": "url", "url": "https://example.org/a.png"},
                            "cache_control": {"type": "ephemeral"},
                        },
                        {"type": "image", "source": {"type": "file", "file_id": "file_1"}},
                        {"type": "document", "source": {"type": "url", "url": "https://example.org/a.pdf"}},
                        {"type": "document", "source": {"type": "file", "file_id": "file_2"}},
                        {
                            "type": "document",
                            "source": {"type": "text", "media_type": "text/plain", "data": "Grüße"},
                            "title": "notes.md",
                        },
                    ],
                }
            ]
        },
    ),
}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_a_conversation_becomes_turns(name: str):
    text, wanted = CONVERSATIONS[name]

    body = body_of(text)

    assert {key: body[key] for key in ("system", "messages") if key in body} == wanted


def test_what_the_provider_said_goes_back_as_it_came():
    message = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-opus-4-8", "stop_sequence": None,
        "content": [
            {"type": "thinking", "thinking": " hm ", "signature": "c2ln"},
            {"type": "redacted_thinking", "data": "ZGF0YQ=="},
            {"type": "text", "text": "It is 157 m.", "citations": [
                {"type": "char_location", "cited_text": "157", "document_index": 0, "document_title": None,
                 "start_char_index": 1, "end_char_index": 4},
            ]},
            {"type": "server_tool_use", "id": "srvtoolu_1", "name": "code_execution", "input": {"code": "1"}},
            {"type": "code_execution_tool_result", "tool_use_id": "srvtoolu_1", "content": {
                "type": "code_execution_result", "stdout": "", "stderr": "", "return_code": 0, "content": []}},
            {"type": "tool_use", "id": "toolu_1", "name": "convert", "input": {"m": 157},
             "caller": {"type": "code_execution_20260120", "tool_id": "srvtoolu_1"}},
        ],
        "stop_reason": "tool_use", "usage": {"input_tokens": 1, "output_tokens": 1},
    }  # fmt: skip
    assembly = Assembly("anthropic", "claude-opus-4-8")
    DIALECT.decode(json.dumps(message).encode(), assembly)
    spec = spec_of(USER)
    spec.messages.append(assembly.completion().choices[0].message)

    notes = Notes()
    made = DIALECT.encode(spec, target_of("claude-opus-4-8"), notes, stream=False)

    assert json.loads(made.body)["messages"][1] == {"role": "assistant", "content": message["content"]}
    assert notes.foreign == notes.unsupported == []


def test_signatures_and_blocks_of_another_provider_stay_at_home_and_are_named():
    made, notes = encoded(
        """
        messages { role: ROLE_USER parts { text { text: "hello" } } }
        messages {
          role: ROLE_ASSISTANT
          parts { reasoning { text: "hm" } signature: "s" origin_provider: "gemini" }
          parts { reasoning { text: "unsigned" } }
          parts { opaque { type: "web_search_call" json: "{}" } origin_provider: "openai" }
          parts { tool_call { id: "x" name: "find" provider_executed: true } origin_provider: "gemini" }
          parts { text { text: "hi" citations { title: "t" raw_json: "{}" } } origin_provider: "openai" }
          parts { tool_call { id: "a" name: "f" arguments_json: "{}" } signature: "thought" origin_provider: "gemini" }
        }
        messages { role: ROLE_TOOL parts { tool_result { tool_call_id: "a" parts { text { text: "1" } } } } }
        """
    )

    assert json.loads(made.body)["messages"][1]["content"] == [
        {"type": "text", "text": "hi"},
        {"type": "tool_use", "id": "a", "name": "f", "input": {}},
    ]
    assert notes.unsupported == []
    assert [path for _, path, _ in notes.foreign] == [
        "messages[1].parts[0]",
        "messages[1].parts[1]",
        "messages[1].parts[2]",
        "messages[1].parts[3]",
        "messages[1].parts[4].text.citations",
        "messages[1].parts[5].signature",
    ]


def test_instructions_within_a_conversation_stay_in_place_where_the_model_takes_them_there():
    text = USER + 'messages { role: ROLE_SYSTEM parts { text { text: "In Spanish." } } }'

    body = body_of(text, "claude-opus-4-8")
    made, notes = encoded(text, "claude-sonnet-4-5")

    assert body["messages"][1] == {"role": "system", "content": [{"type": "text", "text": "In Spanish."}]}
    assert json.loads(made.body)["system"] == [{"type": "text", "text": "In Spanish."}]
    assert paths(notes) == ["altered messages[1]"]


def test_results_that_come_after_something_else_are_moved_first_and_that_is_said():
    made, notes = encoded(
        """
        messages { role: ROLE_ASSISTANT
          parts { tool_call { id: "a" name: "f" } } parts { tool_call { id: "b" name: "f" } } }
        messages { role: ROLE_TOOL parts { tool_result { tool_call_id: "a" } } }
        messages { role: ROLE_USER parts { text { text: "wait" } } }
        messages { role: ROLE_TOOL parts { tool_result { tool_call_id: "b" } } }
        """
    )

    content = json.loads(made.body)["messages"][1]["content"]
    assert [block.get("tool_use_id", block["type"]) for block in content] == ["a", "b", "text"]
    assert paths(notes) == ["altered messages[3]"]


def test_arguments_that_are_no_object_are_sent_inside_one_and_that_is_said():
    made, notes = encoded(
        'messages { role: ROLE_ASSISTANT parts { tool_call { id: "a" name: "f" arguments_json: "{\\"x\\": [1" } } }'
    )

    assert json.loads(made.body)["messages"][0]["content"][0]["input"] == {"malformed_arguments": '{"x": [1'}
    assert paths(notes) == ["altered messages[0].parts[0].tool_call.arguments_json"]


def test_json_of_the_caller_is_sent_byte_for_byte():
    schema = '{ "type" : "object", "properties":{"b":{"type":"number","default":1.50},"a":{"const":9007199254740993}} }'
    arguments = '{"b": 1.50,   "id": 9007199254740993}'
    block = '{"type":"search_result",  "source":"x"}'
    spec = spec_of(USER)
    spec.tools.add().function.CopyFrom(completion_pb2.FunctionTool(name="f", parameters_json_schema=schema))
    spec.response_format.json_schema.json_schema = schema
    turn = spec.messages.add(role="ROLE_ASSISTANT")
    turn.parts.add().tool_call.arguments_json = arguments
    part = spec.messages.add(role="ROLE_USER").parts.add()
    part.opaque.type, part.opaque.json = "search_result", block
    part.cache_control.SetInParent()
    tool = spec.tools.add()
    tool.provider.type, tool.provider.config_json = "web_search_20250305", '{"max_uses":  3.0}'

    sent = DIALECT.encode(spec, target_of("claude-sonnet-4-5"), Notes(), stream=False).body.decode()

    assert sent.count(schema) == 2
    assert arguments in sent
    assert '{"cache_control":{"type":"ephemeral"},' + block[1:] in sent
    assert '{"type":"web_search_20250305","name":"web_search","max_uses":  3.0}' in sent


@pytest.mark.parametrize(
    ("part", "path"),
    [
        ('audio { data: "x" mime_type: "audio/wav" }', "dropped messages[0].parts[0]"),
        ('video { uri: "https://example.org/a.mp4" }', "dropped messages[0].parts[0]"),
        ('image { uri: "gs://bucket/a.png" }', "dropped messages[0].parts[0].image"),
        ('image { uri: "https://a.b/c" detail: MEDIA_DETAIL_HIGH }', "dropped messages[0].parts[0].image.detail"),
        ('document { data: "x" mime_type: "application/msword" }', "dropped messages[0].parts[0]"),
        ('document { data: "\\377" mime_type: "text/plain" }', "dropped messages[0].parts[0]"),
        (
            'text { text: "a" } cache_control { ttl: CACHE_TTL_24H }',
            "altered messages[0].parts[0].cache_control.ttl",
        ),
        (
            'reasoning { text: "a" } signature: "s" cache_control {}',
            "dropped messages[0].parts[0].cache_control",
        ),
        ('text { text: "a" citations { title: "t" } }', "dropped messages[0].parts[0].text.citations"),
    ],
)
def test_a_part_that_cannot_be_sent_is_named(part: str, path: str):
    _, notes = encoded(f"messages {{ role: ROLE_USER parts {{ {part} }} }}")

    assert paths(notes) == [path]


def bodies() -> Iterator[bytes]:
    for text, _ in CONVERSATIONS.values():
        yield encoded(text)[0].body
    yield encoded(USER + TOOLS + "max_tool_calls: 1 tool_choice { tool_name: 'f' }")[0].body
    yield encoded(USER + "params { reasoning { effort: REASONING_EFFORT_HIGH include: true } }", "claude-opus-5")[
        0
    ].body
    yield encoded(USER + "response_format { json_schema { json_schema: '{}' } } end_user_id: 'u'")[0].body


def test_the_official_client_would_send_such_bodies_too():
    for body in bodies():
        official.anthropic(json.loads(body))
