"""What the headers of an answer say: the provider's request id, when to come back, and what is left of its limits."""

from __future__ import annotations

import datetime as dt
import email.utils
import functools
import re
import time
from collections.abc import Mapping
from typing import Any

from trunkline.v1 import completion_pb2

#: Headers with the provider's id of the request, the most telling first.
_REQUEST_IDS = (
    "x-request-id", "request-id", "x-amzn-requestid", "apim-request-id", "mistral-correlation-id", "x-ms-request-id",
    "x-goog-request-id", "x-kong-request-id", "x-generation-id", "x-debug-trace-id", "x-trace-id", "cf-ray",
)  # fmt: skip


def request_id(headers: Mapping[str, str]) -> str:
    """The provider's id of the request, "" if it names none."""
    for name in _REQUEST_IDS:
        value = headers.get(name)
        if value:
            return value[:128]
    return ""


def retry_after(headers: Mapping[str, str], status: int, *, now: float | None = None) -> float | None:
    """Seconds to wait: `retry-after-ms`, `retry-after` (seconds or a date), or the reset of a limit that is used up."""
    milliseconds = number_of(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return milliseconds / 1000
    text = headers.get("retry-after", "").strip()
    if text:
        seconds = seconds_of(text)
        if seconds is not None:
            return seconds
        date = _date(text)
        if date is not None:
            return max(0.0, date - (time.time() if now is None else now))
    if status != 429:
        return None
    waits = [
        limit.reset_after.ToTimedelta().total_seconds()
        for limit in rate_limits(headers, now=now)
        if limit.HasField("remaining") and limit.remaining <= 0 and limit.HasField("reset_after")
    ]
    return max(waits) if waits else None


_LIMIT_HEADER = re.compile(
    r"(?:x-|anthropic-)ratelimit-(?:(limit|remaining|reset)(?:-(.+))?|(.+)-(limit|remaining|reset))"
)
#: Headers of another form: Cohere's.
_OTHER_LIMITS = {
    "x-trial-endpoint-call-limit": ("requests", "limit"),
    "x-trial-endpoint-call-remaining": ("requests", "remaining"),
    "x-endpoint-monthly-call-limit": ("monthly_requests", "limit"),
}
_UNIX_TIME = re.compile(r"\d{10,14}")
_GO_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|us|µs|ns|h|m|s|d)")
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def rate_limits(headers: Mapping[str, str], *, now: float | None = None) -> list[completion_pb2.RateLimit]:
    """The limits that the provider reports: `x-ratelimit-limit-requests`, `anthropic-ratelimit-tokens-reset` ..."""
    limits: dict[str, completion_pb2.RateLimit] = {}
    for name, value in headers.items():
        if "ratelimit" not in name and name not in _OTHER_LIMITS:
            continue
        metric, what = _OTHER_LIMITS.get(name) or _limit_named(name)
        if not metric:
            continue
        limit = limits.get(metric)
        if limit is None:
            limit = limits[metric] = completion_pb2.RateLimit(metric=metric)
        if what == "reset":
            seconds = _reset(value, time.time() if now is None else now)
            if seconds is not None:
                whole, micros = divmod(round(seconds * 1_000_000), 1_000_000)
                limit.reset_after.seconds, limit.reset_after.nanos = whole, micros * 1000
        else:
            number = number_of(value)
            if number is not None:
                setattr(limit, what, int(number))
    return list(limits.values())


@functools.lru_cache(maxsize=256)
def _limit_named(header: str) -> tuple[str, str]:
    """The metric that a header is about, and what it says of it; "" if it is no such header."""
    match = _LIMIT_HEADER.fullmatch(header)
    if match is None:
        return "", ""
    return (match.group(2) or match.group(3) or "requests").replace("-", "_"), match.group(1) or match.group(4)


def _reset(text: str, now: float) -> float | None:
    """Seconds until a reset: "6m0s", seconds, Unix time in (milli)seconds or a date. None if it is past."""
    value, is_moment = _reset_of(text)
    if value is None or not is_moment:
        return value
    return value - now if value > now else None


@functools.lru_cache(maxsize=1024)  # limits that are far from used up say the same again and again
def _reset_of(text: str) -> tuple[float | None, bool]:
    """Seconds, or a moment in Unix time."""
    number = number_of(text)
    if number is None and _UNIX_TIME.fullmatch(text):
        number = float(text)
    if number is not None:
        if number < 1e8:
            return number, False
        return number / 1000 if number > 1e11 else number, True
    pieces = _GO_DURATION.findall(text)
    if pieces and "".join(number + unit for number, unit in pieces) == text:
        return sum(float(number) * _UNITS[unit] for number, unit in pieces), False
    return _date(text), True


def _date(text: str) -> float | None:
    """Unix time of an RFC 3339 or HTTP date."""
    try:
        return dt.datetime.fromisoformat(text).timestamp()
    except ValueError:
        pass
    try:
        return email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def seconds_of(value: Any) -> float | None:
    """Seconds of 12, "12", "12s" or "1.5s"."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value) if 0 <= value < 1e9 else None
    if isinstance(value, str):
        return number_of(value.strip().removesuffix("s"))
    return None


def number_of(text: str) -> float | None:
    """A number from 0 to 1e9; None for anything else."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if 0 <= number < 1e9 else None
