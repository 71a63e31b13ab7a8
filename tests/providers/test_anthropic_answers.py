"""Anthropic's answers, whole and streamed: what it said is what the caller gets, however it arrived."""

from __future__ import annotations

import contextlib
import http.server
import json
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.v1 import completion_pb2, completion_service_pb2
from trunkline_server.errors import (
    LLMConnectionError,
    LLMEmptyResponseError,
    LLMError,
    LLMInvalidResponseError,
    LLMProviderOverloaded,
)
from trunkline_server.providers.assembly import Assembly
from trunkline_server.providers.base import BARE, Event
from trunkline_server.providers.dialects.anthropic_messages import AnthropicMessages
from trunkline_server.providers.framing import FRAMINGS

FIXTURES = Path(__file__).parent / "fixtures" / "anthropic_messages"
WHOLE = ("text", "thinking_and_tools", "provider_tools", "citations")
DIALECT = AnthropicMessages()


def fixture(name: str) -> bytes:
    return (FIXTURES / name).read_bytes()


def answer_of(message: object) -> completion_pb2.Completion:
    assembly = Assembly("anthropic", "asked-for")
    DIALECT.decode(message if isinstance(message, bytes) else json.dumps(message).encode(), assembly)
    return assembly.completion()


def events_of(stream: bytes) -> list[Event]:
    framer = FRAMINGS[DIALECT.framing]()
    return [*framer.feed(stream), *framer.end()]


def decoded(events: list[Event], *, emits: bool = False) -> Assembly:
    assembly = Assembly("anthropic", "asked-for", emits=emits)
    decoder = DIALECT.decoder(assembly)
    for event in events:
        decoder.event(event)
    decoder.end()
    return assembly


def sse(*payloads: object) -> bytes:
    return b"".join(
        f"event: {payload['type']}\ndata: {json.dumps(payload)}\n\n".encode()  # type: ignore[index]
        for payload in payloads
    )


def streamed(message: dict[str, Any], pieces: random.Random) -> bytes:
    """The stream that the provider would have sent for a whole message, its texts cut anywhere."""

    def cut(text: str) -> list[str]:
        return [text[at : at + 3] for at in range(0, len(text), 3)] if pieces.random() < 0.5 else [text]

    start = {**message, "content": [], "stop_reason": None, "stop_sequence": None}
    start["usage"] = {**message["usage"], "output_tokens": 1}
    payloads: list[dict[str, Any]] = [{"type": "message_start", "message": start}, {"type": "ping"}]
    for index, block in enumerate(message["content"]):
        deltas: list[dict[str, Any]] = []
        begun = dict(block)
        if block["type"] == "text":
            begun["text"] = ""
            deltas = [{"type": "text_delta", "text": text} for text in cut(block["text"])]
            if "citations" in block:
                begun["citations"] = []
                deltas += [{"type": "citations_delta", "citation": citation} for citation in block["citations"]]
        elif block["type"] == "thinking":
            begun |= {"thinking": "", "signature": ""}
            deltas = [{"type": "thinking_delta", "thinking": text} for text in cut(block["thinking"])]
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
        elif "input" in block:
            begun["input"] = {}
            text = json.dumps(block["input"]) if block["input"] else ""
            deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in ["", *cut(text)]]
        payloads.append({"type": "content_block_start", "index": index, "content_block": begun})
        payloads += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        payloads.append({"type": "content_block_stop", "index": index})
    delta = {"stop_reason": message["stop_reason"], "stop_sequence": message["stop_sequence"]}
    usage = {"output_tokens": message["usage"]["output_tokens"]}
    payloads += [{"type": "message_delta", "delta": delta, "usage": usage}, {"type": "message_stop"}]
    return sse(*payloads)


