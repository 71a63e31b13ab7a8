"""Whole Chat Completions answers: what the provider said is what the caller gets."""

from __future__ import annotations

import base64
import json

import pytest
from openai.types.chat import ChatCompletion
from tests.providers.openai_chat import (
    STOP,
    TOOL_CALLS,
    answer_of,
    calls_of,
    fixture,
    kinds,
    said,
)

from trunkline.v1 import completion_pb2
from trunkline_server.errors import (
    LLMBadRequestError,
    LLMContentFilterError,
    LLMEmptyResponseError,
    LLMInvalidResponseError,
    LLMServerError,
)


@pytest.mark.parametrize("name", ["text", "tools", "choices"])
def test_an_answer_says_what_the_official_client_reads_in_it(name):
    theirs = ChatCompletion.model_validate_json(fixture(name))

    ours = answer_of(fixture(name))

    assert (ours.provider_response_id, ours.model) == (theirs.id, theirs.model)
    for choice, expected in zip(ours.choices, theirs.choices, strict=True):
        message = expected.message
        texts = [part.text.text for part in choice.message.parts if part.HasField("text")]
        assert "".join(texts) == (message.content or "")
        refusals = [part.refusal.text for part in choice.message.parts if part.HasField("refusal")]
        assert "".join(refusals) == (message.refusal or "")
        calls = [part.tool_call for part in choice.message.parts if part.HasField("tool_call")]
        assert [(call.id, call.name, call.arguments_json) for call in calls] == [
            (call.id, call.function.name, call.function.arguments)  # type: ignore[union-attr]  # all are functions
            for call in message.tool_calls or []
        ]
        assert choice.raw_finish_reason == expected.finish_reason


def test_usage_is_inclusive_and_keeps_the_providers_object():
    answer = answer_of(fixture("text"))

    usage = answer.usage
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (21, 34, 55)
    assert (usage.cache_read_input_tokens, usage.reasoning_tokens, usage.input_audio_tokens) == (16, 20, 0)
    assert not usage.HasField("cache_write_input_tokens")
    assert usage.source == completion_pb2.USAGE_SOURCE_REPORTED
    assert usage.raw_json in fixture("text").decode()
    assert (answer.service_tier, answer.system_fingerprint) == ("default", "fp_fixture")


