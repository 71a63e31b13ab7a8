"""The one table from an error to what goes over the wire: gRPC code, google.rpc details, retry pushback.

`ErrorInfo` is on every error; `RequestInfo` and `LlmErrorDetail` are on every error after admission; a row of `TABLE`
says what else there is. Code and message in the details equal those of the status: clients refuse details that differ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import grpc
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from trunkline_server import errors
from trunkline_server.errors import GatewayError, InternalError
from trunkline_server.redact import Redactor, redact
from trunkline_server.rpc.details import (
    INTERNAL_TEXT,
    AttemptFacts,
    CallFacts,
    Case,
    Detail,
    all_violations,
    blamed,
    help_link,
    precondition,
    quota,
    resource,
    retry_info,
)
from trunkline_server.rpc.fitting import serialized


@dataclass(frozen=True, slots=True)
class Failure:
    """What the boundary hands to `context.abort`."""

    code: grpc.StatusCode
    message: str
    trailers: tuple[tuple[str, str | bytes], ...]
    reason: str
    #: The google.rpc.Status among the trailers, serialized.
    status: bytes

    @property
    def pushback(self) -> int | None:
        """Milliseconds that the client's library shall wait, where something is said of it."""
        return next((int(value) for name, value in self.trailers if name == _PUSHBACK), None)


class Relayed(Exception):  # not an error of ours, but the status of one
    """The completion that a call waits for has failed; its status is passed on as it is."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure

    @classmethod
    def of(cls, packed: bytes, pushback: int | None) -> Relayed:
        """From a serialized google.rpc.Status and the pushback that went with it."""
        status = Status.FromString(packed)
        code = next((code for code in grpc.StatusCode if code.value[0] == status.code), grpc.StatusCode.UNKNOWN)
        info = ErrorInfo()
        reason = next((info.reason for detail in status.details if detail.Unpack(info)), "")
        return cls(Failure(code, status.message, _trailers(packed, pushback), reason, packed))


def to_gateway_error(exc: BaseException) -> GatewayError:
    """The exception itself if it is ours, else an InternalError that tells nothing of it; its `__cause__` does."""
    if isinstance(exc, GatewayError):
        return exc
    error = InternalError(INTERNAL_TEXT)
    error.__cause__ = exc
    return error


def failure(error: GatewayError, facts: CallFacts, redactor: Redactor = redact) -> Failure:
    """The status of a failed call. Never raises, whatever the error holds; `redactor` knows the server's secrets."""
    row = _row(type(error))
    case = Case(error, facts, redactor, row.unsaid)
    details: list[Message] = [case.error_info()]
    if facts.admitted or row is TABLE[InternalError]:
        details.append(case.request_info())
    if facts.admitted:
        details.append(case.llm_error_detail())
    details.extend(detail for make in row.details if (detail := make(case)) is not None)
    status = Status(code=row.code.value[0], message=case.message)
    packed = serialized(case, status, details)
    return Failure(row.code, case.message, _trailers(packed, row.pushback(case)), error.reason, packed)


_PUSHBACK = "grpc-retry-pushback-ms"


def _trailers(packed: bytes, pushback: int | None) -> tuple[tuple[str, str | bytes], ...]:
    details = ("grpc-status-details-bin", packed)
    # Never 0: gRPC's C core (1.85, so Python's client) does not send such a call again, and hangs until its deadline.
    return (details,) if pushback is None else (details, (_PUSHBACK, str(pushback or 1)))


# -- pushback ---------------------------------------------------------------------------------------------------------

_NEVER = -1


def _never(_: Case) -> int | None:
    return _NEVER


def _after_wait(case: Case) -> int | None:
    """The wait; never if it ends after the deadline, or if the caller has part of the answer already."""
    remaining = case.facts.remaining
    late = case.wait is not None and remaining is not None and case.wait > remaining * 1000
    return _NEVER if late or case.facts.last_sequence_number > 0 else case.wait


def _unless_spent(case: Case) -> int | None:
    """As `_after_wait`; never once the gateway's own attempts are spent, so that theirs do not multiply."""
    return _NEVER if case.facts.spent else _after_wait(case)


# -- the table --------------------------------------------------------------------------------------------------------

_Code = grpc.StatusCode


@dataclass(frozen=True, slots=True)
class _Row:
    code: grpc.StatusCode
    details: tuple[Detail, ...] = ()
    pushback: Callable[[Case], int | None] = lambda _: None
    #: Least and most seconds to wait where nobody said how long.
    unsaid: tuple[float, float] | None = None


