"""Gemini's errors, embeddings, counts and list of models."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.genai import types
from google.protobuf import text_format
from tests.providers.gemini_wire import DIALECT, fixture, target_of

from trunkline.v1 import embedding_service_pb2
from trunkline_server.errors import (
    ContextWindowExceededError,
    LLMAuthenticationError,
    LLMBadRequestError,
    LLMError,
    LLMInvalidResponseError,
    LLMNotFoundError,
    LLMPermissionDeniedError,
    LLMProviderOverloaded,
    LLMRateLimitError,
    LLMServerError,
    LLMTimeoutError,
)
from trunkline_server.providers.base import (
    CountingDialect,
    EmbeddingDialect,
    ListedModel,
    ListingDialect,
    Notes,
    UpstreamRequest,
    Vectors,
)
from trunkline_server.providers.dialects.gemini import VertexGemini, capabilities

INFO = "type.googleapis.com/google.rpc."


def error_of(status: int, word: str, message: str, *details: dict[str, Any]) -> LLMError:
    body = {"error": {"code": status, "status": word, "message": message, "details": list(details)}}
    return DIALECT.classify(status, {}, json.dumps(body).encode())


@pytest.mark.parametrize(
    ("status", "word", "message", "error"),
    [
        (400, "INVALID_ARGUMENT", "Request contains an invalid argument.", LLMBadRequestError),
        (400, "INVALID_ARGUMENT", "The input token count (1100000) exceeds the maximum number of tokens allowed (9).",
         ContextWindowExceededError),
        (400, "FAILED_PRECONDITION", "User location is not supported for the API use.", LLMBadRequestError),
        (401, "UNAUTHENTICATED", "API keys are not supported by this API.", LLMAuthenticationError),
        (403, "PERMISSION_DENIED", "Permission denied on resource.", LLMPermissionDeniedError),
        (404, "NOT_FOUND", "models/nope is not found for API version v1beta.", LLMNotFoundError),
        (429, "RESOURCE_EXHAUSTED", "You exceeded your current quota, please check your plan and billing details.",
         LLMRateLimitError),
        (500, "INTERNAL", "An internal error has occurred.", LLMServerError),
        (503, "UNAVAILABLE", "The model is overloaded. Please try again later.", LLMProviderOverloaded),
        (504, "DEADLINE_EXCEEDED", "Deadline expired before operation could complete.", LLMTimeoutError),
    ],
)  # fmt: skip
def test_an_error_is_known_by_its_status_and_word(status: int, word: str, message: str, error: type[LLMError]):
    made = error_of(status, word, message)

    assert type(made) is error
    assert (made.message, made.http_status, made.provider_code) == (message, status, str(status))


def test_a_key_that_is_not_valid_is_known_by_the_reason_that_google_gives():
    info = {"@type": f"{INFO}ErrorInfo", "reason": "API_KEY_INVALID", "domain": "googleapis.com"}

    assert isinstance(error_of(400, "INVALID_ARGUMENT", "Something about a key.", info), LLMAuthenticationError)


def test_a_rate_limit_carries_the_reason_and_the_delay():
    made = error_of(
        429,
        "RESOURCE_EXHAUSTED",
        "You exceeded your current quota. * Quota exceeded for metric: input tokens per minute",
        {"@type": f"{INFO}QuotaFailure", "violations": [{"quotaMetric": "m", "quotaId": "PerMinute"}]},
        {"@type": f"{INFO}Help", "links": [{"description": "docs", "url": "https://example.org/limits"}]},
        {"@type": f"{INFO}RetryInfo", "retryDelay": "48.5s"},
    )

    assert isinstance(made, LLMRateLimitError)
    assert (made.retry_after, made.quota_metric) == (48.5, "input_tokens")
    assert made.help_link == "https://example.org/limits"


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ("* GenerateContentRequest.generation_config.temperature: must be in [0, 2]", "params.temperature"),
        ("* GenerateContentRequest.tools[0].function_declarations[0].name: Invalid function name.", "tools"),
        ("* GenerateContentRequest.contents[1].parts: contents.parts must not be empty.", "messages"),
        ("* GenerateContentRequest.model: unexpected model name format", "model"),
        ("Developer instruction is not enabled for models/gemma-3-27b-it", ""),
    ],
)
def test_the_parameter_that_is_blamed_is_mapped_back(message: str, field: str):
    assert error_of(400, "INVALID_ARGUMENT", message).field == field


@pytest.mark.parametrize(
    "garbage", [b"", b"<html>", b"[]", b"[[]]", b'{"error": 7}', b'{"error": {"details": 3}}', b"\xff"]
)
def test_a_body_that_says_nothing_is_classified_by_its_status(garbage: bytes):
    assert isinstance(DIALECT.classify(503, {}, garbage), LLMProviderOverloaded)


def test_the_field_that_google_names_is_mapped_back():
    violation = {"field": "generation_config.top_k", "description": "must be positive"}
    details = {"@type": f"{INFO}BadRequest", "fieldViolations": [violation]}

    assert error_of(400, "INVALID_ARGUMENT", "Request contains an invalid argument.", details).field == "params.top_k"


def test_an_error_of_a_stream_that_never_began_comes_as_an_array():
    body = json.dumps([{"error": {"code": 404, "status": "NOT_FOUND", "message": "no such model"}}]).encode()

    assert isinstance(DIALECT.classify(404, {}, body), LLMNotFoundError)


# -- embeddings -------------------------------------------------------------------------------------------------------


def embedding(text: str, dialect: Any = DIALECT, model: str = "gemini-embedding-001") -> tuple[UpstreamRequest, Notes]:
    spec = text_format.Parse(text, embedding_service_pb2.EmbeddingSpec())
    notes = Notes()
    return dialect.encode_embeddings(spec, list(spec.inputs), target_of(model), notes), notes


ABOUT = "inputs { text: 'a' } inputs { text: 'b' } dimensions: 256 task: EMBEDDING_TASK_QUERY"


def test_a_batch_is_asked_for_with_the_same_words_for_each_input():
    made, notes = embedding(ABOUT)

    requests = json.loads(made.body)["requests"]
    assert made.path == "/models/gemini-embedding-001:batchEmbedContents"
    assert requests[0] == {
        "model": "models/gemini-embedding-001",
        "content": {"parts": [{"text": "a"}]},
        "taskType": "RETRIEVAL_QUERY",
        "outputDimensionality": 256,
    }
    assert [each["content"]["parts"][0]["text"] for each in requests] == ["a", "b"]
    types.EmbedContentConfig.model_validate({name: requests[0][name] for name in ("taskType", "outputDimensionality")})
    assert notes.unsupported == []


def test_pictures_are_embedded_and_token_ids_are_named():
    made, notes = embedding("inputs { media { data: 'x' mime_type: 'image/png' } } inputs { token_ids { ids: 1 } }")

    assert json.loads(made.body)["requests"][0]["content"]["parts"] == [
        {"inlineData": {"mimeType": "image/png", "data": "eA=="}}
    ]
    assert [path for _, path, _ in notes.unsupported] == ["inputs"]


def test_a_prediction_is_asked_for_at_vertex():
    made, notes = embedding(ABOUT, VertexGemini(), "text-embedding-005")

    assert made.path == "/publishers/google/models/text-embedding-005:predict"
    assert json.loads(made.body) == {
        "instances": [{"content": text, "task_type": "RETRIEVAL_QUERY"} for text in ("a", "b")],
        "parameters": {"outputDimensionality": 256},
    }
    assert notes.unsupported == []


@pytest.mark.parametrize(
    ("dialect", "body", "wanted"),
    [
        (DIALECT, {"embeddings": [{"values": [1, 2.5]}, {"values": [3, 4]}]}, ([[1, 2.5], [3, 4]], None)),
        (DIALECT, {"embedding": {"values": [1.5]}, "usageMetadata": {"promptTokenCount": 9}}, ([[1.5]], 9)),
        (VertexGemini(), {
            "predictions": [
                {"embeddings": {"values": [1.0], "statistics": {"token_count": 4.0, "truncated": False}}},
                {"embeddings": {"values": [2.0], "statistics": {"token_count": 3}}},
            ],
            "metadata": {"billableCharacterCount": 7},
        }, ([[1.0], [2.0]], 7)),
        (VertexGemini(), {"predictions": [{"embeddings": {"values": [1.0]}}]}, ([[1.0]], None)),
    ],
)  # fmt: skip
def test_vectors_come_in_order_with_what_they_cost(dialect: Any, body: dict[str, Any], wanted: tuple[Any, int | None]):
    found: Vectors = dialect.decode_embeddings(json.dumps(body).encode())

    assert found.vectors == wanted[0]
    assert (found.usage.input_tokens if found.usage is not None else None) == wanted[1]


# -- counts and models ------------------------------------------------------------------------------------------------


def test_tokens_are_counted():
    assert DIALECT.decode_count(b'{"totalTokens": 31, "promptTokensDetails": []}') == 31
    assert DIALECT.decode_count(b"{}") == 0


def test_models_are_listed_with_what_is_known_of_them():
    assert DIALECT.decode_models(fixture("models.json")) == [
        ListedModel(
            id="models/gemini-2.5-flash",
            name="gemini-2.5-flash",
            display_name="Gemini 2.5 Flash",
            context_window_tokens=1_048_576,
            max_output_tokens=65_536,
            can={"token_count": False, "reasoning": True},
        ),
        ListedModel(
            id="models/gemini-embedding-001",
            name="gemini-embedding-001",
            display_name="Gemini Embedding 001",
            context_window_tokens=2048,
            max_output_tokens=1,
            outputs=frozenset({"EMBEDDING"}),
            can={"token_count": True},
        ),
    ]
    assert DIALECT.models_request().path == "/models?pageSize=1000"


ANSWERS = [
    DIALECT.decode_count,
    DIALECT.decode_models,
    DIALECT.decode_embeddings,
    VertexGemini().decode_embeddings,
]


@pytest.mark.parametrize("decode", ANSWERS)
@pytest.mark.parametrize(
    "garbage", [b"", b"[]", b'{"totalTokens":-1}', b'{"models":7}', b'{"embeddings":[[]]}', b"<html>"]
)
def test_what_cannot_be_read_is_an_error_of_ours(decode: Any, garbage: bytes):
    with pytest.raises(LLMInvalidResponseError):
        decode(garbage)


@pytest.mark.parametrize("decode", ANSWERS)
def test_an_error_in_place_of_an_answer_is_that_error(decode: Any):
    with pytest.raises(LLMProviderOverloaded):
        decode(b'{"error": {"code": 503, "status": "UNAVAILABLE", "message": "busy"}}')


def test_the_dialects_embed_and_count_and_one_lists():
    assert isinstance(DIALECT, EmbeddingDialect)
    assert isinstance(DIALECT, CountingDialect)
    assert isinstance(DIALECT, ListingDialect)
    assert isinstance(VertexGemini(), EmbeddingDialect)
    assert isinstance(VertexGemini(), CountingDialect)
    assert not isinstance(VertexGemini(), ListingDialect)


@pytest.mark.parametrize(
    ("name", "most", "thinks", "calls", "embeds"),
    [
        ("gemini-2.5-flash", 65_536, True, True, False),
        ("models/gemini-2.5-flash", 65_536, True, True, False),
        ("google/gemini-3-pro-preview", 65_536, True, True, False),
        ("gemini-2.0-flash-001", 8192, False, True, False),
        ("gemini-2.5-flash-preview-tts", 16_384, False, False, False),
        ("gemini-embedding-001", None, True, True, True),
        ("text-embedding-005", None, True, True, True),
        ("tunedModels/mine", None, True, True, True),
    ],
)
def test_a_model_is_known_by_any_of_its_names(name: str, most: int | None, thinks: bool, calls: bool, embeds: bool):
    found = capabilities(name)

    assert (found.max_output_tokens, found.reasoning, found.tools, found.embeddings) == (most, thinks, calls, embeds)
