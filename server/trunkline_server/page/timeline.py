"""The attempts of a call on one time line, in percent of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from trunkline.v1alpha import trace_pb2


@dataclass(frozen=True, slots=True)
class Bar:
    """One attempt."""

    attempt: trace_pb2.Attempt
    #: Where it begins, how long it waited for the provider, and how long that answered: percent of the time line.
    start: float
    waited: float
    answered: float


@dataclass(frozen=True, slots=True)
class TimeLine:
    """All attempts of a call."""

    bars: Sequence[Bar]
    #: Seconds of the whole line.
    seconds: float
    #: Where the first piece of content came, in percent; None: nowhere.
    first_token: float | None


def time_line(trace: trace_pb2.Trace) -> TimeLine:
    began = _at(trace.start_time)
    placed = []
    for attempt in trace.attempts:
        start = max(0.0, _at(attempt.start_time) - began)
        took = _span(attempt.duration)
        waited = min(took, _span(attempt.time_to_first_event)) if attempt.HasField("time_to_first_event") else took
        placed.append((attempt, start, waited, took - waited))
    whole = max([_span(trace.timing.total), *(start + waited + says for _, start, waited, says in placed), 1e-6])
    first = _span(trace.timing.time_to_first_token) if trace.timing.HasField("time_to_first_token") else None
    return TimeLine(
        [Bar(attempt, *(100 * part / whole for part in parts)) for attempt, *parts in placed],
        whole,
        None if first is None else min(100.0, 100 * first / whole),
    )


def _at(value: Timestamp) -> float:
    return value.seconds + value.nanos / 1e9


def _span(value: Duration) -> float:
    return value.seconds + value.nanos / 1e9
