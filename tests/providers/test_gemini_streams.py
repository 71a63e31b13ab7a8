"""Gemini's streams: they say what whole answers say, however they arrive, and never end in silence."""

from __future__ import annotations

import contextlib
import json
import random
from typing import Any

import pytest
from google.genai import types
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.providers.anthropic_wire import disturbed
from tests.providers.gemini_wire import (
    DIALECT,
    WHOLE,
    answer_of,
    chunk,
    decoded,
    events_of,
    fixture,
    sse,
    streamed,
)
from tests.providers.wires import in_pieces, plain

from trunkline.v1 import completion_pb2, completion_service_pb2
from trunkline_server.errors import (
    LLMConnectionError,
    LLMContentFilterError,
    LLMError,
    LLMInvalidResponseError,
    LLMProviderOverloaded,
)
from trunkline_server.providers.assembly import Assembly
from trunkline_server.providers.base import BARE, Event


def joined(answer: completion_pb2.Completion) -> completion_pb2.Completion:
    """The answer with texts that stand side by side made one: chunks do not tell where a part begins."""
    made = plain(answer)
    parts = made.choices[0].message.parts
    kept: list[Any] = []
    for part in parts:
        if kept and part.HasField("text") and kept[-1].HasField("text") and not kept[-1].HasField("signature"):
            offset = len(kept[-1].text.text)
            kept[-1].text.text += part.text.text
            for citation in part.text.citations:
                if citation.HasField("start_index"):
                    citation.start_index += offset
                    citation.end_index += offset
                kept[-1].text.citations.append(citation)
            if part.HasField("signature"):
                kept[-1].signature = part.signature
        else:
            kept.append(part)
    copies = [completion_pb2.Completion().choices.add().message.parts.add() for _ in kept]
    for copy, part in zip(copies, kept, strict=True):
        copy.CopyFrom(part)
        if copy.HasField("text"):
            ordered = sorted(copy.text.citations, key=lambda c: (c.raw_json, c.start_index))
            del copy.text.citations[:]
            copy.text.citations.extend(ordered)
    del parts[:]
    parts.extend(copies)
    return made


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("seed", range(3))
def test_a_stream_says_what_the_whole_answer_says(name: str, seed: int):
    answer = json.loads(fixture(f"{name}.json"))

    found = decoded(events_of(streamed(answer, random.Random(seed)))).completion()

    assert joined(found) == joined(answer_of(answer))


def test_a_recorded_layout_of_a_stream_is_read():
    answer = decoded(events_of(fixture("stream.sse"))).completion()

    thought, text, first, second = answer.choices[0].message.parts
    assert thought.reasoning.text == "**Greeting** is due."
    assert (text.text.text, text.signature) == ("Hello 👋 there", "c2lnLWVuZA==")
    assert (json.loads(first.tool_call.arguments_json), first.signature) == ({"to": "José", "times": 3}, "c2lnLWNhbGw=")
    assert json.loads(second.tool_call.arguments_json) == {"to": "Ana"}
    assert first.tool_call.id != second.tool_call.id
    assert answer.choices[0].finish_reason == completion_pb2.FINISH_REASON_TOOL_CALLS
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (20, 17)
    assert answer.usage.source == completion_pb2.USAGE_SOURCE_REPORTED
    assert (answer.model, answer.provider_response_id) == ("gemini-3-flash-preview", "resp-stream-1")


def test_usage_is_known_from_the_first_word_and_partial_until_the_last():
    chunks = [chunk({"text": "a"}, finish="STOP" if index == 49 else None) for index in range(50)]
    for index, one in enumerate(chunks):
        one["usageMetadata"] = {"promptTokenCount": 7, "candidatesTokenCount": index + 1}
    assembly = Assembly("gemini", "asked-for", emits=True)
    decoder = DIALECT.decoder(assembly)
    events = events_of(sse(*chunks))

    decoder.event(events[0])
    assert assembly.usage is not None
    first = (assembly.usage.output_tokens, assembly.usage.source)
    for event in events[1:]:
        decoder.event(event)
    decoder.end()

    assert first == (1, completion_pb2.USAGE_SOURCE_PARTIAL)
    assert (assembly.usage.output_tokens, assembly.usage.source) == (50, completion_pb2.USAGE_SOURCE_REPORTED)


def test_what_a_cut_stream_cost_is_known():
    chunks = [chunk({"text": "a"}) for _ in range(9)]
    for index, one in enumerate(chunks):
        one["usageMetadata"] = {"promptTokenCount": 7, "candidatesTokenCount": index + 1}
    assembly = Assembly("gemini", "asked-for")
    decoder = DIALECT.decoder(assembly)
    for event in events_of(sse(*chunks)):
        decoder.event(event)

    with pytest.raises(LLMConnectionError):
        decoder.end()

    assert assembly.usage is not None
    assert (assembly.usage.output_tokens, assembly.usage.source) == (9, completion_pb2.USAGE_SOURCE_PARTIAL)


