"""The conversation as Chat Completions takes it: everything of it is in the body, or in the notes."""

from __future__ import annotations

import json

import pytest
from tests.providers.openai_chat_requests import (
    ASSISTANT,
    DEVELOPER,
    SYSTEM,
    TOOL,
    USER,
    Media,
    Part,
    asked,
    call,
    result,
    spec_of,
    text,
)

from trunkline.v1 import message_pb2
from trunkline_server.providers.assembly import Assembly
from trunkline_server.providers.compatible import ROWS
from trunkline_server.providers.dialects.openai_chat import OpenAIChat

TWO_AND_TWO = {"type": "text", "text": "2+2"}


def test_a_plain_conversation_is_sent_as_strings():
    spec = spec_of(
        (SYSTEM, [text("Be brief.")]), (USER, [text("Hi")]), (ASSISTANT, [text("Hel"), text("lo")]), (USER, [text("?")])
    )

    request = asked(spec)

    assert request.path == "/chat/completions"
    assert request.body == {
        "model": "gpt-4.1",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello"},
            {"role": "user", "content": "?"},
        ],
    }
    assert (request.unsupported, request.warned) == ({}, {})


def test_a_stream_asks_for_usage_where_it_must_be_asked_for():
    assert asked(spec_of(), stream=True).body["stream_options"] == {"include_usage": True}
    assert "stream_options" not in asked(spec_of(), "mistral", "m", stream=True).body
    assert asked(spec_of(), "mistral", "m", stream=True).body["stream"] is True


@pytest.mark.parametrize(
    ("kind", "model", "system", "developer"),
    [
        ("openai", "gpt-4.1", "system", "developer"),
        ("openai", "gpt-5-mini", "developer", "developer"),
        ("openai", "o3", "developer", "developer"),
        ("openai", "o1-mini", "user", "user"),
        ("groq", "llama", "system", "system"),
    ],
)
def test_instructions_have_the_role_that_the_model_knows(kind, model, system, developer):
    spec = spec_of((SYSTEM, [text("a")]), (DEVELOPER, [text("b")]), (USER, [text("c")]))

    assert [message["role"] for message in asked(spec, kind, model).messages] == [system, developer, "user"]


