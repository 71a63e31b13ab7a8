"""Finds the keys of a page along one index.

SQLite chooses indexes by statistics that a growing file does not have. Here the index is chosen by looking: of each
condition's index as many entries are counted as decide, and the one with the fewest is walked. What has few entries may
be sorted; what has many is walked in the order of time until the page is full.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from trunkline_server.traces.columns import ESTIMATED, SPENT
from trunkline_server.traces.filters import Conditions
from trunkline_server.traces.sqlite.schema import SHIFT, Key

#: Entries counted of an index; one that has more counts as large.
LOOK = 4_000


@dataclass(frozen=True, slots=True)
class Wanted:
    """A page: at most `size` traces after a key."""

    conditions: Conditions
    after: tuple[int, Key] | None
    size: int
    oldest_first: bool


@dataclass(slots=True)
class _Clause:
    """Text of SQL with its parameters."""

    parts: list[str] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)

    def add(self, part: str, *values: Any) -> None:
        self.parts.append(part)
        self.values += values

    @property
    def text(self) -> str:
        return " AND ".join(self.parts) or "1"


@dataclass(frozen=True, slots=True)
class _Walk:
    """One way to the page: from where, along which condition, and whether that is in the order of time."""

    source: str
    condition: str
    values: Sequence[Any]
    #: Alias of what is walked: t, l (labels) or e (errors).
    of: str = "t"
    in_order: bool = True


_BY_TIME = _Walk("traces t", "1", ())
_LABELS = "labels l CROSS JOIN traces t ON t.start_us = l.start_us AND t.key = l.key"
_ERRORS = f"errors e CROSS JOIN traces t ON t.start_us = e.rowid >> {SHIFT} AND t.key = e.key"

_SPENT = ", ".join(
    f"coalesce(sum(t.{name}) FILTER (WHERE t.usage_source {which} {ESTIMATED}), 0)"
    for which in ("<>", "=")
    for name in SPENT
)


def found(connection: sqlite3.Connection, wanted: Wanted) -> list[tuple[int, Key]]:
    """(start_us, key) of the page, in its order."""
    keys: set[tuple[int, Key]] = set()
    walks, wanted = _shortest(connection, wanted)
    for walk in walks:
        keys.update(_walked(connection, walk, wanted))
    ordered = sorted(keys, key=_order, reverse=not wanted.oldest_first)
    return ordered[: wanted.size]


def totals(connection: sqlite3.Connection, asked: Conditions, span_us: int) -> list[tuple[Any, ...]]:
    """Rows of base.Total."""
    wanted = Wanted(asked, None, LOOK, oldest_first=True)
    walks, wanted = _shortest(connection, wanted)
    # What two walks have in common would count twice.
    walk = walks[0] if len(walks) == 1 else _BY_TIME
    where = _Clause([walk.condition], list(walk.values))
    _add_time(where, walk, wanted)
    _add_all(where, asked, walk)
    return connection.execute(
        "SELECT t.start_us / ?1 * ?1 AS span, t.provider, t.model, count(*), sum(t.code <> 0), "
        f"{_SPENT} FROM {walk.source} WHERE {where.text} "
        "GROUP BY span, t.provider, t.model ORDER BY span, t.provider, t.model",
        (span_us, *where.values),
    ).fetchall()


def _shortest(connection: sqlite3.Connection, wanted: Wanted) -> tuple[list[_Walk], Wanted]:
    """The way with the fewest entries, and what is wanted of it."""
    ways = list(_walks(wanted.conditions)) or [[_BY_TIME]]
    fewest, best = min(((_count(connection, way, wanted), way) for way in ways), key=lambda one: one[0])
    if fewest <= LOOK:
        return best, wanted
    # Every condition is met by many: the first ones are not far in the order of time, from where all of them begin.
    in_order = [way for way in ways if way[0].in_order]
    if len(in_order) > 1:
        wanted = replace(wanted, conditions=_begun(connection, in_order, wanted))
    return (best if best[0].in_order else [_BY_TIME]), wanted


def _begun(connection: sqlite3.Connection, ways: Sequence[list[_Walk]], wanted: Wanted) -> Conditions:
    """The conditions from the first time on at which each of these ways has an entry."""
    asked = wanted.conditions
    for way in ways:
        firsts = [first for walk in way if (first := _first(connection, walk, wanted)) is not None]
        if firsts and wanted.oldest_first:
            asked = replace(asked, since_us=max(min(firsts), asked.since_us or 0))
        elif firsts:
            until = max(firsts) + 1
            asked = replace(asked, until_us=until if asked.until_us is None else min(until, asked.until_us))
    return asked


def _walks(asked: Conditions) -> Iterator[list[_Walk]]:
    """Ways to the page, each along one index, or along two whose traces are put together. The most exact ones first:
    of ways that are equally long the first is taken.
    """
    if asked.words:
        yield [_Walk(_ERRORS, "errors MATCH ?", (_phrases(asked.words),), of="e")]
    for label in asked.labels.items():
        yield [_Walk(_LABELS, "l.name = ? AND l.value = ?", label, of="l")]
    statuses = list(_statuses(asked))
    if asked.provider:
        for name, condition, values in (*statuses, ("", "1", ())):
            index = f"by_provider{name and '_'}{name}"
            yield [_along(index, f"t.provider = ? AND {condition}", asked.provider, *values)]
    for name, condition, values in statuses:
        yield [_along(f"by_{name}", condition, *values)]
    if asked.model:
        yield [_along(f"by_{name}", f"t.{name} = ?", asked.model) for name in ("model", "asked_model")]
    for name in ("caller", "method"):
        if getattr(asked, name):
            yield [_along(f"by_{name}", f"t.{name} = ?", getattr(asked, name))]
    for name, column, least in (
        ("cost", "cost_nano_usd", asked.min_cost_nano_usd),
        ("duration", "duration_us", asked.min_duration_us),
    ):
        if least is not None:
            yield [_along(f"by_{name}", f"t.{column} >= ?", least, in_order=False)]


def _along(index: str, condition: str, *values: Any, in_order: bool = True) -> _Walk:
    return _Walk(f"traces t INDEXED BY {index}", condition, values, in_order=in_order)


def _statuses(asked: Conditions) -> Iterator[tuple[str, str, tuple[Any, ...]]]:
    """Indexes by how a call ended, which are there of all calls and of a provider's."""
    if asked.reason:
        yield "reason", "t.reason = ? AND t.reason <> ''", (asked.reason,)
    if asked.failed:
        yield "failed", "t.code <> 0", ()
    if asked.code is not None or asked.failed is False:
        yield "code", "t.code = ?", (asked.code or 0,)


