"""A gateway that records below a folder, and what it recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from tests.gateway import Gateway, gateway
from tests.upstream import PATIENCE, Upstream

from trunkline.v1alpha import trace_pb2
from trunkline.v1alpha import trace_service_pb2 as pb
from trunkline_server.traces import open_backend
from trunkline_server.traces.base import Position
from trunkline_server.traces.columns import unix_us

Trace = trace_pb2.Trace


def recorded(
    folder: Path, upstream: Upstream | None = None, backends: Sequence[object] = ("sqlite:",), **more: Any
) -> AbstractAsyncContextManager[Gateway]:
    traces = {"backends": backends, **more.pop("traces", {})}
    return gateway(upstream, state_dir=folder, traces=traces, **more)


async def found(server: Gateway, count: int, *, full: bool = True, **metadata: Any) -> list[Trace]:
    """All traces, oldest first, as soon as there are so many; more fail."""
    request = pb.ListTracesRequest(
        order=pb.TRACE_ORDER_OLDEST_FIRST,
        view=pb.TRACE_VIEW_FULL if full else pb.TRACE_VIEW_BASIC,
        page_size=1000,
    )
    async with asyncio.timeout(PATIENCE):
        while len((await server.traces.ListTraces(request, **metadata)).traces) < count:
            await asyncio.sleep(0.02)
    # A second one for a call would come at once with the first.
    await asyncio.sleep(0.3)
    answer: pb.ListTracesResponse = await server.traces.ListTraces(request, **metadata)
    assert len(answer.traces) == count, [(trace.name, trace.method) for trace in answer.traces]
    return list(answer.traces)


async def stored(url: str, folder: Path, *, full: bool) -> list[Trace]:
    """All traces that a backend has, oldest first, whatever runs."""
    reader = open_backend(url, folder).reader()
    assert reader is not None
    traces: list[Trace] = []
    after: Position | None = None
    every = pb.TraceFilter()
    try:
        while True:
            page = await reader.list(every, after=after, size=1000, oldest_first=True, full=full)
            traces += page.traces
            if not page.more:
                break
            after = Position(unix_us(traces[-1].start_time), traces[-1].name.removeprefix("traces/"))
        # A second row for a call would be left out of pages, and counted here.
        assert sum(total.calls for total in await reader.totals(every, span_us=10**12)) == len(traces)
    finally:
        await reader.aclose()
    return traces


def everything(folder: Path) -> bytes:
    """All bytes of all files below a folder."""
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())