def test_events_come_as_the_provider_sends_them_and_join_to_the_whole():
    assembly = Assembly("gemini", "asked-for", emits=True)
    decoder = DIALECT.decoder(assembly)
    made: list[completion_service_pb2.StreamCompletionResponse] = []
    for event in events_of(fixture("stream.sse")):
        decoder.event(event)
        made += assembly.events()
    decoder.end()
    made += assembly.events()

    kinds = [event.WhichOneof("event") for event in made]
    assert kinds[:3] == ["part_started", "part_delta", "usage_updated"]
    assert kinds[-1] == "choice_finished"
    assert kinds.count("part_started") == kinds.count("part_finished") == 4
    deltas = [event.part_delta for event in made if event.HasField("part_delta")]
    assert "".join(delta.text for delta in deltas if delta.part_index == 1) == "Hello 👋 there"
    assert [delta.signature for delta in deltas if delta.signature] == ["c2lnLWVuZA==", "c2lnLWNhbGw="]


@given(
    st.lists(st.integers(1, 400), max_size=30),
    st.sampled_from(["stream.sse", "arguments.sse", *(f"{name}.json" for name in WHOLE)]),
)
@settings(max_examples=60, deadline=None)
def test_however_a_stream_is_cut_into_chunks_the_answer_is_the_same(sizes: list[int], name: str):
    data = fixture(name)
    if name.endswith(".json"):
        data = streamed(json.loads(data), random.Random(1))

    assert decoded(in_pieces(data, sizes)).completion() == decoded(events_of(data)).completion()


def test_a_stream_that_comes_as_an_array_is_read():
    chunks = [json.loads(event.data) for event in events_of(fixture("stream.sse"))]
    array = json.dumps(chunks, indent=1).replace("},\n", "},\r\n").encode()

    assert joined(decoded(events_of(array)).completion()) == joined(
        decoded(events_of(fixture("stream.sse"))).completion()
    )


def test_a_signature_that_comes_after_its_text_is_that_texts_and_closes_it():
    answer = decoded(
        events_of(
            sse(
                chunk({"text": "a"}),
                chunk({"text": "", "thoughtSignature": "s1"}),
                chunk({"text": "b"}),
                chunk({"thoughtSignature": "s2"}, finish="STOP"),
            )
        )
    ).completion()

    assert [(part.text.text, part.signature) for part in answer.choices[0].message.parts] == [("a", "s1"), ("b", "s2")]


def test_a_signature_that_follows_a_call_has_a_part_of_its_own():
    answer = decoded(
        events_of(
            sse(chunk({"functionCall": {"name": "f"}}), chunk({"text": "", "thoughtSignature": "s"}, finish="STOP"))
        )
    ).completion()

    call, text = answer.choices[0].message.parts
    assert (call.signature, text.text.text, text.signature) == ("", "", "s")


# -- arguments in pieces ----------------------------------------------------------------------------------------------


def test_arguments_that_arrive_by_path_are_streamed_as_the_text_that_they_make():
    assembly = Assembly("gemini", "asked-for", emits=True)
    decoder = DIALECT.decoder(assembly)
    pieces: list[str] = []
    for event in events_of(fixture("arguments.sse")):
        decoder.event(event)
        pieces += [made.part_delta.text for made in assembly.events() if made.part_delta.text]
    decoder.end()

    listed, now = assembly.completion().choices[0].message.parts
    assert json.loads(listed.tool_call.arguments_json) == {
        "items": [
            {"name": 'red "apple" 🍎', "price": 0.5, "fresh": True},
            {"name": "pear", "tags": ["a", None]},
        ],
        "odd key": {"x": 7},
    }
    assert listed.signature == "c2lnLWNhbGw="
    assert now.tool_call.arguments_json == "{}"
    assert pieces[:2] == ['{"items":[{"name":"red \\"ap', 'ple\\" 🍎']
    assert "".join(pieces) == listed.tool_call.arguments_json + "{}"


def test_arguments_that_were_cut_off_stay_as_they_are_beside_what_can_be_read_of_them():
    pieces = [{"jsonPath": "$.a", "numberValue": 1}, {"jsonPath": "$.b.c", "stringValue": "half", "willContinue": True}]
    answer = decoded(
        events_of(
            sse(
                chunk({"functionCall": {"name": "f", "willContinue": True}}),
                chunk({"functionCall": {"partialArgs": pieces, "willContinue": True}}),
                chunk({"text": ""}, finish="MAX_TOKENS"),
            )
        )
    ).completion()

    (part,) = answer.choices[0].message.parts
    assert part.tool_call.arguments_json == '{"a":1,"b":{"c":"half'
    assert json.loads(part.tool_call.completed_arguments_json) == {"a": 1, "b": {}}
    assert answer.choices[0].finish_reason == completion_pb2.FINISH_REASON_LENGTH


