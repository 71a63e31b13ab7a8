"""`make bench-traces`: how long the first page of each filter takes with a million records stored, and whether paging
goes through without a gap or repeat while records are added.

    python -m bench.traces sqlite: postgresql

A backend is named by its URL, and should be empty; `postgresql` alone is a server that is started for the run, with its
usual settings.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from bench import trace_records as made
from bench.processes import CannotRun
from bench.report import Figure, machine, rows, table, write
from tests import services
from trunkline.v1alpha.trace_service_pb2 import TraceFilter
from trunkline_server.traces import open_backend
from trunkline_server.traces.base import Backend, Position, Reader, Sink
from trunkline_server.traces.columns import unix_us

#: Most milliseconds that a first page may take.
MOST = {"postgresql": 100.0, "sqlite": 300.0}

PAGE = 50
BATCH = 1_000
#: Times that each case is read; the slowest counts, but for the first, which opens a connection.
REPEATS = 7


@dataclass(frozen=True)
class Store:
    """A backend, and what brings it into the state that it has after a night."""

    backend: Backend
    rest: Sequence[str] = ()
    server: services.Postgresql | None = None

    def settle(self) -> None:
        if self.server is not None:
            self.server.sql("VACUUM (ANALYZE)", "test_1")


def cases(days: int) -> Mapping[str, TraceFilter]:
    """Filters alone, and time, provider and status together: met by many, by none, and only by the oldest."""
    end = made.BEGIN + days * made.DAY
    week: dict[str, Any] = {"start_time": _time(end - 7 * made.DAY), "end_time": _time(end)}
    return {
        "everything": TraceFilter(),
        "time: the last week": TraceFilter(**week),
        "time: the first day": TraceFilter(start_time=_time(made.BEGIN), end_time=_time(made.BEGIN + made.DAY)),
        "time: before all": TraceFilter(end_time=_time(made.BEGIN)),
        "time: after all": TraceFilter(start_time=_time(end)),
        "provider: many": TraceFilter(provider="openai"),
        "provider: none": TraceFilter(provider="nobody"),
        "model: many": TraceFilter(model="gpt-5.2"),
        "model as asked: many": TraceFilter(model="fast"),
        "model: none": TraceFilter(model="gpt-2"),
        "caller: many": TraceFilter(caller="service-0"),
        "caller: none": TraceFilter(caller="service-9999"),
        "code: many": TraceFilter(code=0),
        "code of an error: many": TraceFilter(code=8),
        "code: only long ago": TraceFilter(code=13),
        "code: none": TraceFilter(code=15),
        "reason: many": TraceFilter(reason="LLM_RATE_LIMITED"),
        "reason: only long ago": TraceFilter(reason="INTERNAL"),
        "reason: none": TraceFilter(reason="LLM_NOT_FOUND"),
        "failed: many": TraceFilter(failed=True),
        "not failed: many": TraceFilter(failed=False),
        "label: many": TraceFilter(labels={"team": "team-3"}),
        "label: only long ago": TraceFilter(labels={"release": "r0"}),
        "label: none": TraceFilter(labels={"team": "no-such-team"}),
        "two labels: many": TraceFilter(labels={"team": "team-3", "release": "r2"}),
        "cost: many": TraceFilter(min_cost_nano_usd=1_000),
        "cost: few": TraceFilter(min_cost_nano_usd=60_000_000),
        "cost: none": TraceFilter(min_cost_nano_usd=1 << 60),
        "duration: many": TraceFilter(min_duration=Duration(seconds=1)),
        "duration: few": TraceFilter(min_duration=Duration(seconds=90)),
        "duration: none": TraceFilter(min_duration=Duration(seconds=86_400)),
        "error text: many": TraceFilter(error_text="rate limit"),
        "error text: only long ago": TraceFilter(error_text="migration finished"),
        "error text: none": TraceFilter(error_text="unheard"),
        "error text: common words that never meet": TraceFilter(error_text="overloaded limit"),
        "method: many": TraceFilter(method="StreamCompletion"),
        "method: none": TraceFilter(method="CountTokens"),
        "time, provider, code: many": TraceFilter(**week, provider="openai", code=0),
        "time, provider, code: none": TraceFilter(**week, provider="openai", code=13),
        "time, provider, reason: many": TraceFilter(**week, provider="openai", reason="LLM_RATE_LIMITED"),
        "time, provider, reason: none": TraceFilter(**week, provider="openai", reason="LLM_CONTENT_FILTERED"),
        "time, provider, failed: many": TraceFilter(**week, provider="openai", failed=True),
        "all time, provider, reason: none": TraceFilter(
            start_time=_time(made.BEGIN), end_time=_time(end), provider="openai", reason="LLM_CONTENT_FILTERED"
        ),
        "time, provider, failed, nobody's": TraceFilter(**week, provider="nobody", failed=True),
    }


async def fill(sink: Sink, count: int, days: int) -> float:
    """Microseconds that a record takes, made beforehand."""
    waiting = made.records(count, days=days)
    spent, done = 0.0, 0
    while batch := list(islice(waiting, BATCH)):
        began = time.perf_counter()
        await sink.write(batch)
        spent += time.perf_counter() - began
        done += len(batch)
        if done % 100_000 == 0:
            print(f"  {done:,} records, {spent / done * 1e6:.0f} us each", file=sys.stderr, flush=True)
    return spent / count * 1e6


async def first_page(reader: Reader, which: TraceFilter) -> tuple[list[float], int]:
    """Milliseconds of each reading, and how many records were on the page."""
    found, taken = 0, []
    for _ in range(REPEATS):
        began = time.perf_counter()
        page = await reader.list(which, after=None, size=PAGE, oldest_first=False, full=False)
        taken.append((time.perf_counter() - began) * 1e3)
        found = len(page.traces)
    return taken, found


def sums(days: int) -> Sequence[tuple[str, TraceFilter, int]]:
    """What the page of records plots, and the length of a span in microseconds."""
    end = made.BEGIN + days * made.DAY
    return (
        ("sums of the last day by hour", TraceFilter(start_time=_time(end - made.DAY)), made.DAY // 24),
        ("sums of the last week by day", TraceFilter(start_time=_time(end - 7 * made.DAY)), made.DAY),
        ("sums of everything by day", TraceFilter(), made.DAY),
    )


async def summed(reader: Reader, which: TraceFilter, span_us: int) -> list[float]:
    """Milliseconds of each reading."""
    taken = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        await reader.totals(which, span_us=span_us)
        taken.append((time.perf_counter() - began) * 1e3)
    return taken


async def paged(reader: Reader, sink: Sink, which: TraceFilter, days: int) -> str:
    """Pages through all that a filter finds while records are added; says what was wrong, or nothing."""
    async with asyncio.TaskGroup() as group:
        ending = asyncio.Event()
        adding = group.create_task(_add(sink, days, ending))
        seen: list[tuple[int, str]] = []
        after = None
        while True:
            page = await reader.list(which, after=after, size=1_000, oldest_first=False, full=False)
            keys = [(unix_us(t.start_time), t.name.removeprefix("traces/")) for t in page.traces]
            seen += keys
            if not page.more:
                break
            after = Position(*keys[-1])
        ending.set()
        added = await adding
    # Read once more, in one go from the other end: what the first walk must have met.
    again: list[tuple[int, str]] = []
    after = None
    while True:
        page = await reader.list(which, after=after, size=1_000, oldest_first=True, full=False)
        keys = [(unix_us(t.start_time), t.name.removeprefix("traces/")) for t in page.traces]
        again += keys
        if not page.more:
            break
        after = Position(*keys[-1])
    kept = [key for key in again if key[1] not in added]
    print(f"  paged through {len(seen):,} records while {len(added):,} were added")
    if len(seen) != len(set(seen)):
        return "a record came twice"
    if seen != sorted(seen, reverse=True):
        return "the order was broken"
    if missing := set(kept) - set(seen):
        return f"{len(missing)} records were left out"
    return ""


async def _add(sink: Sink, days: int, ending: asyncio.Event) -> set[str]:
    """Adds records all over the time that is being read until told to end."""
    added: set[str] = set()
    for seed in range(2, 1_000_000):
        batch = list(made.records(100, days=days, seed=seed))
        await sink.write(batch)
        added |= {record.id for record in batch}
        if ending.is_set():
            break
        # Both share one processor here with whoever reads.
        await asyncio.sleep(0.02)
    return added


async def measure(name: str, store: Store, options: argparse.Namespace) -> list[Figure]:
    sink, reader = store.backend.sink(), store.backend.reader()
    if reader is None:
        raise CannotRun(f"{name} cannot be read")
    kind = store.backend.name
    await sink.open()
    figures = []
    try:
        if not options.filled:
            figures.append(Figure(f"{kind}: a record written", await fill(sink, options.count, options.days), "us"))
        store.settle()
        for what, which in cases(options.days).items():
            taken, found = await first_page(reader, which)
            figure = Figure(f"{kind}: {what} ({found})", max(taken[1:]), "ms", most=MOST.get(kind), rounds=taken)
            figure.floor = median(taken)
            figures.append(figure)
            print(f"  {figure.what}: {median(taken):.1f} ms, at most {figure.value:.1f}", file=sys.stderr, flush=True)
        for what, which, span_us in sums(options.days):
            taken = await summed(reader, which, span_us)
            figures.append(Figure(f"{kind}: {what}", max(taken[1:]), "ms", floor=median(taken), rounds=taken))
        wrong = await paged(reader, sink, TraceFilter(provider="anthropic"), options.days)
        if wrong:
            raise CannotRun(f"{kind}: while paging, {wrong}")
    finally:
        await reader.aclose()
        await sink.aclose()
    return figures


@asynccontextmanager
async def opened(name: str, folder: Path) -> AsyncIterator[Store]:
    if name != "postgresql":
        yield Store(open_backend(name, folder))
        return
    with services.postgresql(durable=True) as server:
        yield Store(open_backend(server.database(), folder), server=server)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backends", nargs="*", default=["sqlite:", "postgresql"], help="URLs, or postgresql")
    parser.add_argument("--count", type=int, default=1_000_000, help="records to store")
    parser.add_argument("--days", type=int, default=30, help="time that they are spread over")
    parser.add_argument("--filled", action="store_true", help="an earlier run has filled the backend")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="trunkline-bench-") as folder:
        for name in options.backends:
            async with opened(name, Path(folder)) as store:
                figures += await measure(name, store, options)
    head = ["first page of 50", "slowest", "median", "", "", "target", ""]
    print(table(head, rows(figures)))
    print("  ".join(f"{key} {value}" for key, value in machine().items()))
    if options.json:
        write(options.json, figures, count=options.count, days=options.days)


def _time(us: int) -> Timestamp:
    return Timestamp(seconds=us // 1_000_000, nanos=us % 1_000_000 * 1000)


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except (CannotRun, services.Missing) as error:
        sys.exit(f"bench: {error}")
