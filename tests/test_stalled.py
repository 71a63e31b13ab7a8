"""A caller who does not read: its provider is paused, little is held for it, and it is not waited for without end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from tests.gateway import gateway, stream, until
from tests.http2 import Stalled, stalled
from tests.process import server_process
from tests.test_resume import RESUMABLE
from tests.upstream import Exchange, piece, upstream

from trunkline.v1 import completion_service_pb2 as pb

pytestmark = pytest.mark.alone

STREAM = "/trunkline.v1.CompletionService/StreamCompletion"
KIB = 1024

#: As a caller may ask: by itself, shared with repetitions, resumable.
REQUESTS: dict[str, Callable[[], pb.StreamCompletionRequest]] = {
    "plain": stream,
    "request id": lambda: stream(request_id="one"),
    "resumable": lambda: stream(stream_options=RESUMABLE),
}


class Flood:
    """Says more than anybody reads, as fast as it is read."""

    def __init__(self) -> None:
        self.sent = 0

    async def __call__(self, exchange: Exchange) -> None:
        await exchange.head()
        await exchange.chunk(piece("", role="assistant"))
        words = piece("x" * 1000)
        while True:
            await exchange.chunk(words)
            self.sent += len(words)

    async def paused(self) -> int:
        """Bytes sent when it could send no more."""
        before = -1
        while before != self.sent:
            before = self.sent
            # It is the absence of progress that is looked for.
            await asyncio.sleep(0.2)
        return self.sent


@pytest.mark.parametrize("kind", ["plain", "request id"])
async def test_a_provider_is_paused_and_let_go_when_its_reader_stalls(
    kind: str, measured: Callable[[str, object], None]
) -> None:
    flood = Flood()
    async with (
        upstream(flood) as up,
        gateway(up, stream={"stalled_reader": 1.0}) as gw,
        stalled(gw.address, STREAM, REQUESTS[kind]()) as caller,
    ):
        exchange = await up.next()
        sent = await flood.paused()
        assert exchange.closed_at is None
        stopped = time.monotonic()
        took = await exchange.gone() - stopped
        await until(gw.calls)
        # Once it reads again, it has what was said before, and then the reason.
        caller.read(64 * KIB * KIB)
        await caller.ended()

    measured("MiB sent by the provider", round(sent / KIB / KIB, 2))
    assert took < 1.5
    [line] = gw.calls()
    assert (line["code"], line["reason"]) == ("DEADLINE_EXCEEDED", "READER_STALLED")
    assert caller.trailers["grpc-status"] == str(grpc.StatusCode.DEADLINE_EXCEEDED.value[0])
    assert "stream.stalled_reader" in caller.trailers["grpc-message"]


async def test_a_resumable_stream_goes_on_without_a_reader_who_stalls() -> None:
    words = 200

    async def says(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.chunk(piece("", role="assistant"))
        for _ in range(words):
            await exchange.chunk(piece("x" * 1000))
        await exchange.chunk(piece(finish="stop"))
        await exchange.end()

    async with (
        upstream(says) as up,
        gateway(up, stream={"stalled_reader": 0.5}) as gw,
        stalled(gw.address, STREAM, REQUESTS["resumable"]()) as caller,
    ):
        await until(gw.calls)
        [line] = gw.calls()
        again = gw.completions.StreamCompletion(
            pb.StreamCompletionRequest(resume=pb.ResumePoint(completion_id=line["id"]))
        )
        texts = [event.part_delta.text async for event in again]

    assert "".join(texts) == "x" * 1000 * words
    assert line["code"] == "OK"
    assert caller.received >= 60 * KIB


async def test_one_who_reads_slowly_is_waited_for() -> None:
    async def says(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.chunk(piece("", role="assistant"))
        for _ in range(300):
            await exchange.chunk(piece("x" * 1000))
        await exchange.chunk(piece(finish="stop"))
        await exchange.end()

    async with (
        upstream(says) as up,
        gateway(up, stream={"stalled_reader": 0.6}) as gw,
        stalled(gw.address, STREAM, stream()) as caller,
    ):
        began = time.monotonic()
        while not caller.trailers:
            await asyncio.sleep(0.2)
            caller.read(48 * KIB)
        took = time.monotonic() - began

    assert took > 0.9
    assert caller.trailers["grpc-status"] == "0"
    assert caller.received > 300_000
    assert [line["code"] for line in gw.calls()] == ["OK"]


async def test_it_waits_for_ever_where_it_is_told_to() -> None:
    flood = Flood()
    async with (
        upstream(flood) as up,
        gateway(up, stream={"stalled_reader": 0}) as gw,
        stalled(gw.address, STREAM, stream()) as caller,
    ):
        exchange = await up.next()
        await flood.paused()
        await asyncio.sleep(1.0)
        assert exchange.closed_at is None
        await caller.close()
        await exchange.gone()


@pytest.mark.parametrize("kind", REQUESTS)
async def test_little_is_held_for_callers_who_do_not_read(
    kind: str, tmp_path: Path, measured: Callable[[str, object], None]
) -> None:
    flood, count = Flood(), 60
    async with (
        upstream(flood) as up,
        server_process(
            tmp_path,
            providers={"up": {"kind": "vllm", "base_url": f"{up.url}/v1"}},
            stream={"stalled_reader": "60s"},
            replay={"max_completion_bytes": 256 * KIB},
        ) as server,
        AsyncExitStack() as stack,
    ):
        address, process = await server.address(), psutil.Process(server.pid)

        async def one(number: int) -> Stalled:
            request = REQUESTS[kind]()
            if request.request_id:
                request.request_id = str(number)
            return await stack.enter_async_context(stalled(address, STREAM, request))

        # The first ones fill pools and caches.
        for number in range(10):
            await one(number)
        await flood.paused()
        before = process.memory_info().rss
        for number in range(count):
            await one(10 + number)
        await flood.paused()
        grown = (process.memory_info().rss - before) / count
        open_now = len(up.open)

    measured("KiB a stream", round(grown / KIB))
    assert open_now == 10 + count
    assert grown < 1536 * KIB


async def test_callers_who_stall_leave_nothing_behind(tmp_path: Path, measured: Callable[[str, object], None]) -> None:
    flood = Flood()
    config: dict[str, Any] = {"providers": {}, "stream": {"stalled_reader": "300ms"}}
    async with upstream(flood) as up:
        config["providers"]["up"] = {"kind": "vllm", "base_url": f"{up.url}/v1"}
        async with server_process(tmp_path, **config) as server:
            address, process = await server.address(), psutil.Process(server.pid)

            async def stall(count: int) -> None:
                due = len(up.exchanges) + count
                async with AsyncExitStack() as stack:
                    for _ in range(count):
                        await stack.enter_async_context(stalled(address, STREAM, stream()))
                    await until(lambda: not up.open and len(up.exchanges) == due)

            for _ in range(2):
                await stall(40)
            before = process.memory_info().rss
            for _ in range(3):
                await stall(40)
            grown = process.memory_info().rss - before
            await server.line("call", 200)

    measured("grown KiB", grown // KIB)
    assert {line["reason"] for line in server.lines if line["event"] == "call"} == {"READER_STALLED"}
    assert grown < 8 * KIB * KIB
