"""Ollama's own answers, whole and streamed line by line."""

from __future__ import annotations

import json
import random
from typing import Any

import ollama
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.providers.anthropic_wire import disturbed, mutated
from tests.providers.wires import Wire, calls_of, is_answer_or_error, kinds, parts_of

from trunkline.v1 import completion_pb2
from trunkline_server.errors import (
    LLMBadRequestError,
    LLMConnectionError,
    LLMEmptyResponseError,
    LLMError,
    LLMInvalidResponseError,
    LLMNotFoundError,
    LLMProviderOverloaded,
    LLMServerError,
)
from trunkline_server.providers.assembly import Assembly
from trunkline_server.providers.base import EmbeddingDialect, ListedModel, ListingDialect
from trunkline_server.providers.ids import is_made

WIRE = Wire("ollama-native", "qwen3:8b")
WHOLE, STREAMS = ("text.json", "tools.json"), ("stream.ndjson", "tools.ndjson")

STOP, OTHER = completion_pb2.FINISH_REASON_STOP, completion_pb2.FINISH_REASON_OTHER
TOOL_CALLS, LENGTH = completion_pb2.FINISH_REASON_TOOL_CALLS, completion_pb2.FINISH_REASON_LENGTH


def line(done: bool = False, more: dict[str, Any] | None = None, **message: Any) -> dict[str, Any]:
    said = {"role": "assistant", **message}
    return {"model": "m", "created_at": "2026-03-01T10:00:00Z", "message": said, "done": done, **(more or {})}


# -- what an answer says ----------------------------------------------------------------------------------------------


def test_a_whole_answer_is_its_thoughts_its_text_and_its_counts():
    found = WIRE.answer_of(WIRE.fixture("text.json"))

    assert kinds(found) == ["reasoning", "text"]
    assert [part.reasoning.text or part.text.text for part in parts_of(found)] == ["They greet.", "Grüezi 🙂"]
    assert (found.choices[0].finish_reason, found.choices[0].raw_finish_reason) == (STOP, "stop")
    assert (found.model, found.provider_response_id) == ("qwen3:8b", "")
    usage = found.usage
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (26, 12, 38)
    assert json.loads(usage.raw_json) == {"prompt_eval_count": 26, "eval_count": 12}
    assert usage.source == completion_pb2.USAGE_SOURCE_REPORTED


def test_calls_have_the_text_of_their_arguments_and_ids_that_stay():
    found = WIRE.answer_of(WIRE.fixture("tools.json"))

    (made, *weather), time = calls_of(found)
    assert weather == ["weather", '{"city":"Bern","days": 2}']
    assert time == ("call_k3x9", "time", "{}")
    assert is_made(made)
    assert calls_of(found) == calls_of(WIRE.answer_of(WIRE.fixture("tools.json")))
    assert (found.choices[0].finish_reason, found.choices[0].raw_finish_reason) == (TOOL_CALLS, "stop")


def test_ids_of_other_answers_are_other_ids():
    call = {"function": {"name": "f", "arguments": {}}}
    one, other = line(True, tool_calls=[call, call]), line(True, tool_calls=[call])
    other["created_at"] = "2026-03-01T10:00:01Z"
    undated = {**other, "created_at": None}

    ids = [made for each in (one, other, undated) for made, _, _ in calls_of(WIRE.answer_of(each))]
    assert len(set(ids)) == 4


def test_arguments_that_are_text_are_that_text():
    call = {"function": {"name": "f", "arguments": '{"a": 1}'}}

    assert [arguments for _, _, arguments in calls_of(WIRE.answer_of(line(True, tool_calls=[call])))] == ['{"a": 1}']


def test_a_stream_is_the_answer_in_pieces():
    found = WIRE.decoded(WIRE.events_of(WIRE.fixture("stream.ndjson"))).completion()

    assert found == WIRE.answer_of(WIRE.fixture("text.json"))


def test_calls_come_whole_between_other_lines():
    found = WIRE.decoded(WIRE.events_of(WIRE.fixture("tools.ndjson"))).completion()

    assert kinds(found) == ["reasoning", "text", "tool_call", "tool_call"]
    assert [call[1:] for call in calls_of(found)] == [("weather", '{"city":"Bern"}'), ("time", "{}")]
    assert found.choices[0].finish_reason == TOOL_CALLS
    assert found == WIRE.decoded(WIRE.events_of(WIRE.fixture("tools.ndjson"))).completion()


