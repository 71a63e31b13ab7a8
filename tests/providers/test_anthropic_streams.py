"""Anthropic's streams: they say what whole answers say, however they arrive, and never end in silence."""

from __future__ import annotations

import contextlib
import http.server
import json
import random
import threading
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.providers.anthropic_wire import (
    DIALECT,
    WHOLE,
    answer_of,
    decoded,
    disturbed,
    events_of,
    fixture,
    sse,
    streamed,
)
from tests.providers.wires import in_pieces, plain

from trunkline.v1 import completion_pb2, completion_service_pb2
from trunkline_server.errors import (
    LLMConnectionError,
    LLMError,
    LLMProviderOverloaded,
)
from trunkline_server.providers.assembly import Assembly
from trunkline_server.providers.base import BARE, Event


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

    assert decoded(in_pieces(data, sizes)).completion() == decoded(events_of(data)).completion()


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


def test_a_stream_that_begins_without_a_word_of_itself_is_read():
    # Servers that imitate the provider lose the first events when the answer begins with half a character.
    *_, delta, end, last = (json.loads(event.data) for event in events_of(fixture("stream.sse")))
    text = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "👋"}}

    answer = decoded(events_of(sse(text, end, last))).completion()

    assert delta["type"] == "content_block_stop"
    assert answer.choices[0].message.parts[0].text.text == "👋"
    assert answer.model == "asked-for"


def test_the_mark_that_others_end_with_is_no_error():
    events = [*events_of(fixture("stream.sse")), Event(b"", b"[DONE]")]

    assert decoded(events).finished


def test_what_comes_after_the_end_changes_nothing():
    events = events_of(fixture("stream.sse"))

    assert decoded(events + events[1:]).completion() == decoded(events).completion()


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
