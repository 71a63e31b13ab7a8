"""Configs and routes in a database that several workers and replicas share."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, delete, event, insert, select, text, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from trunkline_server.errors import ConfigConflict, ResourceNotFound, StoreUnavailable
from trunkline_server.store.address import Address, StoreError
from trunkline_server.store.tables import RESOURCES, REVISION

#: Most seconds that a statement or a connection may take.
PATIENCE = 5.0
#: Held while the tables are made or changed: made of nothing, shared with nothing else here.
_MIGRATING = 7_204_411_101


@dataclass(frozen=True, slots=True)
class Stored:
    """One resource as it is kept."""

    name: str
    etag: str
    payload: bytes


class Store:
    """One database. Raises StoreUnavailable where it does not answer."""

    def __init__(self, address: Address) -> None:
        """Connects when it is used."""
        self._address = address
        self._engine: AsyncEngine | None = None
        self._opening = asyncio.Lock()

    async def all(self) -> tuple[int, Mapping[str, Stored]]:
        """The number of the last change, and every resource by name, as of one moment."""
        async with self._begin() as connection:
            number = await self._number(connection)
            rows = await connection.execute(select(RESOURCES).order_by(RESOURCES.c.name))
            return number, {row.name: Stored(row.name, row.etag, row.payload) for row in rows}

    async def number(self) -> int:
        """That of the last change."""
        async with self._begin() as connection:
            return await self._number(connection)

    async def put(self, name: str, payload: bytes, *, expected: str | None) -> Stored:
        """Writes a resource over the one with the etag `expected`; None: there is none yet.

        Raises ConfigConflict where that is not so.
        """
        stored = Stored(name, secrets.token_hex(8), payload)
        values = {"etag": stored.etag, "payload": payload}
        async with self._begin() as connection:
            if expected is None:
                try:
                    await connection.execute(insert(RESOURCES).values(name=name, **values))
                except IntegrityError:
                    raise ConfigConflict(f"{name} was added by somebody else meanwhile; read it again") from None
            else:
                changed = await connection.execute(
                    update(RESOURCES).where(RESOURCES.c.name == name, RESOURCES.c.etag == expected).values(**values)
                )
                if not changed.rowcount:
                    raise ConfigConflict(f"{name} was changed by somebody else meanwhile; read it again")
            await self._count(connection)
        return stored

    async def delete(self, name: str, *, expected: str) -> None:
        """Raises ConfigConflict if the resource has another etag meanwhile, ResourceNotFound if it is gone."""
        async with self._begin() as connection:
            gone = await connection.execute(
                delete(RESOURCES).where(RESOURCES.c.name == name, RESOURCES.c.etag == expected)
            )
            if not gone.rowcount:
                if await connection.scalar(select(RESOURCES.c.name).where(RESOURCES.c.name == name)):
                    raise ConfigConflict(f"{name} was changed by somebody else meanwhile; read it again")
                raise ResourceNotFound(f"there is no {name!r}", resource=(name.partition("/")[0], name))
            await self._count(connection)

    async def open(self) -> AsyncEngine:
        """Makes or changes the tables where that is needed. Raises StoreError for tables of a newer version."""
        async with self._opening:
            if self._engine is None:
                self._engine = await self._made()
            return self._engine

    async def _made(self) -> AsyncEngine:
        if self._address.file is not None:
            self._address.file.parent.mkdir(parents=True, exist_ok=True)
        engine = _engine(self._address)
        try:
            async with engine.begin() as connection:
                await connection.run_sync(_migrate)
        except BaseException:
            await engine.dispose()
            raise
        return engine

    async def aclose(self) -> None:
        if self._engine is not None:
            await self._engine.dispose()

    @asynccontextmanager
    async def _begin(self) -> AsyncIterator[AsyncConnection]:
        try:
            engine = await self.open()
            async with engine.begin() as connection:
                yield connection
        except (OSError, TimeoutError, SQLAlchemyError) as error:
            raise StoreUnavailable("the store of configs does not answer; call again shortly") from error

    async def _number(self, connection: AsyncConnection) -> int:
        return int(await connection.scalar(select(REVISION.c.number)) or 0)

    async def _count(self, connection: AsyncConnection) -> None:
        await connection.execute(update(REVISION).values(number=REVISION.c.number + 1))


def _engine(address: Address) -> AsyncEngine:
    if address.file is None:
        connecting: dict[str, Any] = {"timeout": PATIENCE, "command_timeout": PATIENCE}
        return create_async_engine(
            address.url, pool_size=1, max_overflow=4, pool_pre_ping=True, connect_args=connecting, pool_timeout=PATIENCE
        )
    engine = create_async_engine(address.url, connect_args={"timeout": PATIENCE})
    _wait_for_writers(engine.sync_engine)
    return engine


def _wait_for_writers(engine: Engine) -> None:
    """SQLite begins to write at the first statement instead of the last moment, so that two writers take turns."""

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _: object) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _migrate(connection: Connection) -> None:
    """Whoever comes first does it; SQLite's writers take turns anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATING})
    config = Config()
    config.set_main_option("script_location", str(files("trunkline_server.store") / "migrations"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise StoreError(f"store: its tables were made by a newer version; upgrade this server ({error})") from None


__all__ = ["Store", "Stored"]
