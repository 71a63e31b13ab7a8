"""Each call leaves one trace, on every path: through a real server, and read by its own service."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from tests.gateway import Gateway, create, gateway

from trunkline.v1alpha import trace_pb2
from trunkline.v1alpha import trace_service_pb2 as pb

Trace = trace_pb2.Trace


def recorded(folder: Path, *backends: str, **more: Any) -> Any:
    """A gateway that records below a folder."""
    traces = {"backends": backends or ("sqlite:",), **more.pop("traces", {})}
    return gateway(state_dir=folder, traces=traces, **more)


async def found(server: Gateway, count: int) -> list[Trace]:
    """All traces, oldest first, when there are so many."""
    async with asyncio.timeout(20):
        while True:
            answer = await server.traces.ListTraces(
                pb.ListTracesRequest(order=pb.TRACE_ORDER_OLDEST_FIRST, view=pb.TRACE_VIEW_FULL, page_size=1000)
            )
            if len(answer.traces) >= count:
                assert len(answer.traces) == count, [trace.name for trace in answer.traces]
                return list(answer.traces)
            await asyncio.sleep(0.02)


async def test_a_completion_leaves_all_that_is_known_of_it(tmp_path: Path):
    async with recorded(tmp_path) as server:
        answer = await server.complete(create("fake/echo", "Hello there.", labels={"team": "search"}))
        [trace] = await found(server, 1)
    assert trace.name == f"traces/{answer.id}"
    assert trace.completion == answer
