"""Cohere's answers, whole and streamed: what they say, what they cite, what they cost, and how they fail."""

from __future__ import annotations

import json
import random
from typing import Any

import cohere
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from tests.providers.anthropic_wire import disturbed, mutated
from tests.providers.wires import Wire, calls_of, is_answer_or_error, kinds, parts_of

from trunkline.v1 import completion_pb2
from trunkline_server.errors import (
    LLMAuthenticationError,
    LLMConnectionError,
    LLMEmptyResponseError,
    LLMError,
    LLMInvalidResponseError,
    LLMNotFoundError,
    LLMRateLimitError,
    LLMServerError,
    LLMTimeoutError,
)
from trunkline_server.providers.assembly import Assembly
from trunkline_server.providers.base import BARE, Event
from trunkline_server.providers.headers import rate_limits

WIRE = Wire("cohere", "command-a-reasoning-08-2025")
WHOLE, STREAMS = ("text.json", "tools.json", "cited.json"), ("tools.sse", "cited.sse")

STOP, OTHER = completion_pb2.FINISH_REASON_STOP, completion_pb2.FINISH_REASON_OTHER
TOOL_CALLS, LENGTH = completion_pb2.FINISH_REASON_TOOL_CALLS, completion_pb2.FINISH_REASON_LENGTH
UNSPECIFIED = completion_pb2.FINISH_REASON_UNSPECIFIED

START: dict[str, Any] = {"type": "message-start", "id": "r1", "delta": {"message": {"role": "assistant"}}}
END: dict[str, Any] = {"type": "message-end", "delta": {"finish_reason": "COMPLETE"}}


def answer(finish: str | None = "COMPLETE", usage: object = None, **message: Any) -> completion_pb2.Completion:
    return WIRE.answer_of({"id": "r1", "message": message, "finish_reason": finish, "usage": usage})


def content(kind: str, index: int | None = None, **block: Any) -> dict[str, Any]:
    place = {} if index is None else {"index": index}
    return {"type": f"content-{kind}", **place, "delta": {"message": {"content": block}}}


def call(kind: str, index: int | None = None, **piece: Any) -> dict[str, Any]:
    place = {} if index is None else {"index": index}
    return {"type": f"tool-call-{kind}", **place, "delta": {"message": {"tool_calls": piece}}}


# -- whole answers ----------------------------------------------------------------------------------------------------


def test_a_whole_answer_is_its_text_and_the_tokens_that_the_model_saw():
    found = WIRE.answer_of(WIRE.fixture("text.json"))

    assert [part.text.text for part in parts_of(found)] == ["Grüezi 🙂, how can I help?"]
    assert (found.choices[0].finish_reason, found.choices[0].raw_finish_reason) == (STOP, "COMPLETE")
    assert (found.provider_response_id, found.model) == ("6f1c0d2e-0000-4000-8000-000000000001", "asked-for")
    usage = found.usage
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (499, 11, 510)
    assert usage.cache_read_input_tokens == 448
    assert not usage.HasField("reasoning_tokens")
    assert json.loads(usage.raw_json)["billed_units"] == {"input_tokens": 4, "output_tokens": 9}


def test_what_is_billed_counts_where_nothing_else_is_counted():
    usage = answer(usage={"billed_units": {"input_tokens": 4, "output_tokens": 9}}, content="hi").usage

    assert (usage.input_tokens, usage.output_tokens) == (4, 9)
    assert not usage.HasField("cache_read_input_tokens")


@pytest.mark.parametrize("usage", [None, {}, {"billed_units": {"search_units": 1}}])
def test_usage_is_never_made_up(usage):
    assert not answer(usage=usage, content="hi").HasField("usage")


def test_a_plan_is_a_thought_before_its_calls():
    found = WIRE.answer_of(WIRE.fixture("tools.json"))

    assert kinds(found) == ["reasoning", "tool_call", "tool_call"]
    plan = parts_of(found)[0]
    assert (plan.reasoning.text, plan.item_id) == ("I will ask for the weather and for the time.", "tool_plan")
    assert calls_of(found) == [("weather_a1", "weather", '{"city": "Bern"}'), ("time_b2", "time", "{}")]
    assert found.choices[0].finish_reason == TOOL_CALLS


def test_each_source_of_a_passage_is_a_citation():
    thought, text, about_thought = parts_of(WIRE.answer_of(WIRE.fixture("cited.json")))

    assert thought.reasoning.text.startswith("The second document")
    document, tool, bare = text.text.citations
    for citation in (document, tool):
        assert text.text.text[citation.start_index : citation.end_index] == "Zürichsee"
    assert (document.document_index, document.title, document.cited_text) == (1, "Lakes", "The Zürichsee is a lake.")
    assert (tool.uri, tool.cited_text) == ("https://example.org/lake", "Zürichsee: 136 m")
    assert document.raw_json == tool.raw_json
    assert json.loads(document.raw_json)["content_index"] == 1
    assert text.text.text[bare.start_index : bare.end_index] == "136 m"
    assert bare.WhichOneof("source") is None
    # What a thought cites has no place in the contract: it is kept to go back.
    assert about_thought.opaque.type == "citation"
    assert json.loads(about_thought.opaque.json)["type"] == "THINKING_CONTENT"


