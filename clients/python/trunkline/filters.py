"""Which records of calls, from keyword arguments: the fields of TraceFilter, with Python's times."""

import difflib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypedDict

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from trunkline.v1alpha.trace_service_pb2 import TraceFilter

#: No int: by an int, text and lists are repeated, into gigabytes.
_NANO = 1e9


class FilterOptions(TypedDict, total=False):
    """What restricts; each is described at its field in trace_service.proto."""

    # A time without a zone is the machine's local time.
    start_time: datetime
    end_time: datetime
    provider: str
    model: str
    caller: str
    method: str
    code: int
    reason: str
    failed: bool
    labels: Mapping[str, str]
    # In US dollars.
    min_cost: float
    # In seconds, or as it is.
    min_duration: float | timedelta
    error_text: str


def build_filter(options: Mapping[str, Any]) -> TraceFilter:
    """Raises TypeError naming the option that does not exist or does not take its value."""
    made = TraceFilter()
    given = {name: value for name, value in options.items() if value is not None}
    status = [name for name in ("code", "reason", "failed") if name in given]
    if len(status) > 1:
        raise TypeError(f"{' and '.join(status)}: give one of them")
    for name, value in given.items():
        if name not in FilterOptions.__annotations__:
            near = difflib.get_close_matches(name, FilterOptions.__annotations__, 1)
            raise TypeError(f"unknown option {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        field, convert = _CONVERT.get(name, (name, lambda value: value))
        try:
            made.MergeFrom(TraceFilter(**{field: convert(value)}))
        except (TypeError, ValueError, AttributeError, OverflowError) as error:
            raise TypeError(f"{name}: cannot be {value!r}") from error
    return made


def _timestamp(value: datetime) -> Timestamp:
    at = Timestamp()
    at.FromDatetime(value.astimezone(UTC))
    return at


def _duration(value: float | timedelta) -> Duration:
    made = Duration()
    made.FromNanoseconds(round((value.total_seconds() if isinstance(value, timedelta) else value) * _NANO))
    return made


_CONVERT: dict[str, Any] = {
    "start_time": ("start_time", _timestamp),
    "end_time": ("end_time", _timestamp),
    "min_cost": ("min_cost_nano_usd", lambda dollars: round(dollars * _NANO)),
    "min_duration": ("min_duration", _duration),
}
