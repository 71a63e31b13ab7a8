"""Streamed Responses: however an answer comes, it is the same answer, and a cut one is an error."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.providers.anthropic_wire import disturbed, mutated
from tests.providers.openai_responses import (
    DIALECT,
    ORIGIN,
    WHOLE,
    Payload,
    answer_of,
    decoded,
    events_of,
    fixture,
    framed,
    kinds,
    message,
    output,
    plain,
    said,
    streamed,
    texts,
)

from trunkline.collect import Collector
from trunkline.v1 import completion_pb2
from trunkline_server.errors import (
    LLMConnectionError,
    LLMError,
    LLMInvalidResponseError,
    LLMRateLimitError,
    LLMServerError,
)
from trunkline_server.providers.assembly import Assembly, StreamEvent
from trunkline_server.providers.base import BARE, Event

STREAMS = ("stream", "failed")


def whole(name: str) -> Payload:
    read: Payload = json.loads(fixture(name))
    return read


def from_events(payloads: list[Payload]) -> completion_pb2.Completion:
    return plain(decoded(framed(payloads)).completion())


def without(payloads: list[Payload], *ends: str) -> list[Payload]:
    return [payload for payload in payloads if not payload["type"].endswith(ends)]


def test_a_stream_is_the_answer_in_pieces():
    answer = decoded(events_of(fixture("stream"))).completion()

    assert kinds(answer) == ["reasoning", "opaque", "text", "tool_call"]
    thought, search, text, call = answer.choices[0].message.parts
    assert (thought.reasoning.text, thought.reasoning.encrypted) == ("I greet them.", "c2VhbGVk")
    assert json.loads(search.opaque.json)["action"] == {"type": "search", "query": "greetings"}
    assert (text.text.text, text.signature) == ("Hello 🙂!", '{"phase":"final_answer"}')
    assert [citation.uri for citation in text.text.citations] == ["https://example.org/greetings"]
    assert (call.tool_call.id, call.tool_call.arguments_json) == ("call_fixture_6", '{"who": "you"}')
    assert answer.choices[0].finish_reason == completion_pb2.FINISH_REASON_TOOL_CALLS
    assert (answer.usage.cache_read_input_tokens, answer.usage.reasoning_tokens) == (32, 6)
    assert (answer.provider_response_id, answer.model) == ("resp_fixture_6", "gpt-5.4-2026-03-05")
    assert answer.service_tier == "default"


@pytest.mark.parametrize("name", WHOLE)
def test_a_streamed_answer_equals_the_whole_one(name):
    assert from_events(streamed(whole(name))) == plain(answer_of(fixture(name)))


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize(
    "missing",
    [
        pytest.param((".delta",), id="pieces"),
        pytest.param((".delta", ".added"), id="pieces and beginnings"),
        pytest.param(("_text.done", "arguments.done", "input.done", "refusal.done"), id="whole texts"),
        pytest.param(("part.done", "part.added"), id="parts"),
        pytest.param((".added",), id="beginnings"),
        pytest.param(("_item.done",), id="whole items"),
        pytest.param(("annotation.added",), id="annotations"),
        pytest.param((".delta", ".done", ".added"), id="all but the last"),
    ],
)
def test_an_answer_is_whole_whatever_a_server_leaves_out(name, missing):
    answer = from_events(without(streamed(whole(name)), *missing))

    expected = plain(answer_of(fixture(name)))
    if "_item.done" in missing or missing == (".added",):
        # Opaque items stand where they became known: in an order of their own.
        assert sorted(answer.choices[0].message.parts, key=str) == sorted(expected.choices[0].message.parts, key=str)
    else:
        assert answer == expected


@pytest.mark.parametrize("name", WHOLE)
def test_the_last_event_may_hold_no_items(name):
    payloads = streamed(whole(name))
    payloads[-1] = {**payloads[-1], "response": {**payloads[-1]["response"], "output": []}}

    assert from_events(payloads) == plain(answer_of(fixture(name)))


@pytest.mark.parametrize("name", WHOLE)
def test_events_need_not_say_to_which_place_they_belong(name):
    payloads = streamed(whole(name))
    for payload in payloads:
        payload.pop("output_index", None)

    assert from_events(payloads) == plain(answer_of(fixture(name)))


@pytest.mark.parametrize("name", WHOLE)
def test_all_items_may_be_given_the_same_place(name):
    payloads = [{**payload, "output_index": 0} for payload in streamed(whole(name))]

    assert from_events(payloads) == plain(answer_of(fixture(name)))


@pytest.mark.parametrize("name", WHOLE)
def test_items_may_have_another_id_at_the_end(name):
    payloads = streamed(whole(name))
    last = payloads[-1]["response"]
    last["output"] = [{**item, "id": f"other_{at}"} for at, item in enumerate(last["output"])]

    assert from_events(payloads) == plain(answer_of(fixture(name)))


@pytest.mark.parametrize("name", ["stream"])
def test_events_that_come_twice_add_nothing_but_their_pieces(name):
    events = events_of(fixture(name))
    twice = [event for event in events for _ in range(1 if event.name.endswith(b".delta") else 2)]

    assert decoded(twice).completion() == decoded(events).completion()


def test_what_was_said_stands_where_its_repetition_differs():
    payloads: list[Payload] = [
        {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "Hello"},
        {"type": "response.output_text.done", "output_index": 0, "content_index": 0, "text": "Good day"},
        {"type": "response.completed", "response": output(message(*texts("Good day")))},
    ]

    assert said(from_events(payloads)) == "Hello"


def test_a_text_that_stopped_early_is_filled_in():
    payloads: list[Payload] = [
        {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "Hel"},
        {"type": "response.completed", "response": output(message(*texts("Hello")))},
    ]

    assert said(from_events(payloads)) == "Hello"


def test_parts_are_told_apart_by_their_order_if_their_numbers_are_wrong():
    payloads: list[Payload] = [
        {"type": "response.output_item.added", "output_index": 0, "item": message()},
        {"type": "response.output_text.delta", "output_index": 0, "content_index": 7, "delta": "a"},
        {"type": "response.output_text.delta", "output_index": 0, "content_index": 9, "delta": "b"},
        {"type": "response.output_item.done", "output_index": 0, "item": message(*texts("a", "bc"))},
        {"type": "response.completed", "response": output()},
    ]

    parts = from_events(payloads).choices[0].message.parts
    assert [part.text.text for part in parts] == ["a", "bc"]


def test_arguments_that_come_with_the_call_are_not_doubled():
    call = {"id": "fc_1", "type": "function_call", "call_id": "c", "name": "f", "arguments": '{"a":1}'}
    payloads: list[Payload] = [
        {"type": "response.output_item.added", "output_index": 0, "item": call},
        {"type": "response.function_call_arguments.delta", "output_index": 0, "item_id": "fc_1", "delta": '{"a":1}'},
        {"type": "response.output_item.done", "output_index": 0, "item": call},
        {"type": "response.completed", "response": output(call)},
    ]

    (part,) = from_events(payloads).choices[0].message.parts
    assert part.tool_call.arguments_json == '{"a":1}'
    assert from_events([payloads[0], *payloads[2:]]).choices[0].message.parts[0] == part


def test_a_name_may_come_at_the_end_of_a_call():
    call = {"id": "fc_1", "type": "function_call", "call_id": "c", "name": "f", "arguments": '{"a":1}'}
    payloads: list[Payload] = [
        {"type": "response.output_item.added", "output_index": 0, "item": {**call, "name": "", "arguments": ""}},
        {"type": "response.function_call_arguments.delta", "output_index": 0, "item_id": "fc_1", "delta": '{"a"'},
        {"type": "response.output_item.done", "output_index": 0, "item": call},
        {"type": "response.completed", "response": output(call)},
    ]

    (part,) = from_events(payloads).choices[0].message.parts
    assert (part.tool_call.name, part.tool_call.arguments_json) == ("f", '{"a":1}')


def test_log_probabilities_travel_with_the_text():
    assembly = decoded(framed(streamed(whole("text"))), emits=True)

    deltas = [event.part_delta for event in assembly.events() if event.WhichOneof("event") == "part_delta"]
    assert [token.token for delta in deltas for token in delta.logprobs] == ["Grü", "ezi 🙂"]
    assert [token.token for token in assembly.completion().choices[0].logprobs] == ["Grü", "ezi 🙂"]


def test_a_server_that_does_not_stream_is_understood():
    body = json.dumps(whole("thoughts_and_tools")).encode()

    for name in (BARE, b""):
        assert plain(decoded([Event(name, body)]).completion()) == plain(answer_of(body))


def test_done_is_not_needed_and_does_no_harm():
    events = [*events_of(fixture("stream")), Event(b"", b"[DONE]")]

    assert decoded(events).completion() == decoded(events[:-1]).completion()


@pytest.mark.parametrize(
    "payload",
    [
        {"type": "response.of_tomorrow", "item": 1, "delta": [1], "output_index": "x"},
        {"type": "keepalive"},
        {"type": "response.code_interpreter_call_code.delta", "output_index": 0, "delta": "print"},
        {"type": "codex.rate_limits", "response": "none"},
        {"object": "ping"},
    ],
)
def test_unknown_events_are_ignored_whatever_they_hold(payload):
    events = events_of(fixture("stream"))

    (strange,) = framed([payload])

    assert decoded([*events[:4], strange, *events[4:]]).completion() == decoded(events).completion()


# -- errors and ends --------------------------------------------------------------------------------------------------


def test_a_response_that_fails_ends_the_stream_and_what_came_before_stands():
    assembly = Assembly(ORIGIN, "asked-for")
    decoder = DIALECT.decoder(assembly)
    *before, failure = events_of(fixture("failed"))
    for event in before:
        decoder.event(event)

    with pytest.raises(LLMRateLimitError) as caught:
        decoder.event(failure)

    assert (caught.value.provider_code, caught.value.retry_after) == ("rate_limit_exceeded", 1.5)
    assert (caught.value.http_status, said(assembly.completion())) == (200, "Let me see")
    assert assembly.usage is not None
    assert assembly.usage.source == completion_pb2.USAGE_SOURCE_PARTIAL


@pytest.mark.parametrize(
    "payload",
    [
        {"type": "error", "code": "rate_limit_exceeded", "message": "boom", "param": None, "sequence_number": 2},
        {"type": "error", "error": {"type": "tokens", "code": "rate_limit_exceeded", "message": "boom"}},
        {"type": "response.error", "error": {"code": "rate_limit_exceeded", "message": "boom"}},
        {"error": {"code": "rate_limit_exceeded", "message": "boom"}},
        {"code": "rate_limit_exceeded", "message": "boom"},
    ],
)
@pytest.mark.parametrize("name", [b"error", b"", BARE])
def test_an_error_is_found_in_every_shape(name, payload):
    events = events_of(fixture("stream"))[:3]

    with pytest.raises(LLMRateLimitError, match="boom") as caught:
        decoded([*events, Event(name, json.dumps(payload).encode())])

    assert caught.value.provider_code == "rate_limit_exceeded"


def test_an_error_that_says_little_waits_for_the_event_that_says_more():
    vague: Payload = {"type": "error", "error": {"code": "unknown-error", "message": "Something"}}
    clear: Payload = {
        "type": "response.failed",
        "response": {"error": {"code": "rate_limit_exceeded", "message": "Too many"}},
    }

    with pytest.raises(LLMRateLimitError):
        decoded(framed([vague, clear]))
    for rest in ([], [{"type": "response.failed", "response": {"error": None}}], [{"type": "keepalive"}]):
        with pytest.raises(LLMServerError, match="Something"):
            decoded(framed([vague, *rest]))


@pytest.mark.parametrize("name", WHOLE)
def test_a_stream_that_is_cut_is_a_broken_connection_however_much_came(name):
    events = framed(streamed(whole(name)))

    for count in range(len(events)):
        with pytest.raises(LLMConnectionError):
            decoded(events[:count])


def test_what_follows_the_end_changes_nothing():
    events = events_of(fixture("stream"))

    assert decoded([*events, *events]).completion() == decoded(events).completion()


def test_a_cancelled_response_is_an_answer_that_ended_for_another_reason():
    payloads = streamed(whole("text"))
    payloads[-1] = {"type": "response.cancelled", "response": {"status": "cancelled"}}

    choice = from_events(payloads).choices[0]

    assert (choice.finish_reason, choice.raw_finish_reason) == (completion_pb2.FINISH_REASON_OTHER, "cancelled")


# -- whatever arrives -------------------------------------------------------------------------------------------------


def checked(assembly: Assembly) -> completion_pb2.Completion:
    """What a client makes of the events, which it holds to the rules of streams."""
    collector = Collector()
    begun = [StreamEvent(), StreamEvent()]
    begun[0].started.SetInParent()
    begun[1].attempt_started.attempt = 1
    for number, event in enumerate([*begun, *assembly.events()], 1):
        event.sequence_number = number
        collector.add(event)
    finished = StreamEvent(sequence_number=number + 1)
    finished.finished.SetInParent()
    collector.add(finished)
    return collector.end()


@pytest.mark.parametrize("name", WHOLE)
def test_events_carry_all_that_the_answer_has(name):
    assembly = decoded(framed(streamed(whole(name))), emits=True)

    assert checked(assembly).choices == assembly.completion().choices


@given(chunk=st.integers(1, 400))
@settings(max_examples=40, deadline=None)
def test_how_a_stream_is_cut_changes_nothing(chunk):
    stream = fixture("stream")

    assert decoded(events_of(stream, chunk)).completion() == decoded(events_of(stream)).completion()


@given(seed=st.integers(0, 2**32), name=st.sampled_from(WHOLE))
@settings(max_examples=400, deadline=None)
def test_disturbed_streams_raise_nothing_but_errors_of_the_providers(seed, name):
    events = disturbed(framed(streamed(whole(name))), random.Random(seed))
    assembly = Assembly(ORIGIN, "asked-for", emits=True)
    decoder = DIALECT.decoder(assembly)

    try:
        for event in events:
            decoder.event(event)
        decoder.end()
    except LLMError:
        assembly.events()
    else:
        checked(assembly)
    assembly.completion().SerializeToString()


@given(seed=st.integers(0, 2**32), name=st.sampled_from([*WHOLE, *STREAMS]))
@settings(max_examples=400, deadline=None)
def test_mutated_answers_raise_nothing_but_errors_of_the_providers(seed, name):
    body, dice = fixture(name), random.Random(seed)
    for _ in range(dice.randint(1, 4)):
        body = mutated(body, dice)

    try:
        answer = answer_of(body)
    except LLMError:
        return
    answer.SerializeToString()
    assert answer.choices[0].finish_reason


@given(seed=st.integers(0, 2**32), name=st.sampled_from(WHOLE))
@settings(max_examples=150, deadline=None)
def test_a_lost_event_never_makes_an_answer_of_other_words(seed, name):
    payloads: list[Any] = streamed(whole(name))
    del payloads[random.Random(seed).randrange(len(payloads))]

    try:
        answer = decoded(framed(payloads)).completion()
    except LLMError:
        return
    assert answer.choices[0].finish_reason
    # A piece that is lost is missing; what follows it stands.
    assert len(said(answer)) >= len(said(answer_of(fixture(name)))) - 4


def test_too_many_parts_are_refused():
    with pytest.raises(LLMInvalidResponseError, match="more parts"):
        answer_of(output(*[message(*texts("a"))] * 20_001))
