"""Every row of the error table, for tests that map errors and for tests that see them arrive at a client.

A row holds for a call that was admitted, at its first and only attempt, with no deadline and no event sent, unless its
`facts` say otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.rpc import error_details_pb2 as rpc

from trunkline.v1 import completion_pb2
from trunkline_server import errors
from trunkline_server.errors import GatewayError, Violation

Code = grpc.StatusCode

#: On every error after admission; `ErrorInfo` is on every error.
ADMITTED = ("ErrorInfo", "RequestInfo", "LlmErrorDetail")

#: Pushback: milliseconds exactly, a range of them, or None where the trailer is absent.
Pushback = int | range | None


@dataclass(frozen=True)
class ErrorRow:
    """One row: what is raised, and what a caller sees of it."""

    id: str
    error: Callable[[], GatewayError]
    code: grpc.StatusCode
    reason: str
    #: Types of the details beyond those of `ADMITTED`.
    details: tuple[str, ...] = ()
    pushback: Pushback = None
    #: Seconds in RetryInfo; None where it is absent.
    retry_delay: float | range | None = None
    #: Fields of details that must be as here: type, path in it (list indexes as numbers), value.
    holds: tuple[tuple[str, str, Any], ...] = ()
    #: `ErrorInfo.metadata`.
    metadata: Mapping[str, str] = field(default_factory=dict)
    retryable: bool = False
    #: Differences from the ordinary `CallFacts`.
    facts: Mapping[str, Any] = field(default_factory=dict)


def _attempts(count: int) -> Mapping[str, Any]:
    """The gateway may make three attempts, and made `count`."""
    return {"spent": count == 3, "attempt_count": count}


_VIOLATIONS = (Violation("spec.model", "missing"), Violation("spec.params.n", "0 is out of range"))
_USAGE = completion_pb2.Usage(input_tokens=7, output_tokens=3, source=completion_pb2.USAGE_SOURCE_PARTIAL)
_SENT = {"last_sequence_number": 5, "usage": _USAGE}
_MS_SHED = range(100, 1001)
_MS_UNSAID = range(1000, 2001)

_BAD = "BadRequest"
_RETRY = "RetryInfo"
_QUOTA = "QuotaFailure"
_STATE = "PreconditionFailure"
_RESOURCE = "ResourceInfo"

# fmt: off
ERROR_ROWS: tuple[ErrorRow, ...] = (
    # A. From the provider.
    ErrorRow(
        "connection, first attempt",
        lambda: errors.LLMConnectionError("refused"),
        Code.UNAVAILABLE,
        "LLM_CONNECTION",
        retryable=True,
    ),
    ErrorRow(
        "connection, delay known",
        lambda: errors.LLMConnectionError("refused", retry_after=0.5),
        Code.UNAVAILABLE,
        "LLM_CONNECTION",
        (_RETRY,),
        500,
        0.5,
        retryable=True,
    ),
    ErrorRow(
        "connection, own attempts left",
        lambda: errors.LLMConnectionError("refused", retry_after=0.5),
        Code.UNAVAILABLE,
        "LLM_CONNECTION",
        (_RETRY,),
        500,
        0.5,
        retryable=True,
        facts=_attempts(2),
    ),
    ErrorRow(
        "connection, own attempts spent",
        lambda: errors.LLMConnectionError("refused"),
        Code.UNAVAILABLE,
        "LLM_CONNECTION",
        (),
        -1,
        retryable=True,
        facts=_attempts(3),
    ),
    ErrorRow(
        "connection, after deltas were sent",
        lambda: errors.LLMConnectionError("the stream was cut"),
        Code.UNAVAILABLE,
        "LLM_CONNECTION",
        (),
        -1,
        retryable=True,
        facts=_SENT,
        holds=(("LlmErrorDetail", "last_sequence_number", 5), ("LlmErrorDetail", "usage.output_tokens", 3)),
    ),
    ErrorRow(
        "timeout",
        lambda: errors.LLMTimeoutError("silent", http_status=504, retry_after=3.0),
        Code.DEADLINE_EXCEEDED,
        "LLM_TIMEOUT",
        retryable=True,
        holds=(("LlmErrorDetail", "upstream_status", 504),),
    ),
    ErrorRow(
        "rate limit",
        lambda: errors.LLMRateLimitError("slow", http_status=429, retry_after=2.5, quota_metric="input_tokens"),
        Code.RESOURCE_EXHAUSTED,
        "LLM_RATE_LIMITED",
        (_RETRY, _QUOTA),
        2500,
        2.5,
        retryable=True,
        holds=(
            (_QUOTA, "violations.0.api_service", "acme"),
            (_QUOTA, "violations.0.quota_metric", "input_tokens"),
            ("LlmErrorDetail", "upstream_status", 429),
        ),
    ),
    ErrorRow(
        "rate limit, delay unknown",
        lambda: errors.LLMRateLimitError("slow"),
        Code.RESOURCE_EXHAUSTED,
        "LLM_RATE_LIMITED",
        (_QUOTA,),
        retryable=True,
        holds=((_QUOTA, "violations.0.quota_metric", "requests"),),
    ),
    ErrorRow(
        "rate limit, delay beyond the deadline",
        lambda: errors.LLMRateLimitError("slow", retry_after=20.0),
        Code.RESOURCE_EXHAUSTED,
        "LLM_RATE_LIMITED",
        (_RETRY, _QUOTA),
        -1,
        20.0,
        retryable=True,
        facts={"remaining": 10.0},
    ),
    ErrorRow(
        "rate limit, delay within the deadline",
        lambda: errors.LLMRateLimitError("slow", retry_after=9.0),
        Code.RESOURCE_EXHAUSTED,
        "LLM_RATE_LIMITED",
        (_RETRY, _QUOTA),
        9000,
        9.0,
        retryable=True,
        facts={"remaining": 10.0},
    ),
    ErrorRow(
        "overloaded",
        lambda: errors.LLMProviderOverloaded("busy", http_status=529, retry_after=4.0),
        Code.UNAVAILABLE,
        "LLM_OVERLOADED",
        (_RETRY,),
        4000,
        4.0,
        retryable=True,
    ),
    ErrorRow(
        "overloaded, delay unknown",
        lambda: errors.LLMProviderOverloaded("busy"),
        Code.UNAVAILABLE,
        "LLM_OVERLOADED",
        (_RETRY,),
        _MS_UNSAID,
        range(1, 3),
        metadata={"retryDelaySource": "gateway"},
        retryable=True,
    ),
    ErrorRow(
        "overloaded, own attempts spent",
        lambda: errors.LLMProviderOverloaded("busy", retry_after=4.0),
        Code.UNAVAILABLE,
        "LLM_OVERLOADED",
        (_RETRY,),
        -1,
        4.0,
        retryable=True,
        facts=_attempts(3),
    ),
    ErrorRow(
        "server error",
        lambda: errors.LLMServerError("failed", http_status=500),
        Code.UNAVAILABLE,
        "LLM_SERVER_ERROR",
        retryable=True,
    ),
    ErrorRow(
        "server error, delay known",
        lambda: errors.LLMServerError("failed", http_status=502, retry_after=1.0),
        Code.UNAVAILABLE,
        "LLM_SERVER_ERROR",
        (_RETRY,),
        1000,
        1.0,
        retryable=True,
    ),
    ErrorRow(
        "server error, own attempts spent",
        lambda: errors.LLMServerError("failed"),
        Code.UNAVAILABLE,
        "LLM_SERVER_ERROR",
        (),
        -1,
        retryable=True,
        facts=_attempts(3),
    ),
    ErrorRow(
        "empty response",
        lambda: errors.LLMEmptyResponseError("nothing", http_status=200),
        Code.INTERNAL,
        "LLM_EMPTY_RESPONSE",
        retryable=True,
        holds=(("LlmErrorDetail", "retryable", True), ("LlmErrorDetail", "upstream_status", 200)),
    ),
    ErrorRow(
        "invalid response",
        lambda: errors.LLMInvalidResponseError("no JSON", body=b"<html>oops</html>"),
        Code.INTERNAL,
        "LLM_INVALID_RESPONSE",
        retryable=True,
        holds=(("LlmErrorDetail", "raw_error_json", "<html>oops</html>"),),
    ),
    ErrorRow(
        "bad request",
        lambda: errors.LLMBadRequestError("wrong", http_status=400, provider_code="invalid_value"),
        Code.INVALID_ARGUMENT,
        "LLM_BAD_REQUEST",
        holds=(("LlmErrorDetail", "provider_code", "invalid_value"),),
    ),
    ErrorRow(
        "bad request, parameter named",
        lambda: errors.LLMBadRequestError("wrong", field="params.temperature"),
        Code.INVALID_ARGUMENT,
        "LLM_BAD_REQUEST",
        (_BAD,),
        holds=((_BAD, "field_violations.0.field", "spec.params.temperature"),),
    ),
    ErrorRow(
        "unprocessable",
        lambda: errors.LLMUnprocessableEntityError("will not", http_status=422),
        Code.INVALID_ARGUMENT,
        "LLM_UNPROCESSABLE",
        (_BAD,),
        holds=((_BAD, "field_violations.0.field", "spec"), (_BAD, "field_violations.0.description", "will not")),
    ),
    ErrorRow(
        "context window",
        lambda: errors.ContextWindowExceededError(
            "too long", metadata={"maxInputTokens": "8192", "requestedTokens": "9000"}
        ),
        Code.INVALID_ARGUMENT,
        "LLM_CONTEXT_WINDOW_EXCEEDED",
        (_BAD,),
        holds=((_BAD, "field_violations.0.field", "spec.messages"),),
        metadata={"maxInputTokens": "8192", "requestedTokens": "9000"},
    ),
    ErrorRow(
        "request too large upstream",
        lambda: errors.LLMRequestTooLargeError("too big", http_status=413),
        Code.INVALID_ARGUMENT,
        "LLM_REQUEST_TOO_LARGE",
        (_BAD,),
        holds=((_BAD, "field_violations.0.field", "spec.messages"),),
    ),
    ErrorRow(
        "authentication upstream",
        lambda: errors.LLMAuthenticationError("bad key", http_status=401),
        Code.FAILED_PRECONDITION,
        "LLM_AUTHENTICATION",
        (_STATE,),
        holds=(
            (_STATE, "violations.0.type", "UPSTREAM_CREDENTIAL"),
            (_STATE, "violations.0.subject", "credentials/acme"),
        ),
        metadata={"credentialOwner": "gateway"},
    ),
    ErrorRow(
        "authentication upstream, the caller's credential",
        lambda: errors.LLMAuthenticationError(
            "bad key", subject="credentials/mine", metadata={"credentialOwner": "caller"}
        ),
        Code.FAILED_PRECONDITION,
        "LLM_AUTHENTICATION",
        (_STATE,),
        holds=((_STATE, "violations.0.subject", "credentials/mine"),),
        metadata={"credentialOwner": "caller"},
    ),
    ErrorRow(
        "permission denied upstream",
        lambda: errors.LLMPermissionDeniedError("not enabled", http_status=403),
        Code.PERMISSION_DENIED,
        "LLM_PERMISSION_DENIED",
        (_RESOURCE,),
        holds=((_RESOURCE, "resource_type", "model"),),
    ),
    ErrorRow(
        "not found upstream",
        lambda: errors.LLMNotFoundError("no such model", http_status=404),
        Code.NOT_FOUND,
        "LLM_NOT_FOUND",
        (_RESOURCE,),
        holds=((_RESOURCE, "resource_type", "model"), (_RESOURCE, "resource_name", "acme-1")),
    ),
    ErrorRow(
        "insufficient credits",
        lambda: errors.LLMInsufficientCreditsError("pay", http_status=402),
        Code.FAILED_PRECONDITION,
        "LLM_INSUFFICIENT_CREDITS",
        (_STATE,),
        holds=((_STATE, "violations.0.type", "BILLING"),),
    ),
    ErrorRow(
        "insufficient credits, with a link",
        lambda: errors.LLMInsufficientCreditsError("pay", help_link="https://acme.example/billing"),
        Code.FAILED_PRECONDITION,
        "LLM_INSUFFICIENT_CREDITS",
        (_STATE, "Help"),
        holds=(("Help", "links.0.url", "https://acme.example/billing"),),
    ),
    ErrorRow(
        "content filter",
        lambda: errors.LLMContentFilterError("refused", metadata={"categories": "violence"}),
        Code.INVALID_ARGUMENT,
        "LLM_CONTENT_FILTERED",
        (_BAD,),
        holds=((_BAD, "field_violations.0.field", "spec.messages"),),
        metadata={"categories": "violence"},
    ),
    ErrorRow(
        "conflict upstream", lambda: errors.LLMConflictError("conflict", http_status=409), Code.ABORTED, "LLM_CONFLICT"
    ),
    ErrorRow(
        "anything else upstream",
        lambda: errors.LLMError("odd", http_status=302),
        Code.INTERNAL,
        "LLM_UNKNOWN",
        holds=(("LlmErrorDetail", "upstream_status", 302),),
    ),
    # B. The gateway's own.
    ErrorRow(
        "caller unauthenticated",
        lambda: errors.CallerUnauthenticated("no key"),
        Code.UNAUTHENTICATED,
        "CALLER_UNAUTHENTICATED",
        facts={"admitted": False},
    ),
    ErrorRow(
        "caller not permitted",
        lambda: errors.CallerPermissionDenied("not yours", resource=("model", "acme/x")),
        Code.PERMISSION_DENIED,
        "CALLER_PERMISSION_DENIED",
        (_RESOURCE,),
        facts={"admitted": False},
        holds=((_RESOURCE, "resource_name", "acme/x"),),
    ),
    ErrorRow(
        "invalid request",
        lambda: errors.InvalidRequest("two faults", violations=_VIOLATIONS),
        Code.INVALID_ARGUMENT,
        "INVALID_REQUEST",
        (_BAD,),
        facts={"admitted": False},
        holds=((_BAD, "field_violations.0.field", "spec.model"), (_BAD, "field_violations.1.field", "spec.params.n")),
    ),
    ErrorRow(
        "unsupported parameter",
        lambda: errors.UnsupportedParameter("no top_k", violations=_VIOLATIONS[1:]),
        Code.INVALID_ARGUMENT,
        "UNSUPPORTED_PARAMETER",
        (_BAD,),
        holds=((_BAD, "field_violations.0.field", "spec.params.n"),),
    ),
    ErrorRow(
        "request too large",
        lambda: errors.RequestTooLarge("over 32 MiB"),
        Code.INVALID_ARGUMENT,
        "REQUEST_TOO_LARGE",
        (_BAD,),
        facts={"admitted": False},
        holds=((_BAD, "field_violations.0.description", "over 32 MiB"),),
    ),
    ErrorRow(
        "model not found",
        lambda: errors.ModelNotFound("no model", resource=("model", "acme/x")),
        Code.NOT_FOUND,
        "MODEL_NOT_FOUND",
        (_RESOURCE,),
        holds=((_RESOURCE, "resource_name", "acme/x"),),
    ),
    ErrorRow(
        "not found",
        lambda: errors.ResourceNotFound("no such", resource=("completion", "cmpl_1")),
        Code.NOT_FOUND,
        "NOT_FOUND",
        (_RESOURCE,),
        holds=((_RESOURCE, "resource_type", "completion"),),
    ),
    ErrorRow(
        "gateway rate limit",
        lambda: errors.GatewayRateLimited("slow", retry_after=1.2, subject="key:team-a"),
        Code.RESOURCE_EXHAUSTED,
        "GATEWAY_RATE_LIMITED",
        (_RETRY, _QUOTA),
        1200,
        1.2,
        retryable=True,
        facts={"admitted": False},
        holds=((_QUOTA, "violations.0.subject", "key:team-a"),),
    ),
    ErrorRow(
        "budget",
        lambda: errors.BudgetExhausted("spent", retry_after=3600.0, subject="key:team-a"),
        Code.RESOURCE_EXHAUSTED,
        "BUDGET_EXHAUSTED",
        (_QUOTA, _RETRY),
        -1,
        3600.0,
        facts={"admitted": False},
        holds=((_QUOTA, "violations.0.subject", "key:team-a"),),
    ),
    ErrorRow(
        "gateway overloaded",
        lambda: errors.GatewayOverloaded("full"),
        Code.UNAVAILABLE,
        "GATEWAY_OVERLOADED",
        (_RETRY,),
        _MS_SHED,
        range(2),
        retryable=True,
        facts={"admitted": False},
    ),
    ErrorRow(
        "shutting down",
        lambda: errors.ShuttingDown("going down", retry_after=1.0),
        Code.UNAVAILABLE,
        "SHUTTING_DOWN",
        retryable=True,
        facts={"admitted": False},
    ),
    ErrorRow(
        "shutting down, in the middle of a stream",
        lambda: errors.ShuttingDown("going down"),
        Code.UNAVAILABLE,
        "SHUTTING_DOWN",
        retryable=True,
        facts=_SENT,
        holds=(("LlmErrorDetail", "last_sequence_number", 5),),
    ),
    ErrorRow(
        "gateway timeout",
        lambda: errors.GatewayTimeout("out of time"),
        Code.DEADLINE_EXCEEDED,
        "GATEWAY_TIMEOUT",
        facts={"usage": _USAGE, "attempt_count": 2},
        holds=(("LlmErrorDetail", "attempts.1.attempt", 2), ("LlmErrorDetail", "usage.input_tokens", 7)),
    ),
    ErrorRow("cancelled", lambda: errors.CallCancelled("by CancelCompletion"), Code.CANCELLED, "CANCELLED"),
    ErrorRow(
        "request id reused", lambda: errors.RequestIdReused("other body"), Code.ALREADY_EXISTS, "REQUEST_ID_REUSED"
    ),
    ErrorRow("etag mismatch", lambda: errors.ConfigConflict("changed"), Code.ABORTED, "CONFIG_CONFLICT"),
    ErrorRow("resume expired", lambda: errors.ResumeExpired("gone"), Code.FAILED_PRECONDITION, "RESUME_EXPIRED"),
    ErrorRow(
        "already exists",
        lambda: errors.AlreadyExists("there is one", resource=("route", "routes/a")),
        Code.ALREADY_EXISTS,
        "ALREADY_EXISTS",
        (_RESOURCE,),
        holds=((_RESOURCE, "resource_name", "routes/a"),),
    ),
    ErrorRow(
        "config in use",
        lambda: errors.ConfigInUse("a route leads to it", resource=("config", "configs/a")),
        Code.FAILED_PRECONDITION,
        "CONFIG_IN_USE",
        (_RESOURCE,),
        holds=((_RESOURCE, "resource_name", "configs/a"),),
    ),
    ErrorRow(
        "store unavailable",
        lambda: errors.StoreUnavailable("no backend answers"),
        Code.UNAVAILABLE,
        "STORE_UNAVAILABLE",
        (_RETRY,),
        _MS_UNSAID,
        range(1, 3),
        retryable=True,
    ),
    ErrorRow("reader stalled", lambda: errors.ReaderStalled("read"), Code.DEADLINE_EXCEEDED, "READER_STALLED"),
    ErrorRow(
        "completion lost",
        lambda: errors.CompletionLost("its process is gone"),
        Code.UNAVAILABLE,
        "COMPLETION_LOST",
        (),
        -1,
        retryable=True,
    ),
    ErrorRow("bug", lambda: errors.InternalError("the story"), Code.INTERNAL, "INTERNAL"),
)
# fmt: on

#: Types of details by name, to unpack them.
DETAIL_TYPES: Mapping[str, Any] = {
    name: getattr(rpc, name)
    for name in ("ErrorInfo", "RequestInfo", _RETRY, _QUOTA, _BAD, _STATE, _RESOURCE, "Help", "DebugInfo")
}