@pytest.mark.parametrize(
    ("reported", "expected"),
    [
        # xAI counts reasoning beside the answer, and the total tells.
        ({"total_tokens": 45, "completion_tokens_details": {"reasoning_tokens": 30}}, (10, 35, None, None, 30)),
        ({"total_tokens": 15, "completion_tokens_details": {"reasoning_tokens": 3}}, (10, 5, None, None, 3)),
        ({"reasoning_tokens": 3}, (10, 5, None, None, 3)),
        # Grok on Azure reports the prompt without what came from the cache.
        ({"prompt_tokens_details": {"cached_tokens": 161}}, (171, 5, 161, None, None)),
        ({"prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2}}, (10, 5, 4, 2, None)),
        ({"prompt_cache_hit_tokens": 8}, (10, 5, 8, None, None)),
        ({"cached_tokens": 4}, (10, 5, 4, None, None)),
        ({"num_cached_tokens": 4}, (10, 5, 4, None, None)),
        ({"cache_read_input_tokens": 2, "cache_creation_input_tokens": 3}, (10, 5, 2, 3, None)),
        ({"prompt_tokens": 9.0, "completion_tokens": None}, (9, None, None, None, None)),
    ],
)
def test_usage_means_the_same_whoever_reports_it(reported, expected):
    usage = said({"content": "hi"}, usage={"prompt_tokens": 10, "completion_tokens": 5, **reported}).usage

    names = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_write_input_tokens", "reasoning_tokens")
    counts = {field.name: count for field, count in usage.ListFields()}
    assert tuple(counts.get(name) for name in names) == expected


def test_usage_is_never_invented():
    assert not said({"content": "hi"}).HasField("usage")
    assert not said({"content": "hi"}, usage={}).HasField("usage")


def test_each_of_several_choices_has_its_own_ending_and_log_probabilities():
    first, second = answer_of(fixture("choices")).choices

    assert first.finish_reason == completion_pb2.FINISH_REASON_LENGTH
    assert [(token.token, token.logprob, token.token_bytes) for token in first.logprobs] == [("Hi", -0.25, b"Hi")]
    assert [(top.token, top.logprob) for top in first.logprobs[0].top] == [("Hi", -0.25), ("Yo", -1.5)]
    assert second.finish_reason == completion_pb2.FINISH_REASON_REFUSAL
    assert second.raw_finish_reason == "stop"


def test_citations_keep_their_range_and_other_annotations_stay_whole():
    text, file = answer_of(fixture("cited")).choices[0].message.parts

    (citation,) = text.text.citations
    assert (citation.uri, citation.title) == ("https://example.org/a", "A page")
    assert text.text.text[citation.start_index : citation.end_index] == "example.org"
    assert json.loads(citation.raw_json)["type"] == "url_citation"
    assert file.opaque.type == "annotation.file"
    assert json.loads(file.opaque.json)["file"]["hash"] == "abc"


def test_thoughts_are_reasoning_under_every_name():
    for name in ("reasoning_content", "reasoning"):
        thought, text = said({"content": "4", name: "2+2"}).choices[0].message.parts
        assert (thought.reasoning.text, text.text.text) == ("2+2", "4")
    both = said({"content": "4", "reasoning": "2+2", "reasoning_content": "2+2"})
    assert both.choices[0].message.parts[0].reasoning.text == "2+2"


def test_content_in_parts_becomes_parts():
    thought, text, reference = answer_of(fixture("thinking")).choices[0].message.parts

    assert (thought.reasoning.text, text.text.text) == ("Two and two.", "Four.")
    assert json.loads(reference.opaque.json)["reference_ids"] == [1, 2]


def test_content_that_is_the_object_itself_becomes_its_json():
    (part,) = said({"content": {"a": [1, "é"]}}).choices[0].message.parts

    assert json.loads(part.text.text) == {"a": [1, "é"]}


def test_think_tags_are_text():
    assert said({"content": "<think>hm</think>hi"}).choices[0].message.parts[0].text.text == "<think>hm</think>hi"


def test_sealed_thoughts_are_kept_with_all_that_goes_back_with_them():
    summary, sealed, text = answer_of(fixture("details")).choices[0].message.parts

    assert summary.reasoning.is_summary
    assert summary.reasoning.text == "**Adding**\n\nTwo and two."
    assert (sealed.reasoning.redacted, sealed.item_id, sealed.origin_provider) == (True, "rs_1", "openai")
    assert json.loads(sealed.reasoning.encrypted)["format"] == "openai-responses-v1"
    assert text.text.text == "Four."


def test_a_signature_that_is_not_anthropics_is_kept_with_its_format():
    detail = {"type": "reasoning.text", "text": "", "signature": "Zm9v", "format": "google-gemini-v1", "index": 0}

    thought, _ = said({"content": "4", "reasoning_details": [detail]}).choices[0].message.parts

    assert json.loads(thought.reasoning.encrypted) == detail


def test_sound_comes_with_its_words_and_its_id():
    data = base64.b64encode(b"RIFF....WAVE").decode()
    audio = {"id": "audio_1", "data": data, "transcript": "Hello", "expires_at": 1}

    (part,) = said({"content": None, "audio": audio}).choices[0].message.parts

    assert (part.audio.data, part.audio.transcript, part.audio.mime_type) == (b"RIFF....WAVE", "Hello", "audio/wav")
    assert part.item_id == "audio_1"


def test_pictures_that_the_model_made_are_bytes_or_addresses():
    images = [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw=="}},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
    ]

    first, second = said({"content": "", "images": images}).choices[0].message.parts

    assert (first.image.mime_type, first.image.data) == ("image/png", b"\x89PNG")
    assert second.image.uri == "https://example.org/a.png"


def test_geminis_signatures_ride_on_the_parts_that_they_belong_to():
    signed = {"google": {"thought_signature": "c2ln"}}
    call = {"id": "c", "type": "function", "extra_content": signed, "function": {"name": "f", "arguments": "{}"}}

    (called,) = said({"content": None, "tool_calls": [call]}, "tool_calls").choices[0].message.parts
    (text,) = said({"content": "hi", "extra_content": signed}).choices[0].message.parts

    assert (called.signature, text.signature) == ("c2ln", "c2ln")


def test_tools_that_the_provider_ran_are_opaque():
    ran = {"type": "search", "arguments": "{}", "output": "found"}

    answer = said({"content": "hi", "executed_tools": [ran]})

    assert kinds(answer) == ["text", "opaque"]
    assert json.loads(answer.choices[0].message.parts[1].opaque.json) == ran


def test_a_legacy_function_call_is_a_tool_call_with_an_id_of_ours():
    message = {"content": None, "function_call": {"name": "f", "arguments": '{"a":1}'}}

    answer, again = said(message, "function_call"), said(message, "function_call")

    ((call_id, name, arguments),) = calls_of(answer)
    assert (name, arguments) == ("f", '{"a":1}')
    assert call_id.startswith("call_")
    assert answer == again
    assert answer.choices[0].finish_reason == TOOL_CALLS


def test_arguments_are_what_the_model_said_even_when_they_are_no_json():
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": "cut of'}}

    (part,) = said({"tool_calls": [call]}, "length").choices[0].message.parts

    assert part.tool_call.arguments_json == '{"a": "cut of'
    assert part.tool_call.HasField("completed_arguments_json")


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("stop", STOP),
        ("eos", STOP),
        ("LENGTH", completion_pb2.FINISH_REASON_LENGTH),
        ("content_filter", completion_pb2.FINISH_REASON_CONTENT_FILTER),
        ("model_context_window_exceeded", completion_pb2.FINISH_REASON_CONTEXT_WINDOW),
        ("insufficient_system_resource", completion_pb2.FINISH_REASON_OTHER),
    ],
)
def test_a_finish_reason_is_ours_beside_the_providers_word(word, reason):
    choice = said({"content": "hi"}, word).choices[0]

    assert (choice.finish_reason, choice.raw_finish_reason) == (reason, word)


