"""A record as a row of the table `traces`, and texts as they are kept and searched for."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from typing import Any

import zstandard

from trunkline.v1alpha import trace_pb2
from trunkline_server.traces.base import Record
from trunkline_server.traces.columns import Row, split, words
from trunkline_server.traces.postgresql.partitions import at

#: In the order of `values`.
COLUMNS = (
    "start_time", "id", "duration_us", "first_token_us", "state", "method", "caller", "request_id", "provider", "model",
    "asked_model", "code", "failed", "reason", "error", "error_words", "streamed", "cancelled", "capture", "attempts",
    "input_tokens", "output_tokens", "usage_source", "cost_nano_usd", "otel_trace_id", "labels", "basic", "payload",
)  # fmt: skip

#: An entry of an index takes 2,704 bytes at most.
_MOST_BYTES = 512

_MOST_ERROR = 4000

_packed = zstandard.ZstdCompressor(level=1).compress
#: For what is small: a third of the time, 4 % larger.
_packed_fast = zstandard.ZstdCompressor(level=-1).compress


def values(record: Record) -> tuple[Any, ...]:
    """What COPY takes."""
    found, small = split(record.payload)
    return (
        at(found.start_us), record.id, found.duration_us, found.first_token_us, found.state, short(found.method),
        short(found.caller), short(found.request_id), short(found.provider), short(found.model),
        short(found.asked_model), found.code, found.failed, short(found.reason), found.error[:_MOST_ERROR],
        sorted({short(word) for word in words(found.error)}) if found.failed else None, found.streamed,
        found.cancelled, found.capture, found.attempts, found.input_tokens, found.output_tokens, found.usage_source,
        found.cost_nano_usd, short(found.otel_trace_id), labels(found),
        _packed_fast(small), _packed(record.payload),
    )  # fmt: skip


def trace(packed: bytes) -> trace_pb2.Trace:
    """What `basic` or `payload` holds."""
    return trace_pb2.Trace.FromString(zstandard.ZstdDecompressor().decompress(packed))


def start(values: tuple[Any, ...]) -> dt.datetime:
    found: dt.datetime = values[0]
    return found


def labels(found: Row) -> str:
    return json.dumps({short(key): short(value) for key, value in found.labels.items()}) if found.labels else "{}"


def short(text: str) -> str:
    """A text that an index can hold. One that is too long is cut, and told from others by its hash."""
    if len(text) * 4 <= _MOST_BYTES:
        return text
    data = text.encode()
    if len(data) <= _MOST_BYTES:
        return text
    digest = hashlib.sha256(data).hexdigest()
    return data[: _MOST_BYTES - len(digest) - 1].decode(errors="ignore") + "#" + digest
