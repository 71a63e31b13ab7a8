"""A backend in memory, which can be told to fail, and a server that reads from such backends alone."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from tests.gateway import until

from trunkline.v1 import message_pb2
from trunkline.v1.completion_pb2 import USAGE_SOURCE_ESTIMATED
from trunkline.v1alpha import trace_pb2
from trunkline.v1alpha import trace_service_pb2 as pb
from trunkline.v1alpha.trace_service_pb2_grpc import TraceServiceStub
from trunkline_server.access import Callers
from trunkline_server.rpc.boundary import Boundary, Limits, Running
from trunkline_server.rpc.server import Server
from trunkline_server.rpc.traces import TraceMethods
from trunkline_server.telemetry import Metrics, Telemetry, make_log
from trunkline_server.traces.base import BackendUnavailable, Page, Position, Total
from trunkline_server.traces.following import Feed
from trunkline_server.traces.matching import matches, without_content
from trunkline_server.traces.readers import Readers, position, trace_id_of

START = 1_700_000_000


def trace(number: int, *, said: str = "Hi", **more: Any) -> trace_pb2.Trace:
    """The record of call `number`, begun so many seconds after START."""
    made = trace_pb2.Trace(
        name=f"traces/cmpl_{number:032x}",
        state=trace_pb2.TRACE_STATE_FINISHED,
        method="CreateCompletion",
        caller=more.pop("caller", "team-a"),
        provider="openai",
        model="gpt-5.2",
        asked_model="fast",
        status=trace_pb2.CallStatus(code=0),
        attempts=[trace_pb2.Attempt(number=1, provider="openai", model="gpt-5.2")],
    )
    made.start_time.seconds = START + number
    made.timing.total.nanos = 250_000_000
    text = message_pb2.ContentPart(text=message_pb2.Text(text=said))
    made.completion_spec.model = "fast"
    made.completion_spec.messages.add(role=message_pb2.ROLE_USER, parts=[text])
    made.attempts[0].request.body = f'{{"messages": "{said}"}}'.encode()
    made.MergeFrom(trace_pb2.Trace(**more))
    return made


@dataclass
class Memory:
    """A reader of records in memory."""

    records: dict[str, trace_pb2.Trace] = field(default_factory=dict)
    #: Raised, or waited for, by every method.
    down: Exception | None = None
    hangs: bool = False
    asked: int = 0

    def add(self, *traces: trace_pb2.Trace) -> None:
        self.records.update({trace_id_of(trace): trace for trace in traces})

    async def get(self, trace_id: str, *, full: bool) -> trace_pb2.Trace | None:
        await self._ask()
        found = self.records.get(trace_id)
        return found if found is None or full else without_content(found)

    async def list(
        self,
        which: pb.TraceFilter,
        *,
        after: Position | None,
        size: int,
        oldest_first: bool,
        full: bool,
    ) -> Page:
        await self._ask()

        def key(place: Position) -> tuple[int, str]:
            return place.start_us, place.id

        found = [trace for trace in self.records.values() if matches(which, trace)]
        found.sort(key=lambda trace: key(position(trace)), reverse=not oldest_first)
        if after is not None:
            end = key(after)
            found = [t for t in found if (key(position(t)) > end if oldest_first else key(position(t)) < end)]
        return Page([trace if full else without_content(trace) for trace in found[:size]], len(found) > size)

    async def totals(self, which: pb.TraceFilter, *, span_us: int) -> Sequence[Total]:
        await self._ask()
        sums: dict[tuple[int, str, str], list[int]] = {}
        for one in self.records.values():
            if matches(which, one):
                start = position(one).start_us // span_us * span_us
                values = sums.setdefault((start, one.provider, one.model), [0] * 8)
                usage = one.usage
                spent = (usage.input_tokens, usage.output_tokens, usage.cost_nano_usd)
                nothing = (0, 0, 0)
                parts = (nothing, spent) if usage.source == USAGE_SOURCE_ESTIMATED else (spent, nothing)
                more = (1, one.status.code != 0, *parts[0], *parts[1])
                values[:] = [a + b for a, b in zip(values, more, strict=True)]
        return [Total(*place, *values) for place, values in sorted(sums.items())]

    async def delete(self, trace_id: str) -> bool:
        await self._ask()
        return self.records.pop(trace_id, None) is not None

    async def aclose(self) -> None: ...

    async def _ask(self) -> None:
        self.asked += 1
        if self.hangs:
            await asyncio.Event().wait()
        if self.down is not None:
            raise self.down

    def fail(self) -> None:
        self.down = BackendUnavailable("it is gone")


class Flow:
    """What one reader of a feed gets."""

    def __init__(self) -> None:
        self.dropped = 0
        self.queue: asyncio.Queue[trace_pb2.Trace | None] = asyncio.Queue()

    async def __aiter__(self) -> AsyncIterator[trace_pb2.Trace]:
        while (got := await self.queue.get()) is not None:
            yield got


class Ended:
    """A feed: what it is told of, its readers get."""

    def __init__(self) -> None:
        self.down = False
        self.opened = 0
        self._flows: set[Flow] = set()

    @asynccontextmanager
    async def source(self) -> AsyncIterator[Flow]:
        if self.down:
            raise BackendUnavailable("nobody listens")
        self.opened += 1
        flow = Flow()
        self._flows.add(flow)
        try:
            yield flow
        finally:
            self._flows.discard(flow)

    @property
    def followed(self) -> int:
        return len(self._flows)

    def tell(self, *traces: trace_pb2.Trace) -> None:
        for flow in self._flows:
            for one in traces:
                flow.queue.put_nowait(one)

    def cut(self) -> None:
        for flow in self._flows:
            flow.queue.put_nowait(None)

    def lose(self, count: int) -> None:
        """As if so many had come too fast."""
        for flow in self._flows:
            flow.dropped += count


@dataclass
class Reading:
    """A server that serves nothing but records."""

    address: str
    channel: grpc.aio.Channel
    traces: Any
    log: io.StringIO
    metrics: Metrics
    server: Server


@asynccontextmanager
async def reading(
    backends: Mapping[str, Memory],
    ended: Ended | None = None,
    *,
    callers: Callers | None = None,
    keep_alive: float = 15.0,
    told: Callable[[str, str], None] = lambda name, why: None,
) -> AsyncIterator[Reading]:
    log, metrics, running = io.StringIO(), Metrics(), Running()
    known = callers or Callers({})
    boundary = Boundary(known, Limits(), Telemetry(metrics, make_log(stream=log)), running)
    readers = Readers(list(backends.items()), told=told)
    methods = TraceMethods(readers, Feed((ended or Ended()).source), known, keep_alive=keep_alive)
    server = Server([methods], boundary, max_request_bytes=2**20, max_connection_age=300)
    address = f"127.0.0.1:{server.listen('127.0.0.1:0')}"
    await server.start()
    options = [("grpc.use_local_subchannel_pool", 1)]
    try:
        async with grpc.aio.insecure_channel(address, options) as channel:
            yield Reading(address, channel, TraceServiceStub(channel), log, metrics, server)
    finally:
        await server.drain(0, 0)
    in_flight = metrics.in_flight
    await until(lambda: all(s.value == 0 for f in in_flight.collect() for s in f.samples if s.name.endswith("flight")))
    assert '"bug"' not in log.getvalue()


def names(traces: Iterable[trace_pb2.Trace]) -> list[int]:
    """The numbers of the calls."""
    return [int(one.name.removeprefix("traces/cmpl_"), 16) for one in traces]


async def exported(traces: Any, **asked: Any) -> tuple[bytes, int, list[int]]:
    """Everything, how many records were counted, and the sizes of the pieces."""
    pieces = [piece async for piece in traces.ExportTraces(pb.ExportTracesRequest(**asked))]
    return b"".join(p.ndjson for p in pieces), sum(p.count for p in pieces), [len(p.ndjson) for p in pieces]


async def next_trace(tail: Any) -> pb.TailTracesResponse:
    """The next message with a record."""
    while True:
        message = await tail.read()
        assert message is not grpc.aio.EOF
        if message.HasField("trace"):
            return message  # type: ignore[no-any-return]  # a stub's
