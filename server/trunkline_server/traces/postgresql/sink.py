"""Writes batches: COPY into a staging table, from there what is new into the partitions."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import Sequence

import asyncpg

from trunkline_server.traces.base import BackendUnavailable, Record
from trunkline_server.traces.postgresql import rows, schema
from trunkline_server.traces.postgresql.address import FAILURES, UNFIT, Address, refused, unavailable, unwritten
from trunkline_server.traces.postgresql.partitions import PARTED, Partitions, Span, at, drop, spans
from trunkline_server.traces.postgresql.schema import PRUNING, SCHEMA

#: A batch may take this many times as long as a read.
_PATIENCE = 6

#: Most records that one statement deletes.
_DELETED_AT_ONCE = 5_000

#: Seconds of work after which deleting pauses.
_WHILE = 15.0

_STAGE = f"CREATE TEMPORARY TABLE staged (LIKE {SCHEMA}.traces INCLUDING STORAGE) ON COMMIT DELETE ROWS"

_COLUMNS = ", ".join(rows.COLUMNS)

#: A record that was written before, or that stands in the batch twice, is left out by its key.
_MOVE = f"INSERT INTO {SCHEMA}.traces ({_COLUMNS}) SELECT {_COLUMNS} FROM staged ON CONFLICT DO NOTHING"

_MOVE_LABELS = (
    f"INSERT INTO {SCHEMA}.trace_labels (key, value, start_time, id) "
    "SELECT l.key, l.value, s.start_time, s.id FROM staged s, jsonb_each_text(s.labels) l ON CONFLICT DO NOTHING"
)

#: What a record takes, its entries in the indexes counted by a round number.
_ROW_BYTES = "pg_column_size(payload) + pg_column_size(basic) + 700"

_DELETE = f"""
WITH old AS (SELECT start_time, id FROM {SCHEMA}.traces WHERE start_time < $1 ORDER BY start_time, id LIMIT $2),
gone AS (DELETE FROM {SCHEMA}.traces t USING old o WHERE t.start_time = o.start_time AND t.id = o.id
  RETURNING t.start_time, t.id, t.labels),
labels AS (DELETE FROM {SCHEMA}.trace_labels l USING gone g, jsonb_each_text(g.labels) e
  WHERE l.key = e.key AND l.value = e.value AND l.start_time = g.start_time AND l.id = g.id)
SELECT count(*) FROM gone
"""


class PostgresqlSink:
    """One connection, made anew after it was lost."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._timeout = address.timeout * _PATIENCE
        self._connection: asyncpg.Connection | None = None
        self._partitions = Partitions(address.partition)
        self._stop_at = 0.0

    async def open(self) -> None:
        await self.aclose()
        connection = await self._address.connect(self._timeout)
        try:
            await schema.ensure(connection, self._address)
            await connection.execute(_STAGE)
            self._partitions.forget()
            await self._partitions.ensure(connection, ())
        except FAILURES as error:
            connection.terminate()
            raise refused(error) from None
        except BaseException:
            connection.terminate()
            raise
        self._connection = connection

    async def write(self, records: Sequence[Record]) -> None:
        """As Sink.write. Raises ValueError if it is the records that cannot be written."""
        if not records:
            return
        made = [rows.values(record) for record in records]
        connection = await self._connected()
        try:
            async with asyncio.timeout(self._timeout):
                await self._partitions.ensure(connection, map(rows.start, made))
                async with connection.transaction():
                    await connection.copy_records_to_table("staged", records=made, columns=rows.COLUMNS)
                    await connection.execute(_MOVE)
                    await connection.execute(_MOVE_LABELS)
        except (*FAILURES, *UNFIT) as error:
            self._lose(connection)
            raise unwritten(error) from None
        except BaseException:
            # Whoever gave up in the middle of a batch leaves no transaction open behind.
            self._lose(connection)
            raise

    async def prune(self, before: float, most_bytes: int | None) -> int:
        """As Sink.prune, as far as it comes in a while: the next call goes on. A size is met by dropping whole
        partitions; the last one loses its oldest records.
        """
        connection = await self._connected()
        self._stop_at = time.monotonic() + _WHILE
        try:
            if not await connection.fetchval(f"SELECT pg_try_advisory_lock({PRUNING})"):
                return 0
            gone = await self._by_age(connection, at(int(before * 1_000_000))) if before > 0 else 0
            if most_bytes is not None:
                gone += await self._by_size(connection, most_bytes)
            await connection.execute(f"SELECT pg_advisory_unlock({PRUNING})")
        except FAILURES as error:
            self._lose(connection)
            raise unavailable(error) from None
        except BaseException:
            self._lose(connection)
            raise
        return gone

    async def aclose(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and not connection.is_closed():
            try:
                await connection.close(timeout=1)
            except FAILURES:
                connection.terminate()

    async def _connected(self) -> asyncpg.Connection:
        if self._connection is None or self._connection.is_closed():
            await self.open()
        if self._connection is None:
            raise BackendUnavailable("postgresql: closed")
        return self._connection

    def _lose(self, connection: asyncpg.Connection) -> None:
        connection.terminate()
        self._connection = None
        self._partitions.forget()

    async def _by_age(self, connection: asyncpg.Connection, before: dt.datetime) -> int:
        gone = 0
        for span in await spans(connection):
            if _end(span) <= before and time.monotonic() < self._stop_at:
                gone += await self._drop(connection, span)
        return gone + await self._delete(connection, before)

    async def _delete(self, connection: asyncpg.Connection, before: dt.datetime) -> int:
        gone, count = 0, _DELETED_AT_ONCE
        while count == _DELETED_AT_ONCE and time.monotonic() < self._stop_at:
            count = await connection.fetchval(_DELETE, before, _DELETED_AT_ONCE)
            gone += count
        return gone

    async def _by_size(self, connection: asyncpg.Connection, most: int) -> int:
        gone = 0
        sizes = [(span, await self._bytes(connection, span)) for span in await spans(connection)]
        total = sum(size for _, size in sizes)
        held = [(span, size) for span, size in sizes if await self._holds(connection, span)]
        while total > most and len(held) > 1 and time.monotonic() < self._stop_at:
            span, size = held.pop(0)
            gone += await self._drop(connection, span)
            total -= size
        if total > most and len(held) == 1:
            gone += await self._shrink(connection, held[0][0], most)
        return gone

    async def _shrink(self, connection: asyncpg.Connection, span: Span, most: int) -> int:
        """Deletes the oldest records of one partition. Its file gets no smaller by that, so what counts is the rows."""
        after = await connection.fetchval(
            f"""
            SELECT min(start_time) FROM (
              SELECT start_time, sum({_ROW_BYTES}) OVER (ORDER BY start_time DESC, id DESC) AS size
              FROM {span.table("traces")}
            ) newest WHERE size <= $1
            """,
            most,
        )
        return await self._delete(connection, after or _end(span))

    async def _drop(self, connection: asyncpg.Connection, span: Span) -> int:
        self._partitions.forget()
        return await drop(connection, span)

    async def _bytes(self, connection: asyncpg.Connection, span: Span) -> int:
        tables = [span.table(parted) for parted in PARTED]
        size: int = await connection.fetchval(
            "SELECT sum(pg_total_relation_size(to_regclass(name))) FROM unnest($1::text[]) name", tables
        )
        return size

    async def _holds(self, connection: asyncpg.Connection, span: Span) -> bool:
        held: bool = await connection.fetchval(f"SELECT EXISTS (SELECT FROM {span.table('traces')})")
        return held


def _end(span: Span) -> dt.datetime:
    return dt.datetime.combine(span.until, dt.time.min, dt.UTC)
