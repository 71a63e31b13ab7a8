"""What can go wrong with a call, as exceptions to branch on.

TrunklineError
├── AuthenticationError            your own key: missing, unknown or expired
├── PermissionDenied               your key, or the provider's, may not use this model
├── InvalidRequest                 the request is wrong: `violations` names every field
│   ├── ContextWindowExceeded
│   ├── ContentFiltered
│   ├── RequestTooLarge
│   └── UnsupportedParameter
├── NotFound                       no such model, completion or resource
├── RateLimited                    slow down: `retry_after` says how long
├── BudgetExhausted                your budget at the gateway is spent
├── InsufficientCredits            the account at the provider is out of money
├── ProviderAuthenticationError    the provider refuses the credential behind the gateway, not yours
├── Conflict
├── Unavailable                    another try may work
│   ├── Overloaded
│   └── Unreachable                no gateway at that address, or the connection broke
├── TimedOut
├── Cancelled
├── Unimplemented                  this server does not know the method
├── InternalError                  a bug, or an answer that cannot be read
├── StreamIncomplete               a stream ended without `finished`: `completion` holds what arrived
├── StreamRuleBroken               a stream broke the rules of the contract
└── ParseError                     the answer is not what `parse` asked for: `completion` holds it
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, cast

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2 as rpc
from google.rpc.status_pb2 import Status

from trunkline.v1.completion_pb2 import Completion
from trunkline.v1.error_pb2 import LlmErrorDetail

DOMAIN = "trunkline"
_DETAIL_TYPES: tuple[type[Message], ...] = (
    rpc.ErrorInfo,
    rpc.RetryInfo,
    rpc.RequestInfo,
    rpc.BadRequest,
    rpc.QuotaFailure,
    rpc.PreconditionFailure,
    rpc.ResourceInfo,
    rpc.Help,
    rpc.LocalizedMessage,
    rpc.DebugInfo,
    LlmErrorDetail,
)


class Violation(NamedTuple):
    """One thing that is wrong with a request or an answer."""

    field: str
    description: str


class TrunklineError(Exception):
    """A call failed. `str()` of it is for people; branch on the class or on `reason`."""

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode = grpc.StatusCode.UNKNOWN,
        reason: str = "",
        retryable: bool = False,
        retry_after: float | None = None,
        request_id: str = "",
        violations: Iterable[Violation] = (),
        metadata: Mapping[str, str] | None = None,
        detail: LlmErrorDetail | None = None,
        details: Iterable[Message] = (),
        completion: Completion | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        # The gRPC status. OK for a ParseError: the call itself was fine.
        self.code = code
        # A name of ErrorReason without the prefix; empty if the gateway did not make the error.
        self.reason = reason
        # Is the same call worth another try, now or after `retry_after`?
        self.retryable = retryable
        # Seconds to wait before another try, where the server says.
        self.retry_after = retry_after
        # The gateway's id of the call, to quote when asking for help. Empty if the call was not admitted.
        self.request_id = request_id
        self.violations = tuple(violations)
        # ErrorInfo.metadata.
        self.metadata = dict(metadata or {})
        # Provider, model, upstream status, attempts, what was spent.
        self.detail = detail
        # Every detail of the status, as google.rpc and trunkline.v1 messages.
        self.details = tuple(details)
        # What had arrived before the failure.
        self.completion = completion

    def __str__(self) -> str:
        name = self.reason or ("" if self.code is grpc.StatusCode.OK else self.code.name)
        return "\n".join(
            [
                f"{name}: {self.message}" if name else self.message,
                *(f"  {field}: {description}" for field, description in self.violations),
            ]
        )


class AuthenticationError(TrunklineError):
    """The gateway does not accept your key: missing, unknown or expired."""


class PermissionDenied(TrunklineError):
    """Your key, or the gateway's key at the provider, may not use this model or method."""


class InvalidRequest(TrunklineError):
    """The request is wrong, whatever the state of the system; `violations` names every field."""


class ContextWindowExceeded(InvalidRequest):
    """The prompt is longer than the model's context window."""


class ContentFiltered(InvalidRequest):
    """The provider's filter refused the prompt."""


