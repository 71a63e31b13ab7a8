"""Gemini's answers: parts in order, signatures where they stood, sources with their passages."""

from __future__ import annotations

import contextlib
import json
import random
from typing import Any

import pytest
from tests.providers.anthropic_wire import mutated
from tests.providers.gemini_wire import DIALECT, WHOLE, answer_of, chunk, decoded, fixture

from trunkline.v1 import completion_pb2
from trunkline_server.errors import (
    LLMContentFilterError,
    LLMEmptyResponseError,
    LLMError,
    LLMInvalidResponseError,
    LLMRateLimitError,
)
from trunkline_server.providers.assembly import Assembly
from trunkline_server.providers.base import Event


def parts_of(name: str) -> list[Any]:
    return list(answer_of(fixture(name)).choices[0].message.parts)


def test_a_whole_answer_keeps_its_parts_apart_and_their_signatures():
    answer = answer_of(fixture("text.json"))

    first, second = answer.choices[0].message.parts
    assert (first.text.text, first.HasField("signature")) == ("Grüße 👋 from the sea.\n", False)
    assert (second.text.text, second.signature) == ("And a second part.", "c2lnLXRleHQ=")
    assert {first.origin_provider, second.origin_provider} == {"gemini"}
    assert (answer.model, answer.provider_response_id) == ("gemini-2.5-flash", "resp-text-1")
    assert answer.service_tier == "standard"
    assert (answer.choices[0].finish_reason, answer.choices[0].raw_finish_reason) == (
        completion_pb2.FINISH_REASON_STOP,
        "STOP",
    )


def test_log_probabilities_come_with_ids_and_alternatives():
    one, other = answer_of(fixture("text.json")).choices[0].logprobs

    assert (one.token, one.token_id, one.logprob) == ("Gr", 17, -0.25)
    assert [(top.token, top.token_id, top.logprob) for top in one.top] == [("Gr", 17, -0.25), ("Hi", 3, -2.0)]
    assert (other.token, list(other.top)) == ("üße", [])


def test_thoughts_and_calls_keep_order_signatures_and_every_byte_of_the_arguments():
    answer = answer_of(fixture("tools.json"))

    thought, text, first, second, third = answer.choices[0].message.parts
    assert (thought.reasoning.text, thought.reasoning.is_summary) == ("I need the weather twice.", True)
    assert thought.signature == "c2lnLXRob3VnaHQ="
    assert text.text.text == "Let me look."
    assert json.loads(first.tool_call.arguments_json) == {"city": "Zürich", "days": 3, "id": 9007199254740993}
    assert first.tool_call.arguments_json in fixture("tools.json").decode()
    assert first.signature == "c2lnLWNhbGw="
    assert (second.tool_call.id, third.tool_call.name, third.tool_call.arguments_json) == ("fc-2", "now", "{}")
    assert answer.choices[0].finish_reason == completion_pb2.FINISH_REASON_TOOL_CALLS


def test_a_call_without_an_id_gets_one_that_is_the_same_for_the_same_answer():
    ids = [part.tool_call.id for part in parts_of("tools.json") if part.HasField("tool_call")]

    assert len(set(ids)) == 3
    assert ids == [part.tool_call.id for part in parts_of("tools.json") if part.HasField("tool_call")]
    unnamed = [
        answer_of(chunk({"functionCall": {"name": "f", "args": {"a": value}}}, finish="STOP")) for value in (1, 1, 2)
    ]
    first, same, other = (answer.choices[0].message.parts[0].tool_call.id for answer in unnamed)
    assert first == same != other


def test_usage_includes_thoughts_and_what_tools_read():
    usage = answer_of(fixture("tools.json")).usage

    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (47, 52, 99)
    assert (usage.reasoning_tokens, usage.input_image_tokens, usage.input_audio_tokens) == (22, 6, 4)
    assert usage.source == completion_pb2.USAGE_SOURCE_REPORTED
    assert json.loads(usage.raw_json)["toolUsePromptTokenCount"] == 7
    assert not usage.HasField("cache_read_input_tokens")
    assert answer_of(fixture("text.json")).usage.cache_read_input_tokens == 8


def test_counts_that_the_provider_leaves_out_stay_absent():
    answer = answer_of({**chunk({"text": "a"}, finish="STOP"), "usageMetadata": {"promptTokenCount": 3}})

    assert answer.usage.input_tokens == 3
    assert not answer.usage.HasField("output_tokens")
    assert not answer.usage.HasField("total_tokens")
    assert not answer_of(chunk({"text": "a"}, finish="STOP")).HasField("usage")


