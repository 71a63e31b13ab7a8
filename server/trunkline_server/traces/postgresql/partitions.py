"""Partitions by time: made when the first record for them comes or before, dropped as a whole."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable
from dataclasses import dataclass

import asyncpg

from trunkline_server.traces.postgresql.schema import PARTITIONING, SCHEMA

#: Tables that are parted alike.
PARTED = ("traces", "trace_labels")

_DAY = dt.timedelta(days=1)
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
#: Times that a partition can be made for, in microseconds.
_LEAST_US, _MOST_US = 0, int((dt.datetime(9998, 12, 31, tzinfo=dt.UTC) - _EPOCH).total_seconds()) * 1_000_000


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Days from the first to before the second."""

    since: dt.date
    until: dt.date

    def __contains__(self, day: dt.date) -> bool:
        return self.since <= day < self.until

    @property
    def suffix(self) -> str:
        return f"{self.since:%Y%m%d}_{self.until:%Y%m%d}"

    def table(self, parted: str) -> str:
        return f"{SCHEMA}.{parted}_{self.suffix}"


def at(unix_us: int) -> dt.datetime:
    """A Unix time in microseconds as PostgreSQL takes it, within what it can part."""
    return _EPOCH + dt.timedelta(microseconds=min(max(unix_us, _LEAST_US), _MOST_US))


def unix_us(time: dt.datetime) -> int:
    return (time - _EPOCH) // dt.timedelta(microseconds=1)


class Partitions:
    """The partitions that are known to be there."""

    def __init__(self, period: str) -> None:
        self._period = period
        self._spans: list[Span] = []

    async def ensure(self, connection: asyncpg.Connection, times: Iterable[dt.datetime]) -> None:
        """Makes what these times need, and the partitions of today and of the period after it."""
        today = dt.datetime.now(dt.UTC).date()
        days = {time.date() for time in times} | {today, _period(self._period, today).until}
        if not self._lacks(days):
            return
        async with connection.transaction():
            await connection.execute(f"SELECT pg_advisory_xact_lock({PARTITIONING})")
            self._spans = await spans(connection)
            # One may serve several days.
            for day in sorted(days):
                if self._lacks([day]):
                    await self._make(connection, self._free(day))

    def _lacks(self, days: Iterable[dt.date]) -> bool:
        return any(not any(day in span for span in self._spans) for day in days)

    def _free(self, day: dt.date) -> Span:
        """The period of a day, less what other partitions hold of it: those of an earlier setting may be longer."""
        period = _period(self._period, day)
        since = max([period.since, *(span.until for span in self._spans if span.until <= day)])
        until = min([period.until, *(span.since for span in self._spans if span.since > day)])
        return Span(since, until)

    async def _make(self, connection: asyncpg.Connection, span: Span) -> None:
        for parted in PARTED:
            # Beyond this length payloads leave the row: what is searched and listed stays together.
            options = "WITH (toast_tuple_target = 1024)" if parted == "traces" else ""
            # Made apart and then attached, since that locks no reader out.
            await connection.execute(
                f"CREATE TABLE {span.table(parted)} (LIKE {SCHEMA}.{parted} INCLUDING STORAGE) {options}"
            )
            await connection.execute(
                f"ALTER TABLE {SCHEMA}.{parted} ATTACH PARTITION {span.table(parted)} "
                f"FOR VALUES FROM ('{span.since} 00:00:00+00') TO ('{span.until} 00:00:00+00')"
            )
        self._spans.append(span)

    def forget(self) -> None:
        """They are looked up again: a partition was dropped, perhaps by another server."""
        self._spans = []


async def spans(connection: asyncpg.Connection) -> list[Span]:
    """The partitions that there are, oldest first."""
    names = await connection.fetch(
        "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
        f"WHERE i.inhparent = to_regclass('{SCHEMA}.traces')"
    )
    found = [re.fullmatch(r"traces_(\d{8})_(\d{8})", name) for (name,) in names]
    return sorted(Span(*map(dt.date.fromisoformat, match.groups())) for match in found if match)


async def drop(connection: asyncpg.Connection, span: Span) -> int:
    """Returns how many records went: none while a reader is long at it: all others would wait behind us."""
    tables = ", ".join(span.table(parted) for parted in PARTED)
    # Counted before anything is locked, since that takes a while.
    count: int = await connection.fetchval(f"SELECT count(*) FROM {span.table('traces')}")
    try:
        async with connection.transaction():
            await connection.execute("SET LOCAL lock_timeout = '1s'")
            # Dropping a partition locks its parent: no reader may then wait for one who waits for us. The other
            # partitions are nobody's business, least of all that of a vacuum which is at one.
            await connection.execute(f"LOCK TABLE {', '.join(f'ONLY {SCHEMA}.{parted}' for parted in PARTED)}")
            await connection.execute(f"DROP TABLE {tables}")
    except asyncpg.LockNotAvailableError:
        return 0
    return count


def _period(period: str, day: dt.date) -> Span:
    if period == "day":
        return Span(day, day + _DAY)
    first = day.replace(day=1)
    return Span(first, (first + 31 * _DAY).replace(day=1))


__all__ = ["PARTED", "Partitions", "Span", "at", "drop", "spans", "unix_us"]
