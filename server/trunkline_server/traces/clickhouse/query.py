"""The statements that find records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trunkline_server.traces.base import Position
from trunkline_server.traces.clickhouse.schema import clamped, pair
from trunkline_server.traces.columns import ESTIMATED, SPENT
from trunkline_server.traces.filters import Conditions

_TIME = "fromUnixTimestamp64Micro({{{}:Int64}}, 'UTC')"

#: By the field of Conditions: the test of a row with a place for what stands for the value, and the value's type.
_TESTS: Mapping[str, tuple[str, str]] = {
    "since_us": ("start_time >= {}", "time"),
    "until_us": ("start_time < {}", "time"),
    "method": ("method = {}", "String"),
    "provider": ("provider = {}", "String"),
    "model": ("(model = {0} OR asked_model = {0})", "String"),
    "caller": ("caller = {}", "String"),
    "code": ("code = {}", "Int16"),
    "reason": ("reason = {}", "String"),
    "min_cost_nano_usd": ("cost_nano_usd >= {}", "Int64"),
    "min_duration_us": ("duration_us >= {}", "Int64"),
    "words": ("hasAll(error_words, {})", "Array(String)"),
}

#: Zero and the empty reason, which OK has, are asked for; other empty values are not there.
_MEAN_SOMETHING_EMPTY = frozenset({"since_us", "until_us", "code", "reason", "min_cost_nano_usd", "min_duration_us"})

#: Of Conditions.failed.
_FAILED = {True: "code != 0", False: "code = 0"}


class Statement:
    """A statement while it is put together; its values go beside it."""

    def __init__(self) -> None:
        self.text = ""
        self.values: dict[str, Any] = {}

    def put(self, value: Any, kind: str) -> str:
        """What stands for the value."""
        name = f"p{len(self.values)}"
        if kind == "time":
            self.values[name] = clamped(value)
            return _TIME.format(name)
        self.values[name] = value
        return f"{{{name}:{kind}}}"

    def tests(self, which: Conditions) -> list[str]:
        found = ["true"]
        for name, (test, kind) in _TESTS.items():
            value = getattr(which, name)
            if value or (value is not None and name in _MEAN_SOMETHING_EMPTY):
                found.append(test.format(self.put(list(value) if name == "words" else value, kind)))
        if which.failed is not None:
            found.append(_FAILED[which.failed])
        if which.labels:
            pairs = [pair(*label) for label in which.labels.items()]
            found.append(f"hasAll(label_pairs, {self.put(pairs, 'Array(String)')})")
        return found

    def beyond(self, position: Position | None, *, oldest_first: bool) -> list[str]:
        """Of what lies behind a position. The first test finds the place, which that of a pair does not."""
        if position is None:
            return []
        sign, start, trace_id = ">" if oldest_first else "<", self.put(position.start_us, "time"), position.id
        pair = f"({start}, {self.put(trace_id, 'String')})"
        return [f"start_time {sign}= {start}", f"(start_time, id) {sign} {pair}"]


def page(
    table: str, which: Conditions, after: Position | None, size: int, *, oldest_first: bool, column: str
) -> Statement:
    """One column of the first `size` records behind a position."""
    made = Statement()
    tests = [*made.tests(which), *made.beyond(after, oldest_first=oldest_first)]
    order = "ASC" if oldest_first else "DESC"
    # Rows that a resent batch has doubled are neighbours in this order, so that nothing need be merged before.
    made.text = (
        f"SELECT {column} FROM {table} WHERE {' AND '.join(tests)} "
        f"ORDER BY start_time {order}, id {order} LIMIT 1 BY start_time, id LIMIT {size:d}"
    )
    return made


_SPENT = ", ".join(
    f"sumIf(ifNull({name}, 0), usage_source {which} {ESTIMATED})" for which in ("!=", "=") for name in SPENT
)


def totals(table: str, which: Conditions, span_us: int) -> Statement:
    """Sums by span of time, provider and model, in the order of Total's fields."""
    made = Statement()
    span = made.put(span_us, "Int64")
    made.text = (
        f"SELECT intDiv(toUnixTimestamp64Micro(start_time), {span}) * {span} AS span, provider, model, count(), "
        f"countIf(code != 0), {_SPENT} FROM {table} FINAL WHERE {' AND '.join(made.tests(which))} "
        "GROUP BY span, provider, model ORDER BY span, provider, model "
        # Rows of one key have one time, and so one partition.
        "SETTINGS do_not_merge_across_partitions_select_final = 1"
    )
    return made


def one(table: str, columns: str, trace_id: str) -> Statement:
    """Some columns of one record."""
    made = Statement()
    made.text = f"SELECT {columns} FROM {table} WHERE id = {made.put(trace_id, 'String')} LIMIT 1"
    return made


def delete(table: str, trace_id: str) -> Statement:
    made = Statement()
    made.text = f"DELETE FROM {table} WHERE id = {made.put(trace_id, 'String')}"
    return made