def test_media_are_addresses_and_bytes_as_data_addresses():
    parts = [
        text("see"),
        Part(image=Media(data=b"\x89PNG", mime_type="image/png", detail=message_pb2.MEDIA_DETAIL_LOW)),
        Part(image=Media(uri="https://example.org/a.png")),
        Part(audio=Media(data=b"RIFF", mime_type="audio/wav")),
        Part(document=Media(data=b"%PDF", mime_type="application/pdf", filename="a.pdf")),
        Part(document=Media(file_id="file-1")),
        Part(document=Media(data="naïve".encode(), mime_type="text/plain", filename="a.txt")),
    ]

    request = asked(spec_of((USER, parts)))

    assert request.messages[0]["content"] == [
        {"type": "text", "text": "see"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw==", "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
        {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERg=="}},
        {"type": "file", "file": {"file_id": "file-1"}},
        {"type": "text", "text": "a.txt:\nnaïve"},
    ]
    assert request.unsupported == {}
    assert request.warned == {"messages[0].parts[6].document": "PARAMETER_ALTERED"}


@pytest.mark.parametrize(
    ("kind", "part", "path"),
    [
        ("openai", Part(image=Media(file_id="file-1")), "messages[0].parts[1].image.file_id"),
        ("openai", Part(document=Media(uri="https://example.org/a.pdf")), "messages[0].parts[1].document.uri"),
        ("openai", Part(video=Media(uri="https://example.org/a.mp4")), "messages[0].parts[1]"),
        ("openai", Part(audio=Media(uri="https://example.org/a.wav")), "messages[0].parts[1].audio"),
        ("groq", Part(audio=Media(data=b"a", mime_type="audio/wav")), "messages[0].parts[1]"),
        ("groq", Part(document=Media(data=b"a", mime_type="application/pdf")), "messages[0].parts[1]"),
        ("perplexity", Part(document=Media(file_id="file-1")), "messages[0].parts[1].document.file_id"),
        ("deepseek", Part(image=Media(uri="https://example.org/a.png")), "messages[0].parts[1]"),
    ],
)  # fmt: skip
def test_media_that_the_model_cannot_take_are_named(kind, part, path):
    request = asked(spec_of((USER, [text("see"), part])), kind, "m")

    assert request.unsupported == {path: "PARAMETER_DROPPED"}
    assert request.messages[0]["content"] == "see"


def test_media_go_where_a_provider_wants_them():
    document = Part(document=Media(uri="https://example.org/a.pdf"))
    film = Part(video=Media(uri="https://example.org/a.mp4"))
    pdf = Part(document=Media(data=b"%PDF", mime_type="application/pdf", filename="b.pdf"))

    assert asked(spec_of((USER, [document])), "mistral", "m").messages[0]["content"] == [
        {"type": "document_url", "document_url": "https://example.org/a.pdf"}
    ]
    assert asked(spec_of((USER, [document, pdf])), "perplexity", "sonar").messages[0]["content"] == [
        {"type": "file_url", "file_url": {"url": "https://example.org/a.pdf"}},
        {"type": "file_url", "file_url": {"url": "JVBERg=="}, "file_name": "b.pdf"},
    ]
    assert asked(spec_of((USER, [document, film])), "openrouter", "m").messages[0]["content"] == [
        {"type": "file", "file": {"file_data": "https://example.org/a.pdf"}},
        {"type": "video_url", "video_url": {"url": "https://example.org/a.mp4"}},
    ]


def test_calls_and_their_results_keep_ids_order_and_bytes():
    spec = spec_of(
        (USER, [text("hi")]),
        (ASSISTANT, [text("Let me look."), call("c1", arguments='{"b": 1,"a":2}'), call("c2", arguments="")]),
        (TOOL, [result(text("one")), result(text("a"), text("b"), call_id="c2")]),
    )

    _, turn, one, two = asked(spec).messages

    assert turn["content"] == "Let me look."
    assert [(made["id"], made["function"]["arguments"]) for made in turn["tool_calls"]] == [
        ("c1", '{"b": 1,"a":2}'),
        ("c2", "{}"),
    ]
    assert one == {"role": "tool", "tool_call_id": "c1", "content": "one"}
    assert two["content"] == [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]


def test_pictures_of_tools_follow_in_a_message_of_the_users():
    picture = Part(image=Media(uri="https://example.org/a.png"))
    spec = spec_of(
        (USER, [text("hi")]),
        (ASSISTANT, [call("c1"), call("c2")]),
        (TOOL, [result(text("one"), picture)]),
        (TOOL, [result(text("two"), call_id="c2", is_error=True)]),
        (USER, [text("and?")]),
    )

    request = asked(spec)

    assert [message["role"] for message in request.messages] == ["user", "assistant", "tool", "tool", "user", "user"]
    assert request.messages[4]["content"] == [
        {"type": "text", "text": "Returned by the tool call c1:"},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
    ]
    assert request.unsupported == {}
    assert request.warned == {
        "messages[2].parts[0].tool_result": "PARAMETER_ALTERED",
        "messages[3].parts[0].tool_result.is_error": "PARAMETER_ALTERED",
    }


def test_a_turn_of_calls_alone_has_no_content_and_an_empty_one_is_empty():
    spec = spec_of(
        (USER, [text("hi")]), (ASSISTANT, [call()]), (TOOL, [result()]), (ASSISTANT, []), (USER, [text("?")])
    )

    _, calls, tool, empty, _ = asked(spec).messages

    assert calls["content"] is None
    assert tool["content"] == ""
    assert empty == {"role": "assistant", "content": ""}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("deepseek", {"reasoning_content": "2+2", "content": "4"}),
        ("groq", {"reasoning": "2+2", "content": "4"}),
        ("mistral", {"content": [{"type": "thinking", "thinking": [TWO_AND_TWO]}, {"type": "text", "text": "4"}]}),
        ("openai", {"content": "4"}),
    ],
)
def test_thoughts_go_back_as_the_provider_wants_them(kind, expected):
    thought = Part(reasoning=message_pb2.Reasoning(text="2+2"), origin_provider=kind)

    request = asked(spec_of((USER, [text("?")]), (ASSISTANT, [thought, text("4")])), kind, "m")

    assert request.messages[1] == {"role": "assistant", **expected}
    assert set(request.warned) == ({"messages[1].parts[0]"} if kind == "openai" else set())