TABLE: dict[type[GatewayError], _Row] = {
    errors.CallerUnauthenticated: _Row(_Code.UNAUTHENTICATED),
    errors.CallerPermissionDenied: _Row(_Code.PERMISSION_DENIED, (resource("model"),)),
    errors.InvalidRequest: _Row(_Code.INVALID_ARGUMENT, (all_violations,)),
    errors.UnsupportedParameter: _Row(_Code.INVALID_ARGUMENT, (all_violations,)),
    errors.RequestTooLarge: _Row(_Code.INVALID_ARGUMENT, (all_violations,)),
    errors.ModelNotFound: _Row(_Code.NOT_FOUND, (resource("model"),)),
    errors.ResourceNotFound: _Row(_Code.NOT_FOUND, (resource(""),)),
    errors.GatewayRateLimited: _Row(_Code.RESOURCE_EXHAUSTED, (retry_info, quota), _after_wait, unsaid=(1.0, 2.0)),
    errors.BudgetExhausted: _Row(_Code.RESOURCE_EXHAUSTED, (quota, retry_info), _never),
    errors.GatewayOverloaded: _Row(_Code.UNAVAILABLE, (retry_info,), _after_wait, unsaid=(0.1, 1.0)),
    # No pushback: another replica takes the call at once.
    errors.ShuttingDown: _Row(_Code.UNAVAILABLE),
    errors.GatewayTimeout: _Row(_Code.DEADLINE_EXCEEDED),
    errors.CallCancelled: _Row(_Code.CANCELLED),
    errors.RequestIdReused: _Row(_Code.ALREADY_EXISTS),
    errors.ConfigConflict: _Row(_Code.ABORTED),
    errors.ResumeExpired: _Row(_Code.FAILED_PRECONDITION),
    errors.ReaderStalled: _Row(_Code.DEADLINE_EXCEEDED),
    # It is worth another try, but not as it is: what there was to resume is gone.
    errors.CompletionLost: _Row(_Code.UNAVAILABLE, (), _never),
    errors.AlreadyExists: _Row(_Code.ALREADY_EXISTS, (resource(""),)),
    errors.ConfigInUse: _Row(_Code.FAILED_PRECONDITION, (resource(""),)),
    errors.StoreUnavailable: _Row(_Code.UNAVAILABLE, (retry_info,), _after_wait, unsaid=(1.0, 2.0)),
    errors.InternalError: _Row(_Code.INTERNAL),
    errors.LLMError: _Row(_Code.INTERNAL),
    errors.LLMConnectionError: _Row(_Code.UNAVAILABLE, (retry_info,), _unless_spent),
    # The work was probably done and paid for: no invitation to repeat it.
    errors.LLMTimeoutError: _Row(_Code.DEADLINE_EXCEEDED),
    errors.LLMRateLimitError: _Row(_Code.RESOURCE_EXHAUSTED, (retry_info, quota), _after_wait),
    errors.LLMProviderOverloaded: _Row(_Code.UNAVAILABLE, (retry_info,), _unless_spent, unsaid=(1.0, 2.0)),
    errors.LLMServerError: _Row(_Code.UNAVAILABLE, (retry_info,), _unless_spent),
    errors.LLMEmptyResponseError: _Row(_Code.INTERNAL),
    errors.LLMInvalidResponseError: _Row(_Code.INTERNAL),
    errors.LLMBadRequestError: _Row(_Code.INVALID_ARGUMENT, (blamed(""),)),
    errors.LLMUnprocessableEntityError: _Row(_Code.INVALID_ARGUMENT, (blamed("spec"),)),
    errors.ContextWindowExceededError: _Row(_Code.INVALID_ARGUMENT, (blamed("spec.messages"),)),
    errors.LLMRequestTooLargeError: _Row(_Code.INVALID_ARGUMENT, (blamed("spec.messages"),)),
    # Not UNAUTHENTICATED: the caller would throw its own good key away.
    errors.LLMAuthenticationError: _Row(
        _Code.FAILED_PRECONDITION, (precondition("UPSTREAM_CREDENTIAL", "credentials/"),)
    ),
    errors.LLMPermissionDeniedError: _Row(_Code.PERMISSION_DENIED, (resource("model"),)),
    errors.LLMNotFoundError: _Row(_Code.NOT_FOUND, (resource("model"),)),
    errors.LLMInsufficientCreditsError: _Row(
        _Code.FAILED_PRECONDITION, (precondition("BILLING", "providers/"), help_link)
    ),
    errors.LLMContentFilterError: _Row(_Code.INVALID_ARGUMENT, (blamed("spec.messages"),)),
    errors.LLMConflictError: _Row(_Code.ABORTED),
}


def _row(kind: type[GatewayError]) -> _Row:
    """The class's row, its nearest parent's, or that of a bug."""
    return next((TABLE[parent] for parent in kind.__mro__ if parent in TABLE), TABLE[InternalError])


__all__ = ["TABLE", "AttemptFacts", "CallFacts", "Failure", "Relayed", "failure", "to_gateway_error"]
