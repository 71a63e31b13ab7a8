"""Workers are replaced one by one under load: no call fails, no stream is cut."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from tests.gateway import create, script, stream
from tests.process import ServerProcess, server_process
from tests.scale import scaled

from trunkline.collect import Collector
from trunkline.v1.completion_service_pb2_grpc import CompletionServiceStub

pytestmark = [pytest.mark.alone, pytest.mark.slow]

#: How often all workers are replaced.
TURNS = scaled(2, 1)

#: What a client has that repeats UNAVAILABLE before the first byte, as gRPC's own libraries do it.
RETRIES = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 5,
                    "initialBackoff": "0.05s",
                    "maxBackoff": "1s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ]
    }
)
OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.service_config", RETRIES)]
CONNECTIONS, CALLERS = 8, 3
#: Processes may take this long to start, and to end, on a busy machine.
STARTS = 60.0


async def calls_on(stub: Any, ended: asyncio.Event, told: Counter[str]) -> None:
    """Short calls, one after another."""
    while not ended.is_set():
        try:
            await stub.CreateCompletion(create("fake/echo"), timeout=10)
            told["OK"] += 1
        except grpc.aio.AioRpcError as error:
            told[f"{error.code().name}: {error.details()}"] += 1


async def streams_on(stub: Any, ended: asyncio.Event, told: Counter[str]) -> None:
    """Streams of a second, one after another, each whole or counted as cut."""
    request = stream("fake/script", provider_options_json=script(text="a b c d e f g h i j", word_delay=0.1))
    while not ended.is_set():
        collector = Collector()
        try:
            async for event in stub.StreamCompletion(request, timeout=20):
                collector.add(event)
            collector.end()
            told["whole stream"] += 1
        except grpc.aio.AioRpcError as error:
            told[f"cut stream, {error.code().name}: {error.details()}"] += 1


def serving(server: ServerProcess) -> set[int]:
    """Processes that listen on the port."""
    port = int(server.lines[0]["listen"].rpartition(":")[2])
    return {
        child.pid
        for child in psutil.Process(server.pid).children()
        if any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in child.net_connections(kind="tcp"))
    }


async def test_a_rolling_restart_under_load_fails_no_call_and_cuts_no_stream(tmp_path: Path) -> None:
    told: Counter[str] = Counter()
    ended = asyncio.Event()
    drain = {"grace": 15, "max_connection_age": 2}
    async with server_process(tmp_path, workers=2, drain=drain) as server, AsyncExitStack() as channels:
        address = await server.address()
        await server.line("serving", 2)
        before = serving(server)
        stubs = [
            CompletionServiceStub(await channels.enter_async_context(grpc.aio.insecure_channel(address, OPTIONS)))
            for _ in range(CONNECTIONS)
        ]
        load = [asyncio.create_task(calls_on(stub, ended, told)) for stub in stubs for _ in range(CALLERS)]
        load += [asyncio.create_task(streams_on(stub, ended, told)) for stub in stubs]
        for turn in range(1, TURNS + 1):
            server.signal(signal.SIGUSR2)
            await server.line("workers replaced", turn, patience=STARTS)
        await server.line("stopped", 2 * TURNS, patience=STARTS)
        after = serving(server)
        # The new ones are used, too.
        counted, until = told["OK"], time.monotonic() + 20
        while told["OK"] < counted + 50 and time.monotonic() < until:
            await asyncio.sleep(0.05)
        ended.set()
        await asyncio.gather(*load)

    assert len(before) == len(after) == 2
    assert not before & after
    assert set(told) == {"OK", "whole stream"}, told
    assert told["OK"] > counted


async def test_one_worker_alone_is_not_replaced_and_says_so(tmp_path: Path) -> None:
    async with server_process(tmp_path) as server:
        address = await server.address()
        server.signal(signal.SIGUSR2)
        await server.line("this server has one worker (workers: 1), which nobody replaces: start it again")

        async with grpc.aio.insecure_channel(address, OPTIONS) as channel:
            answer = await CompletionServiceStub(channel).CreateCompletion(create("fake/echo"), timeout=10)

    assert answer.completion.choices


async def test_a_worker_that_leaves_ends_at_once_when_the_server_is_stopped(tmp_path: Path) -> None:
    drain = {"grace": 5, "max_connection_age": 3600}
    async with server_process(tmp_path, workers=2, drain=drain) as server, AsyncExitStack() as channels:
        address = await server.address()
        await server.line("serving", 2)
        stubs = [
            CompletionServiceStub(await channels.enter_async_context(grpc.aio.insecure_channel(address, OPTIONS)))
            for _ in range(CONNECTIONS)
        ]
        await asyncio.gather(*(stub.CreateCompletion(create("fake/echo"), timeout=10) for stub in stubs))
        server.signal(signal.SIGUSR2)
        await server.line("workers replaced", patience=STARTS)
        await server.line("leaving", 2)

        server.signal(signal.SIGTERM)
        code = await server.ended()

    assert code == 0
    assert len([line for line in server.lines if line["event"] == "stopped"]) == 4