def _count(connection: sqlite3.Connection, ways: Sequence[_Walk], wanted: Wanted) -> int:
    """Entries of these walks in the time that is asked for, at most LOOK + 1 of each."""
    count = 0
    for walk in ways:
        where = _Clause([walk.condition], list(walk.values))
        _add_time(where, walk, wanted)
        query = f"SELECT count(*) FROM (SELECT 1 FROM {_alone(walk)} WHERE {where.text} LIMIT {LOOK + 1})"
        count += connection.execute(query, where.values).fetchone()[0]
    return count


def _first(connection: sqlite3.Connection, walk: _Walk, wanted: Wanted) -> int | None:
    """The time of a walk's first entry."""
    where = _Clause([walk.condition], list(walk.values))
    _add_time(where, walk, wanted)
    column, shift = ("e.rowid", SHIFT) if walk.of == "e" else (f"{walk.of}.start_us", 0)
    query = (
        f"SELECT {column} FROM {_alone(walk)} WHERE {where.text} "
        f"ORDER BY {column} {'ASC' if wanted.oldest_first else 'DESC'} LIMIT 1"
    )
    found = connection.execute(query, where.values).fetchone()
    return None if found is None else int(found[0]) >> shift


def _alone(walk: _Walk) -> str:
    """What is walked, without what belongs to it."""
    return walk.source.partition(" CROSS JOIN ")[0]