@pytest.mark.parametrize("name", STREAMS)
def test_a_client_collects_what_a_whole_answer_has(name):
    events = WIRE.events_of(WIRE.fixture(name))

    whole, collected = WIRE.decoded(events).completion(), WIRE.collected(events)
    assert list(collected.choices) == list(whole.choices)
    assert collected.usage == whole.usage


@pytest.mark.parametrize("name", STREAMS)
def test_a_server_that_always_streams_is_understood(name):
    assert WIRE.answer_of(WIRE.fixture(name)) == WIRE.decoded(WIRE.events_of(WIRE.fixture(name))).completion()


@pytest.mark.parametrize(
    ("more", "reason", "word"),
    [
        ({"done_reason": "stop"}, STOP, "stop"),
        ({"done_reason": "length"}, LENGTH, "length"),
        ({"done_reason": "load"}, OTHER, "load"),
        ({}, STOP, ""),
    ],
)
def test_finish_reasons_keep_their_word(more, reason, word):
    choice = WIRE.answer_of(line(True, more, content="hi")).choices[0]

    assert (choice.finish_reason, choice.raw_finish_reason) == (reason, word)


def test_an_answer_cut_off_in_the_middle_of_its_calls_says_so():
    cut = line(True, {"done_reason": "length"}, tool_calls=[{"function": {"name": "f", "arguments": {}}}])

    assert WIRE.answer_of(cut).choices[0].finish_reason == LENGTH


@pytest.mark.parametrize(
    ("counts", "wanted"),
    [
        ({"prompt_eval_count": 5, "eval_count": 2}, (5, 2, 7)),
        # What was still in memory is not counted again.
        ({"eval_count": 2}, (None, 2, None)),
        ({"prompt_eval_count": 0, "eval_count": 0}, (0, 0, 0)),
    ],
)
def test_what_was_not_counted_is_not_zero(counts, wanted):
    usage = WIRE.answer_of(line(True, counts, content="hi")).usage

    counted = {field.name: count for field, count in usage.ListFields()}
    assert tuple(counted.get(name) for name in ("input_tokens", "output_tokens", "total_tokens")) == wanted


def test_usage_is_never_made_up():
    assert not WIRE.answer_of(line(True, content="hi")).HasField("usage")


def test_text_after_a_call_is_a_part_of_its_own():
    call = {"function": {"name": "f", "arguments": {}}}

    found = WIRE.said(line(content="a"), line(tool_calls=[call]), line(content="b"), line(thinking="c"), line(True))
    assert kinds(found) == ["text", "tool_call", "text", "reasoning"]


def test_log_probabilities_travel_with_the_text():
    logprobs = {"logprobs": [{"token": "hi", "logprob": -0.5, "bytes": [104, 105], "top_logprobs": [
        {"token": "hi", "logprob": -0.5}, {"token": "yo", "logprob": -1.5},
    ]}]}  # fmt: skip

    (token,) = WIRE.said(line(more=logprobs, content="hi"), line(True)).choices[0].logprobs
    assert (token.token, token.logprob, token.token_bytes) == ("hi", -0.5, b"hi")
    assert [top.token for top in token.top] == ["hi", "yo"]


def test_nothing_follows_the_end():
    assert [part.text.text for part in parts_of(WIRE.said(line(True, content="a"), line(content="b")))] == ["a"]


def test_the_official_client_reads_our_fixtures():
    for name in (*WHOLE, *STREAMS):
        body = WIRE.fixture(name)
        lines = [event.data for event in WIRE.events_of(body)] if name in STREAMS else [body]
        read = [ollama.ChatResponse.model_validate_json(line) for line in lines]
        said = "".join(line.message.content or "" for line in read)
        assert said == "".join(part.text.text for part in parts_of(WIRE.answer_of(body)))


# -- failures ---------------------------------------------------------------------------------------------------------


def test_an_error_in_a_stream_ends_it_and_what_came_before_stands():
    first, failure = WIRE.events_of(WIRE.fixture("failed.ndjson"))
    assembly = Assembly("ollama-native", "asked-for")
    decoder = WIRE.dialect.decoder(assembly)
    decoder.event(first)

    with pytest.raises(LLMServerError, match="unexpected EOF") as caught:
        decoder.event(failure)

    assert caught.value.http_status == 200
    assert assembly.completion().choices[0].message.parts[0].text.text == "Let me see"


