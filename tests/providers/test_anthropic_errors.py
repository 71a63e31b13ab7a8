"""Anthropic's errors, by their type first; and the small answers: counts and lists of models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trunkline_server import errors
from trunkline_server.errors import LLMAuthenticationError, LLMError, LLMInvalidResponseError, LLMProviderOverloaded
from trunkline_server.providers.anthropic import ANTHROPIC
from trunkline_server.providers.base import CountingDialect, ListingDialect
from trunkline_server.providers.claude import capabilities
from trunkline_server.providers.dialects.anthropic_messages import AnthropicMessages

FIXTURES = Path(__file__).parent / "fixtures" / "anthropic_messages"
DIALECT = AnthropicMessages()


def body(kind: str, message: str) -> bytes:
    return json.dumps({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_body"}).encode()


@pytest.mark.parametrize(
    ("status", "kind", "message", "error"),
    [
        (400, "invalid_request_error", "max_tokens: Field required", errors.LLMBadRequestError),
        (400, "invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum",
         errors.ContextWindowExceededError),
        (400, "invalid_request_error", "Your credit balance is too low to access the Anthropic API.",
         errors.LLMInsufficientCreditsError),
        (401, "authentication_error", "invalid x-api-key", errors.LLMAuthenticationError),
        (402, "billing_error", "Payment required", errors.LLMInsufficientCreditsError),
        (403, "permission_error", "not for you", errors.LLMPermissionDeniedError),
        (404, "not_found_error", "model: claude-nobody", errors.LLMNotFoundError),
        (413, "request_too_large", "Request exceeds the maximum size", errors.LLMRequestTooLargeError),
        (429, "rate_limit_error", "This request would exceed the limit of 40,000 input tokens per minute",
         errors.LLMRateLimitError),
        (500, "api_error", "Internal server error", errors.LLMServerError),
        (504, "timeout_error", "Request timeout", errors.LLMTimeoutError),
        (529, "overloaded_error", "Overloaded", errors.LLMProviderOverloaded),
        # The type counts more than a status that a proxy changed.
        (500, "overloaded_error", "Overloaded", errors.LLMProviderOverloaded),
        (400, "a_type_of_tomorrow", "something", errors.LLMBadRequestError),
    ],
)  # fmt: skip
def test_an_error_is_known_by_its_type(status: int, kind: str, message: str, error: type[LLMError]):
    found = DIALECT.classify(status, {"request-id": "req_header"}, body(kind, message))

    assert type(found) is error
    assert (found.message, found.provider_code, found.http_status) == (message, kind, status)
    assert found.request_id == "req_header"


def test_the_request_id_is_in_the_body_where_no_header_has_it():
    assert DIALECT.classify(529, {}, body("overloaded_error", "Overloaded")).request_id == "req_body"


def test_a_rate_limit_carries_the_reason_and_the_delay():
    found = DIALECT.classify(429, {"retry-after": "7"}, body("rate_limit_error", "40,000 input tokens per minute"))

    assert found.retry_after == 7.0
    assert found.quota_metric == "input_tokens"


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ("max_tokens: 99 > 8, which is the maximum allowed", "params.max_output_tokens"),
        ("messages.3.content.0.text: Field required", "messages"),
        ("tools.0.custom.input_schema.type: Field required", "tools"),
        ("output_config.effort: Input should be 'low'", "params.reasoning.effort"),
        ("`temperature` and `top_p` cannot both be specified for this model.", ""),
        ("something: else", ""),
    ],
)
def test_the_parameter_that_is_blamed_is_mapped_back(message: str, field: str):
    assert DIALECT.classify(400, {}, body("invalid_request_error", message)).field == field


@pytest.mark.parametrize(
    "garbage", [b"", b"<html>nginx</html>", b"[]", b'{"type":"error"}', b"\xff\x00", b'"x"', b"[" * 9999]
)
def test_a_body_that_says_nothing_is_classified_by_its_status(garbage: bytes):
    found = DIALECT.classify(529, {}, garbage)

    assert isinstance(found, LLMProviderOverloaded)
    assert "html" not in found.message


def test_models_are_listed_with_what_is_known_of_them():
    first, second = DIALECT.decode_models((FIXTURES / "models.json").read_bytes())

    assert (first.id, first.display_name) == ("claude-opus-4-8", "Claude Opus 4.8")
    assert (first.context_window_tokens, first.max_output_tokens) == (1_000_000, 128_000)
    assert first.created == 1779235200.0
    assert (second.id, second.context_window_tokens, second.max_output_tokens) == (
        "claude-haiku-4-5-20251001", None, None,
    )  # fmt: skip
    question = DIALECT.models_request()
    assert (question.method, question.path) == ("GET", "/models?limit=1000")
    assert dict(question.headers) == {"anthropic-version": "2023-06-01"}


@pytest.mark.parametrize("garbage", [b"", b"{}", b'{"input_tokens":"many"}', b'{"data":[{}]}', b"[]", b"null"])
def test_counts_and_lists_that_cannot_be_read_are_errors_of_ours(garbage: bytes):
    with pytest.raises(LLMInvalidResponseError):
        DIALECT.decode_count(garbage)
    with pytest.raises(LLMInvalidResponseError):
        DIALECT.decode_models(garbage)


def test_an_error_in_place_of_a_count_or_a_list_is_that_error():
    refused = body("authentication_error", "API key is invalid.")

    with pytest.raises(LLMAuthenticationError):
        DIALECT.decode_count(refused)
    with pytest.raises(LLMAuthenticationError):
        DIALECT.decode_models(refused)


@pytest.mark.parametrize(
    ("name", "most", "thinks", "has_schema"),
    [
        ("claude-3-haiku-20240307", 4096, False, False),
        ("claude-3-5-sonnet-latest", 8192, False, False),
        ("claude-3-7-sonnet-20250219", 64_000, True, False),
        ("claude-opus-4-20250514", 32_000, True, False),
        ("claude-sonnet-4-0", 64_000, True, False),
        ("claude-opus-4-1-20250805", 32_000, True, True),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", 64_000, True, True),
        ("claude-haiku-4-5@20251001", 64_000, True, True),
        ("anthropic/claude-haiku-4.5", 64_000, True, True),
        ("claude-sonnet-4-6", 128_000, True, True),
        ("claude-opus-4-8", 128_000, True, True),
        ("claude-fable-5", 128_000, True, True),
        ("claude-haiku-7", 128_000, True, True),
        ("MiniMax-M2", None, True, True),
    ],
)
def test_a_model_is_known_by_any_of_its_names(name: str, most: int | None, thinks: bool, has_schema: bool):
    found = capabilities(name)

    assert (found.max_output_tokens, found.reasoning, found.json_schema) == (most, thinks, has_schema)
    assert found is ANTHROPIC.capabilities_of(name)


def test_the_dialect_counts_and_lists():
    assert isinstance(DIALECT, CountingDialect)
    assert isinstance(DIALECT, ListingDialect)
    assert ANTHROPIC.authorization("made-up") == {"x-api-key": "made-up"}
