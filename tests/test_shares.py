"""What a provider may be asked at once holds for all workers and replicas that share a Redis."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis as Client
from tests.gateway import Gateway, create, failing, gateway, until
from tests.process import connected, server_process
from tests.services import Redis
from tests.test_admission import Slow
from tests.upstream import Exchange, Upstream, chat, upstream

from tests import services
from trunkline_server.admission import SharedGate
from trunkline_server.shares import LEASE, PACE

pytestmark = pytest.mark.alone


class Holding:
    """Answers when it is told, and knows whose calls it has."""

    def __init__(self) -> None:
        self._held: list[tuple[str, asyncio.Event]] = []

    async def __call__(self, exchange: Exchange) -> None:
        held = (exchange.json["messages"][0]["content"], asyncio.Event())
        self._held.append(held)
        ends = [asyncio.ensure_future(held[1].wait()), asyncio.ensure_future(exchange.silence())]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.cancel()
        if held in self._held:
            self._held.remove(held)
        await exchange.answer(chat())

    @property
    def now(self) -> int:
        return len(self._held)

    def of(self, whose: str) -> int:
        return sum(one == whose for one, _ in self._held)

    def answer(self, whose: str, count: int = 1) -> None:
        for held in [one for one in self._held if one[0] == whose][:count]:
            self._held.remove(held)
            held[1].set()


@asynccontextmanager
async def workers(
    up: Upstream, shared: dict[str, object], count: int = 2, *, most: int, **provider: Any
) -> AsyncIterator[list[Gateway]]:
    """Servers that share nothing but a Redis."""
    async with AsyncExitStack() as stack:
        gws = [
            await stack.enter_async_context(gateway(up, {"max_in_flight": most, **provider}, redis=shared))
            for _ in range(count)
        ]
        yield gws


def calls(gw: Gateway, count: int, whose: str = "Hi") -> list[asyncio.Future[Any]]:
    return [asyncio.ensure_future(gw.complete(create("up/up-1", whose))) for _ in range(count)]


async def end(*running: asyncio.Future[Any]) -> None:
    for call in running:
        call.cancel()
    await asyncio.gather(*running, return_exceptions=True)


async def asked_for(up: Upstream, count: int) -> None:
    """Returns when the provider was asked so often."""
    await until(lambda: len(up.exchanges) >= count)


def share(gw: Gateway) -> int:
    """Places that a worker has."""
    gate = gw.app.engine.admission.provider("up")
    assert isinstance(gate, SharedGate)
    return gate.most


# -- never more than there are ----------------------------------------------------------------------------------------


async def test_a_load_on_all_workers_fills_the_whole_and_no_more(redis: Redis) -> None:
    slow = Slow(0.02)
    async with upstream(slow) as up, workers(up, redis.settings(), 3, most=6) as gws:
        assert [next(line for line in gw.lines if line["event"] == "serving")["limits"] for gw in gws] == ["redis"] * 3
        await asyncio.gather(*(call for gw in gws for call in calls(gw, 100)))

    assert slow.most == 6
    assert len(up.exchanges) == 300


@pytest.mark.parametrize("seed", range(3))
async def test_a_load_that_moves_about_has_no_more_at_any_moment(
    redis: Redis, seed: int, measured: Callable[[str, object], None]
) -> None:
    dice, slow = random.Random(seed), Slow(0.0)
    async with upstream(slow) as up, workers(up, redis.settings(), 3, most=8) as gws:

        async def burst() -> None:
            gw = dice.choice(gws)
            for _ in range(dice.randrange(1, 4)):
                slow.seconds = dice.choice((0.0, 0.01, 0.1))
                await asyncio.gather(*calls(gw, dice.randrange(1, 20)))

        for _ in range(10):
            await asyncio.gather(*(burst() for _ in range(dice.randrange(1, 5))))

    measured("at once", f"{slow.most} of 8")
    assert 4 <= slow.most <= 8


async def test_two_processes_of_one_server_ask_no_more_than_one_would(redis: Redis, tmp_path: Path) -> None:
    slow = Slow(0.02)
    async with upstream(slow) as up:
        provider = {"kind": "vllm", "base_url": f"{up.url}/v1", "max_in_flight": 4}
        async with (
            server_process(tmp_path, providers={"up": provider}, redis=redis.settings(), workers=2) as server,
            AsyncExitStack() as stack,
        ):
            await server.line("serving", 2, patience=60)
            address = await server.address()
            # The system spreads connections over the processes.
            stubs = [await stack.enter_async_context(connected(address)) for _ in range(12)]
            await asyncio.gather(*(stub.CreateCompletion(create(), wait_for_ready=True) for stub in stubs * 20))

    assert slow.most == 4
    assert len(up.exchanges) == 240


# -- who has how many -------------------------------------------------------------------------------------------------


async def test_places_go_where_the_calls_are(redis: Redis, measured: Callable[[str, object], None]) -> None:
    held = Holding()
    async with upstream(held) as up, workers(up, redis.settings(), most=10) as (one, other):
        began = time.monotonic()
        first = calls(one, 30, "one")
        # One is kept for the other.
        await until(lambda: held.of("one") == 9)
        measured("ms until a burst has all but one", round((time.monotonic() - began) * 1000))
        second = calls(other, 1, "other")
        await until(lambda: held.of("other") == 1)
        await end(*first)
        began = time.monotonic()
        second += calls(other, 30, "other")
        await until(lambda: held.of("other") == 9)
        measured("ms until they have moved", round((time.monotonic() - began) * 1000))
        await end(*second)


async def test_those_who_wait_have_places_by_their_number(redis: Redis) -> None:
    held = Holding()
    async with upstream(held) as up, workers(up, redis.settings(), most=12) as (one, other):
        running = [*calls(one, 20, "one"), *calls(other, 100, "other")]
        await until(lambda: share(one) in {2, 3})
        held.answer("one", 4)
        await until(lambda: held.of("one") + held.of("other") == 12 and held.of("other") >= 9)
        await end(*running)


async def test_each_worker_has_a_place_at_once_also_where_all_are_taken(redis: Redis) -> None:
    held, shared = Holding(), redis.settings()
    async with upstream(held) as up, workers(up, shared, 1, most=3) as (one,):
        first = calls(one, 10, "one")
        await until(lambda: held.now == 3)
        async with workers(up, shared, 1, most=3) as (other,):
            second = calls(other, 5, "other")
            await until(lambda: held.now == 4)
            # It goes over to the other one with the next call that ends: nobody follows that.
            await until(lambda: share(one) == 2)
            held.answer("one")
            await until(lambda: sum(call.done() for call in first) == 1)
            assert (held.of("one"), held.of("other")) == (2, 1)
            await end(*second)
            await other.idle()
        # Who goes gives back what it had.
        await until(lambda: held.of("one") == 3)
        await end(*first)


async def test_more_workers_than_places_have_one_each(redis: Redis) -> None:
    slow = Slow(0.02)
    async with upstream(slow) as up, workers(up, redis.settings(), 3, most=1) as gws:
        await asyncio.gather(*(call for gw in gws for call in calls(gw, 20)))

    assert slow.most == 3


async def test_a_worker_that_is_killed_leaves_its_places_to_the_others(
    redis: Redis, tmp_path: Path, measured: Callable[[str, object], None]
) -> None:
    held, shared = Holding(), redis.settings()
    async with upstream(held) as up, workers(up, shared, 1, most=6) as (one,):
        provider = {"kind": "vllm", "base_url": f"{up.url}/v1", "max_in_flight": 6}
        async with (
            server_process(tmp_path, providers={"up": provider}, redis=shared) as server,
            connected(await server.address()) as stub,
        ):
            second = [asyncio.ensure_future(stub.CreateCompletion(create("up/up-1", "other"))) for _ in range(10)]
            await until(lambda: held.of("other") == 5)
            first = calls(one, 10, "one")
            await until(lambda: held.of("one") == 1)
            killed = time.monotonic()
            server.signal(signal.SIGKILL)
            await until(lambda: held.of("one") == 6)
            took = time.monotonic() - killed
            await end(*first, *second)

    measured("seconds", round(took, 1))
    assert took < LEASE + 2 * PACE + 1


async def test_a_call_is_told_that_the_places_are_shared(redis: Redis) -> None:
    held = Holding()
    async with upstream(held) as up, workers(up, redis.settings(), 1, most=1, max_waiting=0) as (one,):
        running = calls(one, 1)
        await until(lambda: held.now == 1)
        failed = await failing(one.completions.CreateCompletion(create()))
        await end(*running)

    assert failed.reason == "GATEWAY_OVERLOADED"
    assert "providers.up.max_in_flight, which all workers share" in failed.message


# -- without Redis ----------------------------------------------------------------------------------------------------


async def test_while_redis_is_away_each_worker_has_all_places_and_afterwards_its_share(
    redis: Redis, measured: Callable[[str, object], None]
) -> None:
    del redis  # skips where there is none
    held = Holding()
    with services.redis() as own:
        async with upstream(held) as up, workers(up, own.settings(), most=4) as (one, other):
            running = [*calls(one, 20, "one"), *calls(other, 20, "other")]
            await until(lambda: held.now == 4)
            gone = time.monotonic()
            own.kill()
            await until(lambda: (held.of("one"), held.of("other")) == (4, 4))
            measured("seconds until each has all", round(time.monotonic() - gone, 1))
            own.start()
            await until(lambda: (share(one), share(other)) == (2, 2))
            # What runs runs on; nothing follows it until there is room.
            assert held.now == 8
            held.answer("one", 2)
            held.answer("other", 2)
            await until(lambda: sum(call.done() for call in running) == 4)
            assert (held.of("one"), held.of("other")) == (2, 2)
            held.answer("one")
            held.answer("other")
            await until(lambda: sum(call.done() for call in running) == 6 and held.now == 4)
            await end(*running)


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_redis_that_has_forgotten_everything_makes_it_no_more(
    redis: Redis, restarted: bool, measured: Callable[[str, object], None]
) -> None:
    del redis  # skips where there is none
    slow = Slow(0.02)
    with services.redis() as own:
        async with (
            upstream(slow) as up,
            workers(up, own.settings(), 3, most=9) as gws,
            Client.from_url(own.url) as client,
        ):
            load = [call for gw, count in zip(gws, (500, 200, 100), strict=True) for call in calls(gw, count)]
            await asked_for(up, 100)
            if restarted:
                own.kill()
                own.start()
            else:
                for asked in range(150, 400, 50):
                    await client.flushall()
                    await asked_for(up, asked)
            await asyncio.gather(*load)

    measured("at once", f"{slow.most} of 9")
    assert slow.most == 9


async def test_a_server_that_starts_without_its_redis_has_all_places(redis: Redis) -> None:
    held = Holding()
    nobody = {**redis.settings(), "url": "redis://127.0.0.1:1/0"}
    async with upstream(held) as up, workers(up, nobody, 1, most=4) as (one,):
        running = calls(one, 6)
        await until(lambda: held.now == 4)
        await end(*running)


async def test_without_redis_the_places_are_the_workers_own() -> None:
    async with gateway(providers={"fake": {"max_in_flight": 4}}) as gw:
        assert gw.lines[-1]["limits"] == "local"
