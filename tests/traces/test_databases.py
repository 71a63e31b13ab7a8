"""A gateway that records to databases: each call once in each, also when one was down for a while."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest
from tests.gateway import Gateway, create, gateway, script, stream
from tests.services import Clickhouse, Postgresql

from trunkline.v1alpha import trace_service_pb2 as pb
from trunkline_server.traces import open_backend
from trunkline_server.traces.base import BackendUnavailable

CALLS = 60


async def call(server: Gateway, number: int) -> None:
    """One of a few kinds."""
    labels = {"number": str(number)}
    if number % 3 == 0:
        await server.complete(create("fake/echo", f"call {number}", labels=labels))
    elif number % 3 == 1:
        reader = server.stream(stream("fake/echo", f"call {number}", labels=labels))
        await reader.rest()
        assert reader.failed is None
    else:
        failing = script(error={"kind": "rate_limited", "message": "slow down please"})
        with pytest.raises(grpc.aio.AioRpcError):
            await server.complete(create("fake/script", "x", labels=labels, provider_options_json=failing))


async def held(url: str, folder: Path) -> list[str]:
    """The numbers of the calls that a backend holds, as often as it holds them."""
    reader = open_backend(url, folder).reader()
    assert reader is not None
    try:
        page = await reader.list(pb.TraceFilter(), after=None, size=1_000, oldest_first=True, full=False)
    except BackendUnavailable:
        return []
    finally:
        await reader.aclose()
    return sorted((trace.labels["number"] for trace in page.traces), key=int)


async def test_every_database_has_every_call_once_though_one_was_down(
    postgresql: Postgresql, clickhouse: Clickhouse, tmp_path: Path
):
    urls = [postgresql.database(), clickhouse.database(), "clickhouse+chdb:"]
    files = [tmp_path / f"url-{number}" for number in range(len(urls))]
    for file, url in zip(files, urls, strict=True):
        file.write_text(url)
    backends = [{"url_file": str(file)} for file in files]

    async with gateway(state_dir=tmp_path / "state", traces={"backends": backends}) as server:
        for number in range(CALLS):
            if number == CALLS // 3:
                await asyncio.to_thread(postgresql.stop)
            if number == 2 * CALLS // 3:
                # The first that can be read is down, so the next one answers and says so.
                await wait_until_held(urls[1], tmp_path / "state", number)
                answer = await server.traces.ListTraces(pb.ListTracesRequest())
                assert answer.backend == "clickhouse"
                assert len(answer.traces) == number
                await asyncio.to_thread(postgresql.start)
            await call(server, number)
        for url in urls:
            await wait_until_held(url, tmp_path / "state", CALLS)
        request = pb.ListTracesRequest(filter=pb.TraceFilter(error_text="slow", failed=True), page_size=7)
        async with asyncio.timeout(30):
            # One that was down is not asked again at once.
            while (answer := await server.traces.ListTraces(request)).backend != "postgresql":
                await asyncio.sleep(0.1)
        assert [trace.labels["number"] for trace in answer.traces] == ["59", "56", "53", "50", "47", "44", "41"]
        assert "password" not in server.log
        assert not any(
            secret in server.log for secret in ("slow down please", *(url.split("@")[0] for url in urls[:2]))
        )


async def wait_until_held(url: str, folder: Path, count: int) -> None:
    expected = [str(number) for number in range(count)]
    async with asyncio.timeout(60):
        while (found := await held(url, folder)) != expected:
            assert len(found) == len(set(found)), found
            await asyncio.sleep(0.1)
