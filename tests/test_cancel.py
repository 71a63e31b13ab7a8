"""A caller who leaves stops the provider: its socket is closed at once, whatever it was doing."""

from __future__ import annotations

import asyncio
import ssl
import statistics
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
import trustme
from tests.gateway import TEAM_A, TEAM_B, Gateway, create, failing, gateway, script, stream, until
from tests.process import connected, opened, server_process
from tests.scale import scaled
from tests.upstream import (
    Exchange,
    Script,
    Upstream,
    piece,
    silent,
    silent_after_head,
    silent_midway,
    upstream,
)

from trunkline.v1 import completion_service_pb2 as pb

#: The promise, and what a test on a busy machine may take at most, in seconds.
PROMISED, AT_MOST = 0.100, 1.0
TRIES = 12
STREAMS = scaled(1000, 100)


async def half_a_body(exchange: Exchange) -> None:
    await exchange.write(
        b"HTTP/1.1 200 X\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n" + b" " * 500
    )
    await exchange.silence()


async def talking(exchange: Exchange) -> None:
    """Never stops, as fast as it is read."""
    await exchange.head()
    await exchange.chunk(piece("", role="assistant"))
    while True:
        await exchange.chunk(piece("word ") * 8)


@dataclass(frozen=True)
class Stage:
    """Where a call is when its caller leaves."""

    script: Script
    streamed: bool
    #: The event up to which the caller reads.
    seen: str = ""


STAGES = {
    "unary, before the headers": Stage(silent, False),
    "unary, in the middle of the body": Stage(half_a_body, False),
    "stream, before the headers": Stage(silent, True, "heartbeat"),
    "stream, before the first token": Stage(silent_after_head, True, "heartbeat"),
    "stream, silent after the first words": Stage(silent_midway, True, "part_delta"),
    "stream, while words arrive": Stage(talking, True, "part_delta"),
}


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@asynccontextmanager
async def pair(
    script: Script, authority: trustme.CA | None, folder: Path, **more: Any
) -> AsyncIterator[tuple[Upstream, Gateway]]:
    """An upstream and a gateway before it, over TLS if there is an authority."""
    tls, provider = None, {}
    if authority is not None:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("localhost").configure_cert(tls)
        authority.cert_pem.write_to_path(str(folder / "ca.pem"))
        provider = {"ca_file": str(folder / "ca.pem")}
    async with upstream(script, tls) as up, gateway(up, provider, **more) as gw:
        yield up, gw


async def begin(gw: Gateway, up: Upstream, stage: Stage) -> tuple[Any, Exchange]:
    """A call that has come as far as the stage says."""
    if not stage.streamed:
        call = gw.completions.CreateCompletion(create())
        return call, await up.next()
    reader = gw.stream(stream())
    await reader.until(stage.seen)
    return reader.call, await up.next()


@pytest.mark.alone
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
async def test_leaving_closes_the_providers_socket(
    stage: Stage, secure: bool, authority: trustme.CA, tmp_path: Path, measured: Callable[[str, object], None]
) -> None:
    took = []
    async with pair(stage.script, authority if secure else None, tmp_path, stream={"heartbeat": 0.05}) as (up, gw):
        for _ in range(TRIES):
            call, exchange = await begin(gw, up, stage)
            assert exchange.closed_at is None
            left = time.monotonic()
            call.cancel()
            took.append(await exchange.gone() - left)
        await gw.idle()

    measured("median ms", round(statistics.median(took) * 1000, 2))
    measured("worst ms", round(max(took) * 1000, 2))
    assert sorted(took)[int(TRIES * 0.8)] <= PROMISED, took
    assert max(took) <= AT_MOST, took
    assert [(line["code"], line["reason"]) for line in gw.calls()] == [("CANCELLED", "CANCELLED")] * TRIES


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_caller_whose_connection_ends_is_one_who_left(streamed: bool) -> None:
    async with upstream(silent_midway if streamed else silent) as up, gateway(up) as gw:
        _, exchange = await begin(gw, up, Stage(silent, streamed, "part_delta"))
        left = time.monotonic()
        await gw.channel.close()
        assert await exchange.gone() - left <= AT_MOST
        await gw.idle()