def test_calls_mean_tool_calls_whatever_the_word():
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}

    for word in ("stop", "", None):
        assert said({"content": "", "tool_calls": [call]}, word).choices[0].finish_reason == TOOL_CALLS


def test_the_stop_sequence_that_matched_is_told():
    body = {"choices": [{"index": 0, "message": {"content": "a"}, "finish_reason": "stop", "stop_reason": "END"}]}

    assert answer_of(body).choices[0].stop_sequence == "END"


def test_an_answer_without_a_reason_to_end_is_one_if_there_is_anything_in_it():
    assert said({"content": "hi"}, None).choices[0].finish_reason == completion_pb2.FINISH_REASON_OTHER
    assert said({"content": ""}, None, usage={"prompt_tokens": 3}).choices[0].raw_finish_reason == ""
    with pytest.raises(LLMEmptyResponseError):
        said({"content": ""}, None)
    with pytest.raises(LLMEmptyResponseError):
        answer_of({"choices": []})


@pytest.mark.parametrize(
    "body", [b"", b"<html>busy</html>", b"[]", b'"x"', b"{}", b'{"choices": 3}', b'{"choices":[{"message":1}]}']
)
def test_what_is_no_answer_cannot_be_read(body):
    with pytest.raises(LLMInvalidResponseError) as caught:
        answer_of(body)

    assert caught.value.body == body


def test_an_error_in_a_200_is_an_error():
    inner = {
        "code": "ResponsibleAIPolicyViolation",
        "content_filter_result": {"hate": {"filtered": True}, "jailbreak": {"filtered": False}},
    }
    with pytest.raises(LLMContentFilterError) as caught:
        answer_of({"error": {"message": "filtered", "code": "content_filter", "status": 400, "innererror": inner}})
    assert caught.value.metadata == {"categories": "hate"}
    with pytest.raises(LLMServerError):
        answer_of({"error": {"message": "Provider returned error", "code": 502}})
    with pytest.raises(LLMBadRequestError):
        answer_of({"object": "error", "message": "no such thing", "type": "BadRequestError", "code": 400})
