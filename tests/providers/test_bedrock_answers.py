"""Converse's answers, whole and streamed: what they say, what they cite, what they cost, and how they fail."""

from __future__ import annotations

import contextlib
import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.providers.anthropic_wire import disturbed, mutated
from tests.providers.bedrock_wire import WHOLE, WIRE, event, exception, framed, streamed, told
from tests.providers.wires import calls_of, kinds, parts_of, plain

from trunkline.v1 import completion_pb2
from trunkline_server.errors import (
    ContextWindowExceededError,
    LLMAuthenticationError,
    LLMBadRequestError,
    LLMConnectionError,
    LLMContentFilterError,
    LLMEmptyResponseError,
    LLMError,
    LLMInvalidResponseError,
    LLMNotFoundError,
    LLMPermissionDeniedError,
    LLMProviderOverloaded,
    LLMRateLimitError,
    LLMServerError,
    LLMTimeoutError,
)
from trunkline_server.providers.base import EXCEPTION, Event
from trunkline_server.providers.framing import FRAMINGS

STOP, LENGTH = completion_pb2.FINISH_REASON_STOP, completion_pb2.FINISH_REASON_LENGTH
START: tuple[str, dict[str, Any]] = ("messageStart", {"role": "assistant"})
END: tuple[str, dict[str, Any]] = ("messageStop", {"stopReason": "end_turn"})


def answer(*blocks: dict[str, Any], **members: Any) -> completion_pb2.Completion:
    message = {"role": "assistant", "content": list(blocks)}
    return WIRE.answer_of({"output": {"message": message}, "stopReason": "end_turn", **members})


def said(*events: tuple[str, dict[str, Any]]) -> completion_pb2.Completion:
    return WIRE.decoded([Event(name.encode(), json.dumps(payload).encode()) for name, payload in events]).completion()


def delta(index: int, **members: Any) -> tuple[str, dict[str, Any]]:
    return "contentBlockDelta", {"contentBlockIndex": index, "delta": members}


def start(index: int, **members: Any) -> tuple[str, dict[str, Any]]:
    return "contentBlockStart", {"contentBlockIndex": index, "start": members}


# -- whole answers ----------------------------------------------------------------------------------------------------


def test_a_whole_answer_is_its_text_and_all_tokens_of_its_prompt():
    found = WIRE.answer_of(WIRE.fixture("text.json"))

    assert [part.text.text for part in parts_of(found)] == ["Grüezi 🙂, how can I help?"]
    assert (found.choices[0].finish_reason, found.choices[0].raw_finish_reason) == (STOP, "end_turn")
    assert (found.model, found.provider_response_id, found.service_tier) == ("asked-for", "", "flex")
    usage = found.usage
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (12 + 1200 + 112, 9, 1333)
    assert (usage.cache_read_input_tokens, usage.cache_write_input_tokens) == (1200, 112)
    assert usage.source == completion_pb2.USAGE_SOURCE_REPORTED
    assert usage.raw_json.encode() in WIRE.fixture("text.json")


@pytest.mark.parametrize(
    ("usage", "wanted"),
    [
        (None, {}),
        ({}, {}),
        ({"outputTokens": 50}, {"output_tokens": 50}),
        ({"inputTokens": 3, "outputTokens": 2}, {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}),
        ({"inputTokens": 3, "cacheReadInputTokenCount": 4, "cacheWriteInputTokenCount": 0}, {
            "input_tokens": 7, "cache_read_input_tokens": 4, "cache_write_input_tokens": 0,
        }),
        ({"inputTokens": -1, "outputTokens": "many"}, {}),
    ],
)  # fmt: skip
def test_only_what_was_counted_is_reported(usage: Any, wanted: dict[str, int]):
    found = answer({"text": "hi"}, usage=usage).usage

    counts = {field.name: value for field, value in found.ListFields() if field.name.endswith("tokens")}
    assert counts == wanted


