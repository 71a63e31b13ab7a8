"""TraceService's streams over backends in memory: following calls as they end, exporting."""

from __future__ import annotations

import asyncio
import json

import grpc
import pytest
from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp
from tests.gateway import failing, until
from tests.traces.memory import START, Ended, Memory, exported, names, next_trace, reading, trace

from trunkline.v1alpha import trace_pb2
from trunkline.v1alpha import trace_service_pb2 as pb
from trunkline_server.access import Callers
from trunkline_server.traces import following

# -- tail -------------------------------------------------------------------------------------------------------------


async def test_a_tail_says_that_it_follows_and_that_it_is_alive() -> None:
    ended = Ended()
    async with reading({"sqlite": Memory()}, ended, keep_alive=0.02) as server:
        tail = server.traces.TailTraces(pb.TailTracesRequest())
        messages = [await tail.read() for _ in range(3)]
        ended.tell(trace(1, said="a secret of mine"))
        told = await next_trace(tail)
        tail.cancel()
        await until(lambda: ended.followed == 0)

    assert [message.HasField("trace") for message in messages] == [False] * 3
    assert (names([told.trace]), told.dropped) == ([1], 0)
    assert b"secret" not in told.SerializeToString()


@pytest.mark.parametrize(
    "later",
    [
        Callers({"b": "another-key-of-b"}),
        Callers({"a": "key-of-a"}),
        Callers({"a": "key-of-a", "b": "key-of-b"}, operators=["a"]),
    ],
    ids=["another key", "no longer known", "no longer an operator"],
)
async def test_a_tail_ends_when_its_caller_may_no_longer_follow(later: Callers) -> None:
    callers = Callers({"a": "key-of-a", "b": "key-of-b"}, operators=["b"])
    async with reading({"sqlite": Memory()}, keep_alive=0.02, callers=callers) as server:
        tail = server.traces.TailTraces(pb.TailTracesRequest(), metadata=[("x-api-key", "key-of-b")])
        messages = aiter(tail)
        await anext(messages)
        # The same again changes nothing.
        callers.become(Callers({"a": "key-of-a", "b": "key-of-b"}, operators=["b"]))
        for _ in range(3):
            await anext(messages)
        callers.become(later)

        with pytest.raises(grpc.aio.AioRpcError, match="no longer what it was") as ended:
            while True:
                await anext(messages)

    assert ended.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_many_tails_read_the_feed_once() -> None:
    ended = Ended()
    async with reading({"sqlite": Memory()}, ended) as server:
        tails = [
            server.traces.TailTraces(pb.TailTracesRequest(view=view))
            for view in (pb.TRACE_VIEW_BASIC, pb.TRACE_VIEW_FULL, pb.TRACE_VIEW_UNSPECIFIED)
        ]
        for tail in tails:
            await tail.read()
        ended.tell(trace(1))
        told = [await next_trace(tail) for tail in tails]
        for tail in tails:
            tail.cancel()

    assert ended.opened == 1
    assert [len(message.trace.completion_spec.messages) for message in told] == [0, 1, 0]


async def test_a_slow_reader_loses_records_is_told_how_many_and_slows_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "QUEUE_RECORDS", 4)
    ended, count = Ended(), 300
    large = [trace(number, said="x" * 20_000) for number in range(count)]
    async with (
        reading({"sqlite": Memory()}, ended) as server,
        # A window of its own: what is sent and not read fills nobody else's.
        grpc.aio.insecure_channel(server.address, [("grpc.use_local_subchannel_pool", 1)]) as other,
    ):
        slow = type(server.traces)(other).TailTraces(pb.TailTracesRequest(view=pb.TRACE_VIEW_FULL))
        fast = server.traces.TailTraces(pb.TailTracesRequest(view=pb.TRACE_VIEW_FULL))
        await slow.read()
        await fast.read()
        for one in large:
            ended.tell(one)
            assert (await next_trace(fast)).dropped == 0
        got: list[pb.TailTracesResponse] = []
        while not got or len(got) + got[-1].dropped < count:
            got.append(await next_trace(slow))
        fast.cancel()
        slow.cancel()

    lost = got[-1].dropped
    assert 0 < lost < count
    assert len(got) + lost == count
    assert names([one.trace for one in got]) == sorted(names([one.trace for one in got]))


