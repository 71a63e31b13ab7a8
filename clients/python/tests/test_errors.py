"""From a gRPC status to a typed error."""

import copy
import pickle
from typing import Any

import grpc
import pytest
from fake_gateway import Failure, FakeGateway
from google.rpc import error_details_pb2 as rpc

import trunkline
from trunkline import Client, TrunklineError, Violation
from trunkline.errors import BY_CODE, BY_REASON, from_rpc_error
from trunkline.v1.completion_pb2 import Usage
from trunkline.v1.error_pb2 import ErrorReason, LlmErrorDetail

Code = grpc.StatusCode


class Raised(grpc.RpcError):
    """What gRPC raises, without a connection."""

    def __init__(self, failure: Failure, trailers: Any = None) -> None:
        self.failure = failure
        self.trailers = failure.trailers() if trailers is None else trailers

    def code(self) -> grpc.StatusCode:
        return self.failure.code

    def details(self) -> str:
        return self.failure.message

    def trailing_metadata(self) -> Any:
        return self.trailers


def of(failure: Failure) -> TrunklineError:
    return from_rpc_error(Raised(failure))


def test_every_reason_has_its_class() -> None:
    names = {name.removeprefix("ERROR_REASON_") for name in ErrorReason.keys()} - {"UNSPECIFIED"}  # noqa: SIM118

    assert set(BY_REASON) == names


def test_every_code_has_its_class() -> None:
    assert set(BY_CODE) == set(Code) - {Code.OK}
    assert all(rows[-1][0] == "" for rows in BY_CODE.values())


@pytest.mark.parametrize(("reason", "kind"), BY_REASON.items())
def test_the_reason_decides_whatever_the_code(reason: str, kind: type[TrunklineError]) -> None:
    error = of(Failure(Code.INTERNAL, reason=reason))

    assert type(error) is kind
    assert (error.reason, error.code) == (reason, Code.INTERNAL)


def test_a_provider_that_refuses_the_key_is_no_reason_to_drop_your_own() -> None:
    failure = Failure(Code.FAILED_PRECONDITION, reason="LLM_AUTHENTICATION", metadata={"credentialOwner": "gateway"})
    error = of(failure)

    assert not isinstance(error, trunkline.AuthenticationError)
    assert error.metadata == {"credentialOwner": "gateway"}


# What gRPC or a proxy makes: no details at all.
@pytest.mark.parametrize(
    ("code", "message", "kind", "retryable"),
    [
        (Code.RESOURCE_EXHAUSTED, "SERVER: Received message larger than max (9 vs. 4)", "RequestTooLarge", False),
        (Code.RESOURCE_EXHAUSTED, "Sent message larger than max (9 vs. 4)", "RequestTooLarge", False),
        (Code.RESOURCE_EXHAUSTED, "CLIENT: Received message larger than max (9 vs. 4)", "InternalError", False),
        (Code.RESOURCE_EXHAUSTED, "received metadata size exceeds soft limit (12306 vs. 8192)", "InternalError", False),
        (Code.RESOURCE_EXHAUSTED, "Concurrent RPC limit exceeded!", "Overloaded", False),
        (Code.RESOURCE_EXHAUSTED, "slow down", "RateLimited", False),
        (Code.UNAVAILABLE, "Cancelling all calls", "Unreachable", True),
        (Code.UNAVAILABLE, "max connection age", "Unreachable", True),
        (Code.UNAVAILABLE, "Too many pings", "Unreachable", True),
        (Code.UNAVAILABLE, "failed to connect to all addresses", "Unreachable", True),
        (Code.DEADLINE_EXCEEDED, "Deadline Exceeded", "TimedOut", False),
        (Code.CANCELLED, "Locally cancelled by application!", "Cancelled", False),
        (Code.UNKNOWN, "Unexpected <class 'ValueError'>: text", "InternalError", False),
        (Code.UNIMPLEMENTED, "Method not found!", "Unimplemented", False),
        (Code.UNAUTHENTICATED, "no token", "AuthenticationError", False),
        (Code.FAILED_PRECONDITION, "not now", "TrunklineError", False),
        (Code.INVALID_ARGUMENT, "bad", "InvalidRequest", False),
    ],
)
def test_an_error_without_details_is_typed_too(code: grpc.StatusCode, message: str, kind: str, retryable: bool) -> None:
    error = of(Failure(code, message))

    assert (type(error).__name__, error.retryable, error.reason) == (kind, retryable, "")
    assert str(error) == f"{code.name}: {message}"


