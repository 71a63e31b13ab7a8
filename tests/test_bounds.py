"""The bounds of cancels and deadlines, for every dialect: how long a provider goes on after its caller is gone."""

from __future__ import annotations

import asyncio
import itertools
import ssl
import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from tests.dialects import DIALECTS, Spoken
from tests.gateway import Failed, Stub, create, failing, stream
from tests.process import connected, opened, server_process
from tests.scale import scaled
from tests.upstream import PATIENCE, Exchange, upstream

from trunkline_server.providers import DIALECTS as ALL

pytestmark = [pytest.mark.alone, pytest.mark.slow]

#: The promise, in seconds.
PROMISED = 0.100
#: Of a dialect, plain or over TLS, at one stage; with all of them 2,000 calls and more.
TRIES = scaled(26, 2)
SIDE_BY_SIDE = 100
#: Seconds until the deadline of a call that runs out of time.
DEADLINE = 2.5

#: What a call has come to when it ends, and whether it is streamed.
STAGES: Mapping[str, bool] = {
    "unary-silent": False, "unary-midway": False, "stream-silent": True, "stream-midway": True, "stream-talking": True,
}  # fmt: skip
#: Dialects whose answers come in the frames of another one that is here, over the same connections.
SAME_WIRE = {"bedrock_invoke_chat", "bedrock_invoke_nova", "vertex_anthropic", "vertex_gemini"}


@dataclass
class Provider:
    """Every provider at once: what it does, the caller says in a header."""

    arrived: dict[str, asyncio.Future[Exchange]] = field(default_factory=dict)

    async def __call__(self, exchange: Exchange) -> None:
        spoken = DIALECTS[exchange.headers["x-dialect"]]
        future = self.arrived.setdefault(exchange.headers["x-try"], asyncio.get_running_loop().create_future())
        stage = exchange.headers["x-stage"]
        if stage == "unary-midway":
            await exchange.write(b"HTTP/1.1 200 X\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{")
        elif stage in {"stream-midway", "stream-talking"}:
            await exchange.head(headers={"content-type": spoken.content_type})
            await exchange.chunk(spoken.opening)
        future.set_result(exchange)
        while stage == "stream-talking":
            await asyncio.sleep(0.005)
            await exchange.chunk(spoken.word)
        await exchange.silence()

    async def of(self, number: str) -> Exchange:
        async with asyncio.timeout(PATIENCE):
            return await self.arrived.setdefault(number, asyncio.get_running_loop().create_future())


@dataclass(frozen=True)
class World:
    provider: Provider
    stub: Stub

    def call(self, name: str, secure: bool, stage: str, number: str, **how: Any) -> Any:
        model = f"{provider_name(name, secure)}/{DIALECTS[name].model}"
        metadata = (("x-dialect", name), ("x-stage", stage), ("x-try", number))
        if STAGES[stage]:
            return opened(self.stub, stream(model), metadata=metadata, **how)
        return self.stub.CreateCompletion(create(model), metadata=metadata, **how)


def provider_name(name: str, secure: bool) -> str:
    return f"{name.replace('_', '-')}-{'tls' if secure else 'plain'}"


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    """A server process whose providers speak every dialect, plain and over TLS."""
    authority, provider = trustme.CA(), Provider()
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(tls)
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    async with upstream(provider) as plain, upstream(provider, tls) as secure:

        def providers(spoken: Spoken, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
            yield provider_name(name, False), spoken.provider(plain.url)
            yield provider_name(name, True), spoken.provider(secure.url, ca_file=str(folder / "ca.pem"))

        configured = dict(itertools.chain(*(providers(spoken, name) for name, spoken in DIALECTS.items())))
        async with (
            server_process(
                folder,
                environ={"SOME_KEY": "a-key-for-tests-only"},
                providers=configured,
                forward_metadata=["x-dialect", "x-stage", "x-try"],
            ) as server,
            connected(await server.address()) as stub,
        ):
            yield World(provider, stub)


def plan() -> Iterator[tuple[str, bool, str, str]]:
    """Every dialect, plain and over TLS, at every stage, so many times."""
    cells = itertools.product(range(TRIES), DIALECTS, (False, True), STAGES)
    for number, (_, name, secure, stage) in enumerate(cells):
        yield name, secure, stage, str(number)


async def side_by_side(run: Callable[[str, bool, str, str], Any]) -> None:
    """Runs the plan, at most so many calls at once."""
    todo = plan()

    async def caller() -> None:
        for cell in todo:
            await run(*cell)

    async with asyncio.TaskGroup() as group:
        for _ in range(SIDE_BY_SIDE):
            group.create_task(caller())


def worst(took: Mapping[tuple[str, bool, str], list[float]]) -> str:
    (name, secure, stage), times = max(took.items(), key=lambda item: statistics.median(item[1]))
    return f"{name} {'tls' if secure else 'plain'} {stage} {statistics.median(times) * 1000:.1f}"


def test_every_dialect_is_held_to_the_bounds() -> None:
    assert set(DIALECTS) == set(ALL) - SAME_WIRE


@pytest.mark.timeout(400)
async def test_a_caller_who_leaves_stops_the_provider_whatever_it_speaks(
    tmp_path: Path, measured: Callable[[str, object], None]
) -> None:
    took: dict[tuple[str, bool, str], list[float]] = {}

    async with world(tmp_path) as w:

        async def leave(name: str, secure: bool, stage: str, number: str) -> None:
            call = w.call(name, secure, stage, number)
            if stage in {"stream-midway", "stream-talking"}:
                await call.until("part_delta")
            exchange = await w.provider.of(number)
            assert exchange.closed_at is None, (name, stage)
            left = time.monotonic()
            (call.call if STAGES[stage] else call).cancel()
            took.setdefault((name, secure, stage), []).append(await exchange.gone() - left)

        await side_by_side(leave)

    times = sorted(itertools.chain(*took.values()))
    assert len(took) == len(DIALECTS) * 2 * len(STAGES)
    p99 = times[int(len(times) * 0.99)]
    measured("cancels", len(times))
    measured("median ms", round(statistics.median(times) * 1000, 2))
    measured("p99 ms", round(p99 * 1000, 2))
    measured("slowest cell, median ms", worst(took))
    assert p99 <= PROMISED


@pytest.mark.timeout(400)
async def test_a_deadline_stops_the_provider_and_is_told_by_us_whatever_it_speaks(
    tmp_path: Path, measured: Callable[[str, object], None]
) -> None:
    ended: list[Failed] = []
    after: list[float] = []

    async with world(tmp_path) as w:

        async def run_out(name: str, secure: bool, stage: str, number: str) -> None:
            call = w.call(name, secure, stage, number, timeout=DEADLINE)
            if STAGES[stage]:
                failed = (await call.rest()).failed
            else:
                failed = await failing(call)
            told = time.monotonic()
            assert failed is not None
            ended.append(failed)
            after.append(await (await w.provider.of(number)).gone() - told)

        await side_by_side(run_out)

    ours = [failed for failed in ended if failed.reason == "GATEWAY_TIMEOUT"]
    after.sort()
    measured("with our ErrorInfo", f"{len(ours)} of {len(ended)}")
    measured("p99 ms after the error", round(after[int(len(after) * 0.99)] * 1000, 2))
    assert {failed.code for failed in ended} == {grpc.StatusCode.DEADLINE_EXCEEDED}
    assert len(ours) >= 0.99 * len(ended)
    assert after[int(len(after) * 0.99)] <= PROMISED
