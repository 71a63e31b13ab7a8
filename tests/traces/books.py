"""The backends of a ledger: where records go, how each dies and comes back, and which calls it has in the end."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import grpc
import pytest
from tests.services import Service, folder
from tests.telemetry.receiver import Collector, Seen
from tests.traces.recorded import stored
from tests.traces.sidecars import Sidecar, sidecar

from trunkline.v1 import completion_pb2
from trunkline.v1alpha import trace_pb2


@dataclass(frozen=True)
class Usage:
    """Who counted, and what."""

    source: str
    input: int
    output: int


@dataclass(frozen=True)
class Entry:
    """What any backend tells of a call."""

    id: str
    #: As the log has it.
    code: str
    reason: str
    usage: Usage | None


class Book(Protocol):
    """A backend that can die."""

    url: str

    async def die(self) -> None: ...

    async def rise(self) -> None: ...

    async def entries(self) -> Sequence[Entry]:
        """What was written, as often as it was."""


@asynccontextmanager
async def dead(book: Book) -> AsyncIterator[None]:
    """While the block runs."""
    await book.die()
    try:
        yield
    finally:
        await book.rise()


#: Books that may have an entry several times, and so tell apart by the id.
REPEATING = frozenset({"unix", "otlp"})


def code_name(number: int) -> str:
    return next(code.name for code in grpc.StatusCode if code.value[0] == number)


# -- those that store -------------------------------------------------------------------------------------------------


class Stored:
    """A backend that can be read, in a server that is gone without a word and comes back."""

    def __init__(self, url: str, state: Path, server: Service) -> None:
        self.url = url
        self._state = state
        self._server = server

    async def die(self) -> None:
        await asyncio.to_thread(self._server.kill)

    async def rise(self) -> None:
        await asyncio.to_thread(self._server.start)

    async def entries(self) -> Sequence[Entry]:
        return [_entry(trace) for trace in await self.traces()]

    async def traces(self) -> list[trace_pb2.Trace]:
        return await stored(self.url, self._state, full=False)


class Locked(Stored):
    """A file that nobody can write while it is dead."""

    def __init__(self, state: Path) -> None:
        self.url = "sqlite:"
        self._state = state
        self._lock: sqlite3.Connection | None = None

    async def die(self) -> None:
        self._lock = sqlite3.connect(self._state / "traces.db", isolation_level=None)
        self._lock.execute("BEGIN EXCLUSIVE")

    async def rise(self) -> None:
        assert self._lock is not None
        self._lock.close()


def _entry(trace: trace_pb2.Trace) -> Entry:
    used = trace.usage
    source = _source(completion_pb2.UsageSource.Name(used.source))
    usage = Usage(source, used.input_tokens, used.output_tokens) if trace.HasField("usage") else None
    return Entry(trace.name.removeprefix("traces/"), code_name(trace.status.code), trace.status.reason, usage)


def _source(name: str) -> str:
    return name.removeprefix("USAGE_SOURCE_").lower()


# -- those that take --------------------------------------------------------------------------------------------------


class Lines:
    """The program in Go, which prints a line for each record that it confirms."""

    def __init__(self, receiver: Sidecar) -> None:
        self.url = f"unix:{receiver.path}?ack=1"
        self._receiver = receiver
        self.die, self.rise = receiver.stop, receiver.start

    async def entries(self) -> Sequence[Entry]:
        return [self._entry(line) for line in self._receiver.records()]

    @staticmethod
    def _entry(line: dict[str, Any]) -> Entry:
        used = line["usage"]
        usage = Usage(_source(used["source"]), used["inputTokens"], used["outputTokens"]) if used else None
        return Entry(line["id"], code_name(line["code"]), line["reason"], usage)


class Spans:
    """OpenTelemetry's collector protocol."""

    def __init__(self, collector: Collector) -> None:
        self.url = f"otlp://127.0.0.1:{collector.port}"
        self._collector = collector
        self.die, self.rise = collector.stop, collector.start

    async def entries(self) -> Sequence[Entry]:
        return [self._entry(span) for span in self._collector.all if "trunkline.call.id" in span.attributes]

    @staticmethod
    def _entry(span: Seen) -> Entry:
        said = span.attributes
        source = said.get("trunkline.usage.source")
        counts = (said.get(f"gen_ai.usage.{side}_tokens", 0) for side in ("input", "output"))
        return Entry(
            said["trunkline.call.id"],
            said["rpc.response.status_code"],
            said.get("trunkline.reason", ""),
            Usage(source, *counts) if source else None,
        )


@asynccontextmanager
async def books(state: Path, request: pytest.FixtureRequest) -> AsyncIterator[dict[str, Book]]:
    """One of each kind, all empty. What is not on this machine skips the test by name."""
    async with AsyncExitStack() as stack:
        # Sockets want a short path.
        short = stack.enter_context(folder())
        receiver = await stack.enter_async_context(sidecar("go", short, keeps=True))
        collector = Collector()
        stack.push_async_callback(collector.stop)
        made: dict[str, Book] = {"sqlite": Locked(state)}
        for name in ("postgresql", "clickhouse"):
            server = request.getfixturevalue(name)
            made[name] = Stored(server.database(), state, server)
        yield {**made, "unix": Lines(receiver), "otlp": Spans(collector)}
