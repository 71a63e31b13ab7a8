"""The statements that find records: the keys of a page come first, sorted as an index has them, then what is kept under
them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trunkline_server.traces.base import Position
from trunkline_server.traces.columns import ESTIMATED, SPENT
from trunkline_server.traces.filters import Conditions
from trunkline_server.traces.postgresql.partitions import at
from trunkline_server.traces.postgresql.rows import short
from trunkline_server.traces.postgresql.schema import SCHEMA


def _shorts(words: Sequence[str]) -> list[str]:
    return [short(word) for word in words]


_TIMES = {"since_us": ("t.start_time >= {}", at), "until_us": ("t.start_time < {}", at)}

#: By the field of Conditions: the test of a row, and how its value is put.
_TESTS: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    **_TIMES,
    "method": ("t.method = {}", short),
    "provider": ("t.provider = {}", short),
    "caller": ("t.caller = {}", short),
    "code": ("t.code = {}", int),
    "reason": ("t.reason = {}", short),
    "min_cost_nano_usd": ("t.cost_nano_usd >= {}", int),
    "min_duration_us": ("t.duration_us >= {}", int),
    "words": ("t.failed AND t.error_words @> {}::text[]", _shorts),
}

#: Zero and the empty reason, which OK has, are asked for; other empty values are not there.
_MEAN_SOMETHING_EMPTY = frozenset({"since_us", "until_us", "code", "reason", "min_cost_nano_usd", "min_duration_us"})

#: Of Conditions.failed. A test of the code finds its index, which one of `NOT failed` would not.
_FAILED = {True: "t.failed", False: "t.code = 0"}

#: Of Conditions.model: the rows of the one kind and those of the other, so that each part comes sorted from its index.
_MODELS = ("t.model = {0}", "t.asked_model = {0} AND t.asked_model <> t.model")

_LABELLED = (
    f"EXISTS (SELECT FROM {SCHEMA}.trace_labels l WHERE l.key = {{}} AND l.value = {{}} "
    "AND l.start_time = t.start_time AND l.id = t.id)"
)


class Statement:
    """A statement while it is put together; its values go beside it."""

    def __init__(self) -> None:
        self.text = ""
        self.values: list[Any] = []

    def put(self, value: Any) -> str:
        """What stands for the value."""
        self.values.append(value)
        return f"${len(self.values)}"

    def tests(self, which: Conditions) -> list[str]:
        """Of all but models and labels."""
        found = []
        for name, (test, kind) in _TESTS.items():
            value = getattr(which, name)
            if value or (value is not None and name in _MEAN_SOMETHING_EMPTY):
                found.append(test.format(self.put(kind(value))))
        if which.failed is not None:
            found.append(_FAILED[which.failed])
        return found

    def models(self, which: Conditions) -> list[str]:
        """One test for each part of what is asked for; no row passes two."""
        if not which.model:
            return ["true"]
        value = self.put(short(which.model))
        return [test.format(value) for test in _MODELS]

    def labels(self, which: Conditions) -> list[tuple[str, str]]:
        return [(self.put(short(key)), self.put(short(value))) for key, value in which.labels.items()]

    def beyond(self, position: Position | None, *, oldest_first: bool) -> list[str]:
        """Of what lies behind a position. The first test chooses partitions, which that of a pair cannot."""
        if position is None:
            return []
        sign, start, trace_id = ">" if oldest_first else "<", self.put(at(position.start_us)), self.put(position.id)
        return [f"t.start_time {sign}= {start}", f"(t.start_time, t.id) {sign} ({start}, {trace_id})"]


def page(which: Conditions, after: Position | None, size: int, *, oldest_first: bool, column: str) -> Statement:
    """One column of the first `size` records behind a position."""
    made = Statement()
    direction = "ASC" if oldest_first else "DESC"
    tests = [*made.tests(which), *made.beyond(after, oldest_first=oldest_first)]
    labels = made.labels(which)
    if labels and _asks_for_labels_alone(which):
        # The entries of the first one lie in the order of time by themselves.
        (key, value), *labels = labels
        table, parts = "trace_labels", [f"t.key = {key} AND t.value = {value}"]
    else:
        table, parts = "traces", made.models(which)
    tests += [_LABELLED.format(*label) for label in labels]
    ordered = f"ORDER BY t.start_time {direction}, t.id {direction} LIMIT {size:d}"
    keys = [
        f"(SELECT t.start_time, t.id FROM {SCHEMA}.{table} t WHERE {' AND '.join([part, *tests])} {ordered})"
        for part in parts
    ]
    # Each key is looked up by itself, whatever the planner thinks of joins.
    made.text = f"""
        SELECT r.{column}
        FROM (SELECT * FROM ({" UNION ALL ".join(keys)}) t {ordered}) k
        CROSS JOIN LATERAL (
          SELECT {column} FROM {SCHEMA}.traces r WHERE r.start_time = k.start_time AND r.id = k.id LIMIT 1
        ) r
        ORDER BY k.start_time {direction}, k.id {direction}
    """
    return made


_SPENT = ", ".join(
    f"coalesce(sum(t.{name}) FILTER (WHERE t.usage_source {which} {ESTIMATED}), 0)::bigint"
    for which in ("<>", "=")
    for name in SPENT
)


def totals(which: Conditions, span_us: int) -> Statement:
    """Sums by span of time, provider and model, in the order of Total's fields."""
    made = Statement()
    span = made.put(span_us)
    tests = made.tests(which)
    tests.append(f"({' OR '.join(made.models(which))})")
    tests += [_LABELLED.format(*label) for label in made.labels(which)]
    made.text = f"""
        SELECT date_bin({span} * interval '1 microsecond', t.start_time, 'epoch') AS span, t.provider, t.model,
          count(*), count(*) FILTER (WHERE t.failed), {_SPENT}
        FROM {SCHEMA}.traces t WHERE {" AND ".join(tests)}
        GROUP BY span, t.provider, t.model ORDER BY span, t.provider, t.model
    """
    return made


def _asks_for_labels_alone(which: Conditions) -> bool:
    """Beside labels, are times all that the filter has?"""
    return which == Conditions(since_us=which.since_us, until_us=which.until_us, labels=which.labels)
