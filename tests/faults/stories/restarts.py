"""The server, or a part of it, goes down: told to, killed, or replaced."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import grpc
import psutil
from tests.faults.scripts import talks_on
from tests.faults.seen import Seen
from tests.faults.stories.serving import begun, broken, paced, served, whole
from tests.faults.table import Story
from tests.faults.world import World, read
from tests.test_rolling import CALLERS, CONNECTIONS, OPTIONS, calls_on, serving, streams_on

from trunkline.v1.completion_service_pb2_grpc import CompletionServiceStub

#: A worker's death is told to its callers this soon, in seconds.
AT_ONCE = 1.0
#: Processes may take this long to start on a busy machine.
STARTS = 60.0


async def sigterm_within_the_grace(world: World) -> Sequence[str]:
    async with served(world, paced(20, 0.1)) as (_, server, stub):
        call = begun(stub)
        seen = await read(call, until="part_delta")
        server.signal(signal.SIGTERM)
        seen = await read(call, seen)
        code = await server.ended()
    return broken(
        ("the stream finishes", seen.complete and seen.text == "w" * 20, (seen.code, seen.reason, seen.text)),
        ("exit code 0", code == 0, code),
    )


async def sigterm_beyond_the_grace(world: World) -> Sequence[str]:
    async with served(world, talks_on, drain={"grace": 1}) as (up, server, stub):
        call = begun(stub)
        seen = await read(call, until="part_delta")
        server.signal(signal.SIGTERM)
        seen = await read(call, seen)
        gone = await up.exchanges[0].gone()
        await server.ended()
    return broken(
        (
            "UNAVAILABLE SHUTTING_DOWN",
            (seen.code, seen.reason) == ("UNAVAILABLE", "SHUTTING_DOWN"),
            (seen.code, seen.reason),
        ),
        ("told how far it went", seen.last_sequence == seen.events, (seen.last_sequence, seen.events)),
        ("the provider is stopped", gone - seen.ended <= 0.1, gone - seen.ended),
    )


async def kill_of_a_worker(world: World) -> Sequence[str]:
    """Its callers are told at once, the others go on, and it is replaced."""
    async with served(world, paced(60, 0.1), workers=2) as (_, server, _stub):
        address = await server.address()
        await server.line("serving", 2, patience=STARTS)
        async with contextlib.AsyncExitStack() as channels:
            # Connections spread over the workers.
            stubs = [
                CompletionServiceStub(
                    await channels.enter_async_context(
                        grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])
                    )
                )
                for _ in range(16)
            ]
            calls = [begun(stub) for stub in stubs]
            seen = [await read(call, until="part_delta") for call in calls]
            victim = max(
                (process for process in psutil.Process(server.pid).children() if _serves(process, address)),
                key=lambda process: len(process.net_connections()),
            )
            killed = time.monotonic()
            victim.kill()
            after = await asyncio.gather(*(read(call, one) for call, one in zip(calls, seen, strict=True)))
            later = await asyncio.gather(*(_until_ok(stub) for stub in stubs))
        replaced = await server.line("serving", 3, patience=STARTS)
    lost = [one for one in after if not one.complete]
    told = Counter(one.code for one in lost)
    return broken(
        ("some streams were the worker's, not all", 0 < len(lost) < len(after), len(lost)),
        ("UNAVAILABLE", set(told) == {"UNAVAILABLE"}, told),
        ("at once", all(one.ended - killed <= AT_ONCE for one in lost), [one.ended - killed for one in lost]),
        ("new calls go well", all(one.complete for one in later), [one.code for one in later]),
        ("it is replaced", bool(replaced), replaced),
    )


def _serves(process: psutil.Process, address: str) -> bool:
    port = int(address.rpartition(":")[2])
    return any(one.laddr.port == port for one in process.net_connections(kind="tcp"))


async def _until_ok(stub: Any) -> Seen:
    """As a client does whose library repeats UNAVAILABLE."""
    seen = await whole(stub, "fake/echo")
    for _ in range(20):
        if seen.code != "UNAVAILABLE":
            break
        await asyncio.sleep(0.1)
        seen = await whole(stub, "fake/echo")
    return seen


async def kill_of_the_server(world: World) -> Sequence[str]:
    async with served(world, talks_on) as (up, server, stub):
        call = begun(stub)
        seen = await read(call, until="part_delta")
        killed = time.monotonic()
        os.killpg(server.pid, signal.SIGKILL)
        seen = await read(call, seen)
        gone = await up.exchanges[0].gone()
        await server.ended()
    return broken(
        ("UNAVAILABLE, never OK", (seen.code, seen.complete) == ("UNAVAILABLE", False), seen.code),
        ("at once", seen.ended - killed <= AT_ONCE, seen.ended - killed),
        ("the provider is stopped", gone - killed <= AT_ONCE, gone - killed),
    )


async def rolling_restart_under_load(world: World) -> Sequence[str]:
    """Promised: no failed call for a client that repeats UNAVAILABLE, no stream cut that is shorter than the grace."""
    told: Counter[str] = Counter()
    ended = asyncio.Event()
    workers = max(2, world.workers)
    async with (
        served(world, talks_on, workers=workers, drain={"grace": 15, "max_connection_age": 2}) as (_, server, _stub),
        contextlib.AsyncExitStack() as channels,
    ):
        address = await server.address()
        await server.line("serving", workers, patience=STARTS)
        before = serving(server)
        stubs = [
            CompletionServiceStub(await channels.enter_async_context(grpc.aio.insecure_channel(address, OPTIONS)))
            for _ in range(CONNECTIONS)
        ]
        load = [asyncio.create_task(calls_on(stub, ended, told)) for stub in stubs for _ in range(CALLERS)]
        load += [asyncio.create_task(streams_on(stub, ended, told)) for stub in stubs]
        server.signal(signal.SIGUSR2)
        await server.line("workers replaced", patience=STARTS)
        await server.line("stopped", workers, patience=STARTS)
        after = serving(server)
        counted, until = told["OK"], time.monotonic() + 20
        while told["OK"] < counted + 50 and time.monotonic() < until:
            await asyncio.sleep(0.05)
        ended.set()
        await asyncio.gather(*load)
    return broken(
        ("every worker is another one", len(after) == workers and not before & after, (before, after)),
        ("no call fails, no stream is cut", set(told) == {"OK", "whole stream"}, told),
        ("the new ones are used", told["OK"] >= counted + 50, (counted, told["OK"])),
    )


STORIES: Sequence[Story] = (
    Story("SIGTERM mid-stream, within the grace", sigterm_within_the_grace),
    Story("SIGTERM mid-stream, beyond the grace", sigterm_beyond_the_grace),
    Story("rolling restart under load", rolling_restart_under_load),
    Story("kill -9 of a worker", kill_of_a_worker),
    Story("kill -9 of the server", kill_of_the_server),
)
