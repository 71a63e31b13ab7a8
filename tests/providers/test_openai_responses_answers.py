"""Whole Responses: every item is a part, in order, with what it takes to send it back."""

from __future__ import annotations

import json

import pytest
from tests.providers.openai_responses import DIALECT, ORIGIN, answer_of, fixture, kinds, message, output, said, texts

from trunkline.v1 import completion_pb2
from trunkline_server.errors import (
    LLMBadRequestError,
    LLMContentFilterError,
    LLMError,
    LLMInvalidResponseError,
    LLMRateLimitError,
    LLMServerError,
)
from trunkline_server.providers.assembly import Assembly

STOP = completion_pb2.FINISH_REASON_STOP
TOOL_CALLS = completion_pb2.FINISH_REASON_TOOL_CALLS
LENGTH = completion_pb2.FINISH_REASON_LENGTH
CONTENT_FILTER = completion_pb2.FINISH_REASON_CONTENT_FILTER
REFUSAL = completion_pb2.FINISH_REASON_REFUSAL
OTHER = completion_pb2.FINISH_REASON_OTHER


def test_a_text_comes_with_all_that_is_said_about_it():
    answer = answer_of(fixture("text"))

    (part,) = answer.choices[0].message.parts
    assert (part.text.text, part.item_id, part.origin_provider) == ("Grüezi 🙂", "msg_fixture_1", ORIGIN)
    assert not part.HasField("signature")
    assert (answer.provider_response_id, answer.model) == ("resp_fixture_1", "gpt-4.1-2025-04-14")
    assert (answer.service_tier, answer.choices[0].finish_reason) == ("default", STOP)
    assert answer.choices[0].raw_finish_reason == "completed"


def test_log_probabilities_come_with_their_alternatives_and_bytes():
    first, second = answer_of(fixture("text")).choices[0].logprobs

    assert (first.token, first.logprob, first.token_bytes) == ("Grü", -0.25, "Grü".encode())
    assert [(top.token, top.logprob) for top in first.top] == [("Hal", -1.5)]
    assert (second.token, len(second.top)) == ("ezi 🙂", 0)


def test_usage_is_inclusive_and_verbatim():
    usage = answer_of(fixture("text")).usage

    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.cache_write_input_tokens) == (2050, 1920, 100)
    assert (usage.output_tokens, usage.reasoning_tokens, usage.total_tokens) == (7, 0, 2057)
    assert usage.source == completion_pb2.USAGE_SOURCE_REPORTED
    assert json.loads(usage.raw_json)["input_tokens_details"] == {"cached_tokens": 1920, "cache_write_tokens": 100}


def test_counts_that_are_not_reported_are_absent():
    usage = answer_of(fixture("provider_tools")).usage

    assert (usage.input_tokens, usage.output_tokens) == (300, 40)
    assert not usage.HasField("cache_read_input_tokens")
    assert not usage.HasField("reasoning_tokens")
    assert not answer_of(output(message(*texts("hi")))).HasField("usage")


def test_a_count_below_zero_is_no_count():
    usage = answer_of(output(usage={"input_tokens": 0, "output_tokens": -9, "total_tokens": -9})).usage

    assert usage.input_tokens == 0
    assert not usage.HasField("output_tokens")


def test_thoughts_are_a_part_for_each_summary_and_their_seal_is_on_the_last():
    parts = answer_of(fixture("thoughts_and_tools")).choices[0].message.parts

    assert [part.reasoning.text for part in parts[:2]] == [
        "**Looking**\n\nTwo things are asked.",
        "**Calling**\n\nBoth have a tool.",
    ]
    assert all(part.reasoning.is_summary and not part.reasoning.redacted for part in parts[:2])
    assert [part.item_id for part in parts[:2]] == ["rs_fixture_2"] * 2
    assert not parts[0].reasoning.HasField("encrypted")
    assert parts[1].reasoning.encrypted == "c2VhbGVk+/="


def test_parallel_calls_keep_their_order_their_ids_and_their_very_text():
    answer = answer_of(fixture("thoughts_and_tools"))
    calls = [part for part in answer.choices[0].message.parts if part.HasField("tool_call")]

    assert [(part.tool_call.id, part.tool_call.name, part.tool_call.arguments_json) for part in calls] == [
        ("call_fixture_1", "weather", '{"city": "Bern" ,"days":2}'),
        ("call_fixture_2", "time", "{}"),
        ("call_fixture_3", "query", "SELECT 1"),
    ]
    assert [part.item_id for part in calls] == ["fc_fixture_1", "fc_fixture_2", "ctc_fixture_1"]
    assert [part.signature for part in calls] == ["", '{"namespace":"clock"}', '{"type":"custom_tool_call"}']
    assert answer.choices[0].finish_reason == TOOL_CALLS


def test_what_a_message_is_for_is_kept_with_it():
    parts = answer_of(fixture("thoughts_and_tools")).choices[0].message.parts

    assert (parts[2].text.text, parts[2].signature) == ("Let me look.", '{"phase":"commentary"}')


