"""Writes batches, and drops what is too old or too much."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from trunkline_server.traces.base import BackendError, BackendUnavailable, Record
from trunkline_server.traces.clickhouse.address import Options
from trunkline_server.traces.clickhouse.engine import Engine
from trunkline_server.traces.clickhouse.schema import COLUMNS, OLDEST, clamped, create, table, values

#: A batch may take this many times as long as a read.
_PATIENCE = 6

#: Seconds between two deletes by row, each of which writes a mask for every part that it touches. Whole partitions go
#: at once.
_DELETES_EVERY = 3600.0

#: Seconds by which the retention may move before the table is told.
_DRIFT = 3600.0


class ClickhouseSink:
    """The engine is opened again after it failed."""

    def __init__(self, engine: Engine, options: Options) -> None:
        self._engine = engine
        self._options = options
        self._table = table(options)
        self._timeout = options.timeout * _PATIENCE
        self._open = False
        self._deleted_at: float | None = None
        self._retention: float | None = None

    async def open(self) -> None:
        await self._engine.open()
        ((version,),) = await self._query("SELECT version()")
        if tuple(map(int, version.split(".")[:2])) < OLDEST:
            needed = ".".join(map(str, OLDEST))
            raise BackendError(f"clickhouse: the server is version {version}; {needed} or newer is needed")
        database = self._options.database
        known = await self._query("SELECT 1 FROM system.databases WHERE name = {name:String}", name=database)
        if not known:
            await self._command(f"CREATE DATABASE IF NOT EXISTS `{database}`")
        # A user who may not make tables may still write to one that was made for it.
        if not await self._has_table():
            await self._command(create(self._options))
        self._open = True

    async def write(self, records: Sequence[Record]) -> None:
        if not records:
            return
        rows = [values(record) for record in records]
        try:
            if not self._open:
                await self.open()
            await self._engine.insert("traces", COLUMNS, rows, seconds=self._timeout)
        except BackendUnavailable:
            self._open = False
            raise

    async def prune(self, before: float, most_bytes: int | None) -> int:
        """As Sink.prune, by whole partitions; of the one that the time lies in the old rows go, once an hour. A size is
        met without touching the newest partition.
        """
        if not self._open:
            await self.open()
        gone = 0
        if before > 0:
            await self._retain(time.time() - before)
            gone += await self._by_age(clamped(int(before * 1_000_000)))
        if most_bytes is not None:
            gone += await self._by_size(most_bytes)
        return gone

    async def aclose(self) -> None:
        self._open = False
        await self._engine.aclose()

    async def _has_table(self) -> bool:
        ((there,),) = await self._query(
            "SELECT count() FROM system.tables WHERE database = {database:String} AND name = 'traces'",
            database=self._options.database,
        )
        return bool(there)

    async def _retain(self, seconds: float) -> None:
        """Tells the table how long to keep records: it then drops them also while no gateway runs."""
        if self._retention is not None and abs(seconds - self._retention) < _DRIFT:
            return
        # A day more than what is pruned here.
        kept = f"toIntervalSecond({int(seconds) + 86_400})"
        await self._command(
            f"ALTER TABLE {self._table} MODIFY TTL toDateTime(start_time) + {kept} "
            "SETTINGS materialize_ttl_after_modify = 0"
        )
        self._retention = seconds

    async def _by_age(self, before_us: int) -> int:
        gone = 0
        for partition, rows, _, newest_us in await self._partitions():
            if newest_us < before_us:
                await self._drop(partition)
                gone += rows
        return gone + await self._delete(before_us)

    async def _by_size(self, most: int) -> int:
        gone = 0
        held = await self._partitions()
        total = sum(size for _, _, size, _ in held)
        for partition, rows, size, _ in held[:-1]:
            if total <= most:
                break
            await self._drop(partition)
            total -= size
            gone += rows
        return gone

    async def _delete(self, before_us: int) -> int:
        now = time.monotonic()
        if self._deleted_at is not None and now - self._deleted_at < _DELETES_EVERY:
            return 0
        self._deleted_at = now
        old = f"start_time < fromUnixTimestamp64Micro({before_us}, 'UTC')"
        ((count,),) = await self._query(f"SELECT count() FROM {self._table} WHERE {old}")
        if count:
            await self._command(f"DELETE FROM {self._table} WHERE {old}")
        return int(count)

    async def _partitions(self) -> Sequence[Sequence[Any]]:
        """(name, rows, bytes, latest start in microseconds) of each that holds records, oldest first."""
        return await self._query(
            f"""
            SELECT p.partition, t.rows, p.bytes, t.newest FROM (
              SELECT partition, partition_id, sum(bytes_on_disk) AS bytes FROM system.parts
              WHERE active AND database = {{database:String}} AND table = 'traces' GROUP BY partition, partition_id
            ) p JOIN (
              SELECT _partition_id, count() AS rows, toUnixTimestamp64Micro(max(start_time)) AS newest
              FROM {self._table} GROUP BY _partition_id
            ) t ON t._partition_id = p.partition_id ORDER BY t.newest
            """,
            database=self._options.database,
        )

    async def _drop(self, partition: str) -> None:
        await self._command(f"ALTER TABLE {self._table} DROP PARTITION {int(partition)}")

    async def _query(self, statement: str, **parameters: Any) -> Sequence[Sequence[Any]]:
        return await self._engine.query(statement, parameters, seconds=self._timeout)

    async def _command(self, statement: str) -> None:
        await self._engine.command(statement, {}, seconds=self._timeout)