def test_reasoning_and_pictures_are_part_of_what_is_counted():
    usage = WIRE.answer_of(WIRE.fixture("cited.json")).usage

    assert (usage.output_tokens, usage.reasoning_tokens, usage.input_image_tokens) == (90, 30, 12)


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("COMPLETE", STOP),
        ("STOP_SEQUENCE", STOP),
        ("MAX_TOKENS", LENGTH),
        ("TOOL_CALL", TOOL_CALLS),
        ("ERROR", OTHER),
        ("TIMEOUT", OTHER),
        ("SOMETHING_NEW", OTHER),
        (None, UNSPECIFIED),
    ],
)
def test_finish_reasons_keep_their_word(word, reason):
    choice = answer(word, content=[{"type": "text", "text": "hi"}]).choices[0]

    assert (choice.finish_reason, choice.raw_finish_reason) == (reason, word or "")


def test_a_block_of_another_kind_is_kept_whole():
    block = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    found = answer(content=[{"type": "text", "text": "See"}, block])

    assert kinds(found) == ["text", "opaque"]
    assert json.loads(parts_of(found)[1].opaque.json) == block


def test_a_call_without_an_id_gets_one_that_stays():
    calls = [{"function": {"name": "f", "arguments": "{}"}}, {"function": {"name": "f", "arguments": "{}"}}]

    first, second = calls_of(answer("TOOL_CALL", tool_calls=calls))
    assert first[0] != second[0]
    assert [first, second] == calls_of(answer("TOOL_CALL", tool_calls=calls))


def test_log_probabilities_of_a_token_have_its_text_and_id():
    logprobs = [
        {"text": "Hi", "token_ids": [33], "logprobs": [-0.5]},
        {"text": " you", "token_ids": [1, 2], "logprobs": [-1.0, -2.0]},
    ]
    message = {"content": [{"type": "text", "text": "Hi you"}]}
    found = WIRE.answer_of({"id": "r", "message": message, "finish_reason": "COMPLETE", "logprobs": logprobs})

    tokens = [(token.token, token.token_id, token.logprob) for token in found.choices[0].logprobs]
    assert tokens == [("Hi", 33, -0.5), ("", 1, -1.0), ("", 2, -2.0)]


def test_the_official_client_reads_our_fixtures():
    for name in WHOLE:
        read = cohere.V2ChatResponse.model_validate_json(WIRE.fixture(name))
        assert read.finish_reason == WIRE.answer_of(WIRE.fixture(name)).choices[0].raw_finish_reason
    events: TypeAdapter[Any] = TypeAdapter(cohere.V2ChatStreamResponse)
    for name in (*STREAMS, "failed.sse"):
        for event in WIRE.events_of(WIRE.fixture(name)):
            if event.data != b"[DONE]":
                events.validate_json(event.data)


# -- streams ----------------------------------------------------------------------------------------------------------


def test_a_stream_of_calls_is_the_answer_in_pieces():
    found = WIRE.decoded(WIRE.events_of(WIRE.fixture("tools.sse"))).completion()

    assert kinds(found) == ["reasoning", "tool_call", "tool_call"]
    assert (parts_of(found)[0].reasoning.text, parts_of(found)[0].item_id) == ("I will ask.", "tool_plan")
    assert calls_of(found) == [("weather_a1", "weather", '{"city": "Bern"}'), ("time_b2", "time", "{}")]
    assert (found.choices[0].finish_reason, found.choices[0].raw_finish_reason) == (TOOL_CALLS, "TOOL_CALL")
    assert (found.usage.input_tokens, found.usage.cache_read_input_tokens) == (1600, 1504)
    assert found.usage.source == completion_pb2.USAGE_SOURCE_REPORTED
    assert found.provider_response_id == "6f1c0d2e-0000-4000-8000-000000000004"


def test_a_streamed_citation_is_on_the_text_that_it_stands_in():
    thought, text = parts_of(WIRE.decoded(WIRE.events_of(WIRE.fixture("cited.sse"))).completion())

    assert thought.reasoning.text == "A document says it."
    assert text.text.text == "Der Zürichsee 🙂 ist tief."
    (citation,) = text.text.citations
    assert text.text.text[citation.start_index : citation.end_index] == "Zürichsee"
    assert citation.document_index == 0


