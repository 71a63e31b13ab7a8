"""The promise of resumable streams: whatever connection breaks, and wherever, the text that is read is the one that was
made.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from tests.gateway import Gateway, Reader, gateway
from tests.scale import scaled
from tests.services import Redis
from tests.test_resume import resumable
from tests.test_sharing import pair
from tests.upstream import Exchange, chat_events, upstream

from trunkline.v1.completion_service_pb2_grpc import CompletionServiceStub

STREAMS = scaled(1000, 100)
SIDE_BY_SIDE = 50
#: Events of a stream, and seconds between two.
EVENTS, PAUSE = 30, 0.003
#: A whole answer has about so many bytes on the wire.
BYTES = 1800


async def says_its_number(exchange: Exchange) -> None:
    await exchange.head()
    for event in chat_events(*words(exchange.json["messages"][0]["content"])):
        await asyncio.sleep(PAUSE)
        await exchange.chunk(event)
    await exchange.end()


def words(number: str) -> list[str]:
    return [f"{number}.{n} " for n in range(EVENTS)]


@dataclass
class Wire:
    """Carries connections to a server, and breaks each after so many bytes of what comes back."""

    to: tuple[str, int]
    after: Callable[[], int]
    port: int = 0
    cuts: int = 0
    _carrying: set[asyncio.Task[None]] = field(default_factory=set)

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there = await asyncio.open_connection(*self.to)
        task = asyncio.ensure_future(self._forward(reader, there))
        left = self.after()
        try:
            while left > 0 and not writer.is_closing() and (data := await there_reader.read(min(left, 4096))):
                writer.write(data)
                left -= len(data)
        except ConnectionError:
            pass
        finally:
            self.cuts += left <= 0
            task.cancel()
            # As a crash: nothing that is still on its way arrives.
            writer.transport.abort()
            there.transport.abort()
            await asyncio.wait({task})

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while not writer.is_closing() and (data := await reader.read(4096)):
                writer.write(data)


@asynccontextmanager
async def wire(address: str, after: Callable[[], int]) -> AsyncIterator[Wire]:
    host, _, port = address.rpartition(":")
    made = Wire((host, int(port)), after)
    server = await asyncio.start_server(made.carry, "127.0.0.1", 0, backlog=1024)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()


async def read_through(wires: Sequence[Wire], servers: Sequence[Gateway], number: int, dice: random.Random) -> Reader:
    """Reads one stream to its end over connections that break; the last one does not."""
    cuts = dice.choice([1, 1, 2, 3])
    request: Any = resumable("up/up-1", str(number), request_id=f"stream-{number}")
    reader: Reader | None = None
    for turn in range(cuts + 1):
        address = f"127.0.0.1:{dice.choice(wires).port}" if turn < cuts else dice.choice(servers).address
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        async with grpc.aio.insecure_channel(address, options) as channel:
            stub: Any = CompletionServiceStub(channel)
            # Before its first event a stream has no id: then it is the request id that leads to it.
            begun = reader is not None and reader.events
            call = stub.StreamCompletion(reader.point if reader is not None and begun else request)
            reader = reader.goes_on(call) if reader is not None else Reader(call)
            await reader.rest()
        if reader.failed is None:
            break
        assert reader.failed.code is grpc.StatusCode.UNAVAILABLE
        assert reader.failed.reason == "", reader.failed
    assert reader is not None
    return reader


async def cut_and_resumed(servers: Sequence[Gateway], measured: Callable[[str, object], None]) -> None:
    dice = random.Random(7)
    numbers = iter(range(STREAMS))
    readers: list[Reader] = []

    def after() -> int:
        return dice.randrange(1, BYTES)

    async with (
        asyncio.TaskGroup() as group,
        wire(servers[0].address, after) as one,
        wire(servers[-1].address, after) as other,
    ):

        async def caller() -> None:
            for number in numbers:
                reader = await read_through([one, other], servers, number, dice)
                assert reader.failed is None, reader.failed
                assert reader.text == "".join(words(str(number)))
                readers.append(reader)

        tasks = [group.create_task(caller()) for _ in range(SIDE_BY_SIDE)]
        await asyncio.gather(*tasks)

    measured("streams", len(readers))
    measured("connections cut", one.cuts + other.cuts)
    assert len(readers) == STREAMS
    assert one.cuts + other.cuts > STREAMS / 2
    for reader in readers:
        assert [event.sequence_number for event in reader.events] == list(range(1, len(reader.events) + 1))
        assert reader.kinds[-1] == "finished"


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_every_stream_that_is_cut_is_read_whole(measured: Callable[[str, object], None]) -> None:
    async with upstream(says_its_number) as up, gateway(up) as gw:
        await cut_and_resumed([gw], measured)
        await gw.idle()
        asked = len(up.exchanges)

    assert asked == STREAMS


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_every_stream_that_is_cut_is_read_whole_also_at_another_worker(
    redis: Redis, measured: Callable[[str, object], None]
) -> None:
    async with upstream(says_its_number) as up, pair(up, redis) as (one, other):
        await cut_and_resumed([one, other], measured)
        for gw in (one, other):
            await gw.idle()
        asked = len(up.exchanges)
        elsewhere = sum("completion" in line for gw in (one, other) for line in gw.calls())

    measured("calls that resumed or joined", elsewhere)
    assert asked == STREAMS
