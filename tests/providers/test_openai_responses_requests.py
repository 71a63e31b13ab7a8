"""The conversation as Responses takes it: items in order, and everything of it in the body or in the notes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.providers.openai_chat_requests import (
    ASSISTANT,
    DEVELOPER,
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

from trunkline.v1 import completion_pb2, message_pb2
from trunkline_server.providers.base import Capabilities, Notes, Target
from trunkline_server.providers.dialects.openai_responses import OpenAIResponses
from trunkline_server.providers.dialects.openai_responses.quirks import KEY, Quirks

KIND, MODEL = "openai-responses", "gpt-5.4"
HI = (USER, [text("hi")])


def responses(spec: completion_pb2.CompletionSpec, model: str = MODEL, kind: str = KIND, **more: Any) -> Asked:
    return asked(spec, kind, model, **more)


def items_of(*turns: tuple[Any, list[Part]], **fields: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = responses(spec_of(*turns, **fields)).body["input"]
    return found


def opaque(kind: str, **more: Any) -> Part:
    return Part(opaque=message_pb2.OpaqueBlock(type=kind, json=json.dumps({"type": kind, **more})))


def thought(words: str = "", encrypted: str = "", *, summary: bool = True, **more: Any) -> Part:
    part = Part(reasoning=message_pb2.Reasoning(text=words, is_summary=summary), **more)
    if encrypted:
        part.reasoning.encrypted = encrypted
    return part


def test_a_plain_conversation_is_sent_as_strings():
    spec = spec_of((SYSTEM, [text("Be brief.")]), HI, (ASSISTANT, [text("Hello")]), (USER, [text("?")]))

    request = responses(spec)

    assert request.path == "/responses"
    assert request.body == {
        "model": MODEL,
        "instructions": "Be brief.",
        "input": [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": "Hello"},
            {"role": "user", "content": "?"},
        ],
    }
    assert (request.unsupported, request.warned) == ({}, {})


def test_a_stream_is_asked_for():
    assert responses(spec_of(), stream=True).body["stream"] is True
    assert "stream" not in responses(spec_of()).body


def test_only_the_first_system_message_is_the_instructions():
    items = items_of((SYSTEM, [text("a")]), (SYSTEM, [text("b")]), (DEVELOPER, [text("c")]), HI, (SYSTEM, [text("d")]))

    assert [(item["role"], item["content"]) for item in items] == [
        ("system", "b"), ("developer", "c"), ("user", "hi"), ("system", "d"),
    ]  # fmt: skip


def test_instructions_of_several_parts_stay_a_message():
    (first, _) = items_of((SYSTEM, [text("a"), text("b")]), HI)

    assert first == {
        "role": "system",
        "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}],
    }


def test_media_are_addresses_handles_and_bytes_as_data_addresses():
    parts = [
        text("see"),
        Part(image=Media(data=b"\x89PNG", mime_type="image/png", detail=message_pb2.MEDIA_DETAIL_HIGH)),
        Part(image=Media(uri="https://example.org/a.png")),
        Part(image=Media(file_id="file-1")),
        Part(document=Media(data=b"%PDF", mime_type="application/pdf", filename="a.pdf")),
        Part(document=Media(data=b"a,b", mime_type="text/csv")),
        Part(document=Media(uri="https://example.org/a.pdf")),
        Part(document=Media(file_id="file-2")),
    ]

    request = responses(spec_of((USER, parts)))

    assert request.body["input"][0]["content"] == [
        {"type": "input_text", "text": "see"},
        {"type": "input_image", "detail": "high", "image_url": "data:image/png;base64,iVBORw=="},
        {"type": "input_image", "image_url": "https://example.org/a.png"},
        {"type": "input_image", "file_id": "file-1"},
        {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERg=="},
        {"type": "input_file", "filename": "document.csv", "file_data": "data:text/csv;base64,YSxi"},
        {"type": "input_file", "file_url": "https://example.org/a.pdf"},
        {"type": "input_file", "file_id": "file-2"},
    ]
    assert (request.unsupported, request.warned) == ({}, {})


@pytest.mark.parametrize(
    ("mime_type", "name"),
    [
        ("application/pdf", "document.pdf"),
        ("text/plain; charset=utf-8", "document.txt"),
        ("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", "document.xlsx"),
        ("application/atom+xml", "document.xml"),
        ("strange/", "document.bin"),
    ],
)
def test_a_file_without_a_name_gets_one(mime_type, name):
    (item,) = items_of((USER, [Part(document=Media(data=b"a", mime_type=mime_type))]))

    assert item["content"][0]["filename"] == name


@pytest.mark.parametrize(
    ("kind", "model", "part", "path"),
    [
        (KIND, MODEL, Part(video=Media(uri="https://example.org/a.mp4")), "messages[0].parts[1]"),
        (KIND, MODEL, Part(audio=Media(data=b"a", mime_type="audio/wav")), "messages[0].parts[1]"),
        ("openrouter-responses", "x", Part(audio=Media(uri="https://example.org/a.wav")), "messages[0].parts[1].audio"),
        ("deepseek-responses", "x", Part(image=Media(uri="https://example.org/a.png")), "messages[0].parts[1]"),
        ("groq-responses", "x", Part(document=Media(file_id="file-1")), "messages[0].parts[1]"),
    ],
)
def test_what_the_model_cannot_take_is_noted_and_left_out(kind, model, part, path):
    request = responses(spec_of((USER, [text("a"), part])), model, kind)

    assert request.unsupported == {path: "PARAMETER_DROPPED"}
    assert request.body["input"] == [{"role": "user", "content": "a"}]


def test_sound_goes_where_it_is_heard():
    part = Part(audio=Media(data=b"RIFF", mime_type="audio/wav"))

    (item,) = responses(spec_of((USER, [part])), "x", "openrouter-responses").body["input"]

    assert item["content"] == [{"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}]


def test_a_text_document_is_a_text_where_there_are_no_documents():
    part = Part(document=Media(data=b"words", mime_type="text/plain", filename="a.txt"))

    request = responses(spec_of((USER, [part])), "x", "groq-responses")

    assert request.body["input"] == [{"role": "user", "content": "a.txt:\nwords"}]
    assert request.warned == {"messages[0].parts[0].document": "PARAMETER_ALTERED"}


def test_marks_of_prefixes_go_to_models_that_cache_what_they_are_told():
    mark = message_pb2.CacheControl(ttl=message_pb2.CACHE_TTL_1H)
    turns = [
        (SYSTEM, [text("a", cache_control=message_pb2.CacheControl())]),
        (USER, [text("b", cache_control=mark), text("c")]),
    ]

    newest, older = responses(spec_of(*turns), "gpt-5.6"), responses(spec_of(*turns), "gpt-5.4")

    system, user = newest.body["input"]
    assert system["content"][0]["prompt_cache_breakpoint"] == {"mode": "explicit"}
    assert user["content"][0]["prompt_cache_breakpoint"] == {"mode": "explicit", "ttl": "12h"}
    assert older.body["instructions"] == "a"
    assert "prompt_cache_breakpoint" not in older.raw


def test_names_of_participants_are_warned_about():
    spec = spec_of(HI)
    spec.messages[0].name = "Ann"

    assert responses(spec).warned == {"messages[0].name": "PARAMETER_ALTERED"}


# -- calls and results ------------------------------------------------------------------------------------------------


def test_calls_and_results_are_items_of_their_own():
    turn = (ASSISTANT, [text("Let me look."), call("c1", "f", '{"a" : 1}'), call("c2", "g", "")])
    results = (TOOL, [result(text("one")), result(call_id="c2")])

    assert items_of(HI, turn, results)[1:] == [
        {"role": "assistant", "content": "Let me look."},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a" : 1}'},
        {"type": "function_call", "call_id": "c2", "name": "g", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "one"},
        {"type": "function_call_output", "call_id": "c2", "output": ""},
    ]


def test_results_hold_pictures_and_files():
    parts = [
        text("see"),
        Part(image=Media(uri="https://example.org/a.png")),
        Part(document=Media(file_id="file-1")),
    ]

    *_, item = items_of(HI, (ASSISTANT, [call()]), (TOOL, [result(*parts)]))

    assert item["output"] == [
        {"type": "input_text", "text": "see"},
        {"type": "input_image", "image_url": "https://example.org/a.png"},
        {"type": "input_file", "file_id": "file-1"},
    ]


def test_pictures_in_results_follow_in_a_message_where_results_are_texts():
    capabilities = Capabilities(quirks={KEY: Quirks(rich_results=False)})
    parts = [text("a"), text("b"), Part(image=Media(uri="https://example.org/a.png"))]
    spec = spec_of(HI, (ASSISTANT, [call()]), (TOOL, [result(*parts)]), (USER, [text("?")]))
    notes = Notes()

    request = OpenAIResponses().encode(spec, Target("x", "x", "m", capabilities), notes, stream=False)

    assert json.loads(request.body)["input"][2:] == [
        {"type": "function_call_output", "call_id": "c1", "output": "a\nb"},
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "Returned by the tool call c1:"},
                {"type": "input_image", "image_url": "https://example.org/a.png"},
            ],
        },
        {"role": "user", "content": "?"},
    ]
    assert [path for _, path, _ in notes.foreign] == ["messages[2].parts[0].tool_result"]


def test_a_failed_tool_is_told_by_its_text():
    request = responses(spec_of(HI, (ASSISTANT, [call()]), (TOOL, [result(text("no"), is_error=True)])))

    assert request.body["input"][-1]["output"] == "no"
    assert request.warned == {"messages[2].parts[0].tool_result.is_error": "PARAMETER_ALTERED"}


def test_calls_of_tools_that_take_free_text_are_known_by_tool_or_mark():
    tool = completion_pb2.Tool(provider=completion_pb2.ProviderTool(type="custom", config_json='{"name":"query"}'))
    marked = call("c2", "other", "SELECT 2", signature='{"type":"custom_tool_call"}')
    turns = [
        HI,
        (ASSISTANT, [call("c1", "query", "SELECT 1"), marked]),
        (TOOL, [result(text("1")), result(call_id="c2")]),
    ]

    assert items_of(*turns, tools=[tool])[1:] == [
        {"type": "custom_tool_call", "call_id": "c1", "name": "query", "input": "SELECT 1"},
        {"type": "custom_tool_call", "call_id": "c2", "name": "other", "input": "SELECT 2"},
        {"type": "custom_tool_call_output", "call_id": "c1", "output": "1"},
        {"type": "custom_tool_call_output", "call_id": "c2", "output": ""},
    ]


def test_a_result_alone_is_known_by_the_name_of_its_tool():
    tool = completion_pb2.Tool(provider=completion_pb2.ProviderTool(type="custom", config_json='{"name":"query"}'))
    results = [result(text("1"), name="query"), result(text("2"), call_id="c2", name="f")]

    items = items_of((TOOL, results), tools=[tool, function()], previous_response_id="resp_1")

    assert [item["type"] for item in items] == ["custom_tool_call_output", "function_call_output"]


def test_an_injected_argument_goes_back_where_the_schemas_have_it():
    again = call(arguments='{"b":"x"}')
    again.tool_call.reasoning = "because"
    argument = completion_pb2.ReasoningArgument(name="why")

    _, item, _ = items_of(HI, (ASSISTANT, [again]), (TOOL, [result()]), tools=[function()], reasoning_argument=argument)

    assert item["arguments"] == '{"why":"because","b":"x"}'


# -- what goes back as it came ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("store", [None, False])
def test_an_answer_goes_back_as_it_came(name, store):
    answer = answer_of(fixture(name))
    said = list(answer.choices[0].message.parts)
    results = [result(text("x"), call_id=part.tool_call.id) for part in said if part.HasField("tool_call")]
    spec = spec_of(HI, (ASSISTANT, said), *([(TOOL, results)] if results else []), (USER, [text("go on")]))
    if store is not None:
        spec.store = store

    request = responses(spec)

    given = json.loads(fixture(name))["output"]
    sent = [item for item in request.body["input"] if "role" not in item or item["role"] == "assistant"]
    calls = {item["call_id"] for item in given if item["type"] in ("function_call", "custom_tool_call")}
    sent = [item for item in sent if not item.get("type", "").endswith("call_output") or item["call_id"] not in calls]
    kept = [item for item in given if item["type"] != "reasoning" or not lost(item, kept=store is None)]
    assert [comparable(item) for item in sent] == [comparable(item, named=len(kept) == len(given)) for item in kept]


def lost(item: dict[str, Any], *, kept: bool) -> bool:
    return not item.get("encrypted_content") and not kept


def comparable(item: dict[str, Any], *, named: bool = True) -> dict[str, Any]:
    """The item without what is so by default, and without names where thoughts before it were left out."""
    modelled = item.get("type", "message") in ("message", "function_call", "custom_tool_call")
    found = {
        name: value for name, value in item.items() if name != "status" and (named or name != "id" or not modelled)
    }
    found.setdefault("type", "message")
    content = found.get("content")
    if isinstance(content, str):
        content = found["content"] = [{"type": "output_text", "text": content}]
    for piece in content or ():
        # How likely it was is no part of what was said.
        piece.pop("logprobs", None)
        if not piece.get("annotations", True):
            del piece["annotations"]
    return found


def test_sealed_thoughts_are_asked_for_again_once_there_are_some():
    turns = [HI, (ASSISTANT, [thought("so", "c2Vh"), text("hello")]), (USER, [text("?")])]

    request = responses(spec_of(*turns))

    assert request.body["include"] == ["reasoning.encrypted_content"]
    assert request.body["input"][1] == {
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": "so"}],
        "encrypted_content": "c2Vh",
    }


@pytest.mark.parametrize(
    ("model", "fields", "wanted"),
    [
        (MODEL, {}, False),
        (MODEL, {"store": True}, False),
        (MODEL, {"store": False}, True),
        ("gpt-4.1", {"store": False}, False),
        ("some-deployment", {"store": False}, False),
        ("some-deployment", {"store": False, "params": {"reasoning": {"effort": 4}}}, True),
    ],
)
def test_thoughts_are_asked_for_sealed_where_nothing_is_kept_and_the_model_thinks(model, fields, wanted):
    assert ("include" in responses(spec_of(**fields), model).body) == wanted


def test_thoughts_that_cannot_go_back_are_left_out_with_the_names_of_what_followed_them():
    turn = [thought("so", item_id="rs_1"), text("hello", item_id="msg_1"), call(item_id="fc_1")]
    spec = spec_of(HI, (ASSISTANT, turn), (TOOL, [result()]), store=False)

    request = responses(spec)

    assert request.body["input"][1:3] == [
        {"role": "assistant", "content": "hello"},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a": 1}'},
    ]
    assert request.warned == {"messages[1].parts[0]": "FOREIGN_DATA_DROPPED"}
    assert request.unsupported == {}


def test_thoughts_go_back_by_their_id_where_the_response_is_kept():
    turn = [thought("so", item_id="rs_1"), text("hello", item_id="msg_1")]

    items = items_of(HI, (ASSISTANT, turn), (USER, [text("?")]))

    assert items[1] == {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "so"}]}
    assert items[2] == {
        "type": "message",
        "role": "assistant",
        "id": "msg_1",
        "status": "completed",
        "content": [{"type": "output_text", "text": "hello", "annotations": []}],
    }


def test_open_thoughts_go_back_where_they_are_read():
    turn = [thought("so", summary=False), call()]

    request = responses(spec_of(HI, (ASSISTANT, turn), (TOOL, [result()])), "x", "vllm-responses")

    assert request.body["input"][1] == {
        "type": "reasoning",
        "summary": [],
        "content": [{"type": "reasoning_text", "text": "so"}],
    }


def test_thoughts_without_ids_are_told_apart_by_their_seals():
    turn = [thought("a"), thought("b", "c2Vh"), thought("c", "bGVk"), text("hello")]

    items = items_of(HI, (ASSISTANT, turn), (USER, [text("?")]))

    assert [(item["encrypted_content"], len(item["summary"])) for item in items[1:3]] == [("c2Vh", 2), ("bGVk", 1)]


def test_thoughts_that_nothing_follows_are_left_out():
    turn = [text("hello"), thought("so", "c2Vh", item_id="rs_1")]

    request = responses(spec_of(HI, (ASSISTANT, turn), (USER, [text("?")])))

    assert [item["role"] for item in request.body["input"]] == ["user", "assistant", "user"]
    assert request.warned == {"messages[1]": "FOREIGN_DATA_DROPPED"}


def test_thoughts_whose_turn_goes_on_in_the_next_message_stay():
    items = items_of(HI, (ASSISTANT, [thought("so", "c2Vh")]), (ASSISTANT, [text("hello")]), (USER, [text("?")]))

    assert [item.get("type", item.get("role")) for item in items] == ["user", "reasoning", "assistant", "user"]


def test_what_another_provider_made_is_not_sent():
    cited = message_pb2.Text(text="hello", citations=[message_pb2.Citation(raw_json="{}")])
    turn = [
        thought("so", "c2Vh", item_id="rs_1", origin_provider="anthropic"),
        Part(text=cited, origin_provider="anthropic", item_id="x", signature="c2ln"),
        call(origin_provider="anthropic", signature='{"namespace":"n"}', item_id="y"),
        Part(opaque=message_pb2.OpaqueBlock(type="server_tool_use", json="{}"), origin_provider="anthropic"),
    ]  # fmt: skip

    request = responses(spec_of(HI, (ASSISTANT, turn), (TOOL, [result()])))

    assert request.body["input"][1:3] == [
        {"role": "assistant", "content": "hello"},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a": 1}'},
    ]
    assert set(request.warned.values()) == {"FOREIGN_DATA_DROPPED"}
    assert set(request.warned) == {
        "messages[1].parts[0]",
        "messages[1].parts[1].signature",
        "messages[1].parts[1].text.citations",
        "messages[1].parts[2].signature",
        "messages[1].parts[3]",
    }
    assert request.unsupported == {}


def test_a_call_that_another_provider_ran_is_left_out():
    ran = call("s1")
    ran.tool_call.provider_executed = True

    items = items_of(HI, (ASSISTANT, [ran, text("hello")]), (USER, [text("?")]))

    assert [item["role"] for item in items] == ["user", "assistant", "user"]


def test_items_that_the_contract_does_not_model_stand_where_they_are_put():
    answer = opaque("mcp_approval_response", approval_request_id="mcpr_1", approve=True)
    items = items_of(
        (USER, [opaque("item_reference", id="msg_0"), text("a"), answer, text("b")]),
        (ASSISTANT, [opaque("web_search_call", id="ws_1"), text("c", item_id="msg_1"), opaque("compaction")]),
        (USER, [opaque("computer_call_output", call_id="c")]),
    )

    assert [item.get("type") or item["content"] for item in items] == [
        "item_reference", "a", "mcp_approval_response", "b",
        "web_search_call", "message", "compaction", "computer_call_output",
    ]  # fmt: skip


def test_pieces_of_a_message_that_the_contract_does_not_model_go_back_inside_it():
    strange = Part(opaque=message_pb2.OpaqueBlock(type="content.output_future", json='{"type":"output_future"}'))
    strange.item_id = "msg_1"

    items = items_of(HI, (ASSISTANT, [text("a", item_id="msg_1"), strange]), (USER, [text("?")]))

    assert [piece["type"] for piece in items[1]["content"]] == ["output_text", "output_future"]


def test_a_refusal_goes_back_as_one():
    items = items_of(HI, (ASSISTANT, [Part(refusal=message_pb2.Refusal(text="no"))]), (USER, [text("?")]))

    assert items[1] == {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}


def test_citations_go_back_only_as_the_provider_made_them():
    raw = '{"type":"url_citation","url":"https://a.test" }'
    cited = Part(text=message_pb2.Text(text="x", citations=[message_pb2.Citation(raw_json=raw)]))
    made_up = Part(text=message_pb2.Text(text="y", citations=[message_pb2.Citation(uri="https://b.test")]))

    request = responses(spec_of(HI, (ASSISTANT, [cited, made_up]), (USER, [text("?")])))

    assert request.body["input"][1]["content"] == [
        {"type": "output_text", "text": "x", "annotations": [{"type": "url_citation", "url": "https://a.test"}]},
        {"type": "output_text", "text": "y"},
    ]
    assert raw in request.raw
    assert request.unsupported == {"messages[1].parts[1].text.citations": "PARAMETER_DROPPED"}


def test_what_was_said_aloud_goes_back_as_what_was_said():
    spoken = Part(audio=Media(data=b"RIFF", mime_type="audio/wav", transcript="hello"))
    silent = Part(audio=Media(data=b"RIFF", mime_type="audio/wav"))

    request = responses(spec_of(HI, (ASSISTANT, [spoken, silent]), (USER, [text("?")])))

    assert request.body["input"][1] == {"role": "assistant", "content": "hello"}
    assert request.unsupported == {"messages[1].parts[1]": "PARAMETER_DROPPED"}


# -- one provider and another -----------------------------------------------------------------------------------------


def test_plans_of_chatgpt_take_instructions_keep_nothing_and_always_stream():
    turns = [(SYSTEM, [text("a")]), (SYSTEM, [text("b"), text("c")]), HI]

    request = responses(spec_of(*turns), "gpt-5.4", "chatgpt")
    asking = responses(spec_of(store=True, previous_response_id="r"), "gpt-5.4", "chatgpt")

    assert request.body == {
        "model": "gpt-5.4",
        "instructions": "a\n\nb\nc",
        "input": [{"role": "user", "content": "hi"}],
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "stream": True,
    }
    assert asking.unsupported == {"store": "PARAMETER_DROPPED", "previous_response_id": "PARAMETER_DROPPED"}


def test_models_that_only_responses_offers_are_asked_there():
    request = asked(spec_of((SYSTEM, [text("a")]), HI), "openai", "o3-pro")

    assert request.path == "/responses"
    assert request.body["instructions"] == "a"
    assert asked(spec_of(), "openai", "o3").path == "/chat/completions"
