"""TraceService of a real server: records that it made itself, in a real SQLite, followed through the real delivery."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from tests.gateway import Gateway, create, failing, gateway, script, stream
from tests.traces.memory import exported, next_trace

from trunkline.v1.model_service_pb2 import ListModelsRequest
from trunkline.v1alpha import trace_pb2
from trunkline.v1alpha import trace_service_pb2 as pb

KEYS = {"TEAM_A": "team-a-0123456789abcdef", "TEAM_B": "team-b-0123456789abcdef", "OPS": "ops-0123456789abcdef"}
CALLERS: list[dict[str, Any]] = [
    {"name": "team-a", "api_key_env": "TEAM_A"},
    {"name": "team-b", "api_key_env": "TEAM_B"},
    {"name": "ops", "api_key_env": "OPS", "operator": True},
]


def key(of: str) -> dict[str, Any]:
    return {"metadata": [("authorization", f"Bearer {KEYS[of]}")]}


def recording(folder: Path, **more: Any) -> Any:
    return gateway(state_dir=folder, traces="sqlite:", **more)


async def listed(server: Gateway, count: int, how: Mapping[str, Any] | None = None, **which: Any) -> list[Any]:
    """Records that match, newest first, as soon as there are so many."""
    async with asyncio.timeout(20):
        while True:
            page = await server.traces.ListTraces(
                pb.ListTracesRequest(filter=pb.TraceFilter(**which), page_size=1000), **(how or {})
            )
            if len(page.traces) >= count:
                return list(page.traces)
            await asyncio.sleep(0.02)


async def test_a_record_can_be_read_within_a_second_of_the_end_of_its_call(tmp_path: Path) -> None:
    async with recording(tmp_path) as server:
        # The delivery process is there when the first record is.
        await server.complete(create("fake/echo"))
        await listed(server, 1)
        answer = await server.complete(create("fake/echo", "Say hello."))
        loop = asyncio.get_running_loop()
        ended, found = loop.time(), None
        while found is None:
            try:
                found = await server.traces.GetTrace(pb.GetTraceRequest(name=f"traces/{answer.id}"))
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.NOT_FOUND or loop.time() - ended > 10:
                    raise
        took = loop.time() - ended

    assert found.backend == "sqlite"
    assert found.trace.completion.choices[0].message.parts[0].text.text == "You said: Say hello."
    assert took < 5  # 1 s on a machine that does nothing else


async def test_callers_see_their_own_calls_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    async with recording(tmp_path, callers=CALLERS) as server:
        for who in ("TEAM_A", "TEAM_B", "TEAM_A"):
            await server.complete(create("fake/echo"), **key(who))
        everything = await listed(server, 3, key("OPS"))
        own = await listed(server, 2, key("TEAM_A"))
        theirs = next(trace for trace in everything if trace.caller == "team-b")
        request = pb.GetTraceRequest(name=theirs.name)
        hidden = await failing(server.traces.GetTrace(request, **key("TEAM_A")))
        refused = await failing(server.traces.DeleteTrace(pb.DeleteTraceRequest(name=own[0].name), **key("TEAM_A")))
        export = server.traces.ExportTraces(pb.ExportTracesRequest(), **key("TEAM_B"))
        lines = b"".join([piece.ndjson async for piece in export]).splitlines()
        deleted = await server.traces.DeleteTrace(pb.DeleteTraceRequest(name=theirs.name), **key("OPS"))
        left = await listed(server, 0, key("TEAM_B"))

    assert {trace.caller for trace in own} == {"team-a"}
    assert len(everything) == 3
    assert hidden.code is grpc.StatusCode.NOT_FOUND
    assert refused.code is grpc.StatusCode.PERMISSION_DENIED
    assert [json_format.Parse(line, trace_pb2.Trace()).name for line in lines] == [theirs.name]
    assert list(deleted.backends) == ["sqlite"]
    assert left == []


async def test_calls_are_followed_as_they_end(tmp_path: Path) -> None:
    async with recording(tmp_path) as server:
        tail = server.traces.TailTraces(
            pb.TailTracesRequest(filter=pb.TraceFilter(failed=True), view=pb.TRACE_VIEW_FULL)
        )
        await tail.read()
        await server.complete(create("fake/echo"))
        await failing(server.completions.CreateCompletion(create("fake/rate-limit")))
        async with asyncio.timeout(20):
            told = await next_trace(tail)
        tail.cancel()

    assert told.trace.status.reason == "LLM_RATE_LIMITED"
    assert told.trace.completion_spec.messages[0].parts[0].text.text == "Hi"
    assert told.dropped == 0


async def test_pages_go_on_without_a_gap_while_calls_are_made(tmp_path: Path) -> None:
    async with recording(tmp_path) as server:
        for _ in range(30):
            await server.complete(create("fake/echo"))
        before = [trace.name for trace in await listed(server, 30)]
        request, found = pb.ListTracesRequest(page_size=7), []
        while True:
            page = await server.traces.ListTraces(request)
            found += [trace.name for trace in page.traces]
            await server.complete(create("fake/echo"))
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token

    assert found == before


async def test_reading_records_leaves_none(tmp_path: Path) -> None:
    async with recording(tmp_path) as server:
        answer = await server.complete(create("fake/echo"))
        await listed(server, 1)
        await server.traces.GetTrace(pb.GetTraceRequest(name=f"traces/{answer.id}"))
        await exported(server.traces)
        tail = server.traces.TailTraces(pb.TailTracesRequest())
        await tail.read()
        tail.cancel()
        await server.models.ListModels(ListModelsRequest())
        await server.stream(stream("fake/echo")).rest()
        methods = [trace.method for trace in await listed(server, 2)]

    assert methods == ["StreamCompletion", "CreateCompletion"]


async def test_what_is_sought_is_found_in_records_that_the_server_made(tmp_path: Path) -> None:
    slow = {"provider_options_json": script(delay=0.3, text="Late.")}
    async with recording(tmp_path) as server:
        await server.complete(create("fake/echo", labels={"team": "blue"}))
        await server.complete(create("fake/script", **slow))
        await failing(server.completions.CreateCompletion(create("fake/rate-limit")))
        names = {trace.model: trace.name for trace in await listed(server, 3)}
        which: dict[str, dict[str, Any]] = {
            "label": {"labels": {"team": "blue"}},
            "reason": {"reason": "LLM_RATE_LIMITED"},
            "model": {"model": "script"},
            "code": {"code": 8},
            "duration": {"min_duration": Duration(nanos=200_000_000)},
            "future": {"start_time": Timestamp(seconds=4_000_000_000)},
        }
        found = {name: [trace.name for trace in await listed(server, 0, **asked)] for name, asked in which.items()}

    assert found == {
        "label": [names["echo"]],
        "reason": [names["rate-limit"]],
        "model": [names["script"]],
        "code": [names["rate-limit"]],
        "duration": [names["script"]],
        "future": [],
    }


async def test_a_server_that_records_nothing_has_no_such_service() -> None:
    async with gateway() as server:
        failed = await failing(server.traces.ListTraces(pb.ListTracesRequest()))

    assert failed.code is grpc.StatusCode.UNIMPLEMENTED