def test_thoughts_calls_and_text_are_parts_in_their_order():
    found = WIRE.answer_of(WIRE.fixture("tools.json"))

    thought, sealed, text, call, other = parts_of(found)
    assert (thought.reasoning.text, thought.signature) == ("Two towns, so two calls. ", "c2lnbmVk")
    assert (sealed.reasoning.redacted, sealed.reasoning.encrypted) == (True, "c2VhbGVk")
    assert text.text.text == "Let me look."
    assert calls_of(found) == [
        ("tooluse_1", "weather", '{"town": "Zürich", "days":  1.50}'), ("tooluse_2", "weather", "{}"),
    ]  # fmt: skip
    assert {part.origin_provider for part in (thought, sealed, text, call, other)} == {"bedrock"}
    assert found.choices[0].finish_reason == completion_pb2.FINISH_REASON_TOOL_CALLS


def test_what_aws_did_itself_is_opaque_and_sources_are_citations():
    found = WIRE.answer_of(WIRE.fixture("cited.json"))

    assert kinds(found) == ["opaque", "opaque", "text", "text", "text", "image", "opaque"]
    ran, result, text, source, cited, image, other = parts_of(found)
    assert [ran.opaque.type, result.opaque.type, other.opaque.type] == [
        "server_tool_use", "nova_grounding_result", "searchResult",
    ]  # fmt: skip
    assert ran.opaque.json.encode() in WIRE.fixture("cited.json")
    assert (text.text.text, source.text.text, cited.text.text) == (
        "The Limmat leaves the lake", "", "and is 36 km long.",
    )  # fmt: skip
    assert source.text.citations[0].uri == "https://example.org/limmat"
    citation = cited.text.citations[0]
    assert (citation.title, citation.cited_text, citation.document_index) == ("Rivers", "The Limmat: 36 km.", 2)
    assert json.loads(citation.raw_json)["location"]["documentPage"]["start"] == 4
    assert (image.image.mime_type, image.image.data) == ("image/webp", b"RIFF")
    assert found.choices[0].finish_reason == STOP


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("stop_sequence", "STOP"), ("max_tokens", "LENGTH"), ("guardrail_intervened", "CONTENT_FILTER"),
        ("content_filtered", "CONTENT_FILTER"), ("malformed_tool_use", "MALFORMED_TOOL_CALL"),
        ("malformed_model_output", "OTHER"), ("model_context_window_exceeded", "CONTEXT_WINDOW"),
        ("refusal", "REFUSAL"), ("something_new", "OTHER"),
    ],
)  # fmt: skip
def test_the_reason_for_the_end_is_told_in_both_words(word: str, reason: str):
    choice = answer({"text": "hi"}, stopReason=word).choices[0]

    assert choice.finish_reason == completion_pb2.FinishReason.Value(f"FINISH_REASON_{reason}")
    assert choice.raw_finish_reason == word
    assert not choice.HasField("stop_sequence")


def test_the_stop_sequence_that_was_asked_for_is_told():
    choice = answer({"text": "hi"}, additionalModelResponseFields={"stop_sequence": "END"}).choices[0]

    assert choice.stop_sequence == "END"


def test_an_answer_without_a_reason_has_the_one_that_its_content_tells():
    call = {"toolUse": {"toolUseId": "t", "name": "f", "input": {}}}

    assert answer({"text": "hi"}, stopReason=None).choices[0].finish_reason == STOP
    assert answer(call, stopReason=None).choices[0].finish_reason == completion_pb2.FINISH_REASON_TOOL_CALLS
    with pytest.raises(LLMEmptyResponseError):
        answer(stopReason=None)


def test_a_block_that_nobody_knows_is_kept_whole():
    found = answer({"hologram": {"a": [1, 2]}}, {"toolUse": {"toolUseId": 7, "name": ["odd"]}}, {"text": "hi"})

    assert kinds(found) == ["opaque", "opaque", "text"]
    assert [json.loads(part.opaque.json) for part in parts_of(found)[:2]] == [
        {"hologram": {"a": [1, 2]}}, {"toolUse": {"toolUseId": 7, "name": ["odd"]}},
    ]  # fmt: skip


# -- streams ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_stream_says_what_the_whole_answer_says(name: str, size: int):
    whole = json.loads(WIRE.fixture(name))

    found = WIRE.collected(WIRE.events_of(streamed(whole, size)))

    assert plain(found).choices == plain(WIRE.answer_of(whole)).choices
    decoded = WIRE.decoded(WIRE.events_of(streamed(whole, size))).completion()
    assert plain(decoded) == plain(WIRE.answer_of(whole))


