"""Traces as calls end: from the delivery process over its socket to followers, and through the service."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.gateway import create, failing, gateway, until
from tests.traces.recorded import recorded
from tests.traces.samples import sample

from trunkline.v1alpha import trace_pb2
from trunkline.v1alpha import trace_service_pb2 as pb
from trunkline_server.traces import tail
from trunkline_server.traces.base import BackendUnavailable
from trunkline_server.traces.tail import Feeder, follow


async def test_every_follower_gets_every_trace(tmp_path: Path):
    feeder = Feeder(tmp_path / "tail.sock")
    await feeder.open()
    sent = [sample() for _ in range(50)]
    async with follow(tmp_path / "tail.sock") as first, follow(tmp_path / "tail.sock") as second:
        await until(lambda: len(feeder._followers) == 2)
        for trace in sent:
            feeder.send(trace.SerializeToString())
        for followed in (first, second):
            assert [await anext(followed) for _ in sent] == sent
            assert followed.dropped == 0
    await until(lambda: not feeder.wanted)
    await feeder.aclose()
    assert not (tmp_path / "tail.sock").exists()


async def test_a_slow_follower_loses_some_is_told_how_many_and_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tail, "QUEUE_BYTES", 500_000)
    feeder = Feeder(tmp_path / "tail.sock")
    await feeder.open()
    sent = [sample(said=f"{number}" * 20_000) for number in range(300)]
    async with follow(tmp_path / "tail.sock") as quick, follow(tmp_path / "tail.sock") as slow:
        await until(lambda: len(feeder._followers) == 2)
        for trace in sent:
            feeder.send(trace.SerializeToString())
            assert await anext(quick) == trace
        assert quick.dropped == 0
        feeder.send(sent[0].SerializeToString())
        got = [await anext(slow)]
        while slow.dropped == 0:
            got.append(await anext(slow))
    assert 0 < slow.dropped < 300
    assert all(trace in sent for trace in got)
    await feeder.aclose()


async def test_the_end_of_the_feed_is_the_end_of_what_it_gives(tmp_path: Path):
    feeder = Feeder(tmp_path / "tail.sock")
    await feeder.open()
    async with follow(tmp_path / "tail.sock") as followed:
        await until(lambda: feeder.wanted)
        feeder.send(sample().SerializeToString())
        assert await anext(followed) is not None
        await feeder.aclose()
        assert [trace async for trace in followed] == []
    with pytest.raises(BackendUnavailable):
        async with follow(tmp_path / "tail.sock"):
            pass


async def test_a_socket_can_lie_deep(tmp_path: Path):
    deep = tmp_path / ("x" * 120) / "tail.sock"
    deep.parent.mkdir()
    feeder = Feeder(deep)
    await feeder.open()
    async with follow(deep) as followed:
        await until(lambda: feeder.wanted)
        feeder.send(sample().SerializeToString())
        assert await anext(followed) is not None
    await feeder.aclose()


async def _next(call: Any) -> trace_pb2.Trace:
    """The next trace of a tail."""
    while True:
        answer: pb.TailTracesResponse = await call.read()
        if answer.HasField("trace"):
            return answer.trace


async def test_the_service_follows_calls_as_they_end(tmp_path: Path):
    async with recorded(tmp_path) as server:
        call = server.traces.TailTraces(pb.TailTracesRequest(view=pb.TRACE_VIEW_FULL))
        failed = server.traces.TailTraces(pb.TailTracesRequest(filter=pb.TraceFilter(failed=True)))
        async with asyncio.timeout(20):
            # Until the feed is there, calls pass by.
            while True:
                answer = await server.complete(create("fake/echo", "Is anybody there?"))
                reading = asyncio.ensure_future(_next(call))
                done, _ = await asyncio.wait({reading}, timeout=1.0)
                if done:
                    break
                reading.cancel()
                call.cancel()
                call = server.traces.TailTraces(pb.TailTracesRequest(view=pb.TRACE_VIEW_FULL))
            seen = {reading.result().name}
            answer = await server.complete(create("fake/echo", "Follow me."))
            while (trace := await _next(call)).name in seen or trace.name != f"traces/{answer.id}":
                pass
            assert trace.completion == answer
            call.cancel()
            failed.cancel()


async def test_a_delivery_process_that_is_replaced_is_followed_again(tmp_path: Path):
    async with recorded(tmp_path) as server:
        assert server.spool is not None
        await until((tmp_path / "spool" / "0" / "status.json").exists)
        call = server.traces.TailTraces(pb.TailTracesRequest())
        reading = asyncio.ensure_future(_next(call))
        await asyncio.sleep(0.3)
        process = server.spool.delivery._process
        assert process is not None
        process.kill()
        await asyncio.to_thread(process.wait)
        while server.spool.delivery.ended() is None:
            await asyncio.sleep(0.02)
        made = []
        async with asyncio.timeout(20):
            while not reading.done():
                made.append((await server.complete(create("fake/echo"))).id)
                await asyncio.wait({reading}, timeout=0.3)
        assert reading.result().name.removeprefix("traces/") in made
        call.cancel()


async def test_without_records_there_is_no_service_of_them():
    async with gateway() as server:
        failed = await failing(server.traces.ListTraces(pb.ListTracesRequest()))
    assert failed.code is grpc.StatusCode.UNIMPLEMENTED
