"""Workers and replicas that share a Redis: what one began, another one joins, resumes and cancels."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.gateway import TEAM_A, TEAM_B, Gateway, create, failing, gateway, resume, stream, until
from tests.process import connected, opened, server_process
from tests.services import Redis
from tests.test_request_ids import Held, same, text
from tests.test_resume import TEXT, WORDS, Stepwise, resumable
from tests.upstream import Exchange, Upstream, says, silent_midway, upstream

from tests import services
from trunkline.v1 import completion_service_pb2 as pb


@asynccontextmanager
async def pair(
    up: Upstream, redis: Redis, *, patience: float = 5.0, **more: Any
) -> AsyncIterator[tuple[Gateway, Gateway]]:
    """Two servers that share nothing but the Redis."""
    shared = {**redis.settings(), "timeout": patience}
    async with gateway(up, redis=shared, **more) as one, gateway(up, redis=shared, **more) as other:
        assert one.lines[-1]["completions"] == "redis"
        yield one, other


def vllm(up: Upstream) -> dict[str, Any]:
    return {"kind": "vllm", "base_url": f"{up.url}/v1"}


# -- request ids ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_call_repeated_elsewhere_gets_the_first_answer(redis: Redis, streamed: bool) -> None:
    held = Held()
    held.go.set()
    async with upstream(held) as up, pair(up, redis) as (one, other):
        if streamed:
            first = await one.stream(stream(request_id="one")).rest()
            again = await other.stream(stream(request_id="one")).rest()
            assert same(first, again)
        else:
            assert await one.complete(create(request_id="one")) == await other.complete(create(request_id="one"))
        failed = await failing(other.completions.CreateCompletion(create("up/up-1", "Bye", request_id="one")))

    assert failed.reason == "REQUEST_ID_REUSED"
    assert held.asked == 1


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_call_repeated_elsewhere_joins_the_one_that_runs(redis: Redis, streamed: bool) -> None:
    held = Held()
    async with upstream(held) as up, pair(up, redis) as (one, other):
        if streamed:
            first = one.stream(stream(request_id="one"))
            await first.until("part_delta")
            second = other.stream(stream(request_id="one"))
            await second.until("part_delta")
            held.go.set()
            await asyncio.gather(first.rest(), second.rest())
            assert same(first, second)
        else:
            calls = [asyncio.ensure_future(one.complete(create(request_id="one")))]
            await up.next()
            calls += [asyncio.ensure_future(other.complete(create(request_id="one"))) for _ in range(3)]
            await until(lambda: other.metric("trunkline_calls_in_flight") == 3)
            held.go.set()
            answers = await asyncio.gather(*calls)
            assert all(answer == answers[0] for answer in answers)

    assert held.asked == 1


@pytest.mark.alone
async def test_a_completion_goes_on_while_somebody_elsewhere_waits_for_it(redis: Redis) -> None:
    held = Held()
    async with upstream(held) as up, pair(up, redis) as (one, other):
        first = one.completions.CreateCompletion(create(request_id="one"))
        await up.next()
        second = asyncio.ensure_future(other.complete(create(request_id="one")))
        await until(lambda: other.metric("trunkline_calls_in_flight") == 1)
        # Its question has reached the other worker.
        await asyncio.sleep(0.3)
        first.cancel()
        await asyncio.sleep(0.3)
        held.go.set()
        assert text(await second) == "answer 1"
        await one.idle()

    assert held.asked == 1


@pytest.mark.alone
async def test_one_who_waits_elsewhere_and_leaves_is_waited_for_no_longer(redis: Redis) -> None:
    async with upstream(silent_midway) as up, pair(up, redis) as (one, other):
        first, second = one.stream(stream(request_id="one")), other.stream(stream(request_id="one"))
        await first.until("part_delta")
        await second.until("part_delta")
        exchange = await up.next()
        first.call.cancel()
        await asyncio.sleep(0.2)
        assert exchange.closed_at is None
        left = time.monotonic()
        second.call.cancel()
        assert await exchange.gone() - left < 1.0


@pytest.mark.alone
@pytest.mark.parametrize("streamed", [False, True])
async def test_those_who_joined_elsewhere_get_the_same_error(redis: Redis, streamed: bool) -> None:
    go = asyncio.Event()

    async def fails(exchange: Exchange) -> None:
        await go.wait()
        await exchange.answer({"error": {"message": "no luck"}}, 429, {"retry-after": "3"})

    async def one_call(gw: Gateway) -> Any:
        if not streamed:
            return await failing(gw.completions.CreateCompletion(create(request_id="one")))
        return (await gw.stream(stream(request_id="one")).rest()).failed

    async with upstream(fails) as up, pair(up, redis) as (one, other):
        first = asyncio.ensure_future(one_call(one))
        await up.next()
        second = asyncio.ensure_future(one_call(other))
        await until(lambda: other.metric("trunkline_calls_in_flight") == 1)
        await asyncio.sleep(0.2)
        go.set()
        both = await asyncio.gather(first, second)
        # After a failure the id is free again, everywhere.
        await one_call(other)

    assert both[0] == both[1]
    assert both[0].reason == "LLM_RATE_LIMITED"
    assert len(up.exchanges) == 2


async def test_an_id_is_kept_no_longer_than_its_window_and_its_failure(redis: Redis) -> None:
    held = Held()
    held.go.set()
    async with upstream(held) as up, pair(up, redis, replay={"window": 1}) as (one, other):
        first = await one.complete(create(request_id="one"))
        await asyncio.sleep(1.2)
        second = await other.complete(create(request_id="one"))

    assert (text(first), text(second)) == ("answer 1", "answer 2")


async def test_callers_have_ids_of_their_own_everywhere(redis: Redis, callers: list[dict[str, str]]) -> None:
    held = Held()
    held.go.set()
    async with upstream(held) as up, pair(up, redis, callers=callers) as (one, other):
        mine = await one.complete(create(request_id="one"), metadata=TEAM_A)
        theirs = await other.complete(create(request_id="one"), metadata=TEAM_B)

    assert (text(mine), text(theirs)) == ("answer 1", "answer 2")


# -- streams ----------------------------------------------------------------------------------------------------------


async def test_a_stream_that_runs_is_resumed_elsewhere_and_followed_live(redis: Redis) -> None:
    steps = Stepwise()
    async with upstream(steps) as up, pair(up, redis) as (one, other):
        reader = one.stream(resumable())
        steps.let(10)
        while len(reader.text) < 30:
            await reader.next()
        reader.call.cancel()
        reader.goes_on(other.completions.StreamCompletion(reader.point))
        steps.let(10)
        while len(reader.text) < 80:
            await reader.next()
        steps.let()
        await reader.rest()
        whole = [e.SerializeToString() async for e in other.completions.StreamCompletion(resume(reader.id, 0))]

    assert reader.text == TEXT
    assert whole == [event.SerializeToString() for event in reader.events]
    assert len(up.exchanges) == 1


async def test_a_stream_that_has_ended_is_resumed_after_its_worker_has_gone(redis: Redis) -> None:
    shared = redis.settings()
    async with upstream(says(*WORDS)) as up, gateway(up, redis=shared) as other:
        async with gateway(up, redis=shared) as one:
            reader = one.stream(resumable())
            await reader.until("part_delta")
            reader.call.cancel()
            await one.idle()
        await reader.goes_on(other.completions.StreamCompletion(reader.point)).rest()

    assert reader.text == TEXT


async def test_a_large_stream_is_resumed_elsewhere_whole(redis: Redis) -> None:
    words = [f"{n} " + "x" * 3000 for n in range(500)]
    async with upstream(says(*words)) as up, pair(up, redis) as (one, other):
        reader = one.stream(resumable())
        await reader.until("part_delta")
        reader.call.cancel()
        await reader.goes_on(other.completions.StreamCompletion(reader.point)).rest()

    assert reader.text == "".join(words)


async def test_only_its_own_caller_resumes_a_stream_elsewhere(redis: Redis, callers: list[dict[str, str]]) -> None:
    async with upstream(silent_midway) as up, pair(up, redis, callers=callers) as (one, other):
        running = one.stream(resumable(), metadata=TEAM_A)
        await running.until("part_delta")
        refused = [await failing(other.completions.StreamCompletion(running.point, metadata=TEAM_B).read())]
        refused += [await failing(other.completions.StreamCompletion(resume("cmpl_0", 0), metadata=TEAM_A).read())]
        running.call.cancel()
        await one.completions.CancelCompletion(pb.CancelCompletionRequest(completion_id=running.id), metadata=TEAM_A)
        await one.idle()
        refused += [await failing(other.completions.StreamCompletion(running.point, metadata=TEAM_B).read())]

    assert {failed.reason for failed in refused} == {"NOT_FOUND"}


async def test_a_stream_that_nobody_came_back_for_has_expired_everywhere(redis: Redis) -> None:
    async with upstream(silent_midway) as up, pair(up, redis, replay={"grace": 0.3}) as (one, other):
        reader = one.stream(resumable())
        await reader.until("part_delta")
        exchange = await up.next()
        reader.call.cancel()
        await exchange.gone()
        await one.idle()
        failed = await failing(other.completions.StreamCompletion(reader.point).read())

    assert failed.reason == "RESUME_EXPIRED"


async def test_a_slow_reader_elsewhere_is_one_who_is_there(redis: Redis) -> None:
    steps = Stepwise()
    async with upstream(steps) as up, pair(up, redis, replay={"grace": 2}) as (one, other):
        reader = one.stream(resumable())
        steps.let(3)
        await reader.until("part_delta")
        reader.call.cancel()
        reader.goes_on(other.completions.StreamCompletion(reader.point))
        # Longer than the grace, and than a reader may be silent.
        await asyncio.sleep(6.5)
        steps.let()
        await reader.rest()

    assert reader.text == TEXT


# -- cancelling -------------------------------------------------------------------------------------------------------


@pytest.mark.alone
@pytest.mark.parametrize("request_id", ["", "one"])
async def test_cancel_completion_reaches_every_worker(
    redis: Redis, callers: list[dict[str, str]], request_id: str, measured: Callable[[str, object], None]
) -> None:
    async with upstream(silent_midway) as up, pair(up, redis, callers=callers) as (one, other):
        reader = one.stream(stream(request_id=request_id), metadata=TEAM_A)
        await reader.until("part_delta")
        exchange = await up.next()
        request = pb.CancelCompletionRequest(completion_id=reader.id)
        foreign = await failing(other.completions.CancelCompletion(request, metadata=TEAM_B))
        unknown = await failing(
            other.completions.CancelCompletion(pb.CancelCompletionRequest(completion_id="cmpl_0"), metadata=TEAM_A)
        )
        assert exchange.closed_at is None
        asked = time.monotonic()
        await other.completions.CancelCompletion(request, metadata=TEAM_A)
        took = await exchange.gone() - asked
        await reader.rest()

    measured("ms", round(took * 1000, 1))
    assert took < 0.5
    assert [foreign.reason, unknown.reason] == ["NOT_FOUND", "NOT_FOUND"]
    assert reader.failed is not None
    assert (reader.failed.code, reader.failed.reason) == (grpc.StatusCode.CANCELLED, "CANCELLED")


# -- what goes away ---------------------------------------------------------------------------------------------------


@pytest.mark.alone
async def test_who_waits_for_a_worker_that_is_killed_is_told_at_once(
    redis: Redis, tmp_path: Path, measured: Callable[[str, object], None]
) -> None:
    shared = redis.settings()
    async with (
        upstream(silent_midway) as up,
        server_process(tmp_path, providers={"up": vllm(up)}, redis=shared) as server,
        gateway(up, redis=shared) as other,
        connected(await server.address()) as stub,
    ):
        reader = opened(stub, resumable(request_id="one"))
        await reader.until("part_delta")
        reader.call.cancel()
        follower = other.stream(resume(reader.id, 0))
        await follower.until("part_delta")
        joined = other.stream(resumable(request_id="one"))
        await joined.until("part_delta")
        killed = time.monotonic()
        os.kill(server.pid, signal.SIGKILL)
        await follower.rest()
        took = time.monotonic() - killed
        await joined.rest()
        late = await failing(other.completions.StreamCompletion(reader.point).read())
        # The id belongs to nobody who lives.
        again = other.stream(resumable(request_id="one"))
        await again.until("part_delta")
        again.call.cancel()

    measured("ms", round(took * 1000))
    assert took < 4.0
    for failed in (follower.failed, late):
        assert failed is not None
        assert (failed.code, failed.reason, failed.pushback) == (grpc.StatusCode.UNAVAILABLE, "COMPLETION_LOST", -1)
    assert joined.failed is not None
    assert (joined.failed.code, joined.failed.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
    assert len(up.exchanges) == 2
    assert again.id != reader.id


@pytest.mark.alone
async def test_without_redis_each_worker_goes_on_with_what_it_has(
    redis: Redis, measured: Callable[[str, object], None]
) -> None:
    del redis  # skips where there is none
    steps = Stepwise()
    with services.redis() as own:
        async with upstream(steps) as up, pair(up, own, patience=0.5) as (one, other):
            reader = one.stream(resumable())
            steps.let(5)
            await reader.until("part_delta")
            own.kill()
            steps.let(1000)
            began = time.monotonic()
            # Calls without an id, calls with one, and streams go on; what is asked of others is refused, and soon.
            await one.complete(create("fake/echo"))
            first = await one.complete(create("fake/echo", request_id="two"))
            assert await one.complete(create("fake/echo", request_id="two")) == first
            reader.call.cancel()
            here = await reader.goes_on(one.completions.StreamCompletion(reader.point)).rest()
            there = await failing(other.completions.StreamCompletion(resume(reader.id, 0)).read())
            cancel = await failing(
                other.completions.CancelCompletion(pb.CancelCompletionRequest(completion_id=reader.id))
            )
            took = time.monotonic() - began
            fresh = await one.stream(resumable()).rest()
            # It comes back, and with it the sharing.
            own.start()
            await until(lambda: all("redis back" in gw.log for gw in (one, other)))
            second = await one.complete(create("fake/echo", request_id="three"))
            assert await other.complete(create("fake/echo", request_id="three")) == second

    measured("ms", round(took * 1000))
    assert took < 3.0
    assert (here.text, here.failed) == (TEXT, None)
    assert fresh.text == TEXT
    assert [there.reason, cancel.reason] == ["STORE_UNAVAILABLE"] * 2
    assert there.code is grpc.StatusCode.UNAVAILABLE
    assert [line["event"] for line in one.lines if line["event"].startswith("redis")] == ["redis away", "redis back"]


@pytest.mark.alone
async def test_a_redis_that_takes_and_does_not_answer_holds_nobody_up(
    redis: Redis, measured: Callable[[str, object], None]
) -> None:
    async with upstream(says()) as up, pair(up, redis, patience=0.3) as (one, _):
        with redis.held():
            began = time.monotonic()
            await asyncio.gather(*(one.complete(create(request_id=str(n))) for n in range(50)))
            for n in range(50, 60):
                await one.complete(create(request_id=str(n)))
            took = time.monotonic() - began
            assert "redis away" in one.log
        await until(lambda: "redis back" in one.log)

    measured("ms", round(took * 1000))
    assert took < 2.0


async def test_a_server_starts_without_its_redis(redis: Redis) -> None:
    nobody = {**redis.settings(), "url": "redis://127.0.0.1:1/0"}
    async with upstream(says()) as up, gateway(up, redis=nobody) as gw:
        first = await gw.complete(create(request_id="one"))
        assert await gw.complete(create(request_id="one")) == first

    assert "redis away" in gw.log


async def test_a_drain_lets_streams_end_that_others_can_resume(redis: Redis) -> None:
    steps = Stepwise()
    shared = redis.settings()
    async with upstream(steps) as up, gateway(up, redis=shared) as other:
        async with gateway(up, redis=shared, drain={"grace": 15}) as one:
            reader = one.stream(resumable())
            steps.let(5)
            await reader.until("part_delta")
            reader.call.cancel()
            one.stop.set()
            await asyncio.sleep(0.2)
            assert not one.running.done()
            steps.let()
            await one.running
        await reader.goes_on(other.completions.StreamCompletion(reader.point)).rest()

    assert reader.text == TEXT