@pytest.mark.parametrize("error", ["boom", {"message": "boom"}])
def test_an_error_in_a_whole_answer_is_one(error):
    with pytest.raises(LLMServerError, match="boom"):
        WIRE.answer_of({"error": error})


@pytest.mark.parametrize(
    ("status", "message", "error"),
    [
        (404, "model 'nope' not found", LLMNotFoundError),
        (400, '"llama3.1:8b" does not support thinking', LLMBadRequestError),
        (503, "server busy, please try again.  maximum pending requests exceeded", LLMProviderOverloaded),
        (500, "model requires more system memory (5.5 GiB) than is available", LLMServerError),
    ],
)
def test_errors_are_told_by_status(status, message, error):
    found = WIRE.dialect.classify(status, {}, json.dumps({"error": message}).encode())

    assert (type(found), str(found)) == (error, message)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", LLMInvalidResponseError),
        (b"<html>", LLMInvalidResponseError),
        (b"[]", LLMInvalidResponseError),
        (b"{}", LLMInvalidResponseError),
        (b'{"id":"chatcmpl-1","object":"chat.completion","choices":[]}', LLMInvalidResponseError),
        (b'{"message":{"role":"assistant","content":""},"done":true}', LLMEmptyResponseError),
        (b'{"message":{"role":"assistant","content":"hi"},"done":false}', LLMConnectionError),
    ],
)
def test_an_answer_that_is_none_is_an_error(body, error):
    with pytest.raises(error):
        WIRE.answer_of(body)


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_that_is_cut_is_a_broken_connection_however_much_came(name):
    stream = WIRE.fixture(name).rstrip()

    for size in range(len(stream)):
        with pytest.raises(LLMConnectionError):
            WIRE.decoded(WIRE.events_of(stream[:size]))
    assert WIRE.decoded(WIRE.events_of(stream)).finished


# -- whatever arrives -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STREAMS)
@given(chunk=st.integers(1, 400))
@settings(max_examples=25, deadline=None)
def test_how_a_stream_is_cut_changes_nothing(name, chunk):
    stream = WIRE.fixture(name)

    assert WIRE.events_of(stream, chunk) == WIRE.events_of(stream)


@given(seed=st.integers(0, 2**32), name=st.sampled_from([*WHOLE, *STREAMS, "failed.ndjson"]))
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


# -- vectors and models -----------------------------------------------------------------------------------------------


def test_the_dialect_embeds_and_lists():
    assert isinstance(WIRE.dialect, EmbeddingDialect)
    assert isinstance(WIRE.dialect, ListingDialect)


def test_vectors_are_those_of_the_new_endpoint_or_the_one_of_the_old():
    new = {"model": "mxbai", "embeddings": [[0.5, -2.0], [1, 2]], "prompt_eval_count": 7, "total_duration": 1}
    found = WIRE.dialect.decode_embeddings(json.dumps(new).encode())
    old = WIRE.dialect.decode_embeddings(b'{"embedding":[0.5,-2]}')

    assert (found.vectors, found.model) == ([[0.5, -2.0], [1, 2]], "mxbai")
    assert (found.usage.input_tokens, found.usage.HasField("output_tokens")) == (7, False)
    assert (old.vectors, old.model, old.usage) == ([[0.5, -2.0]], "", None)


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"embeddings":3}', b'{"embeddings":["a"]}'])
def test_vectors_that_cannot_be_read_are_an_error(body):
    with pytest.raises(LLMInvalidResponseError):
        WIRE.dialect.decode_embeddings(body)


def test_an_error_instead_of_vectors_is_one():
    with pytest.raises(LLMServerError, match="boom"):
        WIRE.dialect.decode_embeddings(b'{"error":"boom"}')


def test_models_are_listed_by_name():
    assert WIRE.dialect.models_request().path == "/api/tags"
    details = {"family": "qwen3", "parameter_size": "8B"}
    body = {"models": [{"name": "qwen3:8b", "model": "qwen3:8b", "size": 5, "details": details}]}

    assert WIRE.dialect.decode_models(json.dumps(body).encode()) == [ListedModel("qwen3:8b")]
    assert WIRE.dialect.decode_models(b'{"models":[]}') == []
