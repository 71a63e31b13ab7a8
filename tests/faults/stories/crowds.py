"""Many calls at once, through a server or through a route."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from tests.faults.providers import ROUTE
from tests.faults.scripts import answers, in_turn, resets, slow, status
from tests.faults.seen import Seen
from tests.faults.stories.serving import begun, broken, paced, provider, served, whole
from tests.faults.table import Story
from tests.faults.world import World, read
from tests.upstream import Exchange, Script, Upstream, says, upstream


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
        ("refused at once", max(one.seconds for one in refused) < 1.0, max(one.seconds for one in refused)),
        ("the provider saw the others only", len(up.exchanges) == 200 - len(refused), len(up.exchanges)),
    )


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
    Story("flapping target", flapping_target),
    Story("outage of one of two targets", outage_of_one_of_two),
)
