"""Finds records: side by side, each query in a thread with a connection of its own."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import zstandard

from trunkline.v1alpha import trace_pb2, trace_service_pb2
from trunkline_server.traces.base import Page, Position, Total
from trunkline_server.traces.filters import conditions
from trunkline_server.traces.sqlite.queries import Wanted, found, totals
from trunkline_server.traces.sqlite.schema import connect, key_of, telling, transaction
from trunkline_server.traces.sqlite.sink import delete

Result = TypeVar("Result")

#: Queries at once; more wait.
THREADS = 4


class SqliteReader:
    """Reads a file that the delivery process writes; as long as that has not made it, it holds nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._threads = ThreadPoolExecutor(THREADS, "sqlite-reader")
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []

    async def get(self, trace_id: str, *, full: bool) -> trace_pb2.Trace | None:
        def read(connection: sqlite3.Connection) -> trace_pb2.Trace | None:
            row = connection.execute(
                f"SELECT {_payload(full)} FROM traces t JOIN payloads p ON p.seq = t.payload WHERE t.key = ?",  # ours
                (key_of(trace_id),),
            ).fetchone()
            return None if row is None else _trace(row[0])

        return await self._run(read, None)

    async def list(
        self,
        which: trace_service_pb2.TraceFilter,
        *,
        after: Position | None,
        size: int,
        oldest_first: bool,
        full: bool,
    ) -> Page:
        wanted = Wanted(
            conditions(which),
            after=None if after is None else (after.start_us, key_of(after.id)),
            size=size + 1,
            oldest_first=oldest_first,
        )

        def read(connection: sqlite3.Connection) -> Page:
            # One snapshot for all steps.
            connection.execute("BEGIN")
            try:
                keys = found(connection, wanted)
                traces = []
                for start_us, key in keys[:size]:
                    row = connection.execute(
                        f"SELECT {_payload(full)} FROM traces t JOIN payloads p ON p.seq = t.payload "  # ours
                        "WHERE t.start_us = ? AND t.key = ?",
                        (start_us, key),
                    ).fetchone()
                    traces.append(_trace(row[0]))
            finally:
                connection.execute("COMMIT")
            return Page(traces, more=len(keys) > size)

        return await self._run(read, Page((), more=False))

    async def totals(self, which: trace_service_pb2.TraceFilter, *, span_us: int) -> Sequence[Total]:
        asked = conditions(which)
        return await self._run(lambda connection: [Total(*row) for row in totals(connection, asked, span_us)], [])

    async def delete(self, trace_id: str) -> bool:
        def write(connection: sqlite3.Connection) -> bool:
            with transaction(connection):
                key = key_of(trace_id)
                row = connection.execute("SELECT start_us FROM traces WHERE key = ?", (key,)).fetchone()
                return row is not None and delete(connection, row[0], key)

        return await self._run(write, False)

    async def aclose(self) -> None:
        self._threads.shutdown(wait=False)
        for connection in self._connections:
            connection.close()
        self._connections.clear()

    async def _run(self, do: Callable[[sqlite3.Connection], Result], nothing: Result) -> Result:
        def run() -> Result:
            with telling():
                connection = self._connection()
                if connection is None:
                    return nothing
                try:
                    return do(connection)
                except sqlite3.OperationalError as error:
                    if "no such table" in str(error):
                        return nothing
                    raise

        return await asyncio.get_running_loop().run_in_executor(self._threads, run)

    def _connection(self) -> sqlite3.Connection | None:
        made: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if made is None and self._path.exists():
            made = self._local.connection = connect(self._path)
            made.execute("PRAGMA mmap_size = 268435456")
            self._connections.append(made)
        return made


def _payload(full: bool) -> str:
    return "coalesce(p.full, p.basic)" if full else "p.basic"


def _trace(compressed: bytes) -> trace_pb2.Trace:
    return trace_pb2.Trace.FromString(zstandard.ZstdDecompressor().decompress(compressed))
