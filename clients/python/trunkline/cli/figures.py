"""Figures and texts of records as a person reads them."""

import math
import re
from datetime import UTC, datetime

from google.protobuf.duration_pb2 import Duration

from trunkline.v1alpha.trace_pb2 import TRACE_STATE_INTERRUPTED, TRACE_STATE_OPEN, Trace

# What a terminal obeys rather than shows: controls, and marks that turn the direction of a text.
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def clean(text: str) -> str:
    """The text without power over the terminal: what it would obey is written out. Keeps new lines and tabs."""
    return _OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode(), text.replace("\r\n", "\n"))


def line(text: str) -> str:
    """`clean`, on one line."""
    return clean(" ".join(text.split()))


def seconds(value: float) -> str:
    """Three significant digits with a unit; minutes from one on."""
    if value >= 60:
        return f"{value // 60:.0f} min {value % 60:02.0f} s"
    if value >= 0.9995:
        return f"{value:.3g} s"
    return f"{value * 1000:.3g} ms"


def of(duration: Duration) -> float:
    """Seconds."""
    return duration.seconds + duration.nanos / 1e9


def dollars(nano: int) -> str:
    """Three significant digits, at most nine decimals; cents from one dollar on."""
    value = nano / 1e9
    if not nano or value >= 1:
        return f"${value:,.2f}"
    decimals = min(9, 2 - math.floor(math.log10(value)))
    return f"${value:.{decimals}f}".rstrip("0")


def size(count: float) -> str:
    """Bytes, in decimal units."""
    for unit in ("bytes", "KB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} MB"


def moment(trace: Trace) -> datetime:
    """When the call began, in local time."""
    return trace.start_time.ToDatetime(UTC).astimezone()


def outcome(trace: Trace) -> str:
    """OK, why it failed, or what it is instead of ended."""
    if trace.HasField("status"):
        return line(trace.status.reason) or (f"code {trace.status.code}" if trace.status.code else "OK")
    return {TRACE_STATE_OPEN: "open", TRACE_STATE_INTERRUPTED: "interrupted"}.get(trace.state, "unknown")


def spent(trace: Trace) -> float | None:
    """Seconds that the call took; None if that is not known."""
    return of(trace.timing.total) if trace.timing.HasField("total") else None
