"""Streamed Chat Completions: however an answer is cut, it is the same answer, and a cut one is an error."""

from __future__ import annotations

import base64
import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.providers.openai_chat import (
    DIALECT,
    STOP,
    STREAMS,
    TOOL_CALLS,
    WHOLE,
    answer_of,
    calls_of,
    decoded,
    events_of,
    fixture,
    kinds,
    piece,
    streamed,
)
from tests.providers.wires import is_answer_or_error

from trunkline.v1 import completion_pb2, message_pb2
from trunkline_server.errors import (
    LLMBadRequestError,
    LLMConnectionError,
    LLMEmptyResponseError,
    LLMError,
    LLMInvalidResponseError,
    LLMServerError,
)
from trunkline_server.providers.assembly import Assembly
from trunkline_server.providers.base import BARE, Event


def test_a_stream_in_answer_to_a_unary_call_is_read_all_the_same():
    assert answer_of(fixture("stream")) == decoded(events_of(fixture("stream"))).completion()


def test_a_stream_is_the_answer_in_pieces():
    answer = decoded(events_of(fixture("stream"))).completion()

    assert kinds(answer) == ["text", "tool_call", "tool_call"]
    assert answer.choices[0].message.parts[0].text.text == "Let me look 🙂."
    assert calls_of(answer) == [("call_a", "weather", '{"city": "Bern"}'), ("call_b", "time", "{}")]
    assert answer.choices[0].finish_reason == TOOL_CALLS
    assert (answer.usage.input_tokens, answer.usage.cache_read_input_tokens) == (50, 32)
    assert answer.usage.source == completion_pb2.USAGE_SOURCE_REPORTED
    assert (answer.provider_response_id, answer.model) == ("chatcmpl-fixture-6", "gpt-4.1-mini")


def test_a_router_passes_on_thoughts_and_their_signature():
    thought, text = decoded(events_of(fixture("routed"))).completion().choices[0].message.parts

    assert (thought.reasoning.text, thought.signature) == ("Two and two.", "c2ln")
    assert text.text.text == "Four."


def test_sources_and_running_usage_are_told_once():
    answer = decoded(events_of(fixture("searched"))).completion()

    (text,) = answer.choices[0].message.parts
    assert text.text.text == "Lakes are wet[1]."
    assert [(source.uri, source.cited_text) for source in text.text.citations] == [
        ("https://example.org/lake", "It is wet.")
    ]
    assert answer.usage.output_tokens == 3


def test_a_filter_that_stops_the_answer_is_a_finish_reason():
    answer = decoded(events_of(fixture("filtered"))).completion()

    assert answer.choices[0].finish_reason == completion_pb2.FINISH_REASON_CONTENT_FILTER
    assert answer.choices[0].message.parts[0].text.text == "It"
    assert answer.provider_response_id == "chatcmpl-fixture-9"


def test_an_error_in_a_stream_ends_it_and_what_came_before_stands():
    assembly = Assembly("openai", "asked-for")
    decoder = DIALECT.decoder(assembly)
    first, failure = events_of(fixture("failed"))
    decoder.event(first)

    with pytest.raises(LLMBadRequestError) as caught:
        decoder.event(failure)

    assert (caught.value.provider_code, caught.value.http_status) == ("tool_use_failed", 200)
    assert assembly.completion().choices[0].message.parts[0].text.text == "Let me see"


@pytest.mark.parametrize(
    "data",
    [
        b'{"error":{"message":"boom"}}',
        b'{"error":"boom"}',
        b'{"object":"error","message":"boom"}',
        b'{"detail":"boom"}',
    ],
)
@pytest.mark.parametrize("name", [b"", BARE, b"error"])
def test_an_error_is_found_in_every_shape(name, data):
    with pytest.raises(LLMServerError, match="boom"):
        decoded([Event(name, data)])


def test_an_error_after_the_last_finish_reason_still_counts():
    chunks = [
        {"choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": "length"}]},
        {"error": {"code": 400, "message": "Token limit reached"}, "choices": [], "usage": {"prompt_tokens": 3}},
    ]
    assembly = Assembly("openai", "asked-for")
    decoder = DIALECT.decoder(assembly)
    decoder.event(Event(b"", json.dumps(chunks[0]).encode()))

    with pytest.raises(LLMBadRequestError):
        decoder.event(Event(b"", json.dumps(chunks[1]).encode()))
    assert assembly.usage is not None
    assert assembly.usage.input_tokens == 3