def plain(completion: completion_pb2.Completion) -> completion_pb2.Completion:
    """The answer without how its JSON was spaced."""
    copy = completion_pb2.Completion()
    copy.CopyFrom(completion)
    copy.usage.raw_json = ""
    for part in copy.choices[0].message.parts:
        if part.HasField("tool_call"):
            part.tool_call.arguments_json = json.dumps(json.loads(part.tool_call.arguments_json), sort_keys=True)
        if part.HasField("opaque"):
            part.opaque.json = json.dumps(json.loads(part.opaque.json), sort_keys=True)
        if part.HasField("signature") and part.signature.startswith("{"):
            part.signature = json.dumps(json.loads(part.signature))
        for citation in part.text.citations if part.HasField("text") else ():
            citation.raw_json = json.dumps(json.loads(citation.raw_json), sort_keys=True)
    return copy


# -- whole answers ----------------------------------------------------------------------------------------------------


def test_a_whole_answer_keeps_the_order_of_its_parts_and_every_byte_of_its_arguments():
    answer = answer_of(fixture("thinking_and_tools.json"))

    parts = answer.choices[0].message.parts
    assert [part.WhichOneof("kind") for part in parts] == [
        "reasoning", "reasoning", "text", "tool_call", "tool_call", "tool_call",
    ]  # fmt: skip
    assert parts[0].reasoning.text == "Two cities.\n\nI need both forecasts before I can compare them. "
    assert parts[0].signature == "c2lnbmF0dXJlIG9mIHRoZSBmaXJzdA=="
    assert parts[1].reasoning.redacted
    assert parts[1].reasoning.encrypted == "b3BhcXVlIHRob3VnaHRz"
    assert parts[3].tool_call.arguments_json == '{"city": "Köln", "days":3, "exact":1.50, "id":9007199254740993}'
    assert parts[3].tool_call.id == "toolu_made_1"
    assert not parts[3].HasField("signature")
    assert parts[5].tool_call.arguments_json == "{}"
    assert {part.origin_provider for part in parts} == {"anthropic"}
    assert answer.choices[0].finish_reason == completion_pb2.FINISH_REASON_TOOL_CALLS
    assert answer.choices[0].raw_finish_reason == "tool_use"
    assert (answer.model, answer.provider_response_id) == ("claude-sonnet-4-5-20250929", "msg_made_tools")
    assert answer.service_tier == "priority"


def test_input_tokens_include_what_was_read_from_and_written_to_the_cache():
    usage = answer_of(fixture("thinking_and_tools.json")).usage

    assert usage.input_tokens == 400 + 120 + 2000
    assert (usage.cache_read_input_tokens, usage.cache_write_input_tokens) == (2000, 120)
    assert (usage.output_tokens, usage.reasoning_tokens, usage.total_tokens) == (311, 180, 2831)
    assert usage.source == completion_pb2.USAGE_SOURCE_REPORTED
    assert usage.raw_json.encode() in fixture("thinking_and_tools.json")


def test_counts_that_the_provider_leaves_out_stay_absent():
    answer = answer_of(
        {"content": [{"type": "text", "text": "x"}], "stop_reason": "end_turn", "usage": {"output_tokens": 3}}
    )

    assert answer.usage.output_tokens == 3
    for name in ("input_tokens", "total_tokens", "cache_read_input_tokens", "reasoning_tokens"):
        assert not answer.usage.HasField(name)
    assert not answer_of({"content": [], "stop_reason": "end_turn"}).HasField("usage")


def test_what_the_provider_ran_comes_as_opaque_blocks_verbatim():
    answer = answer_of(fixture("provider_tools.json"))

    opaque = [part.opaque for part in answer.choices[0].message.parts if part.HasField("opaque")]
    assert [block.type for block in opaque] == [
        "server_tool_use", "web_search_tool_result", "server_tool_use", "code_execution_tool_result",
    ]  # fmt: skip
    assert all(block.json.encode() in fixture("provider_tools.json") for block in opaque)
    calls = [part for part in answer.choices[0].message.parts if part.HasField("tool_call")]
    assert [call.tool_call.name for call in calls] == ["convert"]
    assert json.loads(calls[0].signature) == {
        "caller": {"type": "code_execution_20260120", "tool_id": "srvtoolu_made_2"}
    }
    assert answer.choices[0].finish_reason == completion_pb2.FINISH_REASON_PAUSE