class RequestTooLarge(InvalidRequest):
    """The request has more bytes than the gateway or the provider accepts."""


class UnsupportedParameter(InvalidRequest):
    """The target cannot do what was asked."""


class NotFound(TrunklineError):
    """No such model, completion or resource."""


class RateLimited(TrunklineError):
    """Over a rate limit, the gateway's or the provider's; `retry_after` says how long to wait."""


class BudgetExhausted(TrunklineError):
    """Your budget at the gateway is spent."""


class InsufficientCredits(TrunklineError):
    """The account at the provider is out of money or quota."""


class ProviderAuthenticationError(TrunklineError):
    """The provider refuses the credential; `metadata["credentialOwner"]` says whose it is. Your own key is fine."""


class Conflict(TrunklineError):
    """The state of something changed meanwhile, or an id was used twice."""


class Unavailable(TrunklineError):
    """The provider or the gateway failed for now; another try may work."""


class Overloaded(Unavailable):
    """The provider or the gateway has too much to do."""


class Unreachable(Unavailable):
    """No gateway answers at the address, or the connection to it broke."""


class TimedOut(TrunklineError):
    """The time for the call ran out."""


class Cancelled(TrunklineError):
    """The call was cancelled."""


class Unimplemented(TrunklineError):
    """This server does not know the method."""


class InternalError(TrunklineError):
    """A bug of the gateway, or an answer of the provider that cannot be read."""


class StreamIncomplete(TrunklineError):
    """The stream ended without `finished`; `completion` holds what arrived. Never take it for an answer."""


class StreamRuleBroken(TrunklineError):
    """The stream broke the rules of the contract; `completion` holds what arrived before."""


class ParseError(TrunklineError):
    """The answer is not of the type asked for; `violations` says what did not fit, `completion` holds the answer."""


BY_REASON: dict[str, type[TrunklineError]] = {
    "CALLER_UNAUTHENTICATED": AuthenticationError,
    "CALLER_PERMISSION_DENIED": PermissionDenied,
    "INVALID_REQUEST": InvalidRequest,
    "UNSUPPORTED_PARAMETER": UnsupportedParameter,
    "MODEL_NOT_FOUND": NotFound,
    "GATEWAY_RATE_LIMITED": RateLimited,
    "GATEWAY_OVERLOADED": Overloaded,
    "STORE_UNAVAILABLE": Unavailable,
    "COMPLETION_LOST": Unavailable,
    "READER_STALLED": TimedOut,
    "BUDGET_EXHAUSTED": BudgetExhausted,
    "REQUEST_TOO_LARGE": RequestTooLarge,
    "REQUEST_ID_REUSED": Conflict,
    "RESUME_EXPIRED": NotFound,
    "INTERNAL": InternalError,
    "SHUTTING_DOWN": Unavailable,
    "GATEWAY_TIMEOUT": TimedOut,
    "CONFIG_CONFLICT": Conflict,
    "ALREADY_EXISTS": Conflict,
    "CONFIG_IN_USE": Conflict,
    "NOT_FOUND": NotFound,
    "CANCELLED": Cancelled,
    "LLM_CONNECTION": Unavailable,
    "LLM_TIMEOUT": TimedOut,
    "LLM_RATE_LIMITED": RateLimited,
    "LLM_BAD_REQUEST": InvalidRequest,
    "LLM_CONTEXT_WINDOW_EXCEEDED": ContextWindowExceeded,
    "LLM_AUTHENTICATION": ProviderAuthenticationError,
    "LLM_PERMISSION_DENIED": PermissionDenied,
    "LLM_NOT_FOUND": NotFound,
    "LLM_UNPROCESSABLE": InvalidRequest,
    "LLM_SERVER_ERROR": Unavailable,
    "LLM_OVERLOADED": Overloaded,
    "LLM_INSUFFICIENT_CREDITS": InsufficientCredits,
    "LLM_CONTENT_FILTERED": ContentFiltered,
    "LLM_EMPTY_RESPONSE": InternalError,
    "LLM_INVALID_RESPONSE": InternalError,
    "LLM_REQUEST_TOO_LARGE": RequestTooLarge,
    "LLM_CONFLICT": Conflict,
    "LLM_UNKNOWN": InternalError,
}
# For what gRPC, a proxy or a newer server made: the first row whose text occurs in the message.
BY_CODE: dict[grpc.StatusCode, tuple[tuple[str, type[TrunklineError]], ...]] = {
    grpc.StatusCode.CANCELLED: (("", Cancelled),),
    grpc.StatusCode.UNKNOWN: (("", InternalError),),
    grpc.StatusCode.INVALID_ARGUMENT: (("", InvalidRequest),),
    grpc.StatusCode.DEADLINE_EXCEEDED: (("", TimedOut),),
    grpc.StatusCode.NOT_FOUND: (("", NotFound),),
    grpc.StatusCode.ALREADY_EXISTS: (("", Conflict),),
    grpc.StatusCode.PERMISSION_DENIED: (("", PermissionDenied),),
    # gRPC itself uses this code for sizes; waiting does not make a message smaller.
    grpc.StatusCode.RESOURCE_EXHAUSTED: (
        ("CLIENT: Received message larger than max", InternalError),
        ("message larger than max", RequestTooLarge),
        ("metadata size exceeds", InternalError),
        ("Concurrent RPC limit exceeded", Overloaded),
        ("", RateLimited),
    ),
    grpc.StatusCode.FAILED_PRECONDITION: (("", TrunklineError),),
    grpc.StatusCode.ABORTED: (("", Conflict),),
    grpc.StatusCode.OUT_OF_RANGE: (("", InvalidRequest),),
    grpc.StatusCode.UNIMPLEMENTED: (("", Unimplemented),),
    grpc.StatusCode.INTERNAL: (("", InternalError),),
    grpc.StatusCode.UNAVAILABLE: (("", Unreachable),),
    grpc.StatusCode.DATA_LOSS: (("", InternalError),),
    grpc.StatusCode.UNAUTHENTICATED: (("", AuthenticationError),),
}