@given(st.lists(st.integers(1, 500), max_size=30), st.sampled_from(WHOLE))
@settings(max_examples=60, deadline=None)
def test_however_a_stream_is_cut_into_chunks_the_answer_is_the_same(sizes: list[int], name: str):
    data = streamed(json.loads(WIRE.fixture(name)))
    framer = FRAMINGS["eventstream"]()
    events: list[Event] = []
    at = 0
    for size in sizes:
        events += framer.feed(data[at : at + size])
        at += size
    events += [*framer.feed(data[at:]), *framer.end()]

    assert events == WIRE.events_of(data)
    assert events == WIRE.events_of(data, 1)


def test_arguments_in_fragments_are_those_of_their_calls():
    found = said(
        START,
        start(0, toolUse={"toolUseId": "a", "name": "f"}),
        delta(0, toolUse={"input": '{"x":  1'}),
        start(1, toolUse={"toolUseId": "b", "name": "g"}),
        delta(1, toolUse={"input": "{}"}),
        delta(0, toolUse={"input": ".50}"}),
        END,
    )

    assert calls_of(found) == [("a", "f", '{"x":  1.50}'), ("b", "g", "{}")]


def test_a_call_that_was_cut_off_says_how_far_it_came():
    found = said(
        START, start(0, toolUse={"toolUseId": "a", "name": "f"}), delta(0, toolUse={"input": '{"x":1,"y":"ab'}),
        ("messageStop", {"stopReason": "max_tokens"}),
    )  # fmt: skip

    call = parts_of(found)[0].tool_call
    assert (call.arguments_json, call.completed_arguments_json) == ('{"x":1,"y":"ab', '{"x":1}')
    assert found.choices[0].finish_reason == LENGTH


def test_half_characters_that_come_apart_are_joined():
    halves = [
        b'{"contentBlockIndex":0,"delta":{"text":"\\ud83d"}}',
        b'{"contentBlockIndex":0,"delta":{"text":"\\ude42"}}',
    ]
    events = [Event(b"contentBlockDelta", half) for half in halves]

    found = WIRE.decoded([*events, Event(b"messageStop", b'{"stopReason":"end_turn"}')]).completion()

    assert parts_of(found)[0].text.text == "🙂"


def test_events_without_names_have_theirs_as_their_member():
    lines = [json.dumps({name: payload}).encode() for name, payload in told(json.loads(WIRE.fixture("tools.json")))]

    found = WIRE.decoded([Event(b"", line) for line in lines]).completion()

    assert plain(found) == plain(WIRE.answer_of(WIRE.fixture("tools.json")))


def test_events_that_nobody_knows_are_skipped():
    found = said(START, ("contentBlockAside", {"a": 1}), start(0), delta(0, text="hi"), delta(1, hologram={}), END)

    assert kinds(found) == ["text"]


# -- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "payload", "wanted"),
    [
        ("throttlingException", {"message": "Too many tokens, please wait before trying again."}, LLMRateLimitError),
        ("serviceUnavailableException", {"message": "try later"}, LLMProviderOverloaded),
        ("internalServerException", {"message": "oh"}, LLMServerError),
        ("modelStreamErrorException", {"message": "oh", "originalStatusCode": 500}, LLMServerError),
        ("modelTimeoutException", {"message": "too slow"}, LLMTimeoutError),
        ("validationException", {"message": "Malformed input request"}, LLMBadRequestError),
        ("validationException", {"message": "Input is too long for requested model."}, ContextWindowExceededError),
        ("somethingNewException", b"not json", LLMServerError),
    ],
)  # fmt: skip
def test_an_exception_in_a_stream_is_an_error_after_what_came_before(kind: str, payload: Any, wanted: type[LLMError]):
    events = WIRE.events_of(event(*START) + event(*delta(0, text="Hel")) + exception(kind, payload), 7)
    assembly_events = events[:2]
    assert [each.name for each in assembly_events] == [b"messageStart", b"contentBlockDelta"]

    with pytest.raises(wanted) as caught:
        WIRE.decoded(events)

    assert type(caught.value) is wanted
    assert caught.value.provider_code == kind
    assert caught.value.http_status == 200


