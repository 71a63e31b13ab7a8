"""Many calls at once, through a server or through a route."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import grpc
import psutil
from tests.faults.providers import ROUTE
from tests.faults.scripts import answers, in_turn, resets, slow, status
from tests.faults.seen import Seen
from tests.faults.stories.serving import begun, broken, ends, paced, provider, served, whole
from tests.faults.table import Story
from tests.faults.world import World, read
from tests.gateway import stream
from tests.http2 import Stalled, stalled
from tests.upstream import Exchange, Script, Upstream, piece, says, upstream

STREAM_COMPLETION = "/trunkline.v1.CompletionService/StreamCompletion"
#: Callers who stop reading.
STOPPED = 40


async def a_thousand_streams(world: World) -> Sequence[str]:
    async with served(world, paced(20, 0.25)) as (up, _, stub):
        began = time.monotonic()
        seen = await asyncio.gather(*(read(begun(stub)) for _ in range(1000)))
        took = time.monotonic() - began
    codes = Counter((one.code, one.reason) for one in seen)
    return broken(
        ("1,000 whole answers", all(one.complete and one.text == "w" * 20 for one in seen), codes),
        ("1,000 requests", len(up.exchanges) == 1000, len(up.exchanges)),
        ("side by side", took < 60, took),
    )


async def more_calls_than_the_server_takes(world: World) -> Sequence[str]:
    async with served(world, slow(1.0), limits={"max_calls": 8}, workers=1) as (up, _, stub):
        seen = await asyncio.gather(*(whole(stub) for _ in range(200)))
    refused = [one for one in seen if not one.complete]
    late = sorted(one.seconds for one in refused)[len(refused) * 9 // 10] if refused else 0.0
    return broken(
        ("some are refused, some answered", 0 < len(refused) < 200, len(refused)),
        (
            "UNAVAILABLE GATEWAY_OVERLOADED",
            {(one.code, one.reason) for one in refused} == {("UNAVAILABLE", "GATEWAY_OVERLOADED")},
            Counter((one.code, one.reason) for one in refused),
        ),
        (
            "told when to come back",
            all((one.pushback or 0) >= 100 for one in refused),
            {one.pushback for one in refused},
        ),
        ("nine of ten refused within a second", late < 1.0, late),
        ("the provider saw the others only", len(up.exchanges) == 200 - len(refused), len(up.exchanges)),
    )


async def a_queue_too_long_for_the_deadline(world: World) -> Sequence[str]:
    """Who would not be due in time is told so at once, while there is time to go elsewhere."""
    limits = {"max_in_flight": 2, "max_waiting": 1000}
    async with served(world, slow(0.5), limits=limits, workers=1) as (up, _, stub):
        # How long calls take is learned from those that were.
        learned = await whole(stub)
        patient = [asyncio.ensure_future(whole(stub, timeout=60)) for _ in range(20)]
        while len(up.exchanges) < 3:
            await asyncio.sleep(0.01)
        hasty = await asyncio.gather(
            *(whole(stub, timeout=1.5) for _ in range(10)), *(read(begun(stub, timeout=1.5)) for _ in range(10))
        )
        asked = len(up.exchanges)
        served_all = await asyncio.gather(*patient)
    return broken(
        ("the first is answered", learned.complete, learned.code),
        *(ends(one, "UNAVAILABLE", "GATEWAY_OVERLOADED") for one in hasty),
        ("refused at once", max(one.seconds for one in hasty) < 0.5, max(one.seconds for one in hasty)),
        ("told when to come back", all((one.pushback or 0) >= 100 for one in hasty), {one.pushback for one in hasty}),
        ("no provider saw them", asked <= 5 and len(up.exchanges) == 21, (asked, len(up.exchanges))),
        (
            "those with time are answered",
            all(one.complete for one in served_all),
            Counter(one.code for one in served_all),
        ),
    )


# -- callers who do not read ------------------------------------------------------------------------------------------


class _Flood:
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


async def stopped_readers(world: World) -> Sequence[str]:
    """Little is held for them, their providers are paused, and in the end let go."""
    flood = _Flood()
    async with (
        served(world, flood, stream={"stalled_reader": "3s"}) as (up, server, stub),
        contextlib.AsyncExitStack() as callers,
    ):
        address = await server.address()
        await whole(stub, "fake/echo")
        before = _memory(server.pid)
        stopped: list[Stalled] = [
            await callers.enter_async_context(stalled(address, STREAM_COMPLETION, stream("up/m")))
            for _ in range(STOPPED)
        ]
        while len(up.exchanges) < STOPPED:
            await asyncio.sleep(0.01)
        arrived = time.monotonic()
        await asyncio.sleep(1.5)
        grown, sent, still_open = _memory(server.pid) - before, flood.sent, len(up.open)
        beside = await whole(stub, "fake/echo")
        closed = [await exchange.gone() - arrived for exchange in up.exchanges]
        told: Counter[str] = Counter()
        for caller in stopped:
            # Once they read again, they have what was said before, and then the reason.
            caller.read(64 * 1024 * 1024)
            await caller.ended()
            told[caller.trailers.get("grpc-status", "none")] += 1
        while len(reasons := [line.get("reason") for line in server.lines if line.get("provider") == "up"]) < STOPPED:
            await asyncio.sleep(0.05)
    return broken(
        ("READER_STALLED", set(reasons) == {"READER_STALLED"}, Counter(reasons)),
        ("DEADLINE_EXCEEDED", set(told) == {str(grpc.StatusCode.DEADLINE_EXCEEDED.value[0])}, told),
        ("the provider is paused, not cut", still_open == STOPPED, still_open),
        ("at most 1.5 MiB are held for each", grown <= STOPPED * 1.5 * 2**20, grown / STOPPED / 2**20),
        ("at most 8 MiB are taken for each", sent <= STOPPED * 8 * 2**20, sent / STOPPED / 2**20),
        ("the provider is let go when it is time", max(closed) <= 3 + 2, max(closed)),
        ("others are answered meanwhile", beside.complete and beside.seconds < 1, (beside.code, beside.seconds)),
    )


def _memory(pid: int) -> int:
    """Bytes that only the processes of a server hold."""
    main = psutil.Process(pid)
    return sum(process.memory_full_info().uss for process in (main, *main.children(recursive=True)))


# -- routes under load ------------------------------------------------------------------------------------------------


async def _through_two(
    world: World, first: Script, calls: int, at_a_time: int = 20
) -> tuple[list[Seen], Upstream, Upstream]:
    """Calls by a route whose first target does as it is told, and whose second is well."""
    async with upstream(first) as a, upstream(answers) as b:
        config: dict[str, Any] = {
            "providers": {"a": provider(a.url), "b": provider(b.url)},
            "models": {"both": {"targets": [{"model": "a/m"}, {"model": "b/m", "priority": 1}], **ROUTE}},
        }
        async with served(world, says(), **config) as (_, _server, stub):
            gate = asyncio.Semaphore(at_a_time)

            async def one(number: int) -> Seen:
                async with gate:
                    return await (whole(stub, "both") if number % 2 else read(begun(stub, "both")))

            seen = await asyncio.gather(*(one(number) for number in range(calls)))
        return list(seen), a, b


async def flapping_target(world: World) -> Sequence[str]:
    """Every other request fails."""
    turns = in_turn([status(500), answers] * 1000)

    async def flaps(exchange: Exchange) -> None:
        await next(turns)(exchange)

    seen, a, b = await _through_two(world, flaps, 400)
    asked = len(a.exchanges) + len(b.exchanges)
    return broken(
        ("every call is answered", all(one.complete for one in seen), Counter(one.reason for one in seen)),
        ("requests at most 1.6 times the calls", asked <= 400 * 1.6, asked),
    )


async def outage_of_one_of_two(world: World) -> Sequence[str]:
    """Promised: availability of 99.9 %, and no more than 1.2 times the requests."""
    seen, a, b = await _through_two(world, resets, 1000)
    asked = len(a.exchanges) + len(b.exchanges)
    lost = [one for one in seen if not one.complete]
    return broken(
        ("999 of 1,000 are answered", len(lost) <= 1, Counter(one.reason for one in lost)),
        ("requests at most 1.2 times the calls", asked <= 1200, (len(a.exchanges), len(b.exchanges))),
    )


STORIES: Sequence[Story] = (
    Story("1,000 concurrent streams", a_thousand_streams),
    Story("more calls than the server takes", more_calls_than_the_server_takes),
    Story("queue that cannot make the deadline", a_queue_too_long_for_the_deadline),
    Story("stopped readers", stopped_readers),
    Story("flapping target", flapping_target),
    Story("outage of one of two targets", outage_of_one_of_two),
)