def _walked(connection: sqlite3.Connection, walk: _Walk, wanted: Wanted) -> list[tuple[int, Key]]:
    """At least the first `size` keys of one walk that fulfil all conditions, or all."""
    where = _Clause([walk.condition], list(walk.values))
    _add_time(where, walk, wanted)
    _add_all(where, wanted.conditions, walk)
    if wanted.after is not None:
        where.add(f"(t.start_us, t.key) {'>' if wanted.oldest_first else '<'} (?, ?)", *wanted.after)
    way = "ASC" if wanted.oldest_first else "DESC"
    order = f"e.rowid {way}" if walk.of == "e" else f"{walk.of}.start_us {way}, {walk.of}.key {way}"
    select = f"SELECT t.start_us, t.key FROM {walk.source} WHERE {where.text}"
    keys: list[tuple[int, Key]] = connection.execute(
        f"{select} ORDER BY {order} LIMIT ?", (*where.values, wanted.size)
    ).fetchall()
    if walk.of == "e" and len(keys) == wanted.size:
        # Of the last microsecond all: words are in the order of time, but not of ids.
        first = keys[-1][0] << SHIFT
        last = first + (1 << SHIFT) - 1
        keys += connection.execute(f"{select} AND e.rowid BETWEEN ? AND ?", (*where.values, first, last)).fetchall()
    return keys


def _add_time(where: _Clause, walk: _Walk, wanted: Wanted) -> None:
    """Bounds of the time, on the walk's own column so that it begins and ends there."""
    asked, after = wanted.conditions, wanted.after
    least = [] if asked.since_us is None else [asked.since_us]
    most = [] if asked.until_us is None else [asked.until_us - 1]
    if after is not None:
        (least if wanted.oldest_first else most).append(after[0])
    column, shift, tail = f"{walk.of}.start_us", 0, 0
    if walk.of == "e":
        column, shift, tail = "e.rowid", SHIFT, (1 << SHIFT) - 1
    if least:
        where.add(f"{column} >= ?", max(least) << shift)
    if most:
        where.add(f"{column} <= ?", (min(most) << shift) + tail)


def _add_all(where: _Clause, asked: Conditions, walk: _Walk) -> None:
    """Every condition on the trace itself; `+` keeps SQLite from looking for another index."""
    for name in ("method", "provider", "caller"):
        if getattr(asked, name):
            where.add(f"+t.{name} = ?", getattr(asked, name))
    if asked.model:
        where.add("(+t.model = ? OR +t.asked_model = ?)", asked.model, asked.model)
    if asked.code is not None:
        where.add("+t.code = ?", asked.code)
    if asked.reason is not None:
        where.add("+t.reason = ?", asked.reason)
    if asked.failed is not None:
        where.add("+t.code <> 0" if asked.failed else "+t.code = 0")
    if asked.min_cost_nano_usd is not None:
        where.add("+t.cost_nano_usd >= ?", asked.min_cost_nano_usd)
    if asked.min_duration_us is not None:
        where.add("+t.duration_us >= ?", asked.min_duration_us)
    for name, value in asked.labels.items():
        where.add(
            "EXISTS (SELECT 1 FROM labels m WHERE m.name = ? AND m.value = ? AND m.start_us = t.start_us "
            "AND m.key = t.key)",
            name,
            value,
        )
    if asked.words and walk.of != "e":
        where.add("+t.error IN (SELECT rowid FROM errors WHERE errors MATCH ?)", _phrases(asked.words))


def _phrases(words: Sequence[str]) -> str:
    """All of these words; each is a phrase of its own, so that none is an operator."""
    return " ".join(f'"{word}"' for word in words)


def _order(key: tuple[int, Key]) -> tuple[int, int, Key]:
    """As SQLite orders: texts before bytes."""
    return key[0], isinstance(key[1], bytes), key[1]