def test_citations_of_every_kind_say_where_and_carry_their_own_object():
    answer = answer_of(fixture("citations.json"))

    cited = answer.choices[0].message.parts[0].text.citations
    assert [(c.WhichOneof("source"), c.title, c.cited_text) for c in cited] == [
        ("document_index", "Contract", "two (2) years"),
        ("document_index", "", "24 months"),
        ("document_index", "Notes", "until 2028"),
        ("uri", "Terms", "a term of two years"),
        (None, "", "two"),
    ]
    assert [c.document_index for c in cited[:3]] == [0, 1, 2]
    assert cited[3].uri == "https://example.org/terms"
    assert all(c.raw_json.encode() in fixture("citations.json") for c in cited)
    assert answer.choices[0].stop_sequence == "END"
    assert answer.choices[0].finish_reason == completion_pb2.FINISH_REASON_STOP


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("end_turn", completion_pb2.FINISH_REASON_STOP),
        ("max_tokens", completion_pb2.FINISH_REASON_LENGTH),
        ("model_context_window_exceeded", completion_pb2.FINISH_REASON_CONTEXT_WINDOW),
        ("refusal", completion_pb2.FINISH_REASON_REFUSAL),
        ("pause_turn", completion_pb2.FINISH_REASON_PAUSE),
        ("a_word_of_tomorrow", completion_pb2.FINISH_REASON_OTHER),
    ],
)
def test_a_finish_reason_keeps_the_providers_word(word: str, reason: int):
    choice = answer_of({"content": [{"type": "text", "text": "x"}], "stop_reason": word}).choices[0]

    assert (choice.finish_reason, choice.raw_finish_reason) == (reason, word)


def test_an_empty_refusal_is_an_answer_and_an_empty_nothing_is_not():
    assert answer_of({"content": [], "stop_reason": "refusal"}).choices[0].raw_finish_reason == "refusal"
    with pytest.raises(LLMEmptyResponseError):
        answer_of({"content": [], "stop_reason": None})


def test_a_server_that_gives_no_reason_is_understood_by_what_it_said():
    call = {"type": "tool_use", "id": "a", "name": "b", "input": {}}

    assert answer_of({"content": [call]}).choices[0].finish_reason == completion_pb2.FINISH_REASON_TOOL_CALLS
    text = answer_of({"content": [{"type": "text", "text": "x"}]}).choices[0]
    assert text.finish_reason == completion_pb2.FINISH_REASON_STOP
    assert text.raw_finish_reason == ""


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"{}", b"<html>", b'{"content":7}', b'{"content":[7]}', b"\xff"])
def test_an_answer_of_another_shape_is_an_error_of_ours(body: bytes):
    with pytest.raises(LLMInvalidResponseError):
        answer_of(body)


def test_an_error_in_a_200_is_that_error():
    with pytest.raises(LLMProviderOverloaded) as caught:
        answer_of(
            {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}, "request_id": "req_7"}
        )

    assert (caught.value.http_status, caught.value.provider_code) == (200, "overloaded_error")
    assert caught.value.request_id == "req_7"


# -- streams ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("seed", range(3))
def test_a_stream_says_what_the_whole_answer_says(name: str, seed: int):
    message = json.loads(fixture(f"{name}.json"))

    answer = decoded(events_of(streamed(message, random.Random(seed)))).completion()

    assert plain(answer) == plain(answer_of(message))


