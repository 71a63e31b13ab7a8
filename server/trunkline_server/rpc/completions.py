"""CompletionService: wire in, engine, wire out."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

from trunkline.v1 import completion_service_pb2 as pb
from trunkline_server.call import Call
from trunkline_server.catalog import Catalog
from trunkline_server.engine import Engine
from trunkline_server.errors import ResourceNotFound
from trunkline_server.rpc import validation
from trunkline_server.rpc.boundary import Boundary
from trunkline_server.rpc.events import EventWriter, Line, Sink, Watch
from trunkline_server.rpc.methods import Methods, accept
from trunkline_server.rpc.runs import Runs


class CompletionMethods:
    """Serves trunkline.v1.CompletionService."""

    NAME = "trunkline.v1.CompletionService"

    def __init__(
        self,
        engine: Engine,
        catalog: Catalog,
        runs: Runs,
        *,
        heartbeat: float,
        stalled: float,
        allow_raw: bool,
    ) -> None:
        """`heartbeat`, `stalled`: seconds of StreamSettings."""
        self._engine = engine
        self._gate = engine.admission.server
        self._catalog = catalog
        self._runs = runs
        self._heartbeat = heartbeat
        self._watch = Watch(stalled)
        self._allow_raw = allow_raw

    def methods(self, boundary: Boundary) -> Methods:
        return {
            "CreateCompletion": boundary.unary("CreateCompletion", pb.CreateCompletionRequest, self.create),
            "StreamCompletion": boundary.stream("StreamCompletion", pb.StreamCompletionRequest, self.stream),
            "CountTokens": boundary.unary("CountTokens", pb.CountTokensRequest, self.count),
            "CancelCompletion": boundary.unary(
                "CancelCompletion", pb.CancelCompletionRequest, self.cancel, recorded=False
            ),
        }

    async def create(self, request: pb.CreateCompletionRequest, call: Call) -> pb.CreateCompletionResponse | bytes:
        accept(call, validation.of_create(request, self._allow_raw), request)

        async def complete() -> pb.CreateCompletionResponse:
            async with self._gate.place(call):
                answer = await self._engine.complete(call, request.spec, request.options)
            return pb.CreateCompletionResponse(completion=answer)

        if self._runs.shares(request.request_id):
            return await self._runs.answer(call, request, complete)
        return await complete()

    async def stream(self, request: pb.StreamCompletionRequest, call: Call, context: Any) -> None:
        accept(call, validation.of_stream(request, self._allow_raw), request)
        line = Line(context, call, self._watch)
        if request.HasField("resume"):
            await self._runs.resume(call, request.resume.completion_id, request.resume.after_sequence_number, line)
            return
        options = request.stream_options
        interval = self._heartbeat
        if options.HasField("heartbeat_interval"):
            interval = options.heartbeat_interval.seconds + options.heartbeat_interval.nanos / 1e9
        resumable, shared = options.resumable, self._runs.shares(request.request_id)
        batches = self._engine.stream(call, request.spec, request.options, options)

        async def events(sink: Sink) -> None:
            writer = EventWriter(sink, call, interval, resumable=resumable)
            try:
                async with self._gate.place(call), aclosing(batches):
                    async for batch in batches:
                        for event in batch:
                            await writer.write(event)
            finally:
                await writer.close()

        if not (resumable or shared):
            # As the engine does: nothing of the request is held as long as the stream lasts.
            del request, options
            async with line:
                await events(line.send)
            return
        if resumable:
            # It may outlast its caller, and with it the caller's deadline.
            call.timer, call.deadline = None, None
            if request.options.HasField("timeout"):
                call.limit(request.options.timeout.seconds + request.options.timeout.nanos / 1e9)
        streaming = self._runs.stream(call, request if shared else None, events, line, resumable)
        del request, options
        await streaming

    async def count(self, request: pb.CountTokensRequest, call: Call) -> pb.CountTokensResponse:
        accept(call, validation.of_count(request, self._allow_raw), request)
        return await self._catalog.count(call, request.spec, request.options)

    async def cancel(self, request: pb.CancelCompletionRequest, call: Call) -> pb.CancelCompletionResponse:
        accept(call, validation.of_cancel(request), request)
        name = request.completion_id
        if name == call.id or not await self._runs.cancel(name, call.caller):
            raise ResourceNotFound(
                f"no completion {name!r} of yours runs {self._runs.reach}", resource=("completion", name)
            )
        return pb.CancelCompletionResponse()
