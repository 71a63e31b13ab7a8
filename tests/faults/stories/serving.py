"""What stories are told with: a server before one provider, calls, and what of a list does not hold."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from tests.faults.seen import Seen
from tests.faults.world import World, fail
from tests.gateway import create, stream
from tests.process import ServerProcess, server_process
from tests.upstream import DONE, Exchange, Script, Upstream, piece, upstream, usage_event

from trunkline.v1.completion_service_pb2_grpc import CompletionServiceStub
from trunkline.v1alpha import trace_pb2, trace_service_pb2
from trunkline.v1alpha.trace_service_pb2_grpc import TraceServiceStub

Trace = trace_pb2.Trace


def provider(url: str, **more: Any) -> dict[str, Any]:
    return {"kind": "vllm", "base_url": f"{url}/v1", "timeouts": {"connect": 2, "first_token": 30, "idle": 30}, **more}


@asynccontextmanager
async def served(
    world: World, script: Script, *, environ: dict[str, str] | None = None, **config: Any
) -> AsyncIterator[tuple[Upstream, ServerProcess, Any]]:
    """A provider `up`, a server before it, and a stub."""
    async with upstream(script) as up:
        settings = {
            "providers": {"fake": {}, "up": provider(up.url)},
            "workers": world.workers,
            "drain": {"grace": 5},
            "state_dir": str(world.folder / "state"),
            **config,
        }
        async with (
            server_process(world.folder, environ=environ, **settings) as server,
            grpc.aio.insecure_channel(await server.address(), [("grpc.use_local_subchannel_pool", 1)]) as channel,
        ):
            yield up, server, CompletionServiceStub(channel)


async def whole(stub: Any, model: str = "up/m", **how: Any) -> Seen:
    """A unary call."""
    seen = Seen()
    try:
        answer = (await stub.CreateCompletion(create(model), **{"timeout": 20, **how})).completion
    except grpc.aio.AioRpcError as error:
        fail(seen, error)
    else:
        seen.ended = time.monotonic()
        seen.complete, seen.code, seen.completion_id = True, "OK", answer.id
        seen.text = answer.choices[0].message.parts[0].text.text
        seen.attempts, seen.output_tokens = answer.attempts, answer.usage.output_tokens
    return seen


def begun(stub: Any, model: str = "up/m", **how: Any) -> Any:
    return stub.StreamCompletion(stream(model), **{"timeout": 60, **how})


def ends(seen: Seen, code: str, reason: str) -> tuple[str, bool, object]:
    """The statement that a call ended so."""
    found = (seen.code, seen.reason)
    return f"{code} {reason}", found == (code, reason), found


def broken(*statements: tuple[str, bool, object]) -> list[str]:
    """What of (statement, does it hold, what was found) does not hold."""
    return [f"{text}; found {found!r}" for text, holds, found in statements if not holds]


def paced(words: int, pause: float) -> Script:
    """A stream that lasts."""

    async def script(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.chunk(piece("", role="assistant"))
        for _ in range(words):
            await exchange.chunk(piece("w"))
            await asyncio.sleep(pause)
        for event in (piece(finish="stop"), usage_event(), DONE):
            await exchange.chunk(event)
        await exchange.end()

    return script


async def records(channel: grpc.aio.Channel, count: int, patience: float = 30.0) -> list[Trace]:
    """Records of calls that have ended, as soon as there are so many, or when they stay fewer."""
    stub: Any = TraceServiceStub(channel)
    found: list[Trace] = []
    until = time.monotonic() + patience
    while time.monotonic() < until:
        found, token = [], ""
        while True:
            page = await stub.ListTraces(trace_service_pb2.ListTracesRequest(page_size=1000, page_token=token))
            found += (trace for trace in page.traces if trace.state == trace_pb2.TRACE_STATE_FINISHED)
            token = page.next_page_token
            if not token:
                break
        if len(found) >= count:
            break
        await asyncio.sleep(0.2)
    return found
