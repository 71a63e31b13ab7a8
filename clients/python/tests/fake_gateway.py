"""A gateway of a page: it does what a test tells it to and remembers what it was asked."""

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2 as rpc
from google.rpc.status_pb2 import Status

from trunkline.v1.completion_pb2 import FINISH_REASON_STOP, Completion, Usage
from trunkline.v1.completion_service_pb2 import (
    AttemptStarted,
    CancelCompletionResponse,
    ChoiceFinished,
    CompletionFinished,
    CompletionStarted,
    CountTokensResponse,
    CreateCompletionResponse,
    PartDelta,
    PartFinished,
    PartStarted,
    StreamCompletionResponse,
)
from trunkline.v1.completion_service_pb2_grpc import CompletionServiceServicer, add_CompletionServiceServicer_to_server
from trunkline.v1.message_pb2 import ROLE_ASSISTANT, ContentPart, Text
from trunkline.v1.model_service_pb2 import GetModelResponse, ListModelsResponse, Model
from trunkline.v1.model_service_pb2_grpc import ModelServiceServicer, add_ModelServiceServicer_to_server
from trunkline.v1alpha import trace_service_pb2 as traces
from trunkline.v1alpha.trace_service_pb2_grpc import TraceServiceServicer, add_TraceServiceServicer_to_server

# Long enough for a loaded machine, short enough to fail in time.
PATIENCE = 10.0


@dataclass
class Failure:
    """An error as the gateway sends it."""

    code: grpc.StatusCode
    message: str = "it failed"
    reason: str = ""
    retry_after: float | None = None
    pushback: int | None = None
    details: Iterable[Message] = ()
    metadata: dict[str, str] = field(default_factory=dict)

    def trailers(self) -> list[tuple[str, Any]]:
        status = Status(code=self.code.value[0], message=self.message)
        messages = list(self.details)
        if self.reason:
            messages.append(rpc.ErrorInfo(reason=self.reason, domain="trunkline", metadata=self.metadata))
        if self.retry_after is not None:
            info = rpc.RetryInfo()
            info.retry_delay.FromNanoseconds(int(self.retry_after * 1e9))
            messages.append(info)
        for message in messages:
            packed = any_pb2.Any()
            packed.Pack(message)
            status.details.append(packed)
        pushback = [] if self.pushback is None else [("grpc-retry-pushback-ms", str(self.pushback))]
        return [*([("grpc-status-details-bin", status.SerializeToString())] if messages else []), *pushback]


class Silence:
    """Says nothing more until the caller leaves."""


# What one call answers: a message, a failure, or for a stream a list of events, failures and silence.
Answer = Message | Failure | Silence | list[Any]


@dataclass
class Asked:
    """A call as it arrived."""

    method: str
    request: Any
    metadata: dict[str, str | bytes]
    peer: str
    time_left: float
    at: float = field(default_factory=time.monotonic)
    # Set when the call is over, however it ended.
    over: threading.Event = field(default_factory=threading.Event)


