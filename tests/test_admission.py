"""So many at once and no more: calls wait their turn, or are refused while there is time to go elsewhere."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import grpc
import pytest
from tests.gateway import Failed, Gateway, create, failing, gateway, script, stream, until
from tests.upstream import Exchange, Upstream, chat, chat_events, says, silent_midway, upstream

from trunkline.v1 import embedding_service_pb2, model_service_pb2
from trunkline_server.admission import Gate
from trunkline_server.call import Call

pytestmark = pytest.mark.alone


class Slow:
    """Answers after a while, and knows how many it had at once."""

    def __init__(self, seconds: float = 0.1) -> None:
        self.seconds = seconds
        self.now = self.most = 0
        self.order: list[str] = []
        #: Nobody is answered before.
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(self, exchange: Exchange) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        if "messages" in exchange.json:
            self.order.append(exchange.json["messages"][0]["content"])
        await self.go.wait()
        await asyncio.sleep(self.seconds)
        self.now -= 1
        if "input" in exchange.json:
            vector = {"index": 0, "embedding": [0.5]}
            await exchange.answer({"object": "list", "data": [vector], "model": "up-1"})
        elif exchange.json.get("stream"):
            await exchange.events(chat_events())
        else:
            await exchange.answer(chat())


def seconds(duration: Any) -> float:
    return float(duration.seconds + duration.nanos / 1e9)


async def waiting(gw: Gateway, up: Upstream, count: int) -> list[Any]:
    """Calls of which the first ones run and the others wait."""
    calls = []
    for number in range(count):
        calls.append(asyncio.ensure_future(gw.complete(create("up/up-1", str(number)))))
        await until(lambda: gw.metric("trunkline_calls_in_flight") == len(calls))
    return calls


async def test_calls_over_the_bound_of_a_provider_wait_their_turn() -> None:
    slow = Slow()
    slow.go.clear()
    async with upstream(slow) as up, gateway(up, {"max_in_flight": 2}) as gw:
        calls = await waiting(gw, up, 6)
        slow.go.set()
        answers = await asyncio.gather(*calls)

    assert slow.most == 2
    assert slow.order == ["0", "1", "2", "3", "4", "5"]
    queued = [seconds(answer.timing.queued) for answer in answers]
    assert [answer.timing.HasField("queued") for answer in answers] == [False, False, True, True, True, True]
    assert queued[2] >= 0.05
    # For two turns.
    assert queued[5] >= 0.15
    assert [seconds(answer.timing.total) > waited for answer, waited in zip(answers, queued, strict=True)] == [True] * 6
    assert [line.get("queued_ms", 0) > 0 for line in gw.calls()] == [False, False, True, True, True, True]
    assert gw.metric("trunkline_queued_seconds_count", provider="up") == 4


async def test_the_bound_of_the_server_holds_for_all_that_costs_money() -> None:
    slow = Slow(0.05)
    embedding = embedding_service_pb2.CreateEmbeddingsRequest(
        spec=embedding_service_pb2.EmbeddingSpec(
            model="up/up-1", inputs=[embedding_service_pb2.EmbeddingInput(text="a")]
        )
    )
    async with upstream(slow) as up, gateway(up, limits={"max_in_flight": 3}) as gw:
        readers = [gw.stream(stream()) for _ in range(4)]
        await asyncio.gather(
            *(reader.rest() for reader in readers),
            *(gw.complete(create()) for _ in range(4)),
            *(gw.embeddings.CreateEmbeddings(embedding) for _ in range(4)),
        )
        # What is free of charge does not wait.
        await gw.models.ListModels(model_service_pb2.ListModelsRequest(provider="fake"))

    assert slow.most == 3
    finished = [reader.events[-1].finished for reader in readers]
    assert len(up.exchanges) >= 12
    assert any(end.timing.HasField("queued") for end in finished)


async def test_a_provider_that_is_full_holds_up_no_other() -> None:
    async with upstream(silent_midway) as up, gateway(up, {"max_in_flight": 1}) as gw:
        reader = gw.stream(stream())
        await reader.until("part_delta")
        blocked = gw.completions.CreateCompletion(create())
        await until(lambda: gw.metric("trunkline_calls_in_flight") == 2)
        await gw.complete(create("fake/echo"))
        blocked.cancel()
        reader.call.cancel()


def shed(failed: Failed) -> None:
    assert (failed.code, failed.reason) == (grpc.StatusCode.UNAVAILABLE, "GATEWAY_OVERLOADED")
    assert failed.pushback is not None
    assert 100 <= failed.pushback <= 1000
    assert seconds(failed.details["RetryInfo"].retry_delay) == failed.pushback / 1000
    assert failed.detail.retryable


@pytest.mark.parametrize("streamed", [False, True])
async def test_more_than_may_wait_are_refused_with_a_delay(streamed: bool) -> None:
    async with upstream(Slow(0.5)) as up, gateway(up, {"max_in_flight": 1, "max_waiting": 1}) as gw:
        calls = await waiting(gw, up, 2)
        if streamed:
            reader = await gw.stream(stream()).rest()
            assert reader.failed is not None
            failed = reader.failed
        else:
            failed = await failing(gw.completions.CreateCompletion(create()))
        await asyncio.gather(*calls)

    shed(failed)
    assert "providers.up.max_in_flight" in failed.message
    assert len(up.exchanges) == 2


async def test_delays_of_those_who_are_refused_differ() -> None:
    async with upstream(Slow(0.5)) as up, gateway(up, {"max_in_flight": 1, "max_waiting": 0}) as gw:
        calls = await waiting(gw, up, 1)
        refused = [await failing(gw.completions.CreateCompletion(create())) for _ in range(12)]
        await asyncio.gather(*calls)

    assert len({failed.pushback for failed in refused}) > 6


async def test_a_call_whose_turn_would_come_too_late_is_refused_at_once() -> None:
    async with upstream(Slow(0.3)) as up, gateway(up, {"max_in_flight": 1}) as gw:
        # What a call takes is learned from those that were.
        await gw.complete(create())
        calls = await waiting(gw, up, 5)
        began = time.monotonic()
        failed = await failing(gw.completions.CreateCompletion(create(), timeout=1.0))
        took = time.monotonic() - began
        # One that has the time waits.
        patient = gw.complete(create("up/up-1", "patient"), timeout=20)
        await asyncio.gather(*calls, patient)

    shed(failed)
    assert took < 0.5
    assert "a place is expected in" in failed.message
    assert len(up.exchanges) == 7


async def test_the_deadline_holds_in_the_queue() -> None:
    async with upstream(silent_midway) as up, gateway(up, {"max_in_flight": 1}) as gw:
        reader = gw.stream(stream())
        await reader.until("part_delta")
        failed = await failing(gw.completions.CreateCompletion(create(), timeout=2.0))
        reader.call.cancel()

    # Nothing is known yet of how long calls take, so that it waited.
    assert (failed.code, failed.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "GATEWAY_TIMEOUT")
    assert not failed.detail.attempts
    assert len(up.exchanges) == 1


async def test_one_who_leaves_the_queue_makes_room_and_costs_nothing() -> None:
    async with upstream(Slow(0.3)) as up, gateway(up, {"max_in_flight": 1, "max_waiting": 1}) as gw:
        running = await waiting(gw, up, 1)
        leaves = gw.completions.CreateCompletion(create("up/up-1", "leaves"))
        await until(lambda: gw.metric("trunkline_calls_in_flight") == 2)
        leaves.cancel()
        await until(lambda: gw.metric("trunkline_calls_in_flight") == 1)
        stays = gw.complete(create("up/up-1", "stays"))
        await asyncio.gather(*running, stays)

    assert [exchange.json["messages"][0]["content"] for exchange in up.exchanges] == ["0", "stays"]


async def test_a_stream_holds_its_place_to_its_end() -> None:
    slow = {"provider_options_json": script(text="one two three four", word_delay=0.1)}
    async with gateway(providers={"fake": {"max_in_flight": 1}}) as gw:
        first = gw.stream(stream("fake/script", **slow))
        await first.until("part_delta")
        second = gw.stream(stream("fake/script", **slow))
        await asyncio.gather(first.rest(), second.rest())

    assert second.times[0] >= first.times[-1] - 0.05


@pytest.mark.parametrize("seed", range(20))
async def test_no_place_is_lost_whenever_calls_are_cancelled(seed: int) -> None:
    """At the gate itself: a place that is handed to a call at the moment when it is cancelled goes on to the next."""
    dice = random.Random(seed)
    gate = Gate("gate", 3, 1000)
    most = 0

    async def one() -> None:
        nonlocal most
        async with gate.place(Call("CreateCompletion")):
            most = max(most, gate.running)
            for _ in range(dice.randrange(3)):
                await asyncio.sleep(0)

    tasks = [asyncio.ensure_future(one()) for _ in range(200)]
    while not all(task.done() for task in tasks):
        dice.choice(tasks).cancel()
        await asyncio.sleep(0)
    await asyncio.gather(*tasks, return_exceptions=True)

    assert (gate.running, gate.waiting) == (0, 0)
    assert most == 3


async def test_a_gate_in_front_of_calls_that_hang_learns_that_it_does_not_move() -> None:
    gate = Gate("gate", 1, 1000)
    async with gate.place(Call("CreateCompletion")):
        pass
    async with gate.place(Call("CreateCompletion")):
        begun = gate.expected()
        await asyncio.sleep(0.3)
        assert gate.expected() > begun + 0.05


async def test_nobody_waits_without_a_bound() -> None:
    async with upstream(says()) as up, gateway(up) as gw:
        answers = await asyncio.gather(*(gw.complete(create()) for _ in range(20)))

    assert not any(answer.timing.HasField("queued") for answer in answers)
