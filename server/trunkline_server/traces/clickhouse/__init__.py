"""Traces in ClickHouse: a server over HTTP, or its engine embedded (chDB) with the same statements."""

from __future__ import annotations

from pathlib import Path

from trunkline_server.traces.base import Reader, Sink
from trunkline_server.traces.clickhouse.address import Address, Place, require
from trunkline_server.traces.clickhouse.embedded import EmbeddedEngine, Holder
from trunkline_server.traces.clickhouse.http import HttpEngine
from trunkline_server.traces.clickhouse.reader import ClickhouseReader
from trunkline_server.traces.clickhouse.sink import ClickhouseSink


class ClickhouseBackend:
    """`clickhouse://USER@HOST/DATABASE`, or `clickhouses:` over TLS."""

    name = "clickhouse"

    def __init__(self, url: str, state_dir: Path) -> None:
        self._address = Address.parse(url)
        require("clickhouse_connect", "aiohttp")

    def sink(self) -> Sink:
        return ClickhouseSink(HttpEngine(self._address), self._address.options)

    def reader(self) -> Reader:
        return ClickhouseReader(HttpEngine(self._address), self._address.options)


class ChdbBackend:
    """`clickhouse+chdb:FOLDER`. The process that writes also holds the engine, for all that read."""

    name = "clickhouse+chdb"

    def __init__(self, url: str, state_dir: Path) -> None:
        self._place = Place.parse(url, state_dir)
        require("chdb", "clickhouse_connect")

    def sink(self) -> Sink:
        return ClickhouseSink(EmbeddedEngine(self._place, Holder(self._place)), self._place.options)

    def reader(self) -> Reader:
        return ClickhouseReader(EmbeddedEngine(self._place), self._place.options)


__all__ = ["ChdbBackend", "ClickhouseBackend"]
