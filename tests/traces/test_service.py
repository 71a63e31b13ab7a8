"""TraceService over backends in memory: who sees what, paging, following, exporting, deleting, falling back."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from tests.gateway import failing
from tests.traces.memory import START, Ended, Memory, exported, names, next_trace, reading, trace

from trunkline.v1alpha import trace_service_pb2 as pb
from trunkline_server.access import Callers
from trunkline_server.traces import readers

KEY_A, KEY_B, KEY_OPS = "team-a-0123456789abcdef", "team-b-0123456789abcdef", "ops-0123456789abcdef"
CALLERS = Callers({"team-a": KEY_A, "team-b": KEY_B, "ops": KEY_OPS}, operators=["ops"])


def key(of: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {of}")]


async def pages(traces: Any, **asked: Any) -> AsyncIterator[pb.ListTracesResponse]:
    request = pb.ListTracesRequest(**asked)
    while True:
        page = await traces.ListTraces(request)
        yield page
        request.page_token = page.next_page_token
        if not request.page_token:
            return


# -- one record -------------------------------------------------------------------------------------------------------


async def test_a_record_is_read_by_its_name_whole_unless_asked_otherwise() -> None:
    memory = Memory()
    memory.add(trace(1, said="a secret of mine"))
    name = trace(1).name
    async with reading({"sqlite": memory}) as server:
        whole = await server.traces.GetTrace(pb.GetTraceRequest(name=name))
        basic = await server.traces.GetTrace(pb.GetTraceRequest(name=name, view=pb.TRACE_VIEW_BASIC))

    assert whole.backend == "sqlite"
    assert whole.trace == memory.records[name.removeprefix("traces/")]
    assert basic.trace.attempts[0].provider == "openai"
    assert b"secret" not in basic.SerializeToString()


async def test_a_record_that_is_not_there_is_not_found() -> None:
    async with reading({"sqlite": Memory()}) as server:
        failed = await failing(server.traces.GetTrace(pb.GetTraceRequest(name="traces/cmpl_1")))

    assert (failed.code, failed.reason) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
    assert failed.details["ResourceInfo"].resource_name == "traces/cmpl_1"


@pytest.mark.parametrize("name", ["", "cmpl_1", "traces/", "traces/a/b", "traces/" + "x" * 129])
@pytest.mark.parametrize("method", ["GetTrace", "DeleteTrace"])
async def test_a_name_that_is_none_is_told(name: str, method: str) -> None:
    async with reading({"sqlite": Memory()}) as server:
        request = getattr(pb, f"{method}Request")(name=name)
        failed = await failing(getattr(server.traces, method)(request))

    assert failed.reason == "INVALID_REQUEST"
    assert list(failed.fields) == ["name"]


# -- who sees what ----------------------------------------------------------------------------------------------------


async def test_a_caller_sees_its_own_records_and_an_operator_all() -> None:
    memory, ended = Memory(), Ended()
    memory.add(trace(1), trace(2, caller="team-b"), trace(3), trace(4, caller=""))
    seen: dict[str, tuple[list[int], int]] = {}
    async with reading({"sqlite": memory}, ended, callers=CALLERS) as server:
        for who in (KEY_A, KEY_B, KEY_OPS):
            page = await server.traces.ListTraces(pb.ListTracesRequest(), metadata=key(who))
            export = server.traces.ExportTraces(pb.ExportTracesRequest(), metadata=key(who))
            seen[who] = (names(page.traces), sum([piece.count async for piece in export]))
        tail = server.traces.TailTraces(pb.TailTracesRequest(), metadata=key(KEY_B))
        await tail.read()
        ended.tell(trace(5), trace(6, caller="team-b"))
        followed = await next_trace(tail)
        tail.cancel()
        other = await failing(server.traces.GetTrace(pb.GetTraceRequest(name=trace(2).name), metadata=key(KEY_A)))

    assert seen == {KEY_A: ([3, 1], 2), KEY_B: ([2], 1), KEY_OPS: ([4, 3, 2, 1], 4)}
    assert names([followed.trace]) == [6]
    assert other.code is grpc.StatusCode.NOT_FOUND


async def test_asking_for_somebody_elses_records_finds_none() -> None:
    memory = Memory()
    memory.add(trace(1), trace(2, caller="team-b"))
    which = pb.TraceFilter(caller="team-b")
    async with reading({"sqlite": memory}, callers=CALLERS) as server:
        theirs = await server.traces.ListTraces(pb.ListTracesRequest(filter=which), metadata=key(KEY_A))
        own = await server.traces.ListTraces(pb.ListTracesRequest(filter=which), metadata=key(KEY_B))

    assert names(theirs.traces) == []
    assert names(own.traces) == [2]


async def test_without_a_key_nothing_is_seen() -> None:
    async with reading({"sqlite": Memory()}, callers=CALLERS) as server:
        calls = (
            server.traces.GetTrace(pb.GetTraceRequest(name="traces/x")),
            server.traces.ListTraces(pb.ListTracesRequest()),
            server.traces.DeleteTrace(pb.DeleteTraceRequest(name="traces/x")),
            server.traces.TailTraces(pb.TailTracesRequest()).read(),
            server.traces.ExportTraces(pb.ExportTracesRequest()).read(),
        )
        failures = [await failing(call) for call in calls]

    assert {failed.code for failed in failures} == {grpc.StatusCode.UNAUTHENTICATED}


async def test_a_token_of_another_caller_is_no_token() -> None:
    memory = Memory()
    memory.add(*(trace(number, caller=f"team-{'ab'[number % 2]}") for number in range(8)))
    request = pb.ListTracesRequest(page_size=2)
    async with reading({"sqlite": memory}, callers=CALLERS) as server:
        page = await server.traces.ListTraces(request, metadata=key(KEY_A))
        request.page_token = page.next_page_token
        failed = await failing(server.traces.ListTraces(request, metadata=key(KEY_B)))

    assert list(failed.fields) == ["page_token"]


# -- lists ------------------------------------------------------------------------------------------------------------


async def test_pages_have_no_gap_and_no_repeat_while_records_come_in() -> None:
    memory = Memory()
    memory.add(*(trace(number) for number in range(0, 100, 2)))
    found: list[int] = []
    async with reading({"sqlite": memory}) as server:
        count = 0
        async for page in pages(server.traces, page_size=7):
            found += names(page.traces)
            count += 1
            # Calls go on, and late records of calls that began before come in between.
            memory.add(trace(1000 + count), trace(1 + 2 * count))

    there_all_along = [number for number in found if number < 100 and number % 2 == 0]
    assert there_all_along == list(range(98, -1, -2))
    assert len(set(found)) == len(found)
    assert found == sorted(found, reverse=True)


async def test_records_that_began_at_the_same_moment_are_all_listed() -> None:
    memory = Memory()
    for number in range(10):
        one = trace(number)
        one.start_time.seconds = START
        memory.add(one)
    async with reading({"sqlite": memory}) as server:
        newest = [n async for page in pages(server.traces, page_size=3) for n in names(page.traces)]
        oldest = [
            n
            async for page in pages(server.traces, page_size=3, order=pb.TRACE_ORDER_OLDEST_FIRST)
            for n in names(page.traces)
        ]

    assert newest == list(range(9, -1, -1))
    assert oldest == list(range(10))


@pytest.mark.parametrize(
    "changes",
    [
        {"filter": pb.TraceFilter(provider="openai")},
        {"order": pb.TRACE_ORDER_OLDEST_FIRST},
        {"page_token": "x"},
        {"page_token": "x" * 4000},
        {"page_token": "–"},
    ],
)
async def test_a_token_of_another_list_is_refused_by_name(changes: dict[str, Any]) -> None:
    memory = Memory()
    memory.add(*(trace(number) for number in range(5)))
    async with reading({"sqlite": memory}) as server:
        page = await server.traces.ListTraces(pb.ListTracesRequest(page_size=2))
        request = pb.ListTracesRequest(**{"page_token": page.next_page_token, "page_size": 2, **changes})
        failed = await failing(server.traces.ListTraces(request))

    assert (failed.code, list(failed.fields)) == (grpc.StatusCode.INVALID_ARGUMENT, ["page_token"])


async def test_a_token_with_one_character_changed_is_refused() -> None:
    memory = Memory()
    memory.add(*(trace(number) for number in range(5)))
    async with reading({"sqlite": memory}) as server:
        token = (await server.traces.ListTraces(pb.ListTracesRequest(page_size=2))).next_page_token
        for at, letter in enumerate(token):
            for other in ("A", "z", "="):
                changed = token[:at] + other + token[at + 1 :]
                if other != letter:
                    failed = await failing(server.traces.ListTraces(pb.ListTracesRequest(page_token=changed)))
                    assert list(failed.fields) == ["page_token"], changed


async def test_a_page_may_be_of_another_size_than_the_one_before() -> None:
    memory = Memory()
    memory.add(*(trace(number) for number in range(5)))
    async with reading({"sqlite": memory}) as server:
        first = await server.traces.ListTraces(pb.ListTracesRequest(page_size=2))
        rest = await server.traces.ListTraces(pb.ListTracesRequest(page_token=first.next_page_token))

    assert (names(first.traces), names(rest.traces), rest.next_page_token) == ([4, 3], [2, 1, 0], "")


async def test_a_list_holds_nothing_that_was_said_unless_it_is_asked_for() -> None:
    memory = Memory()
    memory.add(trace(1, said="a secret of mine"))
    async with reading({"sqlite": memory}) as server:
        basic = await server.traces.ListTraces(pb.ListTracesRequest())
        whole = await server.traces.ListTraces(pb.ListTracesRequest(view=pb.TRACE_VIEW_FULL))

    assert b"secret" not in basic.SerializeToString()
    assert b"secret" in whole.SerializeToString()


async def test_a_page_of_full_records_ends_before_it_is_too_large_to_send() -> None:
    memory = Memory()
    memory.add(*(trace(number, said="x" * 300_000) for number in range(20)))
    sizes: list[int] = []
    found: list[int] = []
    async with reading({"sqlite": memory}) as server:
        async for page in pages(server.traces, page_size=20, view=pb.TRACE_VIEW_FULL):
            sizes.append(page.ByteSize())
            found += names(page.traces)

    assert found == list(range(19, -1, -1))
    assert max(sizes) < 4 * 1024 * 1024


_DETAILS = trace(
    7,
    provider="anthropic",
    model="claude",
    method="StreamCompletion",
    labels={"team": "blue", "env": "test"},
)
_DETAILS.status.code, _DETAILS.status.reason = 8, "LLM_RATE_LIMITED"
_DETAILS.status.message = "Too many requests; the Müller quota is spent"
_DETAILS.usage.cost_nano_usd = 5_000
_DETAILS.timing.total.seconds = 3


@pytest.mark.parametrize(
    "which",
    [
        pb.TraceFilter(start_time=Timestamp(seconds=START + 7), end_time=Timestamp(seconds=START + 8)),
        pb.TraceFilter(provider="anthropic"),
        pb.TraceFilter(model="claude"),
        pb.TraceFilter(model="fast", code=8),
        pb.TraceFilter(reason="LLM_RATE_LIMITED"),
        pb.TraceFilter(failed=True),
        pb.TraceFilter(labels={"team": "blue", "env": "test"}),
        pb.TraceFilter(min_cost_nano_usd=5_000),
        pb.TraceFilter(min_duration=Duration(seconds=1)),
        pb.TraceFilter(error_text="QUOTA muller"),
        pb.TraceFilter(method="StreamCompletion"),
    ],
)
async def test_a_filter_finds_what_it_says_in_lists_and_tails(which: pb.TraceFilter) -> None:
    memory, ended = Memory(), Ended()
    others = [trace(1), trace(2), trace(9)]
    memory.add(*others, _DETAILS)
    async with reading({"sqlite": memory}, ended) as server:
        page = await server.traces.ListTraces(pb.ListTracesRequest(filter=which))
        which.ClearField("start_time")
        which.ClearField("end_time")
        tail = server.traces.TailTraces(pb.TailTracesRequest(filter=which))
        await tail.read()
        ended.tell(*([] if which == pb.TraceFilter() else others), _DETAILS)
        followed = await next_trace(tail)
        tail.cancel()

    assert names(page.traces) == [7]
    assert names([followed.trace]) == [7]


async def test_everything_that_is_wrong_is_told_at_once() -> None:
    which = pb.TraceFilter(
        start_time=Timestamp(seconds=START, nanos=-1),
        end_time=Timestamp(seconds=2**62),
        provider="p" * 65,
        model="m" * 1025,
        caller="c" * 65,
        code=17,
        labels={**{f"k{n}": "v" for n in range(9)}, "": "x"},
        min_cost_nano_usd=-1,
        min_duration=Duration(seconds=-1),
        error_text="?!",
        method="no method",
    )
    request = pb.ListTracesRequest(filter=which, page_size=1001, page_token="x")
    request.order, request.view = 9, 9  # type: ignore[assignment]  # values of a newer contract
    async with reading({"sqlite": Memory()}) as server:
        failed = await failing(server.traces.ListTraces(request))
        backwards = pb.TraceFilter(start_time=Timestamp(seconds=2), end_time=Timestamp(seconds=1), reason="no reason")
        swapped = await failing(server.traces.ListTraces(pb.ListTracesRequest(filter=backwards)))

    assert failed.code is grpc.StatusCode.INVALID_ARGUMENT
    assert {field.partition("[")[0] for field in failed.fields} == {
        *(f"filter.{name}" for name in (
            "start_time", "end_time", "provider", "model", "caller", "code", "labels", "min_cost_nano_usd",
            "min_duration", "error_text", "method",
        )),
        "page_size", "order", "view",
    }  # fmt: skip
    assert set(swapped.fields) == {"filter.end_time", "filter.reason"}


# -- backends that are down -------------------------------------------------------------------------------------------


async def test_when_the_first_backend_is_down_the_next_answers_and_says_so() -> None:
    first, second = Memory(), Memory()
    second.add(trace(1), trace(2))
    first.fail()
    told: list[tuple[str, str]] = []
    async with reading({"postgresql": first, "sqlite": second}, told=lambda *what: told.append(what)) as server:
        page = await server.traces.ListTraces(pb.ListTracesRequest(page_size=1))
        one = await server.traces.GetTrace(pb.GetTraceRequest(name=trace(1).name))

    assert (page.backend, names(page.traces)) == ("sqlite", [2])
    assert one.backend == "sqlite"
    assert told == [("postgresql", "it is gone")]


async def test_a_list_goes_on_in_another_backend_where_it_was() -> None:
    first, second = Memory(), Memory()
    for memory in (first, second):
        memory.add(*(trace(number) for number in range(6)))
    async with reading({"postgresql": first, "sqlite": second}) as server:
        page = await server.traces.ListTraces(pb.ListTracesRequest(page_size=2))
        first.fail()
        rest = await server.traces.ListTraces(pb.ListTracesRequest(page_token=page.next_page_token))

    assert (page.backend, rest.backend) == ("postgresql", "sqlite")
    assert names([*page.traces, *rest.traces]) == [5, 4, 3, 2, 1, 0]


async def test_a_backend_that_hangs_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "PATIENCE", 0.05)
    first, second = Memory(hangs=True), Memory()
    second.add(trace(1))
    async with reading({"postgresql": first, "sqlite": second}) as server:
        for _ in range(3):
            page = await server.traces.ListTraces(pb.ListTracesRequest())
            assert page.backend == "sqlite"

    assert first.asked == 1


async def test_when_all_are_down_the_error_names_them() -> None:
    first, second = Memory(), Memory()
    first.fail()
    second.fail()
    async with reading({"postgresql": first, "sqlite": second}) as server:
        calls = (
            server.traces.GetTrace(pb.GetTraceRequest(name="traces/x")),
            server.traces.ListTraces(pb.ListTracesRequest()),
            server.traces.ExportTraces(pb.ExportTracesRequest()).read(),
        )
        failures = [await failing(call) for call in calls]

    for failed in failures:
        assert (failed.code, failed.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
        assert "postgresql, sqlite" in failed.message
        assert "RetryInfo" in failed.details


# -- delete -----------------------------------------------------------------------------------------------------------


async def test_an_operator_deletes_a_record_everywhere_and_nobody_else_does() -> None:
    first, second = Memory(), Memory()
    for memory in (first, second):
        memory.add(trace(1))
    request = pb.DeleteTraceRequest(name=trace(1).name)
    async with reading({"postgresql": first, "sqlite": second}, callers=CALLERS) as server:
        refused = await failing(server.traces.DeleteTrace(request, metadata=key(KEY_A)))
        there = len(first.records)
        deleted = await server.traces.DeleteTrace(request, metadata=key(KEY_OPS))
        again = await failing(server.traces.DeleteTrace(request, metadata=key(KEY_OPS)))

    assert (refused.code, refused.reason) == (grpc.StatusCode.PERMISSION_DENIED, "CALLER_PERMISSION_DENIED")
    assert there == 1
    assert list(deleted.backends) == ["postgresql", "sqlite"]
    assert (first.records, second.records) == ({}, {})
    assert again.code is grpc.StatusCode.NOT_FOUND


async def test_a_record_counts_as_deleted_only_when_no_backend_keeps_it() -> None:
    first, second = Memory(), Memory()
    for memory in (first, second):
        memory.add(trace(1))
    first.fail()
    request = pb.DeleteTraceRequest(name=trace(1).name)
    async with reading({"postgresql": first, "sqlite": second}) as server:
        failed = await failing(server.traces.DeleteTrace(request))
        first.down = None
        deleted = await server.traces.DeleteTrace(request)

    assert failed.reason == "STORE_UNAVAILABLE"
    assert "deleted from sqlite, but postgresql cannot be reached" in failed.message
    assert list(deleted.backends) == ["postgresql"]


# -- what they are to the rest ----------------------------------------------------------------------------------------


async def test_the_log_tells_of_these_calls_and_of_nothing_in_records() -> None:
    memory = Memory()
    memory.add(trace(1, said="a secret of mine"))
    async with reading({"sqlite": memory}) as server:
        await server.traces.GetTrace(pb.GetTraceRequest(name=trace(1).name))
        await exported(server.traces)

    methods = [json.loads(line)["method"] for line in server.log.getvalue().splitlines()]
    assert methods == ["GetTrace", "ExportTraces"]
    assert "secret" not in server.log.getvalue()