@pytest.mark.parametrize("name", STREAMS)
def test_a_client_collects_what_a_whole_answer_has(name):
    events = WIRE.events_of(WIRE.fixture(name))

    whole, collected = WIRE.decoded(events).completion(), WIRE.collected(events)
    assert list(collected.choices) == list(whole.choices)
    assert collected.usage == whole.usage


def test_a_citation_after_its_text_has_ended_still_finds_it():
    citation = {"start": 0, "end": 2, "text": "Hi", "sources": [{"type": "tool", "id": "t:0"}]}
    cited = {"type": "citation-start", "index": 0, "delta": {"message": {"citations": citation}}}
    end = {"type": "content-end", "index": 0}

    found = WIRE.said(START, content("start", 0, type="text", text="Hi"), end, cited, END)

    (made,) = parts_of(found)[0].text.citations
    assert (made.start_index, made.end_index, json.loads(made.raw_json)) == (0, 2, citation)


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([call("start", 0, id="c", function={"name": "f", "arguments": '{"a": 1}'})], id="at once"),
        pytest.param(
            [
                call("start", 0, id="c", function={"name": "f", "arguments": ""}),
                call("delta", 0, function={"arguments": '{"a"'}),
                call("delta", 0, function={"arguments": ": 1}"}),
                call("end", 0),
            ],
            id="in fragments",
        ),
        pytest.param(
            [call("start", id="c", function={"name": "f"}), call("delta", function={"arguments": '{"a": 1}'})],
            id="without a place",
        ),
        pytest.param(
            [call("start", 0, id="c", function={"name": "f", "arguments": '{"a": 1}'}), END], id="ended twice"
        ),
    ],
)
def test_a_streamed_call_is_put_together(pieces):
    found = WIRE.said(START, *pieces, {"type": "message-end", "delta": {"finish_reason": "TOOL_CALL"}})

    assert calls_of(found) == [("c", "f", '{"a": 1}')]


def test_content_that_nothing_announced_is_read_as_what_it_is():
    found = WIRE.said(START, content("delta", 0, thinking="hm"), content("delta", 1, text="so"), END)

    assert kinds(found) == ["reasoning", "text"]


def test_a_streamed_block_of_another_kind_is_kept_as_it_begins():
    block = {"type": "audio", "voice": "a"}
    pieces = [content("start", 0, **block), content("delta", 0, text="not text"), content("delta", 1, text="hi")]

    found = WIRE.said(START, *pieces, END)

    assert kinds(found) == ["opaque", "text"]
    assert (json.loads(parts_of(found)[0].opaque.json), parts_of(found)[1].text.text) == (block, "hi")


def test_events_of_unknown_types_are_skipped_and_nothing_follows_the_end():
    found = WIRE.said(
        START, {"type": "debug", "prompt": "x"}, content("delta", 0, text="a"), END, content("delta", 0, text="b")
    )

    assert [part.text.text for part in parts_of(found)] == ["a"]


def test_a_type_may_stand_in_the_name_of_its_event_only():
    events = [
        Event(b"content-delta", b'{"index":0,"delta":{"message":{"content":{"text":"hi"}}}}'),
        Event(b"message-end", b'{"delta":{"finish_reason":"MAX_TOKENS"}}'),
    ]

    choice = WIRE.decoded(events).completion().choices[0]
    assert (choice.message.parts[0].text.text, choice.finish_reason) == ("hi", LENGTH)


def test_streamed_log_probabilities_travel_with_the_text():
    pieces: list[dict[str, Any]] = [
        {**content("delta", 0, text=text), "logprobs": {"text": text, "token_ids": [1], "logprobs": [-1.0]}}
        for text in ("a", "b")
    ]
    events = [Event(b"", json.dumps(each).encode()) for each in (START, *pieces, END)]

    assembly = WIRE.decoded(events, emits=True)
    deltas = [event.part_delta for event in assembly.events() if event.HasField("part_delta")]
    assert [(delta.text, [token.token for token in delta.logprobs]) for delta in deltas] == [("a", ["a"]), ("b", ["b"])]


def test_a_server_that_does_not_stream_is_understood():
    assert WIRE.decoded([Event(BARE, WIRE.fixture("cited.json"))]).completion() == WIRE.answer_of(
        WIRE.fixture("cited.json")
    )


# -- failures ---------------------------------------------------------------------------------------------------------


def test_an_error_at_the_end_of_a_stream_is_one_and_what_came_before_stands():
    *before, failure = WIRE.events_of(WIRE.fixture("failed.sse"))
    assembly = Assembly("cohere", "asked-for")
    decoder = WIRE.dialect.decoder(assembly)
    for event in before:
        decoder.event(event)

    with pytest.raises(LLMServerError, match="worker went away") as caught:
        decoder.event(failure)

    assert (caught.value.provider_code, caught.value.http_status) == ("ERROR", 200)
    assert assembly.completion().choices[0].message.parts[0].text.text == "Let me see"
    assert assembly.usage is not None
    assert assembly.usage.input_tokens == 60


