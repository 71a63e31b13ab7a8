"""What a provider charges is what the records of calls say was used."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import grpc
from tests.faults.providers import ROUTE
from tests.faults.scripts import resets, status, talks_on
from tests.faults.seen import Seen
from tests.faults.stories.serving import begun, broken, records, served, whole
from tests.faults.table import Story
from tests.faults.world import World, leaves, read
from tests.gateway import stream
from tests.upstream import DONE, Exchange, chat, piece, usage_event

from trunkline.v1 import completion_pb2

SEED = 20_26
CALLS = 300
#: Prompt of a caller who leaves after the first words.
LEAVES = "I shall leave"


class _Ledger:
    """A provider that charges for every answer that it ends, and fails, or is cut off, now and then."""

    def __init__(self) -> None:
        self._chance = random.Random(SEED)
        self._numbers = itertools.count(1)
        #: Tokens of the answers that were given in full.
        self.input = self.output = 0
        #: Answers in full, and those that broke off in the middle.
        self.whole = self.broken = 0

    async def __call__(self, exchange: Exchange) -> None:
        number = next(self._numbers)
        if self._chance.random() < 0.2:
            await self._chance.choice((status(500), status(503), resets))(exchange)
            return
        cut = self._chance.random() < 0.1
        if exchange.json["messages"][-1]["content"] == LEAVES:
            # It says more than anybody waits for, so that it is always left in the middle.
            await talks_on(exchange)
        usage = {"prompt_tokens": 10 + number, "completion_tokens": number, "total_tokens": 10 + 2 * number}
        if exchange.json.get("stream"):
            await exchange.head()
            await exchange.chunk(piece("", role="assistant"))
            for _ in range(10):
                await exchange.chunk(piece("some words "))
                await asyncio.sleep(0.02)
            if cut:
                self.broken += 1
                exchange.cut()
                return
            for event in (piece(finish="stop"), usage_event(usage), DONE):
                await exchange.chunk(event)
            await exchange.end()
        else:
            await exchange.answer(chat("some words " * 10, usage=usage))
        self.whole += 1
        self.input += usage["prompt_tokens"]
        self.output += usage["completion_tokens"]


async def billing(world: World) -> Sequence[str]:
    """Reported usage of all records is the provider's own ledger. Of answers that broke off, and of those that a caller
    left, nobody told the tokens: they are estimated, and marked so.
    """
    ledger = _Ledger()
    models: dict[str, Any] = {"one": {"targets": [{"model": "up/m"}], **ROUTE}}
    async with served(world, ledger, models=models, traces="sqlite:") as (_, server, stub):
        gate = asyncio.Semaphore(16)

        async def one(number: int) -> Seen:
            async with gate:
                if number % 2:
                    return await whole(stub, "one")
                if number % 10:
                    return await read(begun(stub, "one"))
                call = stub.StreamCompletion(stream("one", LEAVES), timeout=60)
                seen = await read(call, until="part_delta")
                return seen if seen.code else await leaves(call, seen)

        seen = await asyncio.gather(*(one(number) for number in range(CALLS)))
        async with grpc.aio.insecure_channel(await server.address()) as channel:
            kept = await records(channel, CALLS)
    told: Counter[str] = Counter()
    for trace in kept:
        source = completion_pb2.UsageSource.Name(trace.usage.source).removeprefix("USAGE_SOURCE_")
        told[f"{source} calls"] += 1
        told[f"{source} input"] += trace.usage.input_tokens
        told[f"{source} output"] += trace.usage.output_tokens
    ended = Counter(one.code for one in seen)
    left_or_broken = [one for one in seen if one.text and not one.complete]
    return broken(
        ("a record for each call", len(kept) == CALLS, len(kept)),
        ("reported: every whole answer", told["REPORTED calls"] == ledger.whole, (dict(told), ledger.whole)),
        ("reported input is the ledger's", told["REPORTED input"] == ledger.input, (dict(told), ledger.input)),
        ("reported output is the ledger's", told["REPORTED output"] == ledger.output, (dict(told), ledger.output)),
        (
            "estimated: what broke off or was left",
            told["ESTIMATED calls"] + told["PARTIAL calls"] == len(left_or_broken),
            (dict(told), len(left_or_broken)),
        ),
        ("of those, output as well", told["ESTIMATED output"] >= len(left_or_broken), dict(told)),
        ("some of each kind", ledger.broken > 0 and ended["CANCELLED"] > 0, (ledger.broken, ended)),
    )


STORIES: Sequence[Story] = (Story("billing accounting", billing),)