def test_a_stream_that_is_cut_is_a_broken_connection_however_much_came():
    stream = fixture("stream")
    whole = events_of(stream)
    finished = next(at for at, event in enumerate(whole) if b'"finish_reason":"tool_calls"' in event.data)

    for count in range(finished + 1):
        with pytest.raises(LLMConnectionError):
            decoded(whole[:count])
    assert decoded(whole[: finished + 1]).completion().choices[0].finish_reason == TOOL_CALLS


def test_done_is_optional_and_alone_proves_nothing():
    assert streamed({"content": "hi"}, done=False).choices[0].finish_reason == STOP
    with pytest.raises(LLMConnectionError):
        streamed({"content": "hi"}, finish=None)
    with pytest.raises(LLMEmptyResponseError):
        decoded([Event(b"", b"[DONE]")])


def test_done_after_usage_ends_an_answer_that_gave_no_reason():
    chunks = [b'{"choices":[{"index":0,"delta":{"content":""}}],"usage":{"prompt_tokens":3}}', b"[DONE]"]

    choice = decoded([Event(b"", chunk) for chunk in chunks]).completion().choices[0]

    assert (choice.finish_reason, choice.raw_finish_reason) == (completion_pb2.FINISH_REASON_OTHER, "")


def test_every_choice_needs_its_finish_reason():
    chunk = (
        b'{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"},{"index":1,"delta":{"content":"b"}}]}'
    )

    with pytest.raises(LLMConnectionError):
        decoded([Event(b"", chunk), Event(b"", b"[DONE]")])


def test_choices_that_alternate_are_kept_apart():
    chunks = [
        {"choices": [{"index": index, "delta": {"content": text}, "finish_reason": finish}]}
        for index, text, finish in [(0, "a", None), (1, "x", None), (0, "b", "stop"), (1, "y", "length")]
    ]

    answer = decoded([Event(b"", json.dumps(chunk).encode()) for chunk in chunks]).completion()

    assert [choice.message.parts[0].text.text for choice in answer.choices] == ["ab", "xy"]


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([piece(0, "c1", "f", '{"a"'), piece(0, "", "", ":1}"), piece(1, "c2", "g", "{}")], id="numbered"),
        pytest.param(
            [piece(0, "c1", "f", '{"a"'), piece(0, "c1", "", ":1}"), piece(1, "c2", "g", "{}")], id="id again"
        ),
        pytest.param(
            [piece(None, "c1", "f", '{"a"'), piece(None, "c1", "", ":1}"), piece(None, "c2", "g", "{}")], id="ids only"
        ),
        pytest.param(
            [piece(None, "c1", "f", '{"a"'), piece(None, "", "", ":1}"), piece(None, "c2", "g", "{}")], id="ids once"
        ),
        pytest.param([piece(0, "c1", "f", '{"a":1}'), piece(0, "c2", "g", "{}")], id="all are number 0"),
        pytest.param(
            [piece(0, "c1", "f", '{"a"'), piece(1, "c2", "g"), piece(0, "", "", ":1}"), piece(1, "", "", "{}")],
            id="alternating",
        ),
        pytest.param([piece(0, "c1"), piece(0, "", "f", '{"a":1}'), piece(1, "c2", "g", "{}")], id="name later"),
    ],
)
def test_tool_calls_are_put_together_however_they_are_cut(pieces):
    answer = streamed(*pieces, finish="tool_calls")

    assert calls_of(answer) == [("c1", "f", '{"a":1}'), ("c2", "g", "{}")]


def test_calls_without_ids_get_different_ones():
    answer = streamed(piece(0, "", "f", "{}"), piece(1, "", "f", "{}"), finish="tool_calls")

    first, second = calls_of(answer)
    assert first[0] != second[0]
    assert first[0]


