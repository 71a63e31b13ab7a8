"""What every RPC passes through, on the way in and on the way out, in one place.

In: identity, request id, deadline, admission, parsing. Out: an error becomes a status with details, once; one log
line and the metrics tell of every call, whichever way it ended. It does the work of five interceptors at the cost of
one: request and response are bytes here, so that a request that does not parse is an error of ours and not of gRPC's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from trunkline_server.access import Callers
from trunkline_server.call import Call
from trunkline_server.errors import (
    CallCancelled,
    GatewayError,
    GatewayOverloaded,
    GatewayTimeout,
    InvalidRequest,
    RequestTooLarge,
    ShuttingDown,
    Violation,
)
from trunkline_server.redact import Redactor, redact
from trunkline_server.rpc import trace_context
from trunkline_server.rpc.status import AttemptFacts, CallFacts, Failure, Relayed, failure, to_gateway_error
from trunkline_server.telemetry import Telemetry
from trunkline_server.traces.base import NoRecorder, Recorder

Request = TypeVar("Request", bound=Message)
RequestIn = TypeVar("RequestIn", bound=Message, contravariant=True)

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Context = Any
"""A `grpc.aio.ServicerContext`; its stubs are incomplete."""

#: The gateway's error leaves this much before the caller's own deadline: 5 %, within these bounds, in seconds.
MARGIN_SHARE, MARGIN_LEAST, MARGIN_MOST = 0.05, 0.020, 0.250

#: No call has arrived for so long, and for so many times the longest pause between two: a moment to tell connections to
#: go elsewhere. It is waited for so long at most.
_QUIET, _PAUSES, _LONGEST_QUIET = 0.05, 4, 1.0
_LOOK = 0.01
#: In so long connections have been told.
_TOLD = 0.3

_KEY_HEADERS = frozenset({"authorization", "x-api-key"})
_REQUEST_ID_HEADERS = frozenset({"x-request-id", "trunkline-request-id"})
#: Longest request id that is kept, as in the request itself.
_REQUEST_ID_MOST = 128


class Unary(Protocol[RequestIn]):
    async def __call__(self, request: RequestIn, call: Call) -> Message | bytes:
        """The answer; serialized if the method adds it to what is kept of the call by itself."""


class Streaming(Protocol[RequestIn]):
    async def __call__(self, request: RequestIn, call: Call, context: Context) -> None: ...


@dataclass(slots=True)
class Limits:
    """Bounds of the server."""

    #: Calls in flight; more are refused with GATEWAY_OVERLOADED.
    max_calls: int = 10_000
    #: Bytes of one request message; more are refused with REQUEST_TOO_LARGE.
    max_request_bytes: int = 32 * 1024 * 1024
    #: Caller metadata that is passed on to providers as headers, lower-case.
    forward_metadata: frozenset[str] = frozenset()


@dataclass(slots=True)
class Running:
    """Calls in flight, so that a drain and CancelCompletion find them."""

    calls: dict[str, tuple[Call, asyncio.Task[Any]]] = field(default_factory=dict)
    draining: bool = False
    #: Set when it begins to drain.
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    #: Called when it begins to drain.
    on_drain: list[Callable[[], None]] = field(default_factory=list)
    #: Completions that run in tasks of their own, by the call that began them.
    runs: dict[str, asyncio.Task[Any]] = field(default_factory=dict)
    #: Calls that arrived since.
    arrived: int = 0
    #: Set when the connections have been told to go elsewhere: only then are those calls refused.
    left: asyncio.Event = field(default_factory=asyncio.Event)

    def end(self, call_id: str, error: GatewayError) -> bool:
        """Ends a call with an error of ours. False if it does not run here."""
        found = self.calls.get(call_id)
        if found is None:
            return False
        call, task = found
        if call.ending is None:
            call.ending = error
            # What waits for a completion in a task of its own learns of its end by itself.
            self.runs.get(call_id, task).cancel()
        return True

    def cancel(self, call_id: str, caller: str) -> bool:
        """Cancels a completion of the same caller."""
        found = self.calls.get(call_id)
        return (
            found is not None
            and found[0].caller == caller
            and self.end(call_id, CallCancelled("cancelled by CancelCompletion"))
        )

    async def drain(self, grace: float, leave: Callable[[], None]) -> None:
        """Refuses new calls, lets those in flight finish within `grace` seconds, and ends the rest.

        `leave` tells every connection to go elsewhere (GOAWAY). What arrives at that moment gRPC cancels, which nobody
        repeats. So a moment is made in which no caller has a reason to begin a call: those that arrive before it wait
        for their refusal, and those that are ready for their end. Callers that go on then go elsewhere.
        """
        self.draining = True
        self.closing.set()
        for told in self.on_drain:
            told()
        await self._quiet()
        leave()
        await asyncio.sleep(_TOLD)
        self.left.set()
        for call, _ in list(self.calls.values()):
            if call.endless:
                self.end(call.id, ShuttingDown("the server is shutting down; follow another replica"))
        tasks = self._tasks()
        if tasks and grace > 0:
            await asyncio.wait(tasks, timeout=grace)
        for call_id in list(self.calls):
            self.end(call_id, ShuttingDown("the server is shutting down; call again, another replica takes the call"))
        tasks = self._tasks()
        if tasks:
            await asyncio.wait(tasks, timeout=5.0)

    def _tasks(self) -> set[asyncio.Task[Any]]:
        return {task for _, task in self.calls.values()} | set(self.runs.values())

    async def _quiet(self) -> None:
        """Returns when no call has arrived for a while, or after `_LONGEST_QUIET`.

        How long the while is, callers show: on a machine that is busy they come back late.
        """
        now = last = time.monotonic()
        until, pause, arrived = now + _LONGEST_QUIET, 0.0, self.arrived
        while now < until and now - last < max(_QUIET, _PAUSES * pause):
            await asyncio.sleep(_LOOK)
            now = time.monotonic()
            if arrived != self.arrived:
                arrived, pause, last = self.arrived, max(pause, now - last), now


class Boundary:
    """Wraps the methods of the services."""

    def __init__(
        self,
        callers: Callers,
        limits: Limits,
        telemetry: Telemetry,
        running: Running,
        redactor: Redactor = redact,
        *,
        recorder: Recorder | None = None,
    ) -> None:
        self._callers = callers
        self._limits = limits
        self._telemetry = telemetry
        self._redactor = redactor
        self._recorder = recorder or NoRecorder()
        self.running = running

    def unary(
        self, name: str, request_type: type[Request], method: Unary[Request], *, recorded: bool = True
    ) -> Handler:
        """`recorded`: the call leaves a trace."""
        recorder = self._recorder if recorded else NoRecorder()

        async def handle(data: bytes, context: Context) -> bytes:
            call = Call(name)
            size, held = len(data), [data]
            del data
            answer = b""

            async def run() -> None:
                nonlocal answer
                # Not held here: it can have megabytes.
                made = await method(self._opened(request_type, held, call, recorder), call)
                if isinstance(made, bytes):
                    answer = made
                else:
                    answer = made.SerializeToString()
                    call.answer.add(answer)
                call.sent_bytes = len(answer)

            try:
                await self._guard(call, context, size, run, recorder)
            finally:
                held.clear()
            return answer

        return grpc.unary_unary_rpc_method_handler(handle)  # bytes in, bytes out

    def stream(
        self, name: str, request_type: type[Request], method: Streaming[Request], *, recorded: bool = True
    ) -> Handler:
        """`recorded`: the call leaves a trace."""
        recorder = self._recorder if recorded else NoRecorder()

        async def handle(data: bytes, context: Context) -> None:
            call = Call(name, streamed=True)
            size, held = len(data), [data]
            del data

            async def run() -> None:
                await method(self._opened(request_type, held, call, recorder), call, context)

            try:
                await self._guard(call, context, size, run, recorder)
            finally:
                held.clear()

        return grpc.unary_stream_rpc_method_handler(handle)  # writes by itself

    def bidirectional(self, name: str, method: Callable[[Call, Context], Awaitable[None]]) -> Handler:
        """A stream of messages both ways that holds calls: it leaves no trace of its own, and reads by itself."""

        async def handle(_: object, context: Context) -> None:
            call = Call(name, streamed=True)
            # The calls in it end first, each with a status of its own.
            await self._guard(call, context, 0, lambda: method(call, context), NoRecorder(), hurry=0.5)

        return grpc.stream_stream_rpc_method_handler(handle)

    async def _guard(
        self,
        call: Call,
        context: Context,
        size: int,
        run: Callable[[], Awaitable[None]],
        recorder: Recorder,
        *,
        hurry: float = 1.0,
    ) -> None:
        """`hurry`: how much of the margin before the caller's deadline is kept."""
        telemetry = self._telemetry
        telemetry.began(call)
        ended: Failure | None = None
        code, reason = grpc.StatusCode.OK, ""
        timer: asyncio.Timeout | None = None
        try:
            try:
                if self.running.draining:
                    self.running.arrived += 1
                    await self.running.left.wait()
                self._enter(call, context, hurry)
                self.running.calls[call.id] = (call, asyncio.current_task())  # type: ignore[assignment]  # in a task
                async with asyncio.timeout(call.remaining()) as timer:
                    call.timer = timer
                    await run()
                if self.running.draining:
                    await self.running.left.wait()
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if call.ending is None or task is None:
                    code, reason = left(context)
                    raise
                # We ended the call ourselves: a drain or CancelCompletion.
                task.uncancel()
                ended = self._failure(call.ending, call, call.sequence)
            except BaseException as error:
                if not isinstance(error, Exception):
                    raise
                ended = self.failure(error, call, timer, call.sequence)
        finally:
            if ended is not None:
                code, reason = ended.code, ended.reason
            status = b"" if ended is None else ended.status

            def close(code: grpc.StatusCode, reason: str, status: bytes) -> None:
                self.running.calls.pop(call.id, None)
                telemetry.ended(call, code.name, reason, size)
                recorder.closed(call, code.value[0], reason, status)

            if call.run is None or (call.run.done() and (ended is not None or call.run.result() is not None)):
                close(code, reason, status)
            else:
                # The completion goes on without the call that began it. Its record tells how that ends.
                call.run.add_done_callback(lambda run: close(*_outcome(run.result())))
        if ended is not None:
            if self.running.draining:
                await self.running.left.wait()
            await _abort(context, ended)

    def _enter(self, call: Call, context: Context, hurry: float) -> None:
        """Identity, request id, deadline, admission. Raises GatewayError."""
        key = traceparent = tracestate = ""
        forward = self._limits.forward_metadata
        headers: list[tuple[str, str]] = []
        for name, value in context.invocation_metadata() or ():
            if name in _KEY_HEADERS:
                key = value
            if name in _REQUEST_ID_HEADERS:
                call.request_id = value[:_REQUEST_ID_MOST]
            if name == "traceparent":
                traceparent = value
            if name == "tracestate":
                tracestate = value
            if name in forward and isinstance(value, str):
                headers.append((name, value))
        call.forward = tuple(headers)
        if traceparent and not call.otel_trace_id:
            trace_context.follow(call, traceparent, tracestate)
        if self.running.draining:
            raise ShuttingDown("the server is shutting down; call again, another replica takes the call")
        call.caller = self._callers.identify(key, context)
        # Without a deadline of the caller's, the time limits of the provider bound the call.
        remaining = context.time_remaining()
        if remaining is not None:
            margin = min(MARGIN_MOST, max(MARGIN_LEAST, MARGIN_SHARE * remaining))
            call.deadline = time.monotonic() + remaining - margin * hurry
        if len(self.running.calls) >= self._limits.max_calls:
            raise GatewayOverloaded(f"the server has {self._limits.max_calls} calls in flight; call again shortly")

    def _opened(self, request_type: type[Request], held: list[bytes], call: Call, recorder: Recorder) -> Request:
        """Takes the bytes out of `held`: an error that ends a call stays in a cycle of gRPC's with the frames that it
        came through, until the collector comes, and so would megabytes.
        """
        data = held.pop()
        request = self._parsed(request_type, data)
        recorder.opened(call, request, data)
        return request

    def _parsed(self, request_type: type[Request], data: bytes) -> Request:
        most = self._limits.max_request_bytes
        if len(data) > most:
            message = (
                f"the request has {len(data):,} bytes, and this server takes {most:,} (limits.max_request_bytes): send "
                "large media by address (Media.uri)"
            )
            sizes = {"bytes": str(len(data)), "maxBytes": str(most)}
            raise RequestTooLarge(message, violations=[Violation("", message)], metadata=sizes)
        try:
            return request_type.FromString(data)
        except DecodeError:
            message = f"the request is not a {request_type.DESCRIPTOR.full_name}: its bytes do not parse"
            raise InvalidRequest(message, violations=[Violation("", message)]) from None

    def failure(self, error: Exception, call: Call, timer: asyncio.Timeout | None, sequence: int) -> Failure:
        """The status of a call that an exception ends; `timer`: what bounds the call; `sequence`: events sent."""
        return self._failure(self._named(error, call, timer), call, sequence)

    def _named(self, error: Exception, call: Call, timer: asyncio.Timeout | None) -> GatewayError | Relayed:
        """What an exception is to the caller. Only the deadline of the call itself is a TimeoutError here."""
        if isinstance(error, TimeoutError) and timer is not None and timer.expired():
            return GatewayTimeout("the time of the call ran out at the gateway")
        if isinstance(error, Relayed):
            return error
        known = to_gateway_error(error)
        if known is not error:
            self._telemetry.unforeseen(call, error)
        return known

    def _failure(self, error: GatewayError | Relayed, call: Call, sequence: int) -> Failure:
        if isinstance(error, Relayed):
            return error.failure
        try:
            return self._told(error, call, sequence)
        except Exception as bug:  # noqa: BLE001  # its text must not reach the caller, and gRPC would send it
            self._telemetry.unforeseen(call, bug)
            return failure(to_gateway_error(bug), CallFacts(call.id, admitted=False), self._redactor)

    def _told(self, error: GatewayError, call: Call, sequence: int) -> Failure:
        return failure(
            error,
            CallFacts(
                completion_id=call.completion_id,
                request_id=call.request_id,
                provider=call.provider,
                model=call.model,
                attempts=[
                    AttemptFacts(a.number, a.provider, a.model, a.reason, a.http_status, a.seconds)
                    for a in call.attempts
                ],
                usage=call.usage,
                last_sequence_number=sequence,
                admitted=call.admitted,
                remaining=call.remaining(),
                spent=call.spent,
            ),
            self._redactor,
        )


def left(context: Context) -> tuple[grpc.StatusCode, str]:
    """Why gRPC cancelled a call: its deadline has passed before ours came, or its caller is gone."""
    remaining = context.time_remaining()
    if remaining is not None and remaining <= 0:
        return grpc.StatusCode.DEADLINE_EXCEEDED, GatewayTimeout.reason
    return grpc.StatusCode.CANCELLED, CallCancelled.reason


def _outcome(failed: Failure | None) -> tuple[grpc.StatusCode, str, bytes]:
    """Code, reason and status of a completion."""
    return (grpc.StatusCode.OK, "", b"") if failed is None else (failed.code, failed.reason, failed.status)


async def _abort(context: Context, ended: Failure) -> None:
    """Ends the call with a status. One whose caller has left meanwhile is over already, which is no error."""
    try:
        await context.abort(ended.code, ended.message, ended.trailers)
    except grpc.aio.AbortError:
        raise
    except Exception as error:
        raise asyncio.CancelledError from error
