"""PipelineService: many calls over one stream, each on the same path as a call of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import grpc
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status

from trunkline.v1alpha import pipeline_service_pb2 as pb
from trunkline_server.call import Call
from trunkline_server.errors import CallCancelled, InvalidRequest, ShuttingDown, Violation
from trunkline_server.rpc.boundary import Boundary, Context, Running
from trunkline_server.rpc.methods import Methods, Service
from trunkline_server.rpc.status import CallFacts, Failure, failure

#: Calls in flight unless PipelineSetup says otherwise, and the most that it may say.
WINDOW, WINDOW_MOST = 64, 1000
_ID_MOST = 128

Handle = Callable[[bytes, Any], Any]


@dataclass(frozen=True, slots=True)
class _Kind:
    """What a field of PipelineCall.request calls, and the field of PipelineResponse that takes what comes back."""

    method: str
    item: str


_KINDS: Mapping[str, _Kind] = {
    "create_completion": _Kind("CreateCompletion", "completion"),
    "stream_completion": _Kind("StreamCompletion", "event"),
    "create_embeddings": _Kind("CreateEmbeddings", "embeddings"),
    "count_tokens": _Kind("CountTokens", "count"),
}


class PipelineMethods:
    """Serves trunkline.v1alpha.PipelineService with the methods of other services."""

    NAME = "trunkline.v1alpha.PipelineService"

    def __init__(self, services: Sequence[Service], running: Running) -> None:
        self._services = services
        self._running = running
        self._handles: dict[str, Handle] = {}

    def methods(self, boundary: Boundary) -> Methods:
        for service in self._services:
            for name, handler in service.methods(boundary).items():
                handle: Any = handler.unary_unary or handler.unary_stream
                self._handles[name] = handle
        return {"Pipeline": boundary.bidirectional("Pipeline", self.run)}

    async def run(self, call: Call, context: Context) -> None:
        pipeline = _Pipeline(context, self._handles)
        closing = asyncio.ensure_future(self._running.closing.wait())
        try:
            while (data := await _read(context, closing)) is not None:
                await pipeline.take(data)
            await pipeline.finish()
        finally:
            closing.cancel()
            await pipeline.aclose()
        if self._running.draining:
            # Every call that was read has had its status. Those not read yet belong to another replica.
            raise ShuttingDown("the server is shutting down; send the calls that have no status to another replica")


async def _read(context: Context, closing: asyncio.Future[Any]) -> bytes | None:
    """The next message; None when there is no more, or when the server wants to go down."""
    reading = asyncio.ensure_future(context.read())
    try:
        await asyncio.wait({reading, closing}, return_when=asyncio.FIRST_COMPLETED)
        if not reading.done():
            return None
        data = reading.result()
        return None if data is grpc.aio.EOF else data
    finally:
        reading.cancel()


@dataclass(slots=True)
class _Pipeline:
    """The calls of one stream."""

    context: Context
    handles: Mapping[str, Handle]
    window: int = WINDOW
    first: bool = True
    closed: bool = False
    calls: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    #: gRPC takes one message at a time.
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def take(self, data: bytes) -> None:
        """Does what the client wants. Waits while the window is full. Raises InvalidRequest."""
        try:
            request = pb.PipelineRequest.FromString(data)
        except DecodeError:
            _invalid("", "the message is not a trunkline.v1alpha.PipelineRequest: its bytes do not parse")
        action, first, self.first = request.WhichOneof("action"), self.first, False
        if action == "setup":
            if not first:
                _invalid("setup", "only the first message may be a setup")
            if request.setup.HasField("window"):
                self.window = request.setup.window
            if not 1 <= self.window <= WINDOW_MOST:
                _invalid("setup.window", f"{self.window} is not between 1 and {WINDOW_MOST}")
        elif action == "cancel":
            found = self.calls.get(request.cancel.id)
            if found is not None:
                found.cancel()
        elif action == "call":
            await self._begin(request.call)
        else:
            _invalid("action", "set one of setup, call and cancel")

    async def _begin(self, call: pb.PipelineCall) -> None:
        name = call.id
        if not (name.isascii() and name.isprintable() and 1 <= len(name) <= _ID_MOST):
            _invalid("call.id", f"{name[:_ID_MOST]!r} is not 1 to {_ID_MOST} printable ASCII characters")
        if name in self.calls:
            _invalid("call.id", f"a call {name!r} is in flight; give each call an id of its own")
        which = call.WhichOneof("request")
        if which is None:
            _invalid("call", f"the call {name!r} holds no request; set one of {', '.join(_KINDS)}")
        while len(self.calls) >= self.window:
            await asyncio.wait(self.calls.values(), return_when=asyncio.FIRST_COMPLETED)
        data = getattr(call, which).SerializeToString()
        task = asyncio.create_task(self._run(name, _KINDS[which], data))
        self.calls[name] = task
        task.add_done_callback(lambda _: self.calls.pop(name, None))

    async def _run(self, name: str, kind: _Kind, data: bytes) -> None:
        """One call, and its status whichever way it ends."""
        item = _ItemContext(self, name, kind)
        try:
            answer = await self.handles[kind.method](data, item)
            if answer is not None:
                await item.write(answer)
        except grpc.aio.AbortError:
            pass
        except asyncio.CancelledError:
            if self.closed:
                raise
            facts = CallFacts(completion_id="", admitted=False)
            item.end(failure(CallCancelled("cancelled by PipelineCancel"), facts))
        await self.send(pb.PipelineResponse(id=name, status=item.status))

    async def send(self, response: pb.PipelineResponse) -> None:
        data = response.SerializeToString()
        async with self.writing:
            await self.context.write(data)

    async def finish(self) -> None:
        """Returns when all calls have ended."""
        while self.calls:
            await asyncio.wait(self.calls.values())

    async def aclose(self) -> None:
        """Ends the calls of a client that has left."""
        self.closed = True
        tasks = list(self.calls.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _ItemContext:
    """What one call takes for its context: the stream's, but for what it writes and how it ends."""

    def __init__(self, pipeline: _Pipeline, name: str, kind: _Kind) -> None:
        self._pipeline = pipeline
        self._name = name
        self._kind = kind
        self.status = pb.ItemStatus()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pipeline.context, name)

    async def write(self, data: bytes) -> None:
        response = pb.PipelineResponse(id=self._name)
        getattr(response, self._kind.item).MergeFromString(data)
        await self._pipeline.send(response)

    async def abort(self, code: grpc.StatusCode, message: str, trailers: Sequence[tuple[str, str | bytes]]) -> NoReturn:
        fields: dict[str, Any] = dict(trailers)
        self._set(code.value[0], message, fields.get("grpc-status-details-bin", b""))
        if "grpc-retry-pushback-ms" in fields:
            self.status.retry_pushback_ms = int(fields["grpc-retry-pushback-ms"])
        raise grpc.aio.AbortError

    def end(self, ended: Failure) -> None:
        self._set(ended.code.value[0], ended.message, ended.status)

    def _set(self, code: int, message: str, status: bytes) -> None:
        details: Sequence[Packed] = Status.FromString(status).details
        self.status = pb.ItemStatus(code=code, message=message, details=details)


def _invalid(path: str, text: str) -> NoReturn:
    raise InvalidRequest(f"{path}: {text}" if path else text, violations=[Violation(path, text)])