def test_code_that_ran_comes_as_opaque_blocks_with_their_signatures():
    before, code, result, after = parts_of("code.json")

    assert (before.text.text, after.text.text) == ("I will compute it. ", "It is 42.")
    assert (code.opaque.type, result.opaque.type) == ("executableCode", "codeExecutionResult")
    assert json.loads(code.opaque.json) == {
        "executableCode": {"id": "c1", "language": "PYTHON", "code": "print(6*7)"},
        "thoughtSignature": "c2lnLWNvZGU=",
    }
    assert json.loads(result.opaque.json)["codeExecutionResult"]["output"] == "42\n"


def test_a_part_of_a_later_version_is_passed_on_verbatim():
    (part,) = answer_of(chunk({"hologram": {"z": [1.50]}, "thought": False}, finish="STOP")).choices[0].message.parts

    assert (part.opaque.type, json.loads(part.opaque.json)["hologram"]) == ("hologram", {"z": [1.5]})


def test_sources_are_cited_by_code_points_of_the_part_that_they_stand_behind():
    first, second, grounding, urls = parts_of("grounded.json")

    cited = [(c.uri, c.title, first.text.text[c.start_index : c.end_index]) for c in first.text.citations]
    assert cited == [
        ("https://example.org/a", "A", "Zürich liegt am See."),
        ("", "B", "Zürich liegt am See."),
        ("https://example.org/r", "", "ürich "),
    ]
    passage, whole = second.text.citations
    assert (passage.title, passage.cited_text) == ("B", "Rain is water.")
    assert second.text.text[passage.start_index : passage.end_index] == "It rains."
    assert (whole.title, whole.HasField("start_index")) == ("C", False)
    assert json.loads(passage.raw_json)["groundingSupport"]["groundingChunkIndices"] == [1]
    assert json.loads(first.text.citations[2].raw_json)["license"] == "mit"
    # The suggestions must be shown: they are passed on whole.
    assert (grounding.opaque.type, urls.opaque.type) == ("groundingMetadata", "urlContextMetadata")
    assert json.loads(grounding.opaque.json)["searchEntryPoint"] == {"renderedContent": "<div>zurich</div>"}


def test_pictures_films_and_sounds_come_out_as_what_they_are():
    text, image, film, sound, thought = parts_of("image.json")

    assert text.text.text == "Here it is:"
    assert (image.image.mime_type, image.image.data, image.signature) == (
        "image/png", b"\x89PNG\r\n\x1a\n", "c2lnLWltYWdl",
    )  # fmt: skip
    assert (film.video.uri, film.video.mime_type) == ("gs://bucket/film.mp4", "video/mp4")
    assert (sound.audio.data, sound.audio.mime_type) == (b"\x00\x01\x02", "audio/L16;rate=24000")
    # A picture among the thoughts is no part of the answer.
    assert thought.opaque.type == "inlineData"
    assert answer_of(fixture("image.json")).usage.output_audio_tokens == 2


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("STOP", "STOP"), ("MAX_TOKENS", "LENGTH"), ("SAFETY", "CONTENT_FILTER"), ("RECITATION", "CONTENT_FILTER"),
        ("BLOCKLIST", "CONTENT_FILTER"), ("PROHIBITED_CONTENT", "CONTENT_FILTER"), ("SPII", "CONTENT_FILTER"),
        ("IMAGE_SAFETY", "CONTENT_FILTER"), ("MODEL_ARMOR", "CONTENT_FILTER"), ("LANGUAGE", "OTHER"),
        ("MALFORMED_FUNCTION_CALL", "MALFORMED_TOOL_CALL"), ("UNEXPECTED_TOOL_CALL", "OTHER"), ("OTHER", "OTHER"),
        ("A_WORD_OF_TOMORROW", "OTHER"), (1, "STOP"), (2, "LENGTH"), (3, "CONTENT_FILTER"), (77, "OTHER"),
    ],
)  # fmt: skip
def test_a_finish_reason_keeps_the_providers_word(word: str | int, reason: str):
    choice = answer_of(chunk({"text": "a"}, finish=word)).choices[0]  # type: ignore[arg-type]  # numbers occur

    assert choice.finish_reason == completion_pb2.FinishReason.Value(f"FINISH_REASON_{reason}")
    assert choice.raw_finish_reason == str(word)


def test_candidates_are_told_apart_by_their_index_or_place():
    answer = answer_of({"candidates": [chunk({"text": text}, finish="STOP")["candidates"][0] for text in ("a", "b")]})
    numbered = answer_of(
        {"candidates": [{**chunk({"text": "a"}, finish="STOP")["candidates"][0], "index": index} for index in (1, 0)]}
    )

    assert [choice.message.parts[0].text.text for choice in answer.choices] == ["a", "b"]
    assert [choice.index for choice in numbered.choices] == [0, 1]