def test_an_error_of_the_stream_itself_is_told_by_its_headers():
    frame = framed({":message-type": "error", ":error-code": "InternalError", ":error-message": "broken pipe"}, b"")

    with pytest.raises(LLMServerError, match="broken pipe") as caught:
        WIRE.decoded(WIRE.events_of(frame))

    assert caught.value.provider_code == "InternalError"


def test_a_stream_that_ends_too_early_is_an_error():
    whole = streamed(json.loads(WIRE.fixture("text.json")))

    for end in (0, 10, 100, 400, len(whole) // 2):
        with pytest.raises(LLMConnectionError):
            WIRE.decoded(WIRE.events_of(whole[:end]))
    assert WIRE.decoded(WIRE.events_of(event(*START) + event(*delta(0, text="hi")) + event(*END))).finished


def test_bytes_that_are_no_frames_are_an_error_once_what_came_before_is_told():
    good = event(*START) + event(*delta(0, text="hi"))
    broken = bytearray(event(*END))
    broken[-1] ^= 1
    for bad in (b"<html>\n<body>oh no</body></html>", bytes(broken), b"\x00" * 40):
        framer = FRAMINGS["eventstream"]()
        assert len(framer.feed(good + bad)) == 2
        with pytest.raises(LLMInvalidResponseError):
            framer.end()
        with pytest.raises(LLMInvalidResponseError):
            FRAMINGS["eventstream"]().feed(bad)


def test_arguments_of_a_call_that_did_not_begin_are_an_error():
    with pytest.raises(LLMInvalidResponseError, match="had not begun"):
        said(START, delta(0, toolUse={"input": "{}"}))


@pytest.mark.parametrize(
    ("status", "header", "body", "wanted", "field"),
    [
        (400, "ValidationException", ("1 validation error detected: Value '2' at 'inferenceConfig.temperature' failed"
         " to satisfy constraint: Member must be less than or equal to 1"), LLMBadRequestError, "params.temperature"),
        (400, "ValidationException", ("Malformed input request: #/messages/2/content/0: extraneous key [toolResult] is"
         " not permitted"), LLMBadRequestError, "messages"),
        (400, "ValidationException", ("The model returned the following errors: messages.2.content.2.document.source:"
         " Field required"), LLMBadRequestError, "messages"),
        (400, "ValidationException", "The provided model identifier is invalid.", LLMNotFoundError, ""),
        (400, "ValidationException", "Input is too long for requested model.", ContextWindowExceededError, "messages"),
        (403, "AccessDeniedException", "You don't have access to the model with the specified model ID.",
         LLMPermissionDeniedError, ""),
        (403, "ExpiredTokenException", "The security token included in the request is expired",
         LLMAuthenticationError, ""),
        (403, "UnrecognizedClientException", "The security token included in the request is invalid.",
         LLMAuthenticationError, ""),
        (404, "ResourceNotFoundException", "This model version has reached the end of its life.", LLMNotFoundError, ""),
        (424, "ModelErrorException", "The model failed", LLMServerError, ""),
        (429, "ThrottlingException", "Too many tokens per day, please wait.", LLMRateLimitError, ""),
        (500, "InternalServerException", "oh", LLMServerError, ""),
        (503, "ServiceUnavailableException", "Model is getting throttled.", LLMProviderOverloaded, ""),
        (400, "ValidationException", "The content was blocked by our guardrail", LLMContentFilterError, "messages"),
    ],
)  # fmt: skip
def test_an_error_is_told_by_the_header_and_names_what_it_blames(
    status: int, header: str, body: str, wanted: type[LLMError], field: str
):
    headers = {"x-amzn-errortype": f"{header}:http://internal.amazon.com/coral/", "x-amzn-requestid": "r-1"}

    error = WIRE.dialect.classify(status, headers, json.dumps({"message": body}).encode())

    assert type(error) is wanted
    assert (error.provider_code, error.http_status, error.request_id, error.field) == (header, status, "r-1", field)


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        (b'{"message":"Too many requests","__type":"ThrottlingException"}', LLMRateLimitError),
        (b'{"Output":{"__type":"com.amazon.coral.service#UnknownOperationException"},"Version":"1.0"}', LLMServerError),
        (b'{"Message":"User: arn is not authorized","__type":"AccessDeniedException"}', LLMPermissionDeniedError),
        (b"{}", LLMInvalidResponseError),
        (b"<html>", LLMInvalidResponseError),
        (b"[1]", LLMInvalidResponseError),
    ],
)
def test_an_error_in_a_success_is_an_error(body: bytes, wanted: type[LLMError]):
    with pytest.raises(wanted):
        WIRE.answer_of(body)


