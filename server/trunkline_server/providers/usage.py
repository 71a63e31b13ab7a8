"""Counts of tokens as providers report them, made fit for the contract."""

from __future__ import annotations

from msgspec import Raw

from trunkline.v1 import completion_pb2
from trunkline_server.providers.jsontext import text_of

#: Some servers count in floats.
Count = int | float | None

_MAX = 2**31 - 1


def usage_from(
    raw: Raw, source: completion_pb2.UsageSource.ValueType, counts: dict[str, int | None]
) -> completion_pb2.Usage | None:
    """The usage with these counts, by field; None if none of the totals was counted."""
    total_in, out, total = counts["input_tokens"], counts["output_tokens"], counts["total_tokens"]
    if total_in is None and out is None and total is None:
        return None
    if total is None:
        counts["total_tokens"] = added(total_in, out)
    usage = completion_pb2.Usage(source=source, raw_json=text_of(raw))
    # Half the cost of arguments by name.
    for name, count in counts.items():
        if count is not None:
            setattr(usage, name, count)
    return usage


def counted(value: Count) -> int | None:
    """A count that fits the contract's field; None for what is no count."""
    if value is None or not 0 <= value < 1e15:
        return None
    return int(value) if value < _MAX else _MAX


def first(*values: Count) -> int | None:
    """The first that is there: one fact under several names."""
    for value in values:
        if value is not None:
            return counted(value)
    return None


def added(left: int | None, right: int | None) -> int | None:
    return min(left + right, _MAX) if left is not None and right is not None else None