async def test_a_call_that_is_left_before_a_connection_is_free_never_reaches_the_provider() -> None:
    async with upstream(silent) as up, gateway(up, {"max_connections": 1}) as gw:
        first, exchange = await begin(gw, up, STAGES["unary, before the headers"])
        second = gw.completions.CreateCompletion(create())
        await until(lambda: gw.metric("trunkline_calls_in_flight") == 2)
        second.cancel()
        await until(lambda: gw.metric("trunkline_calls_in_flight") == 1)
        first.cancel()
        await exchange.gone()

    assert len(up.exchanges) == 1


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_thousand_streams_that_are_left_leave_nothing_behind(
    tmp_path: Path, measured: Callable[[str, object], None]
) -> None:
    async with (
        upstream(silent_midway) as up,
        server_process(tmp_path, providers={"up": {"kind": "vllm", "base_url": f"{up.url}/v1"}}) as server,
        connected(await server.address()) as stub,
    ):
        process = psutil.Process(server.pid)

        async def one() -> None:
            reader = opened(stub, stream())
            await reader.until("part_delta")
            reader.call.cancel()

        async def leave(count: int) -> None:
            for _ in range(0, count, 50):
                await asyncio.gather(*(one() for _ in range(50)))
            await until(lambda: not up.open)

        # The first ones fill pools and caches.
        await leave(STREAMS)
        files, memory = process.num_fds(), process.memory_info().rss
        await leave(STREAMS)
        await until(lambda: process.num_fds() <= files)
        grown = process.memory_info().rss - memory

    measured("grown KB", grown // 1024)
    assert grown <= 3 * 1024 * 1024


async def test_streams_that_are_left_leave_no_task_behind() -> None:
    async with upstream(silent_midway) as up, gateway(up) as gw:
        before = asyncio.all_tasks()
        for _ in range(20):
            readers = [gw.stream(stream()) for _ in range(10)]
            await asyncio.gather(*(reader.until("part_delta") for reader in readers))
            for reader in readers:
                reader.call.cancel()
        await gw.idle()
        await until(lambda: not up.open)
        await until(lambda: len(asyncio.all_tasks()) <= len(before))

    assert len(gw.calls()) == 200


# -- CancelCompletion -------------------------------------------------------------------------------------------------


async def test_cancel_completion_stops_a_stream_and_says_so(callers: list[dict[str, str]]) -> None:
    async with upstream(silent_midway) as up, gateway(up, callers=callers) as gw:
        reader = gw.stream(stream(), metadata=TEAM_A)
        await reader.until("part_delta")
        exchange = await up.next()
        asked = time.monotonic()
        await gw.completions.CancelCompletion(pb.CancelCompletionRequest(completion_id=reader.id), metadata=TEAM_A)
        await reader.rest()
        assert await exchange.gone() - asked <= AT_MOST

    assert reader.failed is not None
    assert (reader.failed.code, reader.failed.reason) == (grpc.StatusCode.CANCELLED, "CANCELLED")
    assert reader.failed.detail.completion_id == reader.id
    [line] = gw.calls("StreamCompletion")
    assert (line["code"], line["reason"]) == ("CANCELLED", "CANCELLED")


async def test_only_the_caller_of_a_completion_can_cancel_it(callers: list[dict[str, str]]) -> None:
    async with upstream(silent_midway) as up, gateway(up, callers=callers) as gw:
        reader = gw.stream(stream(), metadata=TEAM_A)
        await reader.until("part_delta")
        exchange = await up.next()
        request = pb.CancelCompletionRequest(completion_id=reader.id)
        foreign = await failing(gw.completions.CancelCompletion(request, metadata=TEAM_B))
        unknown = await failing(
            gw.completions.CancelCompletion(pb.CancelCompletionRequest(completion_id="cmpl_0"), metadata=TEAM_A)
        )
        assert exchange.closed_at is None
        reader.call.cancel()
        await exchange.gone()

    for failed in (foreign, unknown):
        # A foreign completion looks like none at all.
        assert (failed.code, failed.reason) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
        assert failed.details["ResourceInfo"].resource_type == "completion"


async def test_a_completion_that_is_over_cannot_be_cancelled() -> None:
    async with gateway() as gw:
        reader = await gw.stream(stream("fake/echo")).rest()
        failed = await failing(gw.completions.CancelCompletion(pb.CancelCompletionRequest(completion_id=reader.id)))

    assert failed.reason == "NOT_FOUND"


async def test_a_scripted_wait_ends_with_its_caller() -> None:
    async with gateway() as gw:
        call = gw.completions.CreateCompletion(create("fake/script", provider_options_json=script(text="a", delay=60)))
        await until(lambda: gw.metric("trunkline_calls_in_flight") == 1)
        call.cancel()
        await gw.idle()


async def test_an_answer_that_nobody_reads_stops_the_reading_of_the_provider() -> None:
    """The provider is paused, not buffered: what it could send stays bounded."""
    sent = 0

    async def flood(exchange: Exchange) -> None:
        nonlocal sent
        await exchange.head()
        await exchange.chunk(piece("", role="assistant"))
        words = piece("x" * 1000)
        while True:
            await exchange.chunk(words)
            sent += len(words)

    async with upstream(flood) as up, gateway(up) as gw:
        reader = gw.stream(stream())
        await reader.until("part_delta")
        exchange = await up.next()

        async def paused() -> int:
            before = -1
            while before != sent:
                before = sent
                # It is the absence of progress that is looked for.
                await asyncio.sleep(0.3)
            return sent

        async with asyncio.timeout(60):
            most = await paused()
        assert most < 64 * 1024 * 1024
        left = time.monotonic()
        reader.call.cancel()
        assert await exchange.gone() - left <= AT_MOST
        await gw.idle()