@pytest.mark.parametrize("seed", range(400))
def test_whatever_arrives_nothing_but_our_errors_is_raised(seed: int):
    chance = random.Random(seed)
    name = chance.choice(WHOLE)
    whole = WIRE.fixture(name)
    events = WIRE.events_of(streamed(json.loads(whole), chance.choice([2, 50])))

    for attempt in (
        lambda: WIRE.answer_of(mutated(whole, chance)),
        lambda: WIRE.answer_of(whole[: chance.randrange(len(whole))]),
        lambda: WIRE.decoded(disturbed(events, chance)).completion(),
        lambda: WIRE.decoded([Event(EXCEPTION + b"x", mutated(whole, chance))]),
        lambda: WIRE.dialect.decode_count(mutated(b'{"inputTokens":7}', chance)),
        lambda: WIRE.dialect.decode_models(mutated(b'{"modelSummaries":[{"modelId":"a","modelName":"A"}]}', chance)),
        lambda: WIRE.dialect.decode_embeddings(mutated(b'{"embedding":[0.5,1],"inputTextTokenCount":3}', chance)),
    ):
        with contextlib.suppress(LLMError):
            attempt()
    assert isinstance(WIRE.dialect.classify(400 + seed % 200, {}, mutated(whole, chance)), LLMError)


# -- the smaller answers ----------------------------------------------------------------------------------------------


def test_tokens_are_counted_and_failures_to_count_are_errors():
    assert WIRE.dialect.decode_count(b'{"inputTokens":375}') == 375
    with pytest.raises(LLMNotFoundError):
        WIRE.dialect.decode_count(b'{"message":"The provided model identifier is invalid."}')
    with pytest.raises(LLMInvalidResponseError):
        WIRE.dialect.decode_count(b'{"tokens":375}')


def test_models_that_can_be_called_are_listed_and_then_the_profiles():
    models = {
        "modelSummaries": [
            {"modelId": "amazon.nova-lite-v1:0", "modelName": "Nova Lite", "inferenceTypesSupported": ["ON_DEMAND"],
             "outputModalities": ["TEXT"]},
            {"modelId": "anthropic.claude-sonnet-4-5-v1:0", "inferenceTypesSupported": ["INFERENCE_PROFILE"]},
            {"modelId": "stability.sd3", "inferenceTypesSupported": ["ON_DEMAND"], "outputModalities": ["IMAGE"]},
            {"modelId": "cohere.embed-v4:0", "outputModalities": ["EMBEDDING"]}, {"modelName": "no id"}, 7,
        ]
    }  # fmt: skip
    profiles = {"inferenceProfileSummaries": [{"inferenceProfileId": "eu.x", "inferenceProfileName": "X"}]}
    dialect = WIRE.dialect
    first = dialect.models_request()
    second = dialect.next_models_request(first, json.dumps(models).encode())
    third = dialect.next_models_request(second, json.dumps({**profiles, "nextToken": "a/b+c"}).encode())

    assert [(m.id, m.display_name) for m in dialect.decode_models(json.dumps(models).encode())] == [
        ("amazon.nova-lite-v1:0", "Nova Lite"), ("cohere.embed-v4:0", ""),
    ]  # fmt: skip
    assert [m.id for m in dialect.decode_models(json.dumps(profiles).encode())] == ["eu.x"]
    assert [request.path for request in (first, second, third)] == [
        "/foundation-models",
        "/inference-profiles?maxResults=1000",
        "/inference-profiles?maxResults=1000&nextToken=a%2Fb%2Bc",
    ]
    assert dialect.next_models_request(third, b"{}") is None
    with pytest.raises(LLMPermissionDeniedError):
        dialect.decode_models(b'{"message":"no","__type":"AccessDeniedException"}')
    with pytest.raises(LLMInvalidResponseError):
        dialect.decode_models(b"[]")