@pytest.mark.parametrize(("word", "error"), [("ERROR", LLMServerError), ("TIMEOUT", LLMTimeoutError)])
def test_a_failure_that_says_nothing_is_an_error(word, error):
    with pytest.raises(error):
        answer(word)
    with pytest.raises(error):
        WIRE.said(START, {"type": "message-end", "delta": {"finish_reason": word}})


@pytest.mark.parametrize("name", [b"", BARE, b"error"])
@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b'{"id":"e","message":"boom"}', LLMServerError),
        (b'{"message":"too many tokens: the context window is full"}', LLMError),
        (b'{"message":"rate limit exceeded, you are using a Trial key"}', LLMError),
    ],
)
def test_an_error_is_found_in_every_place(name, data, error):
    with pytest.raises(error):
        WIRE.decoded([Event(b"", json.dumps(START).encode()), Event(name, data)])


def test_an_error_in_a_whole_answer_is_one():
    with pytest.raises(LLMServerError, match="boom"):
        WIRE.answer_of({"id": "e", "message": "boom"})


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", LLMInvalidResponseError),
        (b"<html>", LLMInvalidResponseError),
        (b"[]", LLMInvalidResponseError),
        (b"{}", LLMInvalidResponseError),
        (b'{"message":{"content":3}}', LLMInvalidResponseError),
        (b'{"message":{"content":[]}}', LLMEmptyResponseError),
    ],
)
def test_an_answer_that_is_none_is_an_error(body, error):
    with pytest.raises(error):
        WIRE.answer_of(body)


@pytest.mark.parametrize(
    ("status", "message", "error"),
    [
        (401, "invalid api token", LLMAuthenticationError),
        (404, "model 'nope' not found, make sure the correct model ID was used", LLMNotFoundError),
        (429, "You are using a Trial key, which is limited to 20 API calls / minute.", LLMRateLimitError),
        (500, "internal server error, this has been reported to our developers", LLMServerError),
    ],
)
def test_errors_are_told_by_status_with_the_id_of_their_trace(status, message, error):
    body = json.dumps({"id": "e1", "message": message}).encode()

    found = WIRE.dialect.classify(status, {"x-debug-trace-id": "t-1"}, body)

    assert type(found) is error
    assert (str(found), found.request_id, found.provider_code) == (message, "t-1", "")


def test_what_is_left_of_a_trial_is_told():
    limits = rate_limits({
        "x-endpoint-monthly-call-limit": "1000", "x-trial-endpoint-call-limit": "100",
        "x-trial-endpoint-call-remaining": "97", "num_tokens": "4",
    })  # fmt: skip

    assert [(each.metric, each.limit, each.HasField("remaining"), each.remaining) for each in limits] == [
        ("monthly_requests", 1000, False, 0),
        ("requests", 100, True, 97),
    ]


def test_a_stream_that_is_cut_is_a_broken_connection_however_much_came():
    for name in STREAMS:
        events = WIRE.events_of(WIRE.fixture(name))
        ended = next(at for at, event in enumerate(events) if b"message-end" in event.data)
        for count in range(ended):
            with pytest.raises(LLMConnectionError):
                WIRE.decoded(events[:count])
        assert WIRE.decoded(events[: ended + 1]).finished


# -- whatever arrives -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STREAMS)
@given(chunk=st.integers(1, 400))
@settings(max_examples=25, deadline=None)
def test_how_a_stream_is_cut_changes_nothing(name, chunk):
    stream = WIRE.fixture(name)

    assert WIRE.events_of(stream, chunk) == WIRE.events_of(stream)


@given(seed=st.integers(0, 2**32), name=st.sampled_from([*WHOLE, *STREAMS, "failed.sse"]))
@settings(max_examples=500, deadline=None)
def test_mutated_answers_raise_nothing_but_errors_of_the_providers(seed, name):
    chance = random.Random(seed)
    body = WIRE.fixture(name)
    for _ in range(chance.randint(1, 4)):
        body = mutated(body, chance)

    is_answer_or_error(WIRE.dialect, body, None if name in WHOLE else WIRE.events_of(body))


@given(seed=st.integers(0, 2**32), name=st.sampled_from(STREAMS))
@settings(max_examples=300, deadline=None)
def test_a_disturbed_stream_is_an_answer_by_all_rules_or_an_error(seed, name):
    events = disturbed(WIRE.events_of(WIRE.fixture(name)), random.Random(seed))

    try:
        found = WIRE.collected(events)
    except LLMError:
        return
    assert len(found.choices) == 1
