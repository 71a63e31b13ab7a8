"""The books: after thousands of calls that end in every way, each backend has each once, and the sums agree."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import uuid
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.gateway import Gateway, create, failing, script, spec, stream
from tests.scale import scaled
from tests.traces.recorded import recorded
from tests.upstream import PATIENCE

from tests import services
from trunkline.v1 import completion_pb2, embedding_service_pb2
from trunkline.v1 import completion_service_pb2 as pb
from trunkline.v1alpha import trace_pb2, trace_service_pb2
from trunkline_server.providers import jsontext
from trunkline_server.providers.fake import FakeReply, FakeUpstream
from trunkline_server.traces import open_backend, status
from trunkline_server.traces.base import Position
from trunkline_server.traces.columns import unix_us

#: What is made, and what must have reached the server at least: some run out of time before they get there.
CALLS = scaled(5_400, 540)
LEAST = CALLS * 25 // 27
SIDE_BY_SIDE = 40
#: What makes the fake provider break as no provider does.
BUG = "a bug of ours"

Book = Counter[str]

#: Set when the upstream has the call that says this.
ARRIVED: dict[bytes, asyncio.Event] = {}


@dataclass
class Ledger:
    """What the upstream itself says that it charged for."""

    input: int = 0
    output: int = 0

    def charge(self, usage: Any) -> None:
        self.input += usage.get("prompt_tokens", 0)
        self.output += usage.get("completion_tokens", 0)


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """Charged whenever the fake provider has told a usage, and its caller has taken it."""
    made = Ledger()
    send, opening = FakeUpstream.send, FakeUpstream.stream

    def arrived(body: bytes) -> None:
        for said in [said for said in ARRIVED if said in body]:
            ARRIVED.pop(said).set()

    async def charged(self: FakeUpstream, request: Any, *rest: Any) -> FakeReply:
        arrived(request.body)
        if BUG.encode() in request.body:
            raise RuntimeError(BUG)
        reply = await send(self, request, *rest)
        made.charge(jsontext.loads(reply.body).get("usage") or {})
        return reply

    @asynccontextmanager
    async def streamed(self: FakeUpstream, request: Any, *rest: Any) -> AsyncIterator[Any]:
        arrived(request.body)
        async with opening(self, request, *rest) as reply:
            yield _Charged(reply, made)

    monkeypatch.setattr(FakeUpstream, "send", charged)
    monkeypatch.setattr(FakeUpstream, "stream", streamed)
    return made


class _Charged:
    def __init__(self, reply: Any, ledger: Ledger) -> None:
        self._reply = reply
        self._ledger = ledger

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reply, name)

    async def chunks(self) -> AsyncGenerator[bytes]:
        async for chunk in self._reply.chunks():
            if b'"usage"' in chunk:
                self._ledger.charge(jsontext.loads(chunk.removeprefix(b"data: ")).get("usage") or {})
            yield chunk


# -- every way ---------------------------------------------------------------------------------------------------------


async def _streamed(gw: Gateway, **how: Any) -> None:
    await gw.stream(stream("fake/script", "a b c", provider_options_json=script(**how))).rest()


async def _left(gw: Gateway, kind: str, **how: Any) -> None:
    reader = gw.stream(stream("fake/script", "a b c", provider_options_json=script(**how)))
    await reader.until(kind)
    reader.call.cancel()


async def _left_in_silence(gw: Gateway, way: Callable[[Gateway, str], Any]) -> None:
    said = f"left {uuid.uuid4()}"
    arrived = ARRIVED[said.encode()] = asyncio.Event()
    call = way(gw, said)
    async with asyncio.timeout(PATIENCE):
        await arrived.wait()
    call.cancel()


_NEVER = {"provider_options_json": script(text="never", delay=60)}
_SILENCES: dict[str, Callable[[Gateway, str], Any]] = {
    "stream": lambda gw, said: gw.stream(stream("fake/script", said, **_NEVER)).call,
    "unary": lambda gw, said: gw.completions.CreateCompletion(create("fake/script", said, **_NEVER)),
}


async def _fails(
    gw: Gateway, *texts: str, model: str = "fake/script", seconds: float | None = None, **how: Any
) -> None:
    more = {"provider_options_json": script(**how)} if how else {}
    await failing(gw.complete(create(model, *texts, **more), timeout=seconds))


async def _vectors(gw: Gateway) -> None:
    asked = embedding_service_pb2.CreateEmbeddingsRequest()
    asked.spec.model = "fake/vectors"
    for text in ("one two", "three"):
        asked.spec.inputs.add(text=text)
    await gw.embeddings.CreateEmbeddings(asked)


LONG = "one" + " more" * 50
#: How often in a hundred, what, and with which code.
WAYS: list[tuple[int, Callable[[Gateway], Awaitable[Any]], grpc.StatusCode]] = [
    (23, lambda gw: gw.complete(create("fake/echo", "a b c")), grpc.StatusCode.OK),
    (25, lambda gw: _streamed(gw, text="one two three"), grpc.StatusCode.OK),
    (4, _vectors, grpc.StatusCode.OK),
    (3, lambda gw: gw.completions.CountTokens(pb.CountTokensRequest(spec=spec("fake/echo"))), grpc.StatusCode.OK),
    (4, lambda gw: _fails(gw, model="nobody/x"), grpc.StatusCode.NOT_FOUND),
    (4, lambda gw: _fails(gw, status=429), grpc.StatusCode.RESOURCE_EXHAUSTED),
    (4, lambda gw: _streamed(gw, status=503), grpc.StatusCode.UNAVAILABLE),
    (4, lambda gw: _fails(gw, status=400, error={"message": "no"}), grpc.StatusCode.INVALID_ARGUMENT),
    (4, lambda gw: _streamed(gw, text=LONG, cut_after=0), grpc.StatusCode.UNAVAILABLE),
    (4, lambda gw: _streamed(gw, text=LONG, cut_after=7), grpc.StatusCode.UNAVAILABLE),
    (4, lambda gw: _left_in_silence(gw, _SILENCES["stream"]), grpc.StatusCode.CANCELLED),
    (5, lambda gw: _left(gw, "part_delta", text=LONG, word_delay=0.2), grpc.StatusCode.CANCELLED),
    (3, lambda gw: _left_in_silence(gw, _SILENCES["unary"]), grpc.StatusCode.CANCELLED),
    (5, lambda gw: _fails(gw, seconds=0.1, delay=60), grpc.StatusCode.DEADLINE_EXCEEDED),
    (4, lambda gw: _fails(gw, BUG, model="fake/echo"), grpc.StatusCode.INTERNAL),
]


async def run(gw: Gateway, count: int, seed: int) -> None:
    """So many calls, each in one of the ways."""
    generator = random.Random(seed)
    ways = generator.choices([way for _, way, _ in WAYS], [weight for weight, _, _ in WAYS], k=count)
    gate = asyncio.Semaphore(SIDE_BY_SIDE)

    async def one(way: Callable[[Gateway], Awaitable[Any]]) -> None:
        async with gate:
            await way(gw)

    await asyncio.gather(*map(one, ways))
    await gw.idle()


# -- backends that die ------------------------------------------------------------------------------------------------


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Nobody can write the file."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("BEGIN EXCLUSIVE")
        yield
    finally:
        connection.close()


@contextmanager
def killed(server: services.Postgresql) -> Iterator[None]:
    """The server is gone without a word, and comes back."""
    server.kill()
    try:
        yield
    finally:
        server.start()


async def stored(url: str, folder: Path) -> list[trace_pb2.Trace]:
    reader = open_backend(url, folder).reader()
    assert reader is not None
    found: list[trace_pb2.Trace] = []
    after: Position | None = None
    try:
        while True:
            page = await reader.list(
                trace_service_pb2.TraceFilter(), after=after, size=1000, oldest_first=True, full=False
            )
            found += page.traces
            if not page.more:
                return found
            after = Position(unix_us(found[-1].start_time), found[-1].name.removeprefix("traces/"))
    finally:
        await reader.aclose()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("dies", ["sqlite", "postgresql"])
async def test_every_backend_has_every_call_and_the_sums_are_the_upstreams(
    tmp_path: Path, ledger: Ledger, dies: str, request: pytest.FixtureRequest
):
    urls = {"sqlite": "sqlite:second.db", "well": "sqlite:"}
    server: services.Postgresql | None = None
    if dies == "postgresql":
        server = request.getfixturevalue("postgresql")
        urls["postgresql"] = server.database()
    backends = [{"url_env": f"TRACES_{name.upper()}"} for name in urls]
    monkeypatch = request.getfixturevalue("monkeypatch")
    for name, url in urls.items():
        monkeypatch.setenv(f"TRACES_{name.upper()}", url)
    third = CALLS // 3
    async with recorded(tmp_path, backends=backends, bugs=True, drain={"grace": 0}) as gw:
        await run(gw, third, 1)
        death = killed(server) if server is not None else locked(tmp_path / "second.db")
        with death:
            await run(gw, third, 2)
        await run(gw, CALLS - 2 * third - 10, 3)
        # And the last ones are still open when the server goes down.
        held = [
            gw.stream(stream("fake/script", "a b c", provider_options_json=script(text=LONG, word_delay=0.3)))
            for _ in range(10)
        ]
        for reader in held:
            await reader.until("part_delta")
        gw.stop.set()
        for reader in held:
            await reader.rest()
        await asyncio.wait({gw.running})
        # What the flush does not deliver waits for the next server.
    async with recorded(tmp_path, backends=backends) as heir:
        async with asyncio.timeout(120):
            while not _all_delivered(heir):
                await asyncio.sleep(0.2)
    told = {line["id"]: line for line in gw.calls() if line["method"] != "ListTraces"}
    assert LEAST <= len(told) <= CALLS
    assert len(told) == gw.metric("trunkline_calls_total")
    codes = Counter(line["code"] for line in told.values())
    assert codes["CANCELLED"] >= 0.1 * len(told)
    assert codes["UNAVAILABLE"] > 10
    for name, url in urls.items():
        traces = await stored(url, tmp_path)
        assert len(traces) == len(told), name
        assert {trace.name.removeprefix("traces/") for trace in traces} == told.keys(), name
        check(traces, told, ledger)


def _all_delivered(gw: Gateway) -> bool:
    assert gw.spool is not None
    found = status.read(gw.spool.slot.status)
    return (
        found is not None
        and found.at > 0
        and bool(found.backends)
        and all(b.waiting == 0 and b.up for b in found.backends)
    )


def check(traces: list[trace_pb2.Trace], told: dict[str, dict[str, Any]], ledger: Ledger) -> None:
    sums: dict[int, list[int]] = {}
    for trace in traces:
        line = told[trace.name.removeprefix("traces/")]
        assert trace.state == trace_pb2.TRACE_STATE_FINISHED
        assert (trace.method, trace.caller) == (line["method"], line["caller"])
        code = next(code for code in grpc.StatusCode if code.value[0] == trace.status.code)
        assert (code.name, trace.status.reason) == (line["code"], line.get("reason", ""))
        assert len(trace.attempts) == line.get("attempts", 0)
        if trace.HasField("usage"):
            total = sums.setdefault(trace.usage.source, [0, 0])
            total[0] += trace.usage.input_tokens
            total[1] += trace.usage.output_tokens
            if trace.usage.source == completion_pb2.USAGE_SOURCE_ESTIMATED:
                assert trace.status.code != 0
    assert sums.keys() == {completion_pb2.USAGE_SOURCE_REPORTED, completion_pb2.USAGE_SOURCE_ESTIMATED}
    assert sums[completion_pb2.USAGE_SOURCE_REPORTED] == [ledger.input, ledger.output]
    assert all(count > 100 for count in sums[completion_pb2.USAGE_SOURCE_ESTIMATED])
