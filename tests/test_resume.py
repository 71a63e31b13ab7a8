"""A resumable stream outlasts its call, and is read on from any point without a gap or a repetition."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from tests.gateway import TEAM_A, TEAM_B, Gateway, Reader, failing, gateway, resume, script, stream, until
from tests.upstream import Exchange, chat_events, says, silent_midway, upstream

from trunkline.v1 import completion_pb2
from trunkline.v1 import completion_service_pb2 as pb

RESUMABLE = pb.StreamOptions(resumable=True)
WORDS = [f"word{n} " for n in range(40)]
TEXT = "".join(WORDS)


def resumable(*how: str, **more: Any) -> pb.StreamCompletionRequest:
    return stream(*how, stream_options=RESUMABLE, **more)


class Stepwise:
    """Says a word whenever it is let."""

    def __init__(self, *words: str) -> None:
        self.words = words or tuple(WORDS)
        self.steps: asyncio.Semaphore = asyncio.Semaphore(0)

    def let(self, count: int = 1000) -> None:
        for _ in range(count):
            self.steps.release()

    async def __call__(self, exchange: Exchange) -> None:
        await exchange.head()
        for event in chat_events(*self.words):
            await self.steps.acquire()
            await exchange.chunk(event)
        await exchange.end()


async def left(reader: Reader) -> Reader:
    """The caller is gone."""
    reader.call.cancel()
    return reader


async def resumed(gw: Gateway, reader: Reader, **how: Any) -> Reader:
    return await reader.goes_on(gw.completions.StreamCompletion(reader.point, **how)).rest()


def serialized(reader: Reader) -> list[bytes]:
    return [event.SerializeToString() for event in reader.events]


async def test_a_stream_goes_on_where_it_broke() -> None:
    steps = Stepwise()
    async with upstream(steps) as up, gateway(up) as gw:
        reader = gw.stream(resumable())
        steps.let(10)
        while len(reader.text) < 30:
            await reader.next()
        assert reader.events[0].started.resumable
        await left(reader)
        # The provider goes on meanwhile, and after the last word there is nobody who reads.
        steps.let()
        await until(lambda: len(gw.calls()) == 1)
        await resumed(gw, reader)

    assert reader.failed is None
    assert reader.text == TEXT
    assert reader.kinds[-1] == "finished"
    assert len(up.exchanges) == 1
    begun, again = gw.calls()
    assert (begun["id"], begun["code"], begun["output_tokens"]) == (reader.id, "OK", 3)
    assert (again["completion"], again["code"], "output_tokens" in again) == (reader.id, "OK", False)


async def test_every_point_of_a_stream_is_a_point_to_go_on_from() -> None:
    async with upstream(says(*WORDS)) as up, gateway(up) as gw:
        whole = await gw.stream(resumable()).rest()
        for after in range(len(whole.events) + 1):
            call = gw.completions.StreamCompletion(resume(whole.id, after))
            rest = [event.SerializeToString() async for event in call]
            assert rest == serialized(whole)[after:]

    assert len(up.exchanges) == 1


async def test_several_follow_one_stream_from_points_of_their_own() -> None:
    steps = Stepwise()
    async with upstream(steps) as up, gateway(up) as gw:
        first = gw.stream(resumable())
        steps.let(20)
        while len(first.text) < 60:
            await first.next()
        calls = [gw.completions.StreamCompletion(resume(first.id, after)) for after in (0, 5, 10, 15)]
        await until(lambda: gw.metric("trunkline_calls_in_flight") == 5)
        steps.let()

        async def all_of(call: Any) -> list[bytes]:
            return [event.SerializeToString() async for event in call]

        rests = await asyncio.gather(*(all_of(call) for call in calls))
        await first.rest()

    events = serialized(first)
    assert rests == [events, events[5:], events[10:], events[15:]]
    assert first.text == TEXT


async def test_heartbeats_are_events_of_the_stream_as_all_others(measured: Callable[[str, object], None]) -> None:
    async with gateway(stream={"heartbeat": 0.05}) as gw:
        slow = script(text="one two three", word_delay=0.3)
        reader = gw.stream(resumable("fake/script", provider_options_json=slow))
        await reader.until("heartbeat")
        await left(reader)
        await resumed(gw, reader)
        whole = [event.SerializeToString() async for event in gw.completions.StreamCompletion(resume(reader.id, 0))]

    assert reader.text == "one two three"
    assert whole == serialized(reader)
    measured("heartbeats", reader.kinds.count("heartbeat"))
    assert reader.kinds.count("heartbeat") >= 6


# -- who and how long -------------------------------------------------------------------------------------------------


async def test_only_its_own_caller_can_resume_a_stream(callers: list[dict[str, str]]) -> None:
    async with upstream(says(*WORDS)) as up, gateway(up, callers=callers) as gw:
        reader = await gw.stream(resumable(), metadata=TEAM_A).rest()
        foreign = await gw.stream(resume(reader.id, 0), metadata=TEAM_B).rest()
        unknown = await gw.stream(resume("cmpl_0", 0), metadata=TEAM_A).rest()
        own = await gw.stream(resume(reader.id, 0), metadata=TEAM_A).rest()

    # A foreign completion looks like none at all.
    for refused in (foreign, unknown):
        assert refused.failed is not None
        assert (refused.failed.code, refused.failed.reason) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
        assert refused.failed.details["ResourceInfo"].resource_type == "completion"
    assert own.text == TEXT


async def test_a_stream_that_did_not_ask_for_it_cannot_be_resumed() -> None:
    async with upstream(says()) as up, gateway(up) as gw:
        reader = await gw.stream(stream(request_id="one")).rest()
        failed = await failing(gw.completions.StreamCompletion(resume(reader.id, 0)).read())

    assert failed.reason == "NOT_FOUND"


async def test_a_point_after_the_last_event_is_a_mistake() -> None:
    async with upstream(says()) as up, gateway(up) as gw:
        reader = await gw.stream(resumable()).rest()
        failed = await failing(gw.completions.StreamCompletion(resume(reader.id, len(reader.events) + 1)).read())

    assert (failed.code, failed.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert list(failed.fields) == ["resume.after_sequence_number"]


async def test_what_is_no_longer_kept_has_expired() -> None:
    async with upstream(says()) as up, gateway(up, replay={"window": 0.2}) as gw:
        reader = await gw.stream(resumable()).rest()
        await asyncio.sleep(0.25)
        failed = await failing(gw.completions.StreamCompletion(resume(reader.id, 0)).read())

    assert (failed.code, failed.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "RESUME_EXPIRED")


@pytest.mark.alone
async def test_a_stream_that_nobody_comes_back_for_ends_after_the_grace(
    measured: Callable[[str, object], None],
) -> None:
    async with upstream(silent_midway) as up, gateway(up, replay={"grace": 0.4}) as gw:
        reader = gw.stream(resumable())
        await reader.until("part_delta")
        exchange = await up.next()
        began = time.monotonic()
        await left(reader)
        took = await exchange.gone() - began
        await gw.idle()
        failed = await failing(gw.completions.StreamCompletion(reader.point).read())

    measured("ms of 400", round(took * 1000))
    assert 0.35 < took < 1.0
    assert failed.reason == "RESUME_EXPIRED"
    assert [line["code"] for line in gw.calls()] == ["CANCELLED", "FAILED_PRECONDITION"]


@pytest.mark.alone
async def test_who_comes_back_within_the_grace_stops_its_clock() -> None:
    steps = Stepwise()
    async with upstream(steps) as up, gateway(up, replay={"grace": 0.5}) as gw:
        reader = gw.stream(resumable())
        steps.let(4)
        await reader.until("part_delta")
        for _ in range(4):
            await left(reader)
            await asyncio.sleep(0.25)
            reader.goes_on(gw.completions.StreamCompletion(reader.point))
            steps.let(1)
            await reader.until("part_delta")
        await asyncio.sleep(0.7)
        steps.let()
        await reader.rest()

    assert reader.text == TEXT
    assert len(up.exchanges) == 1


@pytest.mark.alone
async def test_cancel_completion_ends_it_at_once_and_for_good() -> None:
    async with upstream(silent_midway) as up, gateway(up) as gw:
        reader = gw.stream(resumable())
        await reader.until("part_delta")
        exchange = await up.next()
        await left(reader)
        await asyncio.sleep(0.1)
        assert exchange.closed_at is None
        asked = time.monotonic()
        await gw.completions.CancelCompletion(pb.CancelCompletionRequest(completion_id=reader.id))
        assert await exchange.gone() - asked <= 0.5
        await resumed(gw, reader)

    assert reader.failed is not None
    assert (reader.failed.code, reader.failed.reason) == (grpc.StatusCode.CANCELLED, "CANCELLED")
    assert [(line["code"], "completion" in line) for line in gw.calls("StreamCompletion")] == [
        ("CANCELLED", False), ("CANCELLED", True),
    ]  # fmt: skip


async def test_a_failure_while_nobody_read_is_told_to_who_comes_back() -> None:
    go = asyncio.Event()

    async def breaks(exchange: Exchange) -> None:
        await exchange.head()
        for event in chat_events("one ", "two ", "three")[:4]:
            await exchange.chunk(event)
        await go.wait()
        exchange.reset()

    async with upstream(breaks) as up, gateway(up) as gw:
        reader = gw.stream(resumable())
        await reader.until("part_delta")
        await left(reader)
        go.set()
        await until(gw.calls)
        await resumed(gw, reader)

    assert reader.text == "one two three"
    assert reader.failed is not None
    assert (reader.failed.code, reader.failed.reason) == (grpc.StatusCode.UNAVAILABLE, "LLM_CONNECTION")
    assert reader.failed.detail.completion_id == reader.id


async def test_a_request_id_leads_to_the_stream_that_it_began() -> None:
    steps = Stepwise()
    async with upstream(steps) as up, gateway(up) as gw:
        first = gw.stream(resumable(request_id="one"))
        steps.let(3)
        await first.until("part_delta")
        await left(first)
        steps.let()
        again = await gw.stream(resumable(request_id="one")).rest()

    assert (again.id, again.text, len(up.exchanges)) == (first.id, TEXT, 1)


# -- deadlines --------------------------------------------------------------------------------------------------------


@pytest.mark.alone
async def test_the_deadline_of_a_call_does_not_end_a_resumable_stream() -> None:
    steps = Stepwise()
    async with upstream(steps) as up, gateway(up) as gw:
        reader = gw.stream(resumable(), timeout=0.6)
        steps.let(5)
        await reader.rest()
        assert reader.failed is not None
        assert reader.failed.reason == "GATEWAY_TIMEOUT"
        steps.let()
        await resumed(gw, reader)

    assert reader.text == TEXT


@pytest.mark.alone
async def test_a_timeout_of_the_options_ends_it_whoever_reads() -> None:
    options = completion_pb2.CallOptions(timeout=Duration(nanos=500_000_000))
    async with upstream(silent_midway) as up, gateway(up) as gw:
        reader = gw.stream(resumable(options=options))
        await reader.until("part_delta")
        exchange = await up.next()
        await left(reader)
        assert await exchange.gone() - exchange.arrived < 1.0
        await resumed(gw, reader)

    assert reader.failed is not None
    assert reader.failed.reason == "GATEWAY_TIMEOUT"
    assert [attempt.attempt for attempt in reader.failed.detail.attempts] == [1]


# -- bounds -----------------------------------------------------------------------------------------------------------


async def test_of_a_long_stream_only_the_newest_is_kept() -> None:
    words = ["x" * 1000] * 200
    async with upstream(says(*words)) as up, gateway(up, replay={"max_completion_bytes": 64 * 1024}) as gw:
        reader = await gw.stream(resumable()).rest()
        old = await gw.stream(resume(reader.id, 0)).rest()
        late = [e async for e in gw.completions.StreamCompletion(resume(reader.id, len(reader.events) - 3))]

    assert reader.text == "".join(words)
    assert old.failed is not None
    assert old.failed.reason == "RESUME_EXPIRED"
    assert [event.sequence_number for event in late] == [event.sequence_number for event in reader.events[-3:]]


async def test_streams_are_refused_where_nothing_is_kept() -> None:
    async with upstream(says()) as up, gateway(up, replay={"window": 0}) as gw:
        begun = await gw.stream(resumable()).rest()
        again = await gw.stream(resume("cmpl_0", 0)).rest()

    for refused, field in ((begun, "stream_options.resumable"), (again, "resume")):
        assert refused.failed is not None
        assert refused.failed.reason == "UNSUPPORTED_PARAMETER"
        assert list(refused.failed.fields) == [field]
    assert up.exchanges == []


@pytest.mark.alone
async def test_a_drain_ends_at_once_what_nobody_reads() -> None:
    async with upstream(silent_midway) as up, gateway(up, drain={"grace": 15}) as gw:
        reader = gw.stream(resumable())
        await reader.until("part_delta")
        exchange = await up.next()
        await left(reader)
        await asyncio.sleep(0.05)
        began = time.monotonic()
        gw.stop.set()
        assert await exchange.gone() - began < 1.0
        await asyncio.wait({gw.running}, timeout=5)
        assert gw.running.done()


async def test_a_drain_says_how_far_a_stream_came() -> None:
    async with upstream(silent_midway) as up, gateway(up, drain={"grace": 0.2}) as gw:
        reader = gw.stream(resumable())
        await reader.until("part_delta")
        gw.stop.set()
        await reader.rest()

    assert reader.failed is not None
    assert (reader.failed.reason, reader.failed.pushback) == ("SHUTTING_DOWN", None)
    assert reader.failed.detail.last_sequence_number == len(reader.events)
    assert len(up.exchanges) == 1
