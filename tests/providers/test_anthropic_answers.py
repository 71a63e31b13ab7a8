"""Anthropic's answers: what it said is what the caller gets."""

from __future__ import annotations

import contextlib
import json
import random

import pytest
from tests.providers.anthropic_wire import (
    WHOLE,
    answer_of,
    fixture,
    mutated,
)

from trunkline.v1 import completion_pb2
from trunkline_server.errors import (
    LLMEmptyResponseError,
    LLMError,
    LLMInvalidResponseError,
    LLMProviderOverloaded,
)


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


def test_whatever_a_body_holds_only_errors_of_ours_come_out():
    chance = random.Random(21)
    read = 0

    for _ in range(1500):
        with contextlib.suppress(LLMError):
            read += bool(answer_of(mutated(fixture(f"{chance.choice(WHOLE)}.json"), chance)).choices)

    assert 100 < read < 1400
