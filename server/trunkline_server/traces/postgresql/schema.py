"""The tables, brought to the form that this server knows, by whichever of several servers comes first."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

import asyncpg

from trunkline_server.traces.base import BackendError
from trunkline_server.traces.postgresql.address import Address

if TYPE_CHECKING:
    from alembic.config import Config

SCHEMA = "trunkline"
#: Last revision of the migrations; a test holds it equal to theirs. Known here so that Alembic and SQLAlchemy are only
#: loaded when there is something to do.
HEAD = "0001"
VERSION_TABLE = "traces_version"

OLDEST = 14

#: Keys of advisory locks: made of nothing, shared with nothing else here.
MIGRATING, PARTITIONING, PRUNING = 7_204_411_001, 7_204_411_002, 7_204_411_003


async def ensure(connection: asyncpg.Connection, address: Address) -> None:
    """Raises BackendError for a server too old or a schema too new."""
    version = connection.get_server_version()
    if version.major < OLDEST:
        raise BackendError(f"postgresql: the server is version {version.major}; {OLDEST} or newer is needed")
    if await _revision(connection) == HEAD:
        return
    # Another server may be at it; who comes second finds the work done.
    await connection.execute(f"SELECT pg_advisory_lock({MIGRATING})")
    found = await _revision(connection)
    if found != HEAD:
        if found is not None and found not in _known():
            raise BackendError(
                f"postgresql: the tables are at revision {found}, made by a newer version; upgrade this server"
            )
        if not await connection.fetchval("SELECT to_regnamespace($1) IS NOT NULL", SCHEMA):
            await connection.execute(f"CREATE SCHEMA {SCHEMA}")
        await _migrate(address)
    # After a failure the connection is closed, and with it the lock.
    await connection.execute(f"SELECT pg_advisory_unlock({MIGRATING})")


async def _revision(connection: asyncpg.Connection) -> str | None:
    table = f"{SCHEMA}.{VERSION_TABLE}"
    if not await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", table):
        return None
    found: str | None = await connection.fetchval(f"SELECT version_num FROM {table}")
    return found


def _known() -> set[str]:
    from alembic.script import ScriptDirectory

    return {revision.revision for revision in ScriptDirectory.from_config(_alembic()).walk_revisions()}


async def _migrate(address: Address) -> None:
    from alembic import command
    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.pool import NullPool

    config = _alembic()

    def upgrade(connection: Connection) -> None:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=lambda: address.connect(_MIGRATION_SECONDS), poolclass=NullPool
    )
    try:
        async with engine.begin() as connection:
            await connection.run_sync(upgrade)
    finally:
        await engine.dispose()


#: A new index over many records takes long.
_MIGRATION_SECONDS = 3600.0


def _alembic() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(files("trunkline_server.traces.postgresql") / "migrations"))
    return config