def test_a_recorded_layout_of_a_stream_is_read():
    answer = decoded(events_of(fixture("stream.sse"))).completion()

    thought, text, call = answer.choices[0].message.parts
    assert (thought.reasoning.text, thought.signature) == ("  A greeting is due. ", "c2lnbmVk")
    assert text.text.text == "Hello 👋 there"
    assert call.tool_call.arguments_json == '{"times": 3, "to": "José"}'
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (31 + 7 + 5, 42)
    assert (answer.usage.cache_write_input_tokens, answer.usage.reasoning_tokens) == (7, 11)
    assert json.loads(answer.usage.raw_json)["service_tier"] == "standard"


def test_usage_is_partial_until_the_reason_for_the_end_is_known():
    events = events_of(fixture("stream.sse"))
    assembly = Assembly("anthropic", "asked-for")
    decoder = DIALECT.decoder(assembly)

    decoder.event(events[0])
    assert assembly.usage is not None
    early = assembly.usage.source
    for event in events[1:]:
        decoder.event(event)

    assert early == completion_pb2.USAGE_SOURCE_PARTIAL
    assert assembly.usage.source == completion_pb2.USAGE_SOURCE_REPORTED


def test_events_come_as_the_provider_sends_them_and_join_to_the_whole():
    assembly = Assembly("anthropic", "asked-for", emits=True)
    decoder = DIALECT.decoder(assembly)
    made: list[completion_service_pb2.StreamCompletionResponse] = []
    for event in events_of(fixture("stream.sse")):
        decoder.event(event)
        made += assembly.events()

    kinds = [event.WhichOneof("event") for event in made]
    assert kinds[:3] == ["usage_updated", "part_started", "part_delta"]
    assert kinds[-1] == "choice_finished"
    assert kinds.count("part_started") == kinds.count("part_finished") == 3
    deltas = [event.part_delta for event in made if event.HasField("part_delta")]
    assert "".join(delta.text for delta in deltas if delta.part_index == 1) == "Hello 👋 there"
    assert "".join(delta.signature for delta in deltas) == "c2lnbmVk"


@given(st.lists(st.integers(1, 400), max_size=30), st.sampled_from(["stream.sse", *(f"{name}.json" for name in WHOLE)]))
@settings(max_examples=60, deadline=None)
def test_however_a_stream_is_cut_into_chunks_the_answer_is_the_same(sizes: list[int], name: str):
    data = fixture(name)
    if name.endswith(".json"):
        data = streamed(json.loads(data), random.Random(1))
    framer = FRAMINGS["sse"]()
    events: list[Event] = []
    at = 0
    for size in sizes:
        events += framer.feed(data[at : at + size])
        at += size
    events += [*framer.feed(data[at:]), *framer.end()]

    assert decoded(events).completion() == decoded(events_of(data)).completion()


def test_input_of_a_block_that_the_provider_ran_is_folded_in_byte_for_byte():
    block = {"type": "mcp_tool_use", "id": "mcptoolu_1", "name": "ask", "server_name": "wiki", "input": {}}
    stream = sse(
        {"type": "message_start", "message": {"id": "m"}},
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": '{"q":  1.'}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": "50}"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
        {"type": "message_stop"},
    )

    part = decoded(events_of(stream)).completion().choices[0].message.parts[0]

    assert part.opaque.type == "mcp_tool_use"
    assert '"input":{"q":  1.50}' in part.opaque.json
    assert json.loads(part.opaque.json) == {**block, "input": {"q": 1.5}}


def test_deltas_of_a_kind_that_is_not_known_are_folded_into_their_block():
    stream = sse(
        {"type": "message_start", "message": {"id": "m"}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "compaction", "content": None}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "compaction_delta", "content": "So far: "}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "compaction_delta", "content": "hello."}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "tomorrow_delta", "signature": {"of": 1}}},
        {"type": "content_block_stop", "index": 0},
        {"type": "a_tomorrow_event", "index": "seven", "delta": 3},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
        {"type": "message_stop"},
    )

    part = decoded(events_of(stream)).completion().choices[0].message.parts[0]

    assert json.loads(part.opaque.json) == {
        "type": "compaction", "content": "So far: hello.", "signature": {"of": 1},
    }  # fmt: skip


