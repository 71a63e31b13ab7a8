"""Finds records in the order of the table's key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trunkline.v1alpha import trace_pb2, trace_service_pb2
from trunkline_server.traces.base import Page, Position, Total
from trunkline_server.traces.clickhouse import query
from trunkline_server.traces.clickhouse.address import Options
from trunkline_server.traces.clickhouse.engine import Engine
from trunkline_server.traces.clickhouse.schema import table
from trunkline_server.traces.filters import conditions


class ClickhouseReader:
    """Reads through an engine that others may share."""

    def __init__(self, engine: Engine, options: Options) -> None:
        self._engine = engine
        self._table = table(options)
        self._timeout = options.timeout

    async def get(self, trace_id: str, *, full: bool) -> trace_pb2.Trace | None:
        column = _column(full)
        found = await self._rows(query.one(self._table, column, trace_id), column)
        return trace_pb2.Trace.FromString(found[0][0]) if found else None

    async def list(
        self,
        which: trace_service_pb2.TraceFilter,
        *,
        after: Position | None,
        size: int,
        oldest_first: bool,
        full: bool,
    ) -> Page:
        column = _column(full)
        asked = conditions(which)
        statement = query.page(self._table, asked, after, size + 1, oldest_first=oldest_first, column=column)
        found = await self._rows(statement, column)
        return Page([trace_pb2.Trace.FromString(data) for (data,) in found[:size]], more=len(found) > size)

    async def totals(self, which: trace_service_pb2.TraceFilter, *, span_us: int) -> Sequence[Total]:
        found = await self._rows(query.totals(self._table, conditions(which), span_us))
        return [Total(*values) for values in found]

    async def delete(self, trace_id: str) -> bool:
        if not await self._rows(query.one(self._table, "1", trace_id)):
            return False
        statement = query.delete(self._table, trace_id)
        await self._engine.command(statement.text, statement.values, seconds=self._timeout)
        return True

    async def aclose(self) -> None:
        await self._engine.aclose()

    async def _rows(self, statement: query.Statement, *raw: str) -> Sequence[Sequence[Any]]:
        return await self._engine.query(statement.text, statement.values, seconds=self._timeout, raw=raw)


def _column(full: bool) -> str:
    return "payload" if full else "basic"
