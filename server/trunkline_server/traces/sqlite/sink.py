"""Writes records: a batch is one transaction."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import zstandard

from trunkline_server.traces.base import BackendUnavailable, Record
from trunkline_server.traces.columns import Row, split, words
from trunkline_server.traces.sqlite.schema import SHIFT, Key, key_of, migrate, telling, transaction

Result = TypeVar("Result")

#: Records deleted in one transaction, so that readers and other writers come in between.
PRUNED_AT_ONCE = 2_000

_TRACE = """INSERT INTO traces (
    start_us, key, payload, error, state, method, caller, provider, model, asked_model, code, reason, duration_us,
    first_token_us, input_tokens, output_tokens, usage_source, cost_nano_usd, streamed, cancelled, attempts, labels
  ) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_LABEL = "INSERT OR IGNORE INTO labels (name, value, start_us, key) VALUES (?, ?, ?, ?)"
_PAYLOAD = "INSERT INTO payloads (seq, basic, full) VALUES (?, ?, ?)"
_ERROR = "INSERT INTO errors (rowid, words, key) VALUES (?, ?, ?)"


class _Made(NamedTuple):
    """A record as it is stored."""

    facts: Row
    key: Key
    #: Without what was said, and whole where that is more.
    basic: bytes
    full: bytes | None


class SqliteSink:
    """One connection, used in one thread of its own."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, "sqlite-sink")
        self._connection: sqlite3.Connection | None = None
        self._compress = zstandard.ZstdCompressor(level=1).compress
        #: For what is small: a third of the time, 4 % larger.
        self._compress_fast = zstandard.ZstdCompressor(level=-1).compress

    async def open(self) -> None:
        await self._in_thread(self._open)

    async def write(self, records: Sequence[Record]) -> None:
        await self._in_thread(lambda: self._write(records))

    async def prune(self, before: float, most_bytes: int | None) -> int:
        pruned = 0
        while count := await self._in_thread(lambda: self._prune(int(before * 1e6), most_bytes)):
            pruned += count
        if pruned:
            await self._in_thread(self._shrink)
        return pruned

    async def aclose(self) -> None:
        if self._connection is not None:
            await self._in_thread(self._connection.close)
            self._connection = None
        self._thread.shutdown(wait=False)

    async def _in_thread(self, do: Callable[[], Result]) -> Result:
        def told() -> Result:
            with telling():
                return do()

        return await asyncio.get_running_loop().run_in_executor(self._thread, told)

    # -- in the thread ------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._connection = migrate(self._path)

    @property
    def _open_connection(self) -> sqlite3.Connection:
        if self._connection is None:
            raise BackendUnavailable(f"sqlite: {self._path} is not open")
        return self._connection

    def _write(self, records: Sequence[Record]) -> None:
        connection = self._open_connection
        made = [self._made(record) for record in {record.id: record for record in records}.values()]
        with transaction(connection):
            known = "SELECT 1 FROM traces WHERE key = ?"
            new = [one for one in made if connection.execute(known, (one.key,)).fetchone() is None]
            last: int = connection.execute("SELECT coalesce(max(seq), 0) FROM payloads").fetchone()[0]
            payloads, traces, labels = [], [], []
            for seq, (facts, key, small, full) in enumerate(new, last + 1):
                traces.append(_values(facts, key, seq, _add_error(connection, facts, key)))
                labels += [(name, value, facts.start_us, key) for name, value in facts.labels.items()]
                payloads.append((seq, small, full))
            connection.executemany(_PAYLOAD, payloads)
            connection.executemany(_TRACE, traces)
            connection.executemany(_LABEL, labels)

    def _made(self, record: Record) -> _Made:
        facts, small = split(record.payload)
        full = None if len(small) == len(record.payload) else self._compress(record.payload)
        return _Made(facts, key_of(facts.id), self._compress_fast(small), full)

    def _prune(self, before_us: int, most_bytes: int | None) -> int:
        connection = self._open_connection
        found = connection.execute(
            "SELECT start_us, key FROM traces WHERE start_us < ? ORDER BY start_us LIMIT ?", (before_us, PRUNED_AT_ONCE)
        ).fetchall()
        if not found and most_bytes is not None:
            over = _bytes(connection) - most_bytes
            if over > 0:
                count: int = connection.execute("SELECT count(*) FROM traces").fetchone()[0]
                share = max(1, count * over // max(1, _bytes(connection)))
                found = connection.execute(
                    "SELECT start_us, key FROM traces ORDER BY start_us LIMIT ?", (min(share, PRUNED_AT_ONCE),)
                ).fetchall()
        if found:
            with transaction(connection):
                for start_us, key in found:
                    delete(connection, start_us, key)
        return len(found)

    def _shrink(self) -> None:
        connection = self._open_connection
        # As a script: `execute` would take one step, which frees one page.
        connection.executescript("PRAGMA incremental_vacuum")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def delete(connection: sqlite3.Connection, start_us: int, key: Key) -> bool:
    """Deletes one trace within a transaction. False if it is not there."""
    where = (start_us, key)
    found = connection.execute(
        "SELECT payload, error, labels FROM traces WHERE start_us = ? AND key = ?", where
    ).fetchone()
    if found is None:
        return False
    payload, error, labels = found
    connection.execute("DELETE FROM traces WHERE start_us = ? AND key = ?", where)
    connection.execute("DELETE FROM payloads WHERE seq = ?", (payload,))
    if error is not None:
        connection.execute("DELETE FROM errors WHERE rowid = ?", (error,))
    for name, value in json.loads(labels or "{}").items():
        connection.execute(
            "DELETE FROM labels WHERE name = ? AND value = ? AND start_us = ? AND key = ?", (name, value, *where)
        )
    return True


def _values(facts: Row, key: Key, payload: int, error: int | None) -> tuple[object, ...]:
    return (
        facts.start_us, key, payload, error, facts.state, facts.method, facts.caller, facts.provider, facts.model,
        facts.asked_model, facts.code, facts.reason, facts.duration_us, facts.first_token_us, facts.input_tokens,
        facts.output_tokens, facts.usage_source, facts.cost_nano_usd, facts.streamed, facts.cancelled, facts.attempts,
        json.dumps(dict(facts.labels)) if facts.labels else None,
    )  # fmt: skip


def _add_error(connection: sqlite3.Connection, facts: Row, key: Key) -> int | None:
    """The rowid of its words in `errors`; None if it has no message."""
    found = words(facts.error)
    if not found:
        return None
    first = facts.start_us << SHIFT
    last = connection.execute(
        "SELECT max(rowid) FROM errors WHERE rowid BETWEEN ? AND ?", (first, first + (1 << SHIFT) - 1)
    ).fetchone()[0]
    rowid = first if last is None else int(last) + 1
    connection.execute(_ERROR, (rowid, " ".join(found), key))
    return rowid


def _bytes(connection: sqlite3.Connection) -> int:
    """Size of what the file holds, without its free pages."""
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)
