"""The books: after thousands of calls that end in every way, each backend has each once, and the sums agree."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.gateway import Gateway, create, failing, script, spec, stream, until
from tests.scale import scaled
from tests.traces.books import REPEATING, Entry, Stored, books, dead
from tests.traces.recorded import recorded
from tests.upstream import PATIENCE

from trunkline.v1 import completion_service_pb2 as pb
from trunkline.v1 import embedding_service_pb2
from trunkline.v1alpha import trace_pb2
from trunkline_server.providers import jsontext
from trunkline_server.providers.fake import FakeReply, FakeUpstream
from trunkline_server.traces import status

#: What is made, and what must have reached the server at least: some run out of time before they get there.
CALLS = scaled(5_400, 216)
LEAST = CALLS * 25 // 27
SIDE_BY_SIDE = 40
#: Seconds in which a backend has what waits for it: one that was away is tried again every 30.
DELIVERY = 120.0
#: What makes the fake provider break as no provider does.
BUG = "a bug of ours"

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


# -- the books ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("dies", ["sqlite", "postgresql", "clickhouse", "unix", "otlp"])
async def test_every_backend_has_every_call_and_the_sums_are_the_upstreams(
    tmp_path: Path,
    ledger: Ledger,
    dies: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    measured: Callable[[str, object], None],
):
    third = CALLS // 3
    async with books(tmp_path, request) as kept:
        for name, book in kept.items():
            monkeypatch.setenv(f"TRACES_{name.upper()}", book.url)
        backends = [{"url_env": f"TRACES_{name.upper()}"} for name in kept]
        async with recorded(tmp_path, backends=backends, bugs=True, drain={"grace": 0}) as gw:
            await run(gw, third, 1)
            await until(lambda: all(one.delivered for one in standing(gw, kept)), DELIVERY)
            async with dead(kept[dies]):
                await run(gw, third, 2)
                # It has missed them, and no other has.
                await until(lambda: all(missed(one, one.name == dies) for one in standing(gw, kept)), DELIVERY)
            await run(gw, CALLS - 2 * third - 10, 3)
            # Whatever a driver says of it: the log has lines of ours, and of no other backend.
            downs = [line["backend"] for line in gw.delivery_lines if line["event"] == "trace backend is down"]
            assert set(downs) <= {dies}
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
            await until(lambda: all(missed(one, False) for one in standing(heir, kept)), DELIVERY)
        entries = {name: await book.entries() for name, book in kept.items()}
        traces = {name: await book.traces() for name, book in kept.items() if isinstance(book, Stored)}
    told = {line["id"]: line for line in gw.calls()}
    assert LEAST <= len(told) <= CALLS
    assert len(told) == gw.metric("trunkline_calls_total")
    codes = Counter(line["code"] for line in told.values())
    assert codes["CANCELLED"] >= 0.1 * len(told)
    assert codes["UNAVAILABLE"] > 10
    for name, found in entries.items():
        check(name, found, told, ledger)
    for whole in traces.values():
        check_traces(whole, told)
    for name in sorted(REPEATING):
        measured(f"{name} again", len(entries[name]) - len(told))
    measured("calls", len(told))
    measured("cancelled", codes["CANCELLED"])


def standing(gw: Gateway, kept: Iterable[str]) -> list[status.BackendStatus]:
    """How the delivery to each of these backends goes; while nobody knows, they have got nothing."""
    assert gw.spool is not None
    found = status.read(gw.spool.slot.status)
    return found.backends if found is not None and found.backends else [status.BackendStatus(n, False) for n in kept]


def missed(one: status.BackendStatus, dead: bool) -> bool:
    """Does a third of the calls wait for a backend that is dead, and none for one that lives?"""
    return one.waiting >= LEAST // 3 if dead else one.up and not one.waiting


def check(name: str, found: Sequence[Entry], told: dict[str, dict[str, Any]], ledger: Ledger) -> None:
    """The entries of one book are the calls of the log, and their sums are the upstream's."""
    once = {entry.id: entry for entry in found}
    assert once.keys() == told.keys(), name
    if name not in REPEATING:
        assert len(found) == len(once), name
    sums: dict[str, list[int]] = {}
    for entry in found:
        # What came again says the same.
        assert once[entry.id] == entry, name
    for entry in once.values():
        line = told[entry.id]
        assert (entry.code, entry.reason) == (line["code"], line.get("reason", "")), name
        if entry.usage is not None:
            total = sums.setdefault(entry.usage.source, [0, 0])
            total[0] += entry.usage.input
            total[1] += entry.usage.output
            assert (entry.usage.source == "estimated") <= (entry.code != "OK"), name
    assert sums.keys() == {"reported", "estimated"}, name
    assert sums["reported"] == [ledger.input, ledger.output], name
    assert all(count > CALLS // 50 for count in sums["estimated"]), name


def check_traces(traces: Sequence[trace_pb2.Trace], told: dict[str, dict[str, Any]]) -> None:
    for trace in traces:
        line = told[trace.name.removeprefix("traces/")]
        assert trace.state == trace_pb2.TRACE_STATE_FINISHED
        assert (trace.method, trace.caller) == (line["method"], line["caller"])
        assert len(trace.attempts) == line.get("attempts", 0)