def test_items_that_the_contract_does_not_model_are_opaque_and_verbatim():
    body = fixture("provider_tools")
    answer = answer_of(body)
    parts = [part for part in answer.choices[0].message.parts if part.HasField("opaque")]

    assert [part.opaque.type for part in parts] == [
        "web_search_call",
        "content.output_future",
        "code_interpreter_call",
        "mcp_approval_request",
        "call_of_tomorrow",
    ]
    assert all(part.opaque.json in body.decode() for part in parts)
    assert [part.item_id for part in parts][:2] == ["ws_fixture_1", "msg_fixture_3"]
    assert answer.choices[0].finish_reason == STOP


def test_several_messages_stay_apart():
    answer = answer_of(fixture("provider_tools"))

    assert kinds(answer) == ["reasoning", "opaque", "text", "opaque", "opaque", "opaque", "opaque", "text"]
    spoken = [part for part in answer.choices[0].message.parts if part.HasField("text")]
    assert [(part.item_id, part.text.text) for part in spoken] == [
        ("msg_fixture_3", "Lakes are wet."),
        ("msg_fixture_4", "So it is."),
    ]


def test_thoughts_of_which_nothing_is_shown_can_still_go_back():
    first = answer_of(fixture("provider_tools")).choices[0].message.parts[0]
    sealed = answer_of(output({"id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": "c2Vh"}))

    assert (first.item_id, first.reasoning.text, first.reasoning.redacted) == ("rs_fixture_3", "", False)
    (part,) = sealed.choices[0].message.parts
    assert (part.reasoning.encrypted, part.reasoning.redacted) == ("c2Vh", True)


def test_citations_have_their_source_and_their_range():
    answer = answer_of(fixture("provider_tools"))
    cited = next(part for part in answer.choices[0].message.parts if part.HasField("text")).text.citations

    page, file, made = cited
    assert (page.uri, page.title, page.start_index, page.end_index) == ("https://example.org/lakes", "Lakes", 0, 9)
    assert (file.file_id, file.title, file.HasField("start_index")) == ("file-1", "lakes.pdf", False)
    assert (made.file_id, made.start_index, made.end_index) == ("cfile_1", 0, 5)
    assert json.loads(made.raw_json)["container_id"] == "cntr_1"


def test_a_citation_of_an_address_alone_is_one():
    content = {"type": "output_text", "text": "x", "annotations": [{"type": "url_citation", "url": "https://a.test"}]}

    (citation,) = answer_of(output(message(content))).choices[0].message.parts[0].text.citations

    assert (citation.uri, citation.HasField("start_index")) == ("https://a.test", False)


def test_open_thoughts_and_a_refusal_are_what_they_are():
    answer = answer_of(fixture("open_thoughts"))

    thought, refusal = answer.choices[0].message.parts
    assert (thought.reasoning.text, thought.reasoning.is_summary) == ("They want something harmful.", False)
    assert refusal.refusal.text == "I will not help with that."
    assert answer.choices[0].finish_reason == REFUSAL


def test_a_call_that_was_cut_off_is_not_repaired_in_place():
    answer = answer_of(fixture("incomplete"))

    (part,) = answer.choices[0].message.parts
    assert part.tool_call.arguments_json == '{"city": "Bern", "days": 1'
    assert part.tool_call.completed_arguments_json == '{"city":"Bern"}'
    assert (answer.choices[0].finish_reason, answer.choices[0].raw_finish_reason) == (LENGTH, "max_output_tokens")


@pytest.mark.parametrize(
    ("response", "reason", "word"),
    [
        ({"status": "completed"}, STOP, "completed"),
        ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, LENGTH, "max_output_tokens"),
        (
            {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}},
            CONTENT_FILTER,
            "content_filter",
        ),
        ({"status": "incomplete", "incomplete_details": {"reason": "steered"}}, OTHER, "steered"),
        ({"status": "incomplete", "incomplete_details": None}, OTHER, "incomplete"),
        ({"status": "queued"}, OTHER, "queued"),
        ({"status": "cancelled"}, OTHER, "cancelled"),
        ({"status": None}, STOP, ""),
    ],
)
def test_why_an_answer_ended(response, reason, word):
    choice = answer_of(output(**response)).choices[0]

    assert (choice.finish_reason, choice.raw_finish_reason) == (reason, word)


def test_a_call_whose_turn_was_cut_off_still_ended_by_length():
    call = {"id": "fc_1", "type": "function_call", "call_id": "c", "name": "f", "arguments": '{"a'}
    why = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}

    assert answer_of(output(call, **why)).choices[0].finish_reason == LENGTH


def test_a_call_without_an_id_gets_one():
    call = {"type": "function_call", "name": "f", "arguments": {"a": 1}}

    first, second = answer_of(output(call, call)).choices[0].message.parts

    assert first.tool_call.id != second.tool_call.id
    assert first.tool_call.arguments_json == '{"a":1}'