async def test_what_was_lost_on_the_way_here_is_counted_too() -> None:
    ended = Ended()
    async with reading({"sqlite": Memory()}, ended) as server:
        tail = server.traces.TailTraces(pb.TailTracesRequest())
        await tail.read()
        ended.tell(trace(1))
        before = await next_trace(tail)
        ended.lose(3)
        ended.tell(trace(2))
        after = await next_trace(tail)
        tail.cancel()

    assert (before.dropped, after.dropped) == (0, 3)


async def test_a_feed_that_breaks_is_opened_again() -> None:
    ended = Ended()
    async with reading({"sqlite": Memory()}, ended) as server:
        tail = server.traces.TailTraces(pb.TailTracesRequest())
        await tail.read()
        ended.cut()
        await until(lambda: ended.opened == 2)
        ended.tell(trace(1))
        told = await next_trace(tail)
        tail.cancel()

    assert names([told.trace]) == [1]


async def test_without_a_feed_nothing_can_be_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "_OPENING", 0.05)
    ended = Ended()
    ended.down = True
    async with reading({"sqlite": Memory()}, ended) as server:
        failed = await failing(server.traces.TailTraces(pb.TailTracesRequest()).read())

    assert (failed.code, failed.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")


async def test_a_drain_ends_tails_at_once() -> None:
    async with reading({"sqlite": Memory()}) as server:
        tail = server.traces.TailTraces(pb.TailTracesRequest())
        await tail.read()
        begun = asyncio.get_running_loop().time()
        draining = asyncio.create_task(server.server.drain(0, 30))
        failed = await failing(tail.read())
        took = asyncio.get_running_loop().time() - begun
        await draining

    assert failed.reason == "SHUTTING_DOWN"
    assert took < 10


# -- export -----------------------------------------------------------------------------------------------------------


async def test_an_export_is_lines_of_json_oldest_first() -> None:
    memory = Memory()
    memory.add(*(trace(number, said="ä\n") for number in range(50)))
    which = pb.TraceFilter(start_time=Timestamp(seconds=START + 10), end_time=Timestamp(seconds=START + 20))
    async with reading({"sqlite": memory}) as server:
        lines, count, _ = await exported(server.traces, filter=which)
        basic, _, _ = await exported(server.traces, view=pb.TRACE_VIEW_BASIC, filter=which)

    parsed = [json_format.Parse(line, trace_pb2.Trace()) for line in lines.splitlines()]
    assert count == 10
    assert lines.endswith(b"\n")
    assert parsed == [memory.records[f"cmpl_{number:032x}"] for number in range(10, 20)]
    assert json.loads(basic.splitlines()[0])["name"] == trace(10).name
    assert b"messages" not in basic


async def test_an_export_goes_in_pieces_that_hold_whole_lines_unless_one_is_larger() -> None:
    memory = Memory()
    memory.add(*(trace(number, said="x" * 100_000) for number in range(30)), trace(40, said="y" * 3_000_000))
    async with reading({"sqlite": memory}) as server:
        pieces = [piece async for piece in server.traces.ExportTraces(pb.ExportTracesRequest())]

    assert max(len(piece.ndjson) for piece in pieces) <= 1024 * 1024
    cut = [piece.count for piece in pieces if not piece.ndjson.endswith(b"\n")]
    assert cut == [0] * (7_000_000 // (1024 * 1024))
    lines = b"".join(piece.ndjson for piece in pieces).splitlines()
    assert len(lines) == sum(piece.count for piece in pieces) == 31
    assert names(json_format.Parse(line, trace_pb2.Trace()) for line in lines) == [*range(30), 40]


async def test_an_export_reads_no_further_than_its_reader() -> None:
    memory = Memory()
    memory.add(*(trace(number, said="x" * 500_000) for number in range(200)))
    async with reading({"sqlite": memory}) as server:
        export = server.traces.ExportTraces(pb.ExportTracesRequest())
        await export.read()
        await asyncio.sleep(0.3)  # what it would read on by itself
        asked = memory.asked
        count = 1
        while await export.read() is not grpc.aio.EOF:
            count += 1

    assert asked < 30
    assert count >= 100