def test_arguments_that_were_cut_off_stay_as_they_are_beside_what_can_be_read_of_them():
    stream = sse(
        {"type": "message_start", "message": {"id": "m"}},
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "tool_use", "id": "a", "name": "b", "input": {}},
        },
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "input_json_delta", "partial_json": '{"a": [1], "b": "x'},
        },
        {"type": "message_delta", "delta": {"stop_reason": "max_tokens"}},
        {"type": "message_stop"},
    )

    choice = decoded(events_of(stream)).completion().choices[0]

    assert choice.message.parts[0].tool_call.arguments_json == '{"a": [1], "b": "x'
    assert json.loads(choice.message.parts[0].tool_call.completed_arguments_json) == {"a": [1]}
    assert choice.finish_reason == completion_pb2.FINISH_REASON_LENGTH


def test_arguments_that_come_with_the_beginning_of_a_call_stand_if_no_deltas_follow():
    stream = sse(
        {"type": "message_start", "message": {"id": "m"}},
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "tool_use", "id": "a", "name": "b", "input": {"x": 1}},
        },
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}},
    )

    part = decoded(events_of(stream)).completion().choices[0].message.parts[0]

    assert json.loads(part.tool_call.arguments_json) == {"x": 1}


def test_a_stream_that_ends_early_is_a_broken_connection_wherever_it_is_cut():
    events = events_of(fixture("stream.sse"))

    for length in range(len(events) - 2):
        with pytest.raises(LLMConnectionError):
            decoded(events[:length])
    # The reason for the end is all that a complete answer needs.
    assert decoded(events[:-1]).completion() == decoded(events).completion()


def test_an_error_in_a_stream_ends_it_after_what_was_said_before():
    assembly = Assembly("anthropic", "asked-for")
    decoder = DIALECT.decoder(assembly)
    *before, last = events_of(fixture("overloaded.sse"))
    for event in before:
        decoder.event(event)

    with pytest.raises(LLMProviderOverloaded) as caught:
        decoder.event(last)

    assert caught.value.message == "Overloaded"
    assert (caught.value.http_status, caught.value.request_id) == (200, "req_made_7")
    assert assembly.completion().choices[0].message.parts[0].text.text == "As far as I"


@pytest.mark.parametrize(
    "event",
    [
        Event(b"error", b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}'),
        Event(BARE, b'{"error":{"type":"overloaded_error","message":"Overloaded"}}'),
        Event(b"", b'{"error":{"type":"overloaded_error","message":"Overloaded"}}'),
        Event(b"error", b"overloaded, try later"),
    ],
)
def test_an_error_in_a_stream_is_found_in_any_clothes(event: Event):
    decoder = DIALECT.decoder(Assembly("anthropic", "asked-for"))

    with pytest.raises(LLMProviderOverloaded):
        decoder.event(event)


def test_the_mark_that_others_end_with_is_no_error():
    events = [*events_of(fixture("stream.sse")), Event(b"", b"[DONE]")]

    assert decoded(events).finished


def test_what_comes_after_the_end_changes_nothing():
    events = events_of(fixture("stream.sse"))

    assert decoded(events + events[1:]).completion() == decoded(events).completion()


_VALUES = [b"null", b'"\\ud83d"', b"[]", b"{}", b"-1", b"1e999", b"4294967296", b'{"a":[1]}', b"[[[[", b"\xff", b"true"]


def mutated(data: bytes, chance: random.Random) -> bytes:
    """One byte or one value is another."""
    at = data.find(b":", chance.randrange(len(data)))
    if at < 0 or chance.random() < 0.3:
        place = chance.randrange(len(data))
        return data[:place] + bytes([chance.randrange(256)]) + data[place + 1 :]
    end = min((place for place in (data.find(b",", at), data.find(b"}", at)) if place > 0), default=at)
    return data[: at + 1] + chance.choice(_VALUES) + data[end:]


