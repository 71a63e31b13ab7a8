"""The filter of the page: from the query of an address to a TraceFilter and back, with what is wrong by field."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

from trunkline.v1.error_pb2 import ErrorReason
from trunkline.v1alpha.trace_service_pb2 import TraceFilter
from trunkline_server.traces.columns import words

#: How far back, by the value of the field `range`.
RANGES: Mapping[str, tuple[str, timedelta | None]] = {
    "": ("any time", None),
    "15m": ("last 15 minutes", timedelta(minutes=15)),
    "1h": ("last hour", timedelta(hours=1)),
    "24h": ("last 24 hours", timedelta(days=1)),
    "7d": ("last 7 days", timedelta(days=7)),
    "30d": ("last 30 days", timedelta(days=30)),
}

METHODS = ("CreateCompletion", "StreamCompletion", "CountTokens", "CreateEmbeddings")
REASONS = tuple(name.removeprefix("ERROR_REASON_") for name in ErrorReason.keys()[1:])  # an enum

#: Shown at once; the others stand behind "more".
FIRST = ("range", "model", "status", "error")

_NANO = 10**9


@dataclass(slots=True)
class Asked:
    """What a query asks for."""

    filter: TraceFilter = field(default_factory=TraceFilter)
    #: As it was written, by field.
    values: dict[str, str] = field(default_factory=dict)
    #: What is wrong, by field.
    mistakes: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> str:
        return self.values.get(name, "")

    @property
    def lasting(self) -> TraceFilter:
        """The filter without the time that a range moves on: what a list is known by from one page to the next."""
        if not self["range"]:
            return self.filter
        kept = TraceFilter()
        kept.CopyFrom(self.filter)
        kept.ClearField("start_time")
        return kept

    @property
    def more(self) -> bool:
        """Is a field set that stands behind "more"?"""
        return any(name not in FIRST for name in self.values)

    def query(self, **changes: str) -> str:
        """The query that asks for the same, but for `changes`; an empty one leaves a field out."""
        values = {**self.values, **changes}
        return urlencode({name: value for name, value in values.items() if value})


def parse(query: Mapping[str, str], now: datetime) -> Asked:
    """Reads the fields of the filter and ignores all others."""
    asked = Asked()
    for name, read in _FIELDS.items():
        value = query.get(name, "").strip()[:1024]
        if value:
            asked.values[name] = value
            try:
                read(value, asked.filter, now)
            except (ValueError, OverflowError) as error:
                asked.mistakes[name] = str(error)
    return asked


def _range(value: str, which: TraceFilter, now: datetime) -> None:
    span = RANGES.get(value, ("", None))[1]
    if span is None:
        raise ValueError(f"choose one of {', '.join(list(RANGES)[1:])}")
    which.start_time.FromDatetime(now - span)


def _moment(name: str) -> Callable[[str, TraceFilter, datetime], None]:
    def read(value: str, which: TraceFilter, now: datetime) -> None:
        try:
            at = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError("write a date and time, e.g. 2026-01-31T12:00Z") from None
        getattr(which, name).FromDatetime(at.replace(tzinfo=at.tzinfo or UTC).astimezone(UTC))

    return read


def _text(name: str, most: int) -> Callable[[str, TraceFilter, datetime], None]:
    def read(value: str, which: TraceFilter, now: datetime) -> None:
        if len(value) > most:
            raise ValueError(f"at most {most} characters")
        setattr(which, name, value)

    return read


def _status(value: str, which: TraceFilter, now: datetime) -> None:
    if value in ("ok", "failed"):
        which.failed = value == "failed"
    elif re.fullmatch(r"[A-Z][A-Z0-9_]{0,63}", value):
        which.reason = value
    else:
        raise ValueError("choose ok, failed or a reason")


def _label(value: str, which: TraceFilter, now: datetime) -> None:
    for pair in value.split(","):
        name, equals, text = pair.strip().partition("=")
        if not (name and equals):
            raise ValueError("write name=value, several with commas between them")
        which.labels[name] = text
    if len(which.labels) > 8:
        raise ValueError("at most 8 labels")


def _number(value: str, most: float) -> float:
    try:
        number = float(value)
    except ValueError:
        raise ValueError("write a number") from None
    if not 0 <= number <= most:
        raise ValueError(f"from 0 to {most:,.0f}")
    return number


def _cost(value: str, which: TraceFilter, now: datetime) -> None:
    which.min_cost_nano_usd = round(_number(value, 1e6) * _NANO)


def _duration(value: str, which: TraceFilter, now: datetime) -> None:
    which.min_duration.FromNanoseconds(round(_number(value, 86_400) * _NANO))


def _error(value: str, which: TraceFilter, now: datetime) -> None:
    if not words(value):
        raise ValueError("write words: letters or digits")
    _text("error_text", 256)(value, which, now)


_FIELDS: Mapping[str, Callable[[str, TraceFilter, datetime], None]] = {
    "range": _range,
    "model": _text("model", 1024),
    "status": _status,
    "error": _error,
    "provider": _text("provider", 64),
    "caller": _text("caller", 64),
    "method": _text("method", 64),
    "label": _label,
    "cost": _cost,
    "duration": _duration,
    "since": _moment("start_time"),
    "until": _moment("end_time"),
}
