"""Figures and texts of records as a person reads them; the filters of the templates."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from trunkline.v1 import completion_pb2, message_pb2
from trunkline.v1alpha import trace_pb2

#: Characters of one text that a page shows.
LONGEST = 100_000

#: Pictures that a browser shows without running what is in them, up to so many bytes.
_PICTURES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
_LARGEST_PICTURE = 512 * 1024


def seconds(value: float | Duration | None) -> str:
    """Three significant digits with a unit; minutes from one on. A dash for what is not known."""
    if value is None:
        return "–"
    if isinstance(value, Duration):
        value = value.seconds + value.nanos / 1e9
    if value >= 60:
        return f"{value // 60:.0f} min {value % 60:02.0f} s"
    return f"{value:.3g} s" if value >= 0.9995 else f"{value * 1000:.3g} ms"


def dollars(nano: int) -> str:
    """Three significant digits, at most nine decimals; cents from one dollar on."""
    value = nano / 1e9
    if not nano or value >= 1:
        return f"${value:,.2f}"
    return f"${value:.{min(9, 2 - math.floor(math.log10(value)))}f}".rstrip("0")


def size(count: float) -> str:
    """Bytes, in decimal units."""
    for unit in ("bytes", "KB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} MB"


def moment(value: Timestamp) -> datetime:
    return value.ToDatetime(UTC)


def clock(value: Timestamp) -> str:
    """To the second, for people; the page's script turns it into local time."""
    return f"{moment(value):%Y-%m-%d %H:%M:%S} UTC"


def iso(value: Timestamp) -> str:
    """To the millisecond, for programs."""
    return moment(value).isoformat(timespec="milliseconds")


def iso_us(value: int) -> str:
    """Unix time in microseconds, for programs."""
    return datetime.fromtimestamp(value / 1e6, UTC).isoformat()


def clock_us(value: int) -> str:
    """Unix time in microseconds, for people."""
    return f"{datetime.fromtimestamp(value / 1e6, UTC):%d %b %H:%M}"


def outcome(trace: trace_pb2.Trace) -> str:
    """OK, why it failed, or what it is instead of ended."""
    if trace.HasField("status"):
        return trace.status.reason or (f"CODE {trace.status.code}" if trace.status.code else "OK")
    return word(trace_pb2.TraceState, trace.state, "TRACE_STATE_")


def tone(trace: trace_pb2.Trace) -> str:
    """How it went: good, bad, or open."""
    if not trace.HasField("status"):
        return "open"
    return "bad" if trace.status.code else "good"


def word(enum: Any, value: int, prefix: str = "") -> str:
    """The value's name in lower case, without the prefix that all names of its enum share."""
    return str(enum.Name(value)).removeprefix(prefix).lower() if value in enum.values() else f"unknown ({value})"


def role(message: message_pb2.Message) -> str:
    return word(message_pb2.Role, message.role, "ROLE_")


def finish(choice: completion_pb2.Choice) -> str:
    """Why it ended, with the provider's own word where that says something else."""
    said = word(completion_pb2.FinishReason, choice.finish_reason, "FINISH_REASON_")
    raw = choice.raw_finish_reason
    return f"{said} ({raw})" if raw not in ("", said) else said


def cause(attempt: trace_pb2.Attempt) -> str:
    return word(trace_pb2.AttemptCause, attempt.cause, "ATTEMPT_CAUSE_")


def source(usage: completion_pb2.Usage) -> str:
    return word(completion_pb2.UsageSource, usage.source, "USAGE_SOURCE_")


def cut(text: str) -> str:
    """The text, up to a length that a page can hold."""
    more = len(text) - LONGEST
    return text if more <= 0 else f"{text[:LONGEST]}\n… and {more:,} more characters"


def pretty(text: str | bytes) -> str:
    """JSON with indents; any other text as it is."""
    if isinstance(text, bytes):
        text = text.decode(errors="replace")
    try:
        return cut(json.dumps(json.loads(text), indent=2, ensure_ascii=False))
    except (ValueError, RecursionError):
        return cut(text)


def picture(media: message_pb2.Media) -> str:
    """A data: URL, for a picture that can be shown; else empty."""
    if media.mime_type not in _PICTURES or not 0 < len(media.data) <= _LARGEST_PICTURE:
        return ""
    return f"data:{media.mime_type};base64,{base64.b64encode(media.data).decode()}"


def media(value: message_pb2.Media) -> str:
    """What it is, in words."""
    where = value.uri or value.file_id or size(len(value.data))
    return " ".join(part for part in (value.mime_type, value.filename, where) if part)


def count(number: int) -> str:
    return f"{number:,}"


FILTERS: Mapping[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        seconds, dollars, size, clock, iso, outcome, tone, role, finish, cause, source, cut, pretty, picture,
        media, count, iso_us, clock_us,
    )
}  # fmt: skip
