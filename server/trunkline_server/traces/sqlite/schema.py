"""Tables and indexes of the file, connections to it, and what its errors mean."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from trunkline_server.traces.base import BackendError, BackendUnavailable

#: Seconds to wait for another process's write.
BUSY = 5.0

#: An id as it is stored: half as long where it has the usual form, and in the same order.
Key: TypeAlias = bytes | str

_USUAL = re.compile(r"cmpl_([0-9a-f]{32})")

#: One script for each version of the file, run in order. A script that was released is never changed.
#:
#: The table lies in the order of time, and every index ends in it (SQLite appends the primary key), so that a page is
#: one short walk along one index. What was said lies apart, in `payloads`, compressed; `basic` comes first, since what
#: stands behind a large value is slow to reach. `errors` finds words; its rowid is the time, shifted, so that what it
#: finds comes in the order of time, too.
MIGRATIONS = (
    """
    CREATE TABLE traces (
      start_us INTEGER NOT NULL, key NOT NULL, payload INTEGER NOT NULL, error INTEGER, state INTEGER NOT NULL,
      method TEXT NOT NULL, caller TEXT NOT NULL, provider TEXT NOT NULL, model TEXT NOT NULL,
      asked_model TEXT NOT NULL, code INTEGER NOT NULL, reason TEXT NOT NULL, duration_us INTEGER,
      first_token_us INTEGER, input_tokens INTEGER, output_tokens INTEGER, usage_source INTEGER NOT NULL,
      cost_nano_usd INTEGER, streamed INTEGER NOT NULL, cancelled INTEGER NOT NULL, attempts INTEGER NOT NULL,
      labels TEXT, PRIMARY KEY (start_us, key)
    ) WITHOUT ROWID;
    CREATE UNIQUE INDEX by_key ON traces (key);
    CREATE INDEX by_method ON traces (method, start_us, key);
    CREATE INDEX by_caller ON traces (caller, start_us, key);
    CREATE INDEX by_provider ON traces (provider, start_us, key);
    CREATE INDEX by_provider_code ON traces (provider, code, start_us, key);
    CREATE INDEX by_provider_reason ON traces (provider, reason, start_us, key) WHERE reason <> '';
    CREATE INDEX by_provider_failed ON traces (provider, start_us, key) WHERE code <> 0;
    CREATE INDEX by_model ON traces (model, start_us, key);
    CREATE INDEX by_asked_model ON traces (asked_model, start_us, key);
    CREATE INDEX by_code ON traces (code, start_us, key);
    CREATE INDEX by_reason ON traces (reason, start_us, key) WHERE reason <> '';
    CREATE INDEX by_failed ON traces (start_us, key) WHERE code <> 0;
    CREATE INDEX by_cost ON traces (cost_nano_usd, start_us, key) WHERE cost_nano_usd IS NOT NULL;
    CREATE INDEX by_duration ON traces (duration_us, start_us, key) WHERE duration_us IS NOT NULL;
    CREATE TABLE labels (
      name TEXT NOT NULL, value TEXT NOT NULL, start_us INTEGER NOT NULL, key NOT NULL,
      PRIMARY KEY (name, value, start_us, key)
    ) WITHOUT ROWID;
    CREATE TABLE payloads (seq INTEGER PRIMARY KEY, basic BLOB NOT NULL, full BLOB);
    CREATE VIRTUAL TABLE errors USING fts5 (words, key UNINDEXED, tokenize = 'unicode61 remove_diacritics 0');
    """,
)

#: Errors of one microsecond that `errors` can hold in order, as a shift of its rowid.
SHIFT = 11


def key_of(trace_id: str) -> Key:
    usual = _USUAL.fullmatch(trace_id)
    return bytes.fromhex(usual[1]) if usual else trace_id


def id_of(key: Key) -> str:
    return f"cmpl_{key.hex()}" if isinstance(key, bytes) else key


def connect(path: Path) -> sqlite3.Connection:
    """A connection in autocommit mode."""
    connection = sqlite3.connect(path, timeout=BUSY, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA cache_size = -16000")
    return connection


def migrate(path: Path) -> sqlite3.Connection:
    """Opens the file for writing, made or brought up to this version. Raises BackendError if a newer one wrote it."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.touch(mode=0o600)
    connection = connect(path)
    try:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        with transaction(connection):
            _migrate(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(MIGRATIONS):
        raise BackendError(f"sqlite: {path} was written by a newer version of trunkline; name another file, or update")
    for script in MIGRATIONS[version:]:
        for statement in script.split(";\n"):
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


@contextmanager
def telling() -> Iterator[None]:
    """Errors of SQLite leave as BackendUnavailable: a lock, a full disk, a damaged file can all be mended outside."""
    try:
        yield
    except (sqlite3.OperationalError, sqlite3.DatabaseError, OSError) as error:
        if isinstance(error, sqlite3.IntegrityError | sqlite3.DataError | sqlite3.ProgrammingError):
            raise
        raise BackendUnavailable(f"sqlite: {error}") from error
