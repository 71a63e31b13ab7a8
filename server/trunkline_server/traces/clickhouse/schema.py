"""The table and its rows."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from trunkline_server.traces.base import Record
from trunkline_server.traces.clickhouse.address import Options
from trunkline_server.traces.columns import split, words

#: Oldest version with deletes by mask that are no experiment, and a FINAL that looks at one partition at a time.
OLDEST = (23, 8)

#: By its name the type of every column, in the order of `values`.
COLUMNS: Mapping[str, str] = {
    "start_time": "DateTime64(6, 'UTC')",
    "id": "String",
    "duration_us": "Nullable(Int64)",
    "first_token_us": "Nullable(Int64)",
    "state": "UInt8",
    "method": "LowCardinality(String)",
    "caller": "LowCardinality(String)",
    "request_id": "String",
    "provider": "LowCardinality(String)",
    "model": "LowCardinality(String)",
    "asked_model": "LowCardinality(String)",
    "code": "Int16",
    "reason": "LowCardinality(String)",
    "error": "String",
    "error_words": "Array(String)",
    "streamed": "Bool",
    "cancelled": "Bool",
    "capture": "UInt8",
    "attempts": "UInt16",
    "input_tokens": "Nullable(Int64)",
    "output_tokens": "Nullable(Int64)",
    "usage_source": "UInt8",
    "cost_nano_usd": "Nullable(Int64)",
    "otel_trace_id": "String",
    "labels": "Map(LowCardinality(String), String)",
    "label_pairs": "Array(String)",
    "basic": "String",
    "payload": "String",
}

#: What compresses best; all others go without saying.
_CODECS = {"start_time": "Delta, ZSTD(1)", "basic": "ZSTD(3)", "payload": "ZSTD(3)"}

_PARTITIONS = {"day": "toYYYYMMDD(start_time)", "month": "toYYYYMM(start_time)"}

#: Times that partitions and TTL can hold, in Unix seconds.
_MOST_SECONDS = int(dt.datetime(2105, 12, 31, tzinfo=dt.UTC).timestamp())


def table(options: Options) -> str:
    return f"`{options.database}`.traces"


def create(options: Options) -> str:
    """Rows that are equal in the key are one: those of a batch that was sent twice. The rest of the key is the order of
    every page.
    """
    columns = [f"{name} {kind} CODEC({_CODECS.get(name, 'ZSTD(1)')})" for name, kind in COLUMNS.items()]
    indexes = [
        "INDEX by_id id TYPE bloom_filter(0.001) GRANULARITY 1",
        "INDEX by_word error_words TYPE bloom_filter(0.01) GRANULARITY 1",
        "INDEX by_label label_pairs TYPE bloom_filter(0.01) GRANULARITY 1",
    ]
    return (
        f"CREATE TABLE IF NOT EXISTS {table(options)} ({', '.join([*columns, *indexes])}) "
        f"ENGINE = ReplacingMergeTree PARTITION BY {_PARTITIONS[options.partition]} ORDER BY (start_time, id) "
        "SETTINGS ttl_only_drop_parts = 1"
    )


def values(record: Record) -> tuple[Any, ...]:
    found, small = split(record.payload)
    return (
        clamped(found.start_us), record.id, found.duration_us, found.first_token_us, found.state, found.method,
        found.caller, found.request_id, found.provider, found.model, found.asked_model, found.code, found.reason,
        found.error, sorted(set(words(found.error))) if found.failed else [], found.streamed, found.cancelled,
        found.capture, min(found.attempts, 65_535), found.input_tokens, found.output_tokens, found.usage_source,
        found.cost_nano_usd, found.otel_trace_id, dict(found.labels),
        [pair(*label) for label in found.labels.items()], small, record.payload,
    )  # fmt: skip


def pair(key: str, value: str) -> str:
    """A label as it is looked for, which takes a third of the time that looking into the map does."""
    return f"{len(key)}:{key}={value}"


def clamped(unix_us: int) -> int:
    """A Unix time in microseconds within what a partition can hold."""
    return min(max(unix_us, 0), _MOST_SECONDS * 1_000_000)
