"""What a backend's query does, for one record in memory: whether it matches, and what of it was not said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from trunkline.v1alpha import trace_pb2, trace_service_pb2
from trunkline_server.traces.columns import clear_content, words

Trace: TypeAlias = trace_pb2.Trace

_SECOND = 1_000_000_000


def matches(which: trace_service_pb2.TraceFilter, trace: Trace) -> bool:
    """Does the record match, all that restricts taken together?"""
    return all(_CHECKS[field.name](value, trace) for field, value in which.ListFields())


def without_content(trace: Trace) -> Trace:
    """A copy that holds nothing of what was said."""
    kept = Trace()
    kept.CopyFrom(trace)
    clear_content(kept)
    return kept


def _nanoseconds(value: Any) -> int:
    """Of a Timestamp or a Duration."""
    return int(value.seconds * _SECOND + value.nanos)


def _failed(wanted: bool, trace: Trace) -> bool:
    return (not trace.HasField("status") or trace.status.code != 0) is wanted


_CHECKS: dict[str, Callable[[Any, Trace], bool]] = {
    "start_time": lambda at, trace: _nanoseconds(trace.start_time) >= _nanoseconds(at),
    "end_time": lambda at, trace: _nanoseconds(trace.start_time) < _nanoseconds(at),
    "provider": lambda name, trace: trace.provider == name,
    "model": lambda name, trace: name in (trace.model, trace.asked_model),
    "caller": lambda name, trace: trace.caller == name,
    "code": lambda code, trace: trace.HasField("status") and trace.status.code == code,
    "reason": lambda reason, trace: trace.status.reason == reason,
    "failed": _failed,
    "labels": lambda labels, trace: all(
        key in trace.labels and trace.labels[key] == text for key, text in labels.items()
    ),
    "min_cost_nano_usd": lambda least, trace: (
        trace.usage.HasField("cost_nano_usd") and trace.usage.cost_nano_usd >= least
    ),
    "min_duration": lambda least, trace: (
        trace.timing.HasField("total") and _nanoseconds(trace.timing.total) >= _nanoseconds(least)
    ),
    "error_text": lambda text, trace: set(words(text)) <= set(words(trace.status.message)),
    "method": lambda method, trace: trace.method == method,
}
