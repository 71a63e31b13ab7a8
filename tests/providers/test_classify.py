"""What an error says beside its class: what it blames, when to come back, whose it is. Classes: error_tables."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline_server import errors
from trunkline_server.errors import LLMError
from trunkline_server.providers.classify import classify, error_of
from trunkline_server.providers.dialects.openai_chat import OpenAIChat
from trunkline_server.providers.facts import Facts, facts_of
from trunkline_server.providers.headers import rate_limits, retry_after

BAD = errors.LLMBadRequestError
CREDITS = errors.LLMInsufficientCreditsError
KEY = errors.LLMAuthenticationError
LIMIT = errors.LLMRateLimitError
BUSY = errors.LLMProviderOverloaded
FAILED = errors.LLMServerError
TIMEOUT = errors.LLMTimeoutError
DENIED = errors.LLMPermissionDeniedError


def error(message: str = "", type: str | None = None, code: Any = None, **more: Any) -> dict[str, Any]:  # noqa: A002
    """OpenAI's shape."""
    return {"error": {"message": message, "type": type, "param": None, "code": code, **more}}


def anthropic(type: str, message: str = "") -> dict[str, Any]:  # noqa: A002
    return {"type": "error", "error": {"type": type, "message": message}, "request_id": "req_body"}


def google(code: int, status: str, message: str, *details: dict[str, Any]) -> dict[str, Any]:
    return {"error": {"code": code, "status": status, "message": message, "details": list(details)}}


#: AWS names the error in a header.
AWS = [
    (
        "ThrottlingException:http://internal.amazon.com/coral/com.amazon.coral.availability/",
        429,
        LIMIT,
        "ThrottlingException",
    ),
    ("ThrottlingException", 400, LIMIT, "ThrottlingException"),
    ("ExpiredTokenException", 403, KEY, "ExpiredTokenException"),
    ("UnrecognizedClientException", 403, KEY, "UnrecognizedClientException"),
    ("AccessDeniedException", 403, DENIED, "AccessDeniedException"),
    ("ServiceUnavailableException", 503, BUSY, "ServiceUnavailableException"),
    ("ModelTimeoutException", 408, TIMEOUT, "ModelTimeoutException"),
    ("ValidationException", 400, BAD, "ValidationException"),
]


@pytest.mark.parametrize(("header", "status", "kind", "code"), AWS)
def test_an_error_named_in_a_header_is_known_by_it(header, status, kind, code):
    found = classify(status, {"x-amzn-errortype": header, "x-amzn-requestid": "r1"}, b'{"message":"no"}')

    assert (type(found), found.provider_code, found.request_id) == (kind, code, "r1")


@pytest.mark.parametrize(
    ("facts", "kind"),
    [
        (Facts(type="overloaded_error"), BUSY),
        (Facts(type="rate_limit_error"), LIMIT),
        (Facts(code="insufficient_quota"), CREDITS),
        (Facts(type="invalid_request_error"), BAD),
        (Facts(code="502", status=502), FAILED),
        (Facts(message="the model is overloaded"), BUSY),
        (Facts(message="boom"), FAILED),
        (Facts(), FAILED),
    ],
)
def test_an_error_inside_a_stream_has_only_its_own_words(facts, kind):
    assert type(error_of(facts, status=200)) is kind


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [(b"<html><body>502 Bad Gateway</body></html>", 502, FAILED), (b"", 401, KEY), (b"upstream busy \xff", 503, BUSY)],
)
def test_a_body_that_is_no_json_is_judged_by_its_status_and_never_shown(body, status, kind):
    found = classify(status, {}, body)

    assert type(found) is kind
    assert str(status) in found.message
    assert "html" not in found.message
    assert found.body == body


def test_a_redirect_is_an_error_that_says_what_to_do():
    found = classify(302, {"location": "https://elsewhere"}, b"")

    assert type(found) is LLMError
    assert "base URL" in found.message


def test_the_message_is_the_providers_and_of_a_bearable_length():
    found = classify(400, {}, json.dumps(error("x" * 10_000)).encode())

    assert found.message == "x" * 500


def test_a_routers_message_names_what_its_upstream_said():
    body = error(
        "Provider returned error",
        code=400,
        metadata={"raw": json.dumps(error("No temperature here", param="temperature"))},
    )

    found = classify(400, {}, json.dumps(body).encode())

    assert found.message == "Provider returned error: No temperature here"


def test_the_parameter_that_is_blamed_is_named_in_our_words():
    for param, path in [
        ("temperature", "params.temperature"),
        ("messages[3].content", "messages"),
        ("max_tokens", "params.max_output_tokens"),
        ("odd", ""),
    ]:
        body = json.dumps(error("no", "invalid_request_error") | {"error": {"message": "no", "param": param}}).encode()
        assert OpenAIChat().classify(400, {}, body).field == path


def test_a_full_context_window_tells_the_numbers():
    message = "This model's maximum context length is 8192 tokens. However, you requested 9000 tokens."

    found = classify(400, {}, json.dumps(error(message, code="context_length_exceeded")).encode())

    assert found.metadata == {"maxInputTokens": "8192", "requestedTokens": "9000"}
    assert found.field == "messages"