def test_a_routers_thoughts_go_back_as_they_came_and_never_to_another():
    sealed = '{"type":"reasoning.encrypted", "data":"xx","id":"rs_1","format":"openai-responses-v1"}'
    turn = [
        Part(reasoning=message_pb2.Reasoning(text="sum", is_summary=True), origin_provider="openrouter"),
        Part(reasoning=message_pb2.Reasoning(encrypted=sealed, redacted=True), origin_provider="openrouter"),
        Part(reasoning=message_pb2.Reasoning(text="signed"), signature="c2ln", origin_provider="openrouter"),
        Part(reasoning=message_pb2.Reasoning(text="foreign"), signature="c2ln", origin_provider="anthropic"),
        text("4"),
    ]
    spec = spec_of((USER, [text("?")]), (ASSISTANT, turn))

    here, elsewhere = asked(spec, "openrouter", "openai/gpt-5.2"), asked(spec, "groq", "m")

    assert here.messages[1]["reasoning_details"] == [
        {"type": "reasoning.summary", "summary": "sum", "format": "openai-responses-v1"},
        json.loads(sealed),
        {"type": "reasoning.text", "text": "signed", "signature": "c2ln", "format": "anthropic-claude-v1"},
    ]
    assert sealed in here.raw
    assert here.warned == {"messages[1].parts[3]": "FOREIGN_DATA_DROPPED"}
    assert "c2ln" not in elsewhere.raw
    assert "xx" not in elsewhere.raw
    assert {f"messages[1].parts[{at}]" for at in (1, 2, 3)} <= set(elsewhere.warned)


def test_what_came_out_of_a_call_can_be_sent_back_in_the_next():
    message = {
        "content": "Four.",
        "reasoning_details": [
            {"type": "reasoning.summary", "summary": "Adding", "format": "openai-responses-v1", "index": 0},
            {"type": "reasoning.encrypted", "data": "gAAA", "id": "rs_1", "format": "openai-responses-v1", "index": 0},
        ],
        "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"z": 1, "a":2}'}}],
        "annotations": [{"type": "file", "file": {"hash": "h", "content": []}}],
    }
    assembly = Assembly("openrouter", "m")
    body = {"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}
    OpenAIChat().decode(json.dumps(body).encode(), assembly)
    spec = spec_of()
    spec.messages.append(assembly.completion().choices[0].message)

    back = asked(spec, "openrouter", "openai/gpt-5.2").messages[1]

    assert back["content"] == message["content"]
    assert back["tool_calls"] == message["tool_calls"]
    assert back["annotations"] == message["annotations"]
    assert back["reasoning_details"][1] == message["reasoning_details"][1]


def test_refusals_sound_and_blocks_of_earlier_turns_go_back():
    turn = [
        Part(refusal=message_pb2.Refusal(text="no")),
        Part(audio=Media(transcript="hello"), item_id="audio_1", origin_provider="openai"),
        Part(opaque=message_pb2.OpaqueBlock(type="server_tool", json='{"x":1}'), origin_provider="anthropic"),
        Part(opaque=message_pb2.OpaqueBlock(type="executed_tool", json='{"x":1}'), origin_provider="openai"),
        Part(tool_call=message_pb2.ToolCall(id="s", name="search", provider_executed=True), origin_provider="openai"),
    ]
    spec = spec_of((USER, [text("?")]), (ASSISTANT, turn))

    request, elsewhere = asked(spec), asked(spec, "groq", "m")

    assert request.messages[1] == {"role": "assistant", "content": None, "refusal": "no", "audio": {"id": "audio_1"}}
    assert request.warned["messages[1].parts[2]"] == "FOREIGN_DATA_DROPPED"
    assert {"messages[1].parts[3]", "messages[1].parts[4]"} <= set(request.warned)
    assert elsewhere.messages[1] == {"role": "assistant", "content": "nohello"}


def test_cache_marks_go_to_those_who_take_them():
    mark = message_pb2.CacheControl(ttl=message_pb2.CACHE_TTL_1H)
    spec = spec_of((SYSTEM, [text("long", cache_control=mark)]), (USER, [text("?")]))

    assert asked(spec, "openrouter", "anthropic/m").messages[0]["content"] == [
        {"type": "text", "text": "long", "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    ]
    assert asked(spec).messages[0]["content"] == "long"


def test_a_name_is_sent_or_warned_about():
    spec = spec_of()
    spec.messages[0].name = "bob"

    assert asked(spec).messages[0]["name"] == "bob"
    assert asked(spec, "mistral", "m").warned == {"messages[0].name": "PARAMETER_ALTERED"}


def test_a_long_conversation_of_every_kind_of_part_is_encoded_for_every_row():
    parts = [text("a"), Part(image=Media(uri="https://example.org/a.png")), Part(document=Media(file_id="f"))]
    thought = Part(reasoning=message_pb2.Reasoning(text="t", encrypted="sealed"), origin_provider="other")
    spec = spec_of((USER, parts), (ASSISTANT, [thought, text("b"), call()]), (TOOL, [result(*parts)]))

    for kind in ROWS:
        request = asked(spec, kind, "m")
        assert [message["role"] for message in request.messages[:3]] == ["user", "assistant", "tool"]
        assert "sealed" not in request.raw