def test_every_detail_arrives() -> None:
    detail = LlmErrorDetail(provider="openai", model="gpt-5.2", upstream_status=429, usage=Usage(input_tokens=3))
    bad = rpc.BadRequest()
    bad.field_violations.add(field="spec.messages", description="must not be empty")
    bad.field_violations.add(field="spec.params.temperature", description="must be 0 to 2")
    quota = rpc.QuotaFailure()
    failure = Failure(
        Code.RESOURCE_EXHAUSTED,
        "slow down",
        reason="LLM_RATE_LIMITED",
        retry_after=1.25,
        details=[detail, rpc.RequestInfo(request_id="cmpl_1"), bad, quota],
        metadata={"limit": "requests"},
    )
    error = of(failure)

    assert (error.message, error.reason, error.request_id) == ("slow down", "LLM_RATE_LIMITED", "cmpl_1")
    assert (error.retry_after, error.retryable, error.detail) == (1.25, False, detail)
    assert error.metadata == {"limit": "requests"}
    assert error.violations == (
        Violation("spec.messages", "must not be empty"),
        Violation("spec.params.temperature", "must be 0 to 2"),
    )
    assert quota in error.details
    assert str(error) == (
        "LLM_RATE_LIMITED: slow down\n  spec.messages: must not be empty\n  spec.params.temperature: must be 0 to 2"
    )


@pytest.mark.parametrize("retryable", [True, False])
def test_the_gateway_says_whether_to_retry(retryable: bool) -> None:
    detail = LlmErrorDetail(retryable=retryable)

    assert of(Failure(Code.INTERNAL, reason="LLM_EMPTY_RESPONSE", details=[detail])).retryable is retryable
    assert of(Failure(Code.UNAVAILABLE, reason="LLM_CONNECTION", details=[detail])).retryable is retryable


def test_a_delay_without_more_means_that_a_retry_is_worth_it() -> None:
    error = of(Failure(Code.RESOURCE_EXHAUSTED, reason="GATEWAY_RATE_LIMITED", retry_after=0.0))

    assert (error.retry_after, error.retryable) == (0.0, True)


def test_a_reason_of_a_newer_gateway_falls_back_on_the_code() -> None:
    error = of(Failure(Code.UNAVAILABLE, reason="MARS_IN_RETROGRADE"))

    assert (type(error), error.reason) == (trunkline.Unavailable, "MARS_IN_RETROGRADE")


def test_a_reason_of_somebody_else_is_none_of_ours() -> None:
    other = rpc.ErrorInfo(reason="INTERNAL", domain="example.com")
    error = of(Failure(Code.UNAVAILABLE, details=[other]))

    assert (type(error), error.reason) == (trunkline.Unreachable, "")


@pytest.mark.parametrize("trailers", [(), None, [("grpc-status-details-bin", b"\xff\xff")], [("other", "x")]])
def test_details_that_do_not_parse_are_left_out(trailers: Any) -> None:
    raised = Raised(Failure(Code.NOT_FOUND, "gone"), [] if trailers is None else trailers)

    assert type(from_rpc_error(raised)) is trunkline.NotFound


def test_an_error_survives_copying_and_pickling() -> None:
    detail = LlmErrorDetail(provider="openai")
    error = of(Failure(Code.RESOURCE_EXHAUSTED, reason="LLM_RATE_LIMITED", retry_after=2, details=[detail]))

    for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(twin) is trunkline.RateLimited
        assert (str(twin), twin.retry_after, twin.detail) == (str(error), 2, detail)


def test_the_details_arrive_over_a_real_connection(gateway: FakeGateway) -> None:
    bad = rpc.BadRequest()
    bad.field_violations.add(field="spec.messages", description="must not be empty")
    gateway.answers.append(Failure(Code.INVALID_ARGUMENT, "no", reason="INVALID_REQUEST", details=[bad]))

    with Client(gateway.address) as client, pytest.raises(trunkline.InvalidRequest) as caught:
        client.complete([], model="m")

    assert caught.value.violations == (Violation("spec.messages", "must not be empty"),)
    assert isinstance(caught.value.__cause__, grpc.RpcError)


def test_every_error_is_public_and_in_the_drawing() -> None:
    from trunkline import errors

    public = {
        name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, TrunklineError)
    }

    assert public <= set(trunkline.__all__)
    assert all(name in (errors.__doc__ or "") for name in public)
