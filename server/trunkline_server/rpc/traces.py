"""TraceService: wire in, readers, wire out. Its calls leave no records of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

from google.protobuf import json_format

from trunkline.v1alpha import trace_pb2
from trunkline.v1alpha import trace_service_pb2 as pb
from trunkline_server.access import Callers
from trunkline_server.call import Call
from trunkline_server.errors import CallerPermissionDenied, CallerUnauthenticated, InvalidRequest, Violation
from trunkline_server.rpc import trace_validation
from trunkline_server.rpc.boundary import Boundary
from trunkline_server.rpc.methods import Methods, accept, send
from trunkline_server.traces import tokens
from trunkline_server.traces.following import Feed
from trunkline_server.traces.matching import matches
from trunkline_server.traces.readers import Readers, position, scoped

DEFAULT_PAGE = 50

#: Seconds of silence after which a follower is told that the stream is alive.
KEEP_ALIVE = 15.0

#: Most bytes of lines in one message of an export.
PIECE = 1024 * 1024


class TraceMethods:
    """Serves trunkline.v1alpha.TraceService."""

    NAME = "trunkline.v1alpha.TraceService"

    def __init__(self, readers: Readers, feed: Feed, callers: Callers, *, keep_alive: float = KEEP_ALIVE) -> None:
        self._readers = readers
        self._feed = feed
        self._callers = callers
        self._keep_alive = keep_alive

    def methods(self, boundary: Boundary) -> Methods:
        return {
            "GetTrace": boundary.unary("GetTrace", pb.GetTraceRequest, self.get, recorded=False),
            "ListTraces": boundary.unary("ListTraces", pb.ListTracesRequest, self.list, recorded=False),
            "TailTraces": boundary.stream("TailTraces", pb.TailTracesRequest, self.tail, recorded=False),
            "DeleteTrace": boundary.unary("DeleteTrace", pb.DeleteTraceRequest, self.delete, recorded=False),
            "ExportTraces": boundary.stream("ExportTraces", pb.ExportTracesRequest, self.export, recorded=False),
        }

    async def get(self, request: pb.GetTraceRequest, call: Call) -> pb.GetTraceResponse:
        accept(call, trace_validation.of_named(request), request)
        found, backend = await self._readers.get(
            _id(request.name), only=self._only(call), full=request.view != pb.TRACE_VIEW_BASIC
        )
        return pb.GetTraceResponse(trace=found, backend=backend)

    async def list(self, request: pb.ListTracesRequest, call: Call) -> pb.ListTracesResponse:
        accept(call, trace_validation.of(request), request)
        only, oldest_first = self._only(call), request.order == pb.TRACE_ORDER_OLDEST_FIRST
        page, backend = await self._readers.page(
            request.filter,
            only=only,
            after=_after(request, only, oldest_first=oldest_first),
            size=request.page_size or DEFAULT_PAGE,
            oldest_first=oldest_first,
            full=request.view == pb.TRACE_VIEW_FULL,
        )
        token = ""
        if page.more:
            token = tokens.encode(position(page.traces[-1]), request.filter, only, oldest_first=oldest_first)
        return pb.ListTracesResponse(traces=page.traces, next_page_token=token, backend=backend)

    async def tail(self, request: pb.TailTracesRequest, call: Call, context: Any) -> None:
        accept(call, trace_validation.of(request), request)
        # Nothing but its caller's leaving ends it: a drain does not wait for that.
        call.endless = True
        request.filter.ClearField("start_time")
        request.filter.ClearField("end_time")
        standing = self._callers.standing(call.caller)
        which = scoped(request.filter, self._only(call))
        async with self._feed.follow(
            lambda trace: which is not None and matches(which, trace), full=request.view == pb.TRACE_VIEW_FULL
        ) as follower:
            await send(pb.TailTracesResponse(), call, context)
            while True:
                trace = await follower.next(self._keep_alive)
                if self._callers.standing(call.caller) != standing:
                    raise CallerUnauthenticated(
                        "the key of this call is no longer what it was when it began: call again"
                    )
                await send(pb.TailTracesResponse(trace=trace, dropped=follower.dropped), call, context)

    async def delete(self, request: pb.DeleteTraceRequest, call: Call) -> pb.DeleteTraceResponse:
        accept(call, trace_validation.of_named(request), request)
        if not self._callers.is_operator(call.caller):
            raise CallerPermissionDenied("only operators delete records: ask one who has `operator: true`")
        return pb.DeleteTraceResponse(backends=await self._readers.delete(_id(request.name)))

    async def export(self, request: pb.ExportTracesRequest, call: Call, context: Any) -> None:
        accept(call, trace_validation.of(request), request)
        if not request.filter.HasField("end_time"):
            # Calls go on, and the export ends.
            request.filter.end_time.FromDatetime(datetime.now(UTC))
        batches = self._readers.export(request.filter, only=self._only(call), full=request.view != pb.TRACE_VIEW_BASIC)
        async with aclosing(batches):
            async for piece in _pieces(batches):
                await send(piece, call, context)

    def _only(self, call: Call) -> str | None:
        """Whose records the caller may see; None: everybody's."""
        return None if self._callers.is_operator(call.caller) else call.caller


def _id(name: str) -> str:
    return name.removeprefix("traces/")


def _after(request: pb.ListTracesRequest, only: str | None, *, oldest_first: bool) -> Any:
    try:
        return tokens.decode(request.page_token, request.filter, only, oldest_first=oldest_first)
    except tokens.WrongToken:
        text = "it does not belong to this list: send the next_page_token of an answer with the same filter and order"
        raise InvalidRequest(f"page_token: {text}", violations=[Violation("page_token", text)]) from None


async def _pieces(batches: AsyncIterator[Sequence[trace_pb2.Trace]]) -> AsyncIterator[pb.ExportTracesResponse]:
    """Lines, as many as fit into a piece; a longer one goes over several."""
    lines: list[bytes] = []
    size = 0
    async for batch in batches:
        for trace in batch:
            line = json_format.MessageToJson(trace, indent=None).encode() + b"\n"
            if lines and size + len(line) > PIECE:
                yield pb.ExportTracesResponse(ndjson=b"".join(lines), count=len(lines))
                lines, size = [], 0
            if len(line) > PIECE:
                for piece in _cut(line):
                    yield piece
                continue
            lines.append(line)
            size += len(line)
        if lines:
            # What was read leaves before more is read.
            yield pb.ExportTracesResponse(ndjson=b"".join(lines), count=len(lines))
            lines, size = [], 0


def _cut(line: bytes) -> Iterator[pb.ExportTracesResponse]:
    for begin in range(0, len(line), PIECE):
        piece = line[begin : begin + PIECE]
        yield pb.ExportTracesResponse(ndjson=piece, count=int(begin + len(piece) == len(line)))
