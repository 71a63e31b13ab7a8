"""Traces in PostgreSQL: tables by time, searched through indexes; written with COPY."""

from __future__ import annotations

from pathlib import Path

from trunkline_server.traces.base import Reader, Sink
from trunkline_server.traces.postgresql.address import Address
from trunkline_server.traces.postgresql.reader import PostgresqlReader
from trunkline_server.traces.postgresql.sink import PostgresqlSink


class PostgresqlBackend:
    """`postgresql://USER@HOST/DATABASE`."""

    name = "postgresql"

    def __init__(self, url: str, state_dir: Path) -> None:
        self._address = Address.parse(url)

    def sink(self) -> Sink:
        return PostgresqlSink(self._address)

    def reader(self) -> Reader:
        return PostgresqlReader(self._address)


__all__ = ["PostgresqlBackend"]
