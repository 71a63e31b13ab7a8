"""What a backend's query does, for one record in memory: whether it matches, and what of it was not said."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import Any, TypeAlias

from trunkline.v1alpha import trace_pb2, trace_service_pb2

Trace: TypeAlias = trace_pb2.Trace

_SECOND = 1_000_000_000


def matches(which: trace_service_pb2.TraceFilter, trace: Trace) -> bool:
    """Does the record match, all that restricts taken together?"""
    return all(_CHECKS[field.name](value, trace) for field, value in which.ListFields())


def words(text: str) -> frozenset[str]:
    """The words that a search knows: runs of letters and digits, without case and accents."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))
    return frozenset(re.findall(r"[^\W_]+", plain))


def without_content(trace: Trace) -> Trace:
    """A copy that holds nothing of what was said."""
    kept = Trace()
    kept.CopyFrom(trace)
    if kept.WhichOneof("request") == "completion_spec":
        kept.completion_spec.ClearField("messages")
        kept.completion_spec.ClearField("extra_system_text")
    elif kept.WhichOneof("request") == "embedding_spec":
        kept.embedding_spec.ClearField("inputs")
    if kept.WhichOneof("response") == "completion":
        kept.completion.ClearField("choices")
        kept.completion.ClearField("raw")
    elif kept.WhichOneof("response") == "embeddings":
        kept.embeddings.ClearField("embeddings")
    for attempt in kept.attempts:
        attempt.ClearField("request")
        attempt.ClearField("response")
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
    "error_text": lambda text, trace: words(text) <= words(trace.status.message),
    "method": lambda method, trace: trace.method == method,
}
