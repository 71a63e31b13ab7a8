"""Everything that ends a call with a status.

One tree; `rpc/status.py` maps each leaf to a gRPC code and details, once, at the boundary.

GatewayError
├── the gateway's own
│   ├── CallerUnauthenticated    no key, an unknown key or an expired token
│   ├── CallerPermissionDenied   the caller may not use this model or method
│   ├── InvalidRequest           the request breaks the contract
│   ├── UnsupportedParameter     the target cannot do what was asked
│   ├── RequestTooLarge          the request is larger than the server accepts
│   ├── ModelNotFound            no such model here
│   ├── ResourceNotFound         no such config, trace or completion
│   ├── GatewayRateLimited       the caller is over its rate limit
│   ├── BudgetExhausted          the caller is over its budget
│   ├── GatewayOverloaded        too many calls in flight
│   ├── ShuttingDown             the server is draining
│   ├── GatewayTimeout           the time of the call ran out here
│   ├── CallCancelled            CancelCompletion ended it
│   ├── RequestIdReused          the request id was used with another body
│   ├── ConfigConflict           the etag does not match
│   ├── ResumeExpired            the completion to resume is no longer kept
│   ├── AlreadyExists            there is a config or route of this name
│   ├── ConfigInUse              a route leads to the config, or the file of the server holds the name
│   ├── StoreUnavailable         what the gateway keeps cannot be reached now
│   ├── ReaderStalled            the caller did not read its stream for too long
│   ├── CompletionLost           the process that ran the completion is gone
│   └── InternalError            a bug
└── LLMError                     from the provider; itself the leaf for what fits nowhere else
    ├── LLMConnectionError       unreachable, or the connection broke
    ├── LLMTimeoutError          silent for too long
    ├── LLMRateLimitError        its rate limit
    ├── LLMProviderOverloaded    it has too much to do
    ├── LLMServerError           it failed
    ├── LLMEmptyResponseError    an answer with nothing in it
    ├── LLMInvalidResponseError  an answer that cannot be read
    ├── LLMBadRequestError       it calls the request wrong
    ├── LLMUnprocessableEntityError
    ├── ContextWindowExceededError
    ├── LLMRequestTooLargeError
    ├── LLMAuthenticationError   it does not accept the credential
    ├── LLMPermissionDeniedError
    ├── LLMNotFoundError
    ├── LLMInsufficientCreditsError
    ├── LLMContentFilterError    its filter refused the prompt
    └── LLMConflictError
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar


class NextTarget(Enum):
    """Does an error of one target send the call to the next one of its route?"""

    NO = "no"
    YES = "yes"
    #: To one whose context window is known to be larger.
    LARGER = "if larger"


@dataclass(frozen=True, slots=True)
class Violation:
    """A field of the request that is wrong: its path in the request message, and what to do about it."""

    field: str
    description: str


class GatewayError(Exception):
    """Ends a call. `message` is shown to the caller: it names the fix and holds no secret."""

    #: An `ErrorReason` without the prefix.
    reason: ClassVar[str] = "INTERNAL"
    #: Is the same call worth another try?
    retryable: ClassVar[bool] = False
    #: Does the gateway itself try the same target again, after a wait?
    same_target: ClassVar[bool] = False
    #: Does it try the next target?
    next_target: ClassVar[NextTarget] = NextTarget.NO
    #: Does it say that the target is unwell, so that the target's breaker counts it?
    unwell: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        violations: Sequence[Violation] = (),
        retry_after: float | None = None,
        metadata: Mapping[str, str] | None = None,
        resource: tuple[str, str] | None = None,
        subject: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        #: All that is wrong with the request, not only the first.
        self.violations = tuple(violations)
        #: Seconds until another try may work, where that is known.
        self.retry_after = retry_after
        #: For `ErrorInfo.metadata`.
        self.metadata = dict(metadata or {})
        #: Type and name of the resource that the error is about.
        self.resource = resource
        #: Whose quota, budget or credential it is about, e.g. "credentials/openai-prod".
        self.subject = subject


class CallerUnauthenticated(GatewayError):
    reason = "CALLER_UNAUTHENTICATED"


class CallerPermissionDenied(GatewayError):
    reason = "CALLER_PERMISSION_DENIED"


class InvalidRequest(GatewayError):
    reason = "INVALID_REQUEST"


class UnsupportedParameter(GatewayError):
    reason = "UNSUPPORTED_PARAMETER"


class RequestTooLarge(GatewayError):
    reason = "REQUEST_TOO_LARGE"


class ModelNotFound(GatewayError):
    reason = "MODEL_NOT_FOUND"


class ResourceNotFound(GatewayError):
    reason = "NOT_FOUND"


class GatewayRateLimited(GatewayError):
    reason = "GATEWAY_RATE_LIMITED"
    retryable = True


class BudgetExhausted(GatewayError):
    reason = "BUDGET_EXHAUSTED"


class GatewayOverloaded(GatewayError):
    reason = "GATEWAY_OVERLOADED"
    retryable = True


class ShuttingDown(GatewayError):
    reason = "SHUTTING_DOWN"
    retryable = True


class GatewayTimeout(GatewayError):
    reason = "GATEWAY_TIMEOUT"


class CallCancelled(GatewayError):
    reason = "CANCELLED"


class RequestIdReused(GatewayError):
    reason = "REQUEST_ID_REUSED"


class ConfigConflict(GatewayError):
    reason = "CONFIG_CONFLICT"


class ResumeExpired(GatewayError):
    reason = "RESUME_EXPIRED"


class AlreadyExists(GatewayError):
    reason = "ALREADY_EXISTS"


class ConfigInUse(GatewayError):
    reason = "CONFIG_IN_USE"


class StoreUnavailable(GatewayError):
    reason = "STORE_UNAVAILABLE"
    retryable = True


class ReaderStalled(GatewayError):
    reason = "READER_STALLED"


class CompletionLost(GatewayError):
    reason = "COMPLETION_LOST"
    retryable = True


class InternalError(GatewayError):
    reason = "INTERNAL"


class LLMError(GatewayError):
    """From the provider. The engine fills `provider` and `model`; all else comes from the wire."""

    reason = "LLM_UNKNOWN"
    next_target = NextTarget.YES

    def __init__(
        self,
        message: str,
        *,
        http_status: int | None = None,
        provider_code: str = "",
        request_id: str = "",
        body: bytes = b"",
        field: str = "",
        quota_metric: str = "",
        violations: Sequence[Violation] = (),
        retry_after: float | None = None,
        metadata: Mapping[str, str] | None = None,
        resource: tuple[str, str] | None = None,
        subject: str = "",
        help_link: str = "",
    ) -> None:
        super().__init__(
            message,
            violations=violations,
            retry_after=retry_after,
            metadata=metadata,
            resource=resource,
            subject=subject,
        )
        self.provider = ""
        self.model = ""
        #: HTTP status of the provider's answer; None if none came.
        self.http_status = http_status
        #: The provider's own code or type, verbatim.
        self.provider_code = provider_code
        #: The provider's id of the HTTP request.
        self.request_id = request_id
        #: The provider's error body, as received. Redacted and cut before a caller sees it.
        self.body = body
        #: The parameter that the provider blames, as a path in CompletionSpec where it could be mapped back.
        self.field = field
        #: What the rate limit counts: "requests", "tokens", "input_tokens" ...
        self.quota_metric = quota_metric
        #: A page of the provider's that helps.
        self.help_link = help_link


class LLMConnectionError(LLMError):
    reason = "LLM_CONNECTION"
    retryable = True
    same_target = True
    next_target = NextTarget.YES
    unwell = True


class LLMTimeoutError(LLMError):
    reason = "LLM_TIMEOUT"
    retryable = True
    # Not the same target: the work was probably done and paid for.
    next_target = NextTarget.YES
    unwell = True


class LLMRateLimitError(LLMError):
    reason = "LLM_RATE_LIMITED"
    retryable = True
    same_target = True
    next_target = NextTarget.YES
    unwell = True


class LLMProviderOverloaded(LLMError):
    reason = "LLM_OVERLOADED"
    retryable = True
    same_target = True
    next_target = NextTarget.YES
    unwell = True


class LLMServerError(LLMError):
    reason = "LLM_SERVER_ERROR"
    retryable = True
    same_target = True
    next_target = NextTarget.YES
    unwell = True


class LLMEmptyResponseError(LLMError):
    reason = "LLM_EMPTY_RESPONSE"
    retryable = True
    same_target = True
    next_target = NextTarget.YES
    unwell = True


class LLMInvalidResponseError(LLMError):
    reason = "LLM_INVALID_RESPONSE"
    retryable = True
    same_target = True
    next_target = NextTarget.YES
    unwell = True


class LLMBadRequestError(LLMError):
    reason = "LLM_BAD_REQUEST"
    next_target = NextTarget.NO


class LLMUnprocessableEntityError(LLMError):
    reason = "LLM_UNPROCESSABLE"
    next_target = NextTarget.NO


class ContextWindowExceededError(LLMError):
    reason = "LLM_CONTEXT_WINDOW_EXCEEDED"
    next_target = NextTarget.LARGER


class LLMRequestTooLargeError(LLMError):
    reason = "LLM_REQUEST_TOO_LARGE"
    next_target = NextTarget.NO


class LLMAuthenticationError(LLMError):
    reason = "LLM_AUTHENTICATION"
    next_target = NextTarget.YES
    unwell = True


class LLMPermissionDeniedError(LLMError):
    reason = "LLM_PERMISSION_DENIED"
    # Not counted by breakers, as what is not found: it may be about what one caller asked.
    next_target = NextTarget.YES


class LLMNotFoundError(LLMError):
    reason = "LLM_NOT_FOUND"
    next_target = NextTarget.YES


class LLMInsufficientCreditsError(LLMError):
    reason = "LLM_INSUFFICIENT_CREDITS"
    next_target = NextTarget.YES
    unwell = True


class LLMContentFilterError(LLMError):
    reason = "LLM_CONTENT_FILTERED"
    next_target = NextTarget.NO


class LLMConflictError(LLMError):
    reason = "LLM_CONFLICT"
    next_target = NextTarget.NO


def classes(root: type[GatewayError] = GatewayError) -> Iterator[type[GatewayError]]:
    """Every class that can be raised: all leaves, and `LLMError` itself."""
    for child in root.__subclasses__():
        if child is LLMError or not child.__subclasses__():
            yield child
        yield from classes(child)