def from_rpc_error(error: grpc.RpcError, completion: Completion | None = None) -> TrunklineError:
    """The typed error behind what gRPC raised. Never fails: details that do not parse are left out."""
    call = cast("grpc.Call", error)
    code = call.code()
    message = call.details() or code.value[1]
    found = _details(call.trailing_metadata() or ())
    info = found.get(rpc.ErrorInfo)
    reason: str = info.reason if info and info.domain == DOMAIN else ""
    detail: LlmErrorDetail | None = found.get(LlmErrorDetail)
    retry = found.get(rpc.RetryInfo)
    delay = retry.retry_delay if retry and retry.HasField("retry_delay") else None
    retry_after = delay.seconds + delay.nanos / 1e9 if delay else None
    kind = BY_REASON.get(reason) or next(kind for text, kind in BY_CODE[code] if text in message)
    if reason and kind is Unreachable:  # a reason of a newer gateway: it was reached
        kind = Unavailable
    return kind(
        message,
        code=code,
        reason=reason,
        retryable=detail.retryable if detail else code is grpc.StatusCode.UNAVAILABLE or retry_after is not None,
        retry_after=retry_after,
        request_id=found[rpc.RequestInfo].request_id if rpc.RequestInfo in found else "",
        violations=[
            Violation(v.field, v.description) for v in getattr(found.get(rpc.BadRequest), "field_violations", ())
        ],
        metadata=info.metadata if info else None,
        detail=detail,
        details=found.values(),
        completion=completion,
    )


def closed(completion: Completion | None = None) -> Cancelled:
    """What a call ends with when its stream or its client is closed under it."""
    return Cancelled("the stream or its client was closed", code=grpc.StatusCode.CANCELLED, completion=completion)


def _details(trailers: Iterable[tuple[str, Any]]) -> dict[type[Message], Any]:
    """The details that we know, by type, from the trailer that carries a google.rpc.Status."""
    found: dict[type[Message], Any] = {}
    for key, value in trailers:
        if key != "grpc-status-details-bin":
            continue
        try:
            for packed in Status.FromString(value).details:
                kind = next((kind for kind in _DETAIL_TYPES if packed.TypeName() == kind.DESCRIPTOR.full_name), None)
                if kind:
                    found.setdefault(kind, kind.FromString(packed.value))
        except DecodeError:
            continue
    return found