def test_arguments_that_arrive_as_an_object_become_their_json():
    delta = {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": {"a": 1}}}]}

    assert calls_of(streamed(delta, finish="tool_calls")) == [("c", "f", '{"a":1}')]


def test_text_after_a_call_is_a_part_of_its_own():
    answer = streamed({"content": "a"}, piece(0, "c", "f", "{}"), {"content": "b"}, {"reasoning": "c"})

    assert kinds(answer) == ["text", "tool_call", "text", "reasoning"]


def test_streamed_sound_is_joined():
    pieces = [
        {"audio": {"id": "audio_1", "transcript": "Hel"}},
        {"audio": {"data": base64.b64encode(b"\x00\x01").decode()}},
        {"audio": {"transcript": "lo", "data": base64.b64encode(b"\x02").decode()}},
    ]

    (part,) = streamed(*pieces).choices[0].message.parts

    assert (part.audio.data, part.audio.transcript) == (b"\x00\x01\x02", "Hello")


def test_log_probabilities_travel_with_the_text():
    chunks: list[dict[str, Any]] = [
        {"index": 0, "delta": {"content": text}, "logprobs": {"content": [{"token": text, "logprob": -1.0}]}}
        for text in ("a", "b")
    ]
    chunks.append({"index": 0, "delta": {}, "logprobs": 0.0, "finish_reason": "stop"})
    assembly = decoded([Event(b"", json.dumps({"choices": [chunk]}).encode()) for chunk in chunks], emits=True)

    deltas = [event.part_delta for event in assembly.events() if event.WhichOneof("event") == "part_delta"]
    assert [(delta.text, [token.token for token in delta.logprobs]) for delta in deltas] == [("a", ["a"]), ("b", ["b"])]
    assert [token.token for token in assembly.completion().choices[0].logprobs] == ["a", "b"]


def test_a_server_that_does_not_stream_is_understood():
    assert decoded([Event(BARE, fixture("tools"))]).completion() == answer_of(fixture("tools"))


# -- whatever arrives -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STREAMS)
@given(chunk=st.integers(1, 400))
@settings(max_examples=25, deadline=None)
def test_how_a_stream_is_cut_changes_nothing(name, chunk):
    stream = fixture(name)

    assert decoded(events_of(stream, chunk)).completion() == decoded(events_of(stream)).completion()


@pytest.mark.parametrize("name", STREAMS)
def test_events_carry_all_that_the_answer_has(name):
    assembly = decoded(events_of(fixture(name)), emits=True)

    texts: dict[tuple[int, int], str] = {}
    for event in assembly.events():
        if event.WhichOneof("event") == "part_delta" and event.part_delta.WhichOneof("delta") == "text":
            delta = event.part_delta
            position = (delta.choice_index, delta.part_index)
            texts[position] = texts.get(position, "") + delta.text
    for choice in assembly.completion().choices:
        for index, part in enumerate(choice.message.parts):
            assert texts[choice.index, index] == spoken(part)


def spoken(part: message_pb2.ContentPart) -> str:
    kind = part.WhichOneof("kind")
    return part.tool_call.arguments_json if kind == "tool_call" else str(getattr(part, str(kind)).text)


def mutated(data: bytes, dice: random.Random) -> bytes:
    """Some bytes changed, removed or repeated, or values replaced by others."""
    values = [b"null", b"1", b"-1", b"1e999", b'"x"', b'"\\ud83d"', b"[]", b"[null]", b"{}", b'{"a":1}', b"9" * 20]
    for _ in range(dice.randint(1, 5)):
        at, size = dice.randrange(len(data)), dice.randint(1, 30)
        if dice.random() < 0.6:
            colon = data.find(b":", at)
            end = min((found for mark in b",}" if (found := data.find(bytes([mark]), colon)) > 0), default=-1)
            if 0 < colon < end:
                data = data[: colon + 1] + dice.choice(values) + data[end:]
        elif dice.random() < 0.5:
            data = data[:at] + dice.randbytes(size) + data[at + size :]
        else:
            data = data[:at] + data[at : at + size] * dice.randint(0, 2) + data[at + size :]
        data = data or b"{"
    return data


@given(seed=st.integers(0, 2**32), name=st.sampled_from([*WHOLE, *STREAMS, "failed"]))
@settings(max_examples=600, deadline=None)
def test_mutated_answers_raise_nothing_but_errors_of_the_providers(seed, name):
    body = mutated(fixture(name), random.Random(seed))

    is_answer_or_error(DIALECT, body, None if name in WHOLE else events_of(body))


@given(seed=st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_lost_and_doubled_chunks_never_look_like_anything_but_an_answer_or_an_error(seed):
    dice = random.Random(seed)
    events = [event for event in events_of(fixture("stream")) for _ in range(dice.choice([0, 1, 1, 1, 2]))]

    try:
        answer = decoded(events, emits=True).completion()
    except LLMError:
        return
    assert all(choice.finish_reason for choice in answer.choices)


def test_too_many_parts_are_refused():
    calls = [{"index": index, "id": f"c{index}", "function": {"name": "f"}} for index in range(20_001)]

    with pytest.raises(LLMInvalidResponseError, match="more parts"):
        streamed({"tool_calls": calls})