def disturbed(events: list[Event], chance: random.Random) -> list[Event]:
    """Events lost, doubled, changed or out of order."""
    events = list(events)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(events))
        match chance.randrange(4):
            case 0 if len(events) > 1:
                del events[at]
            case 1:
                events.insert(at, events[at])
            case 2:
                events[at] = Event(chance.choice([b"", BARE, events[at].name]), mutated(events[at].data, chance))
            case _:
                chance.shuffle(events)
    return events


def test_whatever_comes_in_a_stream_only_errors_of_ours_come_out():
    chance = random.Random(20)
    streams = [events_of(fixture("stream.sse"))]
    streams += [events_of(streamed(json.loads(fixture(f"{name}.json")), chance)) for name in WHOLE]
    finished = 0

    for _ in range(1500):
        assembly = Assembly("anthropic", "asked-for", emits=True)
        decoder = DIALECT.decoder(assembly)
        with contextlib.suppress(LLMError):
            for event in disturbed(chance.choice(streams), chance):
                decoder.event(event)
                assembly.events()
            decoder.end()
        finished += assembly.finished
        assert assembly.completion().SerializeToString()

    # Both ways were taken: streams that could still be read, and streams that could not.
    assert 100 < finished < 1400


def test_whatever_a_body_holds_only_errors_of_ours_come_out():
    chance = random.Random(21)
    read = 0

    for _ in range(1500):
        with contextlib.suppress(LLMError):
            read += bool(answer_of(mutated(fixture(f"{chance.choice(WHOLE)}.json"), chance)).choices)

    assert 100 < read < 1400


# -- against the official client --------------------------------------------------------------------------------------


@pytest.fixture
def serve() -> Iterator[Any]:
    """Answers every request with the given stream, over a real port."""
    servers: list[http.server.ThreadingHTTPServer] = []

    def start(body: bytes) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                self.send_response(200)
                self.send_header("content-type", "text/event-stream")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("name", ["stream.sse", "thinking_and_tools.json", "provider_tools.json"])
def test_a_stream_adds_up_to_what_the_official_client_makes_of_it(name: str, serve: Any):
    data = fixture(name)
    if name.endswith(".json"):
        data = streamed(json.loads(data), random.Random(4))
    with (
        anthropic.Anthropic(api_key="made-up", base_url=serve(data), max_retries=0) as client,
        client.messages.stream(
            model="claude-opus-4-8", max_tokens=1, messages=[{"role": "user", "content": "hello"}]
        ) as stream,
    ):
        theirs = stream.get_final_message().model_dump()

    ours = decoded(events_of(data)).completion()

    assert (ours.model, ours.provider_response_id) == (theirs["model"], theirs["id"])
    assert ours.choices[0].raw_finish_reason == theirs["stop_reason"]
    assert ours.usage.output_tokens == theirs["usage"]["output_tokens"]
    parts = list(ours.choices[0].message.parts)
    assert len(parts) == len(theirs["content"])
    for part, block in zip(parts, theirs["content"], strict=True):
        match block["type"]:
            case "text":
                assert part.text.text == block["text"].encode("utf-16", "surrogatepass").decode("utf-16")
                assert [c.cited_text for c in part.text.citations] == [
                    c["cited_text"] for c in block["citations"] or []
                ]
            case "thinking":
                assert (part.reasoning.text, part.signature) == (block["thinking"], block["signature"])
            case "redacted_thinking":
                assert part.reasoning.encrypted == block["data"]
            case "tool_use":
                assert (part.tool_call.id, part.tool_call.name) == (block["id"], block["name"])
                assert json.loads(part.tool_call.arguments_json) == block["input"]
            case kind:
                assert part.opaque.type == kind
                assert json.loads(part.opaque.json).get("input") == block.get("input")
