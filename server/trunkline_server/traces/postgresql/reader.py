"""Reads through a few connections. No statement outlives its time, even where the server says nothing any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import asyncpg

from trunkline.v1alpha import trace_pb2, trace_service_pb2
from trunkline_server.traces.base import Page, Position, Total
from trunkline_server.traces.filters import conditions
from trunkline_server.traces.postgresql import query, rows
from trunkline_server.traces.postgresql.address import FAILURES, Address, unavailable
from trunkline_server.traces.postgresql.partitions import unix_us
from trunkline_server.traces.postgresql.schema import SCHEMA

#: Most seconds that we wait for the server to give up a statement that nobody wants any more.
_GIVING_UP = 1.0

#: Seconds after which a connection that nobody needs is closed.
_IDLE = 60.0

_DELETE = f"""
WITH gone AS (DELETE FROM {SCHEMA}.traces WHERE id = $1 RETURNING start_time, id, labels),
labels AS (DELETE FROM {SCHEMA}.trace_labels l USING gone g, jsonb_each_text(g.labels) e
  WHERE l.key = e.key AND l.value = e.value AND l.start_time = g.start_time AND l.id = g.id)
SELECT count(*) FROM gone
"""


class PostgresqlReader:
    """Connects at the first read."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._pool: asyncpg.Pool | None = None

    async def get(self, trace_id: str, *, full: bool) -> trace_pb2.Trace | None:
        async with self._connection() as connection:
            found = await connection.fetchval(
                f"SELECT {_column(full)} FROM {SCHEMA}.traces WHERE id = $1 LIMIT 1",
                trace_id,
            )
        return None if found is None else rows.trace(found)

    async def list(
        self,
        which: trace_service_pb2.TraceFilter,
        *,
        after: Position | None,
        size: int,
        oldest_first: bool,
        full: bool,
    ) -> Page:
        statement = query.page(conditions(which), after, size + 1, oldest_first=oldest_first, column=_column(full))
        async with self._connection() as connection:
            found = await connection.fetch(statement.text, *statement.values)
        return Page([rows.trace(data) for (data,) in found[:size]], more=len(found) > size)

    async def totals(self, which: trace_service_pb2.TraceFilter, *, span_us: int) -> Sequence[Total]:
        statement = query.totals(conditions(which), span_us)
        async with self._connection() as connection:
            found = await connection.fetch(statement.text, *statement.values)
        return [Total(unix_us(span), *rest) for span, *rest in found]

    async def delete(self, trace_id: str) -> bool:
        async with self._connection() as connection:
            gone: int = await connection.fetchval(_DELETE, trace_id)
        return gone > 0

    async def aclose(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.terminate()

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection for one read, which ends in time. Raises BackendUnavailable."""
        try:
            ends = asyncio.get_running_loop().time() + self._address.timeout
            async with asyncio.timeout_at(ends):
                pool = await self._connections()
                connection = await pool.acquire()
                try:
                    yield connection
                finally:
                    if asyncio.get_running_loop().time() >= ends:
                        connection.terminate()
                    else:
                        await pool.release(connection, timeout=_GIVING_UP)
        except FAILURES as error:
            raise unavailable(error) from None

    async def _connections(self) -> asyncpg.Pool:
        if self._pool is None:
            address = self._address
            self._pool = asyncpg.create_pool(
                address.dsn,
                min_size=0,
                max_size=address.connections,
                max_inactive_connection_lifetime=_IDLE,
                timeout=address.timeout,
                **address.settings(address.timeout),
            )
            # Connects to nothing yet, so nobody else can come between.
            await self._pool
        return self._pool


def _column(full: bool) -> str:
    return "payload" if full else "basic"