def test_a_filter_tells_its_categories():
    filters = {
        "hate": {"filtered": False},
        "violence": {"filtered": True},
        "jailbreak": {"filtered": True, "detected": True},
    }
    body = error("filtered", code="content_filter", innererror={"content_filter_results": filters})

    assert classify(400, {}, json.dumps(body).encode()).metadata == {"categories": "violence,jailbreak"}


def test_a_rate_limit_tells_what_it_counts():
    assert classify(429, {}, json.dumps(error("x", "tokens")).encode()).quota_metric == "tokens"
    assert (
        classify(429, {}, json.dumps(error("limit of 5 input tokens per minute")).encode()).quota_metric
        == "input_tokens"
    )
    assert classify(429, {}, b"{}").quota_metric == "requests"


# -- when to come back ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "20"}, 20.0),
        ({"retry-after": "1", "retry-after-ms": "250"}, 0.25),
        ({"retry-after": "Sun, 06 Nov 1994 08:49:47 GMT"}, 10.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m2.5s"}, 62.5),
        ({"x-ratelimit-remaining-requests": "3", "x-ratelimit-reset-requests": "1m2.5s"}, None),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "784111792000"}, 15.0),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "784000000"}, None),
        (
            {"anthropic-ratelimit-tokens-remaining": "0", "anthropic-ratelimit-tokens-reset": "1994-11-06T08:50:00Z"},
            23.0,
        ),
        ({}, None),
    ],
)
def test_headers_say_when_to_come_back(headers, seconds):
    assert retry_after(headers, 429, now=784111777.0) == seconds


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        ("Please try again in 18.6s.", 18.6),
        ("Please try again in 250ms.", 0.25),
        ("Please try again in 1m30s. Visit us.", 90.0),
        ("Please retry after 60 seconds.", 60.0),
        ("Please try again in 2 minutes", 120.0),
        ("Please try again later. See section 7.", None),
        ("Rate limit exceeded: 20 requests per minute", None),
    ],
)
def test_words_say_when_to_come_back(message, seconds):
    assert classify(429, {}, json.dumps(error(message)).encode()).retry_after == seconds


def test_details_say_when_to_come_back():
    body = google(
        429, "RESOURCE_EXHAUSTED", "x", {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "48s"}
    )

    assert classify(429, {}, json.dumps(body).encode()).retry_after == 48.0


def test_help_is_passed_on():
    body = google(
        403, "PERMISSION_DENIED", "x", {"@type": "x/google.rpc.Help", "links": [{"url": "https://example.org/enable"}]}
    )

    assert classify(403, {}, json.dumps(body).encode()).help_link == "https://example.org/enable"


def test_a_delay_is_not_looked_for_where_waiting_does_not_help():
    assert classify(400, {}, json.dumps(error("Please try again in 5s.")).encode()).retry_after is None


def test_the_limits_that_are_left_are_told_by_metric():
    headers = {
        "x-ratelimit-limit-requests": "100",
        "x-ratelimit-remaining-requests": "99",
        "x-ratelimit-reset-requests": "600ms",
        "anthropic-ratelimit-input-tokens-limit": "5000",
        "anthropic-ratelimit-input-tokens-remaining": "many",
        "content-type": "application/json",
    }

    requests, tokens = rate_limits(headers)

    assert (requests.metric, requests.limit, requests.remaining) == ("requests", 100, 99)
    assert requests.reset_after.ToTimedelta().total_seconds() == 0.6
    assert (tokens.metric, tokens.limit, tokens.HasField("remaining")) == ("input_tokens", 5000, False)


@pytest.mark.parametrize(
    ("headers", "body", "expected"),
    [
        ({"x-request-id": "a", "cf-ray": "b"}, {}, "a"),
        ({"request-id": "a"}, {"request_id": "b"}, "a"),
        ({}, {"request_id": "b", "error": {"message": "x"}}, "b"),
        ({"apim-request-id": "a"}, {}, "a"),
        ({}, {}, ""),
    ],
)
def test_the_providers_request_id_is_kept(headers, body, expected):
    assert classify(500, headers, json.dumps(body).encode()).request_id == expected


# -- whatever arrives -------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["error", "message", "code", "type", "detail", "details", "metadata", "raw", "status", "loc"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(body=JSON, status=st.integers(300, 599))
@settings(max_examples=400, deadline=None)
def test_any_json_is_an_error_of_some_class(body, status):
    found = classify(status, {"retry-after": "x"}, json.dumps(body).encode())

    assert isinstance(found, LLMError)
    assert found.message


@given(body=st.binary(max_size=200), header=st.text(max_size=30))
@settings(max_examples=200, deadline=None)
def test_any_bytes_and_headers_are_an_error_of_some_class(body, header):
    headers = dict.fromkeys(
        ["retry-after", "retry-after-ms", "x-ratelimit-reset-requests", "x-ratelimit-remaining"], header
    )

    assert isinstance(classify(429, headers, body), LLMError)


def test_errors_nested_without_end_are_read_to_some_depth():
    body: Any = "x"
    for _ in range(200):
        body = {"error": {"message": "x", "error": body, "metadata": {"raw": [body]}}}
    text = "x"
    for _ in range(8):
        text = json.dumps({"error": {"message": text}})

    assert facts_of(body).message == "x"
    assert isinstance(facts_of(json.loads(text)), Facts)