class FakeGateway(CompletionServiceServicer, ModelServiceServicer, TraceServiceServicer):
    """Serves on a free port of the loopback. `answers` are used up in turn; the last one stays."""

    def __init__(self, credentials: grpc.ServerCredentials | None = None, *, traces_too: bool = True) -> None:
        self.answers: deque[Answer] = deque()
        self.calls: list[Asked] = []
        self._pool = ThreadPoolExecutor(32)
        self._server = grpc.server(self._pool, options=[("grpc.max_receive_message_length", 32 << 20)])
        add_CompletionServiceServicer_to_server(self, self._server)
        add_ModelServiceServicer_to_server(self, self._server)
        if traces_too:
            add_TraceServiceServicer_to_server(self, self._server)
        health: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(self._check_health)
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": health}),)
        )
        if credentials:
            port = self._server.add_secure_port("127.0.0.1:0", credentials)
        else:
            port = self._server.add_insecure_port("127.0.0.1:0")
        self.address = f"127.0.0.1:{port}"
        self._server.start()

    def stop(self) -> None:
        self._server.stop(None).wait()
        self._pool.shutdown()

    def wait_for(self, index: int) -> Asked:
        """The call of that number, when it is over."""
        call = self.calls[index]
        assert call.over.wait(PATIENCE), f"call {index} ({call.method}) still runs"
        return call

    def CreateCompletion(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's spelling
        return self._unary("CreateCompletion", request, context, CreateCompletionResponse(completion=hello()))

    def StreamCompletion(self, request: Any, context: Any) -> Iterator[StreamCompletionResponse]:  # noqa: N802
        yield from self._stream("StreamCompletion", request, context, hello_events())

    def CountTokens(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._unary("CountTokens", request, context, CountTokensResponse(input_tokens=2))

    def CancelCompletion(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._unary("CancelCompletion", request, context, CancelCompletionResponse())

    def ListModels(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._unary("ListModels", request, context, ListModelsResponse(models=[Model(name="fake/echo")]))

    def GetModel(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._unary("GetModel", request, context, GetModelResponse(model=Model(name=request.name)))

    def GetTrace(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._unary("GetTrace", request, context, traces.GetTraceResponse())

    def ListTraces(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._unary("ListTraces", request, context, traces.ListTracesResponse())

    def DeleteTrace(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._unary("DeleteTrace", request, context, traces.DeleteTraceResponse(backends=["sqlite"]))

    def TailTraces(self, request: Any, context: Any) -> Any:  # noqa: N802
        yield from self._stream("TailTraces", request, context, [traces.TailTracesResponse()])

    def ExportTraces(self, request: Any, context: Any) -> Any:  # noqa: N802
        yield from self._stream("ExportTraces", request, context, [])

    def _check_health(self, request: bytes, context: Any) -> bytes:
        """grpc.health.v1: knows the server itself and one service that is down."""
        statuses = {b"": 1, b"\x0a\x04down": 2}
        if request not in statuses:
            context.abort(grpc.StatusCode.NOT_FOUND, "")
        return bytes([0x08, statuses[request]])

    def _stream(self, method: str, request: Any, context: Any, usual: list[Any]) -> Iterator[Any]:
        answer = self._next(method, request, context) or usual
        for step in answer if isinstance(answer, list) else [answer]:
            if isinstance(step, Silence):
                self.calls[-1].over.wait(PATIENCE)
            elif isinstance(step, Failure):
                fail(step, context)
            else:
                yield step

    def _unary(self, method: str, request: Any, context: Any, usual: Message) -> Any:
        answer = self._next(method, request, context) or usual
        if isinstance(answer, Silence):
            self.calls[-1].over.wait(PATIENCE)
        if isinstance(answer, Failure):
            fail(answer, context)
        return answer

    def _next(self, method: str, request: Any, context: Any) -> Answer | None:
        metadata = dict(context.invocation_metadata())
        asked = Asked(method, request, metadata, context.peer(), context.time_remaining())
        context.add_callback(asked.over.set)
        self.calls.append(asked)
        if len(self.answers) > 1:
            return self.answers.popleft()
        return self.answers[0] if self.answers else None


def fail(failure: Failure, context: Any) -> None:
    context.set_trailing_metadata(failure.trailers())
    context.abort(failure.code, failure.message)


def hello() -> Completion:
    """The completion that `hello_events` stream."""
    completion = Completion(id="cmpl_1", provider="fake", model="fake/echo", attempts=1, provider_response_id="r1")
    completion.create_time.FromSeconds(1)
    choice = completion.choices.add(finish_reason=FINISH_REASON_STOP, raw_finish_reason="stop")
    choice.message.role = ROLE_ASSISTANT
    choice.message.parts.add(text=Text(text="Hello there."))
    completion.usage.input_tokens = 2
    completion.usage.output_tokens = 2
    return completion


def hello_events() -> list[StreamCompletionResponse]:
    started = CompletionStarted(completion_id="cmpl_1")
    started.create_time.FromSeconds(1)
    return numbered(
        started,
        AttemptStarted(attempt=1, provider="fake", model="fake/echo", provider_response_id="r1"),
        PartStarted(part=ContentPart(text=Text())),
        PartDelta(text="Hello"),
        PartDelta(text=" there."),
        PartFinished(),
        ChoiceFinished(finish_reason=FINISH_REASON_STOP, raw_finish_reason="stop"),
        CompletionFinished(attempts=1, usage=Usage(input_tokens=2, output_tokens=2)),
    )


_EVENTS = {
    event.message_type.full_name: event.name  # type: ignore[union-attr]  # every event is a message
    for event in StreamCompletionResponse.DESCRIPTOR.oneofs_by_name["event"].fields
}


def numbered(*events: Message, first: int = 1) -> list[StreamCompletionResponse]:
    """The events as a stream carries them, numbered from `first`."""
    return [
        StreamCompletionResponse(sequence_number=number, **{_EVENTS[event.DESCRIPTOR.full_name]: event})  # type: ignore[arg-type]
        for number, event in enumerate(events, first)
    ]