def test_an_answer_without_a_reason_is_one_if_it_says_something():
    choice = answer_of(chunk({"text": "a"})).choices[0]

    assert (choice.finish_reason, choice.raw_finish_reason) == (completion_pb2.FINISH_REASON_UNSPECIFIED, "")


def test_an_answer_that_says_only_why_it_says_nothing_is_an_answer():
    choice = answer_of({"candidates": [{"finishReason": "SAFETY"}]}).choices[0]

    assert choice.finish_reason == completion_pb2.FINISH_REASON_CONTENT_FILTER
    assert not choice.message.parts


def test_a_prompt_that_a_filter_refused_is_an_error_with_the_categories():
    with pytest.raises(LLMContentFilterError, match="refused the prompt: SAFETY") as caught:
        answer_of(
            {
                "promptFeedback": {
                    "blockReason": "SAFETY",
                    "safetyRatings": [
                        {"category": "HARM_CATEGORY_HATE_SPEECH", "probability": "HIGH"},
                        {"category": "HARM_CATEGORY_HARASSMENT", "probability": "NEGLIGIBLE"},
                    ],
                }
            }
        )

    assert caught.value.provider_code == "SAFETY"
    assert caught.value.metadata == {"categories": "HARM_CATEGORY_HATE_SPEECH"}
    assert caught.value.field == "messages"
    with pytest.raises(LLMContentFilterError, match="because of reasons"):
        answer_of({"promptFeedback": {"blockReason": "OTHER", "blockReasonMessage": "because of reasons"}})


def test_what_a_refused_prompt_cost_is_known():
    assembly = Assembly("gemini", "asked-for")
    body = {"promptFeedback": {"blockReason": "OTHER"}, "usageMetadata": {"promptTokenCount": 9}}

    with pytest.raises(LLMContentFilterError):
        DIALECT.decode(json.dumps(body).encode(), assembly)

    assert assembly.usage is not None
    assert assembly.usage.input_tokens == 9


@pytest.mark.parametrize(
    "body",
    [
        b'{"candidates":[]}',
        b'{"promptFeedback":{}}',
        b'{"candidates":[],"usageMetadata":{}}',
        b'{"candidates":[{"content":{},"index":0}]}',
    ],
)
def test_an_answer_without_an_answer_is_empty(body: bytes):
    with pytest.raises(LLMEmptyResponseError):
        answer_of(body)


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b"<html>", b"7", b'{"this":["is no answer"]}', b'{"candidates":7}']
)
def test_an_answer_of_another_shape_is_an_error_of_ours(body: bytes):
    with pytest.raises(LLMInvalidResponseError):
        answer_of(body)


def test_a_server_that_always_streams_is_understood():
    answer = answer_of([chunk({"text": "Hel"}), chunk({"text": "lo"}, finish="STOP")])

    assert [part.text.text for part in answer.choices[0].message.parts] == ["Hello"]


@pytest.mark.parametrize("wrap", [lambda error: error, lambda error: [error]])
def test_an_error_in_a_200_is_that_error(wrap: Any):
    error = {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "Slow down."}}

    with pytest.raises(LLMRateLimitError, match=r"Slow down\."):
        answer_of(wrap(error))


def test_media_that_is_not_base64_and_arguments_of_no_call_are_errors_of_ours():
    with pytest.raises(LLMInvalidResponseError, match="base64"):
        answer_of(chunk({"inlineData": {"mimeType": "image/png", "data": "\u00fc"}}, finish="STOP"))
    with pytest.raises(LLMInvalidResponseError, match="no name"):
        answer_of(chunk({"functionCall": {"args": {"a": 1}}}, finish="STOP"))


def test_whatever_a_body_holds_only_errors_of_ours_come_out():
    chance = random.Random(31)
    bodies = [fixture(f"{name}.json") for name in WHOLE]
    read = 0

    for _ in range(2000):
        body = chance.choice(bodies)
        for _ in range(chance.randint(1, 3)):
            body = mutated(body, chance)
        with contextlib.suppress(LLMError):
            assert answer_of(body).SerializeToString()
            read += 1

    # Both ways were taken: bodies that could still be read, and bodies that could not.
    assert 100 < read < 1900


def test_every_beginning_of_a_body_is_read_or_refused():
    for name in WHOLE:
        body = fixture(f"{name}.json")
        for end in range(0, len(body) - 1, 7):
            with pytest.raises(LLMError):
                answer_of(body[:end])


def test_half_characters_do_not_stop_an_answer():
    halves = [json.dumps(chunk({"text": text}, finish="STOP")).encode() for text in ("a\ud83d", "\udc4b")]

    answer = decoded([Event(b"", half) for half in halves]).completion()

    assert answer.choices[0].message.parts[0].text.text == "a👋"