@pytest.mark.parametrize(
    "pieces",
    [
        [{"jsonPath": "$.a", "numberValue": 1}, {"jsonPath": "$.a", "numberValue": 2}],
        [{"jsonPath": "$.a[1]", "numberValue": 1}],
        [{"jsonPath": f"$.{path}", "numberValue": 1} for path in ("a.b", "c", "a.d")],
        [{"jsonPath": "$[0]", "numberValue": 1}],
        [{"jsonPath": "$", "numberValue": 1}],
        [{"jsonPath": "$.a[", "numberValue": 1}],
        [{"jsonPath": "$" + ".a" * 300, "numberValue": 1}],
    ],
)  # fmt: skip
def test_pieces_that_make_no_json_are_an_error_of_ours(pieces: list[dict[str, Any]]):
    stream = sse(chunk({"functionCall": {"name": "f", "partialArgs": pieces}}, finish="STOP"))

    with pytest.raises(LLMInvalidResponseError):
        decoded(events_of(stream))


# -- ends -------------------------------------------------------------------------------------------------------------


def test_the_last_reason_counts_where_every_chunk_has_one():
    answer = decoded(events_of(sse(chunk({"text": "a"}, finish="STOP"), chunk(finish="RECITATION")))).completion()

    assert answer.choices[0].raw_finish_reason == "RECITATION"


def test_a_stream_that_ends_early_is_a_broken_connection_wherever_it_is_cut():
    data = fixture("stream.sse")
    whole = decoded(events_of(data)).completion()
    for end in range(0, len(data), 11):
        try:
            answer = decoded(events_of(data[:end])).completion()
        except LLMConnectionError:
            continue
        # Only its last line feeds are missing.
        assert answer == whole
        assert end > len(data) - 5


def test_a_stream_of_a_refused_prompt_is_that_refusal():
    with pytest.raises(LLMContentFilterError):
        decoded(events_of(sse({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}})))


_OVERLOADED = {"error": {"code": 503, "status": "UNAVAILABLE", "message": "The model is overloaded."}}


@pytest.mark.parametrize(
    "event",
    [
        Event(b"", json.dumps(_OVERLOADED).encode()),
        Event(b"", json.dumps([_OVERLOADED]).encode()),
        Event(BARE, json.dumps(_OVERLOADED, indent=2).encode()),
    ],
)
def test_an_error_in_a_stream_is_found_in_any_clothes_after_what_was_said_before(event: Event):
    assembly = Assembly("gemini", "asked-for")
    decoder = DIALECT.decoder(assembly)
    decoder.event(events_of(sse(chunk({"text": "so far"})))[0])

    with pytest.raises(LLMProviderOverloaded, match="overloaded") as caught:
        decoder.event(event)

    assert caught.value.provider_code == "503"
    assert assembly.completion().choices[0].message.parts[0].text.text == "so far"


def test_whatever_comes_in_a_stream_only_errors_of_ours_come_out():
    chance = random.Random(20)
    streams = [events_of(fixture("stream.sse")), events_of(fixture("arguments.sse"))]
    streams += [events_of(streamed(json.loads(fixture(f"{name}.json")), chance)) for name in WHOLE]
    finished = 0

    for _ in range(1500):
        assembly = Assembly("gemini", "asked-for", emits=True)
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


# -- against the official client's types ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["stream.sse", "tools.json", "code.json", "grounded.json", "image.json"])
def test_a_stream_adds_up_to_what_the_official_client_makes_of_it(name: str):
    data = fixture(name)
    if name.endswith(".json"):
        data = streamed(json.loads(data), random.Random(4))
    events = events_of(data)
    theirs = [types.GenerateContentResponse.model_validate_json(event.data) for event in events]

    ours = decoded(events).completion()

    parts = [part for response in theirs for part in response.candidates[0].content.parts]  # type: ignore[index, union-attr]
    said = ours.choices[0].message.parts
    assert "".join(p.text.text for p in said) == "".join(p.text or "" for p in parts if not p.thought)
    assert "".join(p.reasoning.text for p in said) == "".join(p.text or "" for p in parts if p.thought)
    assert [(p.tool_call.name, json.loads(p.tool_call.arguments_json)) for p in said if p.HasField("tool_call")] == [
        (p.function_call.name, p.function_call.args or {}) for p in parts if p.function_call
    ]
    assert [p.image.data for p in said if p.HasField("image")] == [
        p.inline_data.data for p in parts if p.inline_data and not p.thought and p.inline_data.mime_type == "image/png"
    ]
    usage = theirs[-1].usage_metadata
    assert usage is not None
    assert ours.usage.total_tokens == usage.total_token_count
    assert ours.provider_response_id == theirs[-1].response_id