def test_a_message_without_a_type_is_one():
    item = {"role": "assistant", "content": [{"type": "text", "text": "hi"}]}

    assert said(answer_of(output(item))) == "hi"


def test_a_stream_in_answer_to_a_unary_call_is_read_all_the_same():
    answer = answer_of(fixture("stream"))

    assert said(answer) == "Hello 🙂!"
    with pytest.raises(LLMRateLimitError):
        answer_of(fixture("failed"))


# -- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        ({"code": "server_error", "message": "boom"}, LLMServerError, "server_error"),
        ({"code": "rate_limit_exceeded", "message": "boom"}, LLMRateLimitError, "rate_limit_exceeded"),
        ({"code": "invalid_prompt", "message": "boom"}, LLMBadRequestError, "invalid_prompt"),
        ({"code": "content_filter", "message": "boom"}, LLMContentFilterError, "content_filter"),
        ({"message": "boom"}, LLMServerError, ""),
        ("boom", LLMServerError, ""),
    ],
)
def test_a_failed_response_is_the_error_that_it_names(error, kind, code):
    with pytest.raises(kind, match="boom") as caught:
        answer_of(output(status="failed", error=error))

    assert (caught.value.http_status, caught.value.provider_code) == (200, code)


def test_a_failed_response_without_an_error_is_one():
    with pytest.raises(LLMServerError):
        answer_of(output(status="failed", error=None))


def test_what_a_failed_response_cost_is_known():
    assembly = Assembly(ORIGIN, "asked-for")
    body = output(status="failed", error={"code": "server_error"}, usage={"input_tokens": 3, "output_tokens": 1})

    with pytest.raises(LLMServerError):
        DIALECT.decode(json.dumps(body).encode(), assembly)

    assert assembly.usage is not None
    assert (assembly.usage.input_tokens, assembly.usage.source) == (3, completion_pb2.USAGE_SOURCE_PARTIAL)


@pytest.mark.parametrize("body", [b'{"error":{"message":"boom"}}', b'{"error":"boom"}', b'{"detail":"boom"}'])
def test_an_error_with_status_200_is_one(body):
    with pytest.raises(LLMServerError, match="boom"):
        answer_of(body)


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b"null", b"<html>", b'{"id":"x"}', b'{"output":{}}', b'{"output":[1]}']
)
def test_what_is_no_answer_is_an_invalid_one(body):
    with pytest.raises(LLMInvalidResponseError):
        answer_of(body)


@pytest.mark.parametrize(
    ("status", "error", "kind", "field"),
    [
        (400, {"param": "input[2].output[0].file_data", "code": "invalid_value"}, "LLM_BAD_REQUEST", "messages"),
        (400, {"param": "reasoning.effort", "code": "unsupported_value"}, "LLM_BAD_REQUEST", "params.reasoning.effort"),
        (400, {"param": "input", "code": "context_length_exceeded"}, "LLM_CONTEXT_WINDOW_EXCEEDED", "messages"),
        (400, {"param": "previous_response_id", "code": "previous_response_not_found"}, "LLM_NOT_FOUND",
         "previous_response_id"),
        (404, {"param": "model", "code": "model_not_found"}, "LLM_NOT_FOUND", "model"),
        (429, {"code": "rate_limit_exceeded"}, "LLM_RATE_LIMITED", ""),
        (429, {"code": "insufficient_quota"}, "LLM_INSUFFICIENT_CREDITS", ""),
        (500, {"code": "server_error"}, "LLM_SERVER_ERROR", ""),
    ],
)  # fmt: skip
def test_errors_name_the_field_of_the_spec_that_is_to_blame(status, error, kind, field):
    body = json.dumps({"error": {"message": "boom", "type": "some_error", **error}}).encode()

    found: LLMError = DIALECT.classify(status, {"x-request-id": "req_1"}, body)

    assert (found.reason, found.field, found.http_status) == (kind, field, status)
    assert (found.provider_code, found.request_id) == (error["code"], "req_1")


# -- counting and listing ---------------------------------------------------------------------------------------------


def test_counted_tokens_are_a_number():
    assert DIALECT.decode_count(b'{"object":"response.input_tokens","input_tokens":11}') == 11


@pytest.mark.parametrize(
    "body", [b"{}", b'{"input_tokens":-1}', b'{"input_tokens":4294967296}', b'{"input_tokens":"1"}']
)
def test_a_count_that_is_none_is_invalid(body):
    with pytest.raises(LLMInvalidResponseError):
        DIALECT.decode_count(body)


def test_an_error_in_place_of_a_count_is_one():
    with pytest.raises(LLMServerError, match="boom"):
        DIALECT.decode_count(b'{"error":{"message":"boom"}}')


def test_models_are_listed():
    assert (DIALECT.models_request().method, DIALECT.models_request().path) == ("GET", "/models")
    assert [model.id for model in DIALECT.decode_models(b'{"data":[{"id":"a"},{"id":"b"}]}')] == ["a", "b"]
