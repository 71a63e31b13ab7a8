"""What operators see: one log line a call, metrics, and the story of what nobody foresaw. No content, no secrets."""

from __future__ import annotations

import datetime as dt
import logging
import sys
import time
import traceback
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from typing import Any, TextIO, TypeAlias

import msgspec
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from trunkline_server.call import Call

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """The server's metrics, in a registry of their own."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry if registry is not None else CollectorRegistry()
        self.calls = Counter(
            "trunkline_calls", "Calls that ended", ("method", "code", "reason", "provider"), registry=self.registry
        )
        self.in_flight = Gauge(
            "trunkline_calls_in_flight", "Calls now", ("method",), registry=self.registry, multiprocess_mode="livesum"
        )
        self.seconds = Histogram(
            "trunkline_call_seconds", "Arrival to end", ("method", "provider"), buckets=_SECONDS, registry=self.registry
        )
        self.first_token = Histogram(
            "trunkline_time_to_first_token_seconds",
            "Arrival to first content of a stream",
            ("provider",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.queued = Histogram(
            "trunkline_queued_seconds",
            "Waiting for admission, of calls that had to",
            ("provider",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.tokens = Counter(
            "trunkline_tokens", "Tokens as providers reported them", ("provider", "direction"), registry=self.registry
        )
        self.attempts = Counter(
            "trunkline_attempts", "Attempts at providers", ("provider", "reason"), registry=self.registry
        )
        self._children: dict[tuple[object, ...], Any] = {}

    def child(self, metric: Any, *labels: str) -> Any:
        """`metric.labels(...)`, remembered: looking it up by value costs more than counting."""
        key = (metric, *labels)
        found = self._children.get(key)
        if found is None:
            found = self._children[key] = metric.labels(*labels)
        return found


#: Takes what is told of a call, by name.
AccessLog: TypeAlias = Callable[[dict[str, object]], None]


class Telemetry:
    """Told of every call, once when it begins and once when it ends. Never raises, never waits."""

    def __init__(
        self, metrics: Metrics, log: Any, redact: Callable[[str], str] = str, *, access: AccessLog | None = None
    ) -> None:
        self.metrics = metrics
        self._log = log
        self._redact = redact
        self._access = access or (lambda line: log.info("call", **line))

    def began(self, call: Call) -> None:
        metrics = self.metrics
        metrics.child(metrics.in_flight, call.method).inc()

    def ended(self, call: Call, code: str, reason: str, request_bytes: int) -> None:
        """`code`: of gRPC; `reason`: of ErrorReason, empty if OK."""
        # What is told of a call must not change how it ends: a log that cannot be written (a closed pipe, a full disk)
        # fails no call.
        with suppress(Exception):
            self._ended(call, code, reason, request_bytes)

    def _ended(self, call: Call, code: str, reason: str, request_bytes: int) -> None:
        metrics, child = self.metrics, self.metrics.child
        seconds = time.monotonic() - call.received
        provider = call.provider
        child(metrics.in_flight, call.method).dec()
        child(metrics.calls, call.method, code, reason, provider).inc()
        child(metrics.seconds, call.method, provider).observe(seconds)
        line: dict[str, object] = {
            "id": call.id,
            "method": call.method,
            "caller": call.caller,
            "code": code,
            "ms": round(seconds * 1000, 2),
            "request_bytes": request_bytes,
        }
        if reason:
            line["reason"] = reason
        if call.request_id:
            line["request_id"] = call.request_id
        if provider:
            line["provider"] = provider
            line["model"] = call.model
        if call.attempts:
            line["attempts"] = len(call.attempts)
            last = call.attempts[-1]
            if last.http_status is not None:
                line["upstream_status"] = last.http_status
            for attempt in call.attempts:
                child(metrics.attempts, attempt.provider, attempt.reason).inc()
        if call.queued:
            line["queued_ms"] = round(call.queued * 1000, 2)
            child(metrics.queued, provider).observe(call.queued)
        if call.provider_request_id:
            line["provider_request_id"] = call.provider_request_id
        if call.sequence:
            line["events"] = call.sequence
            if call.first_token_at is not None:
                waited = call.first_token_at - call.received
                line["first_token_ms"] = round(waited * 1000, 2)
                child(metrics.first_token, provider).observe(waited)
        usage = call.usage
        if usage is not None:
            line["input_tokens"], line["output_tokens"] = usage.input_tokens, usage.output_tokens
            child(metrics.tokens, provider, "input").inc(usage.input_tokens)
            child(metrics.tokens, provider, "output").inc(usage.output_tokens)
        self._access(line)

    def unforeseen(self, call: Call, error: BaseException) -> None:
        """Logs what the caller is not told: a bug of ours."""
        with suppress(Exception):
            story = "".join(traceback.format_exception(error))
            self._log.error("bug", id=call.id, method=call.method, traceback=self._redact(story))

    def event(self, name: str, **facts: object) -> None:
        """Logs something about the server itself."""
        with suppress(Exception):
            self._log.info(name, **facts)


def _dumps(event: MutableMapping[str, Any], **_: object) -> str:
    return msgspec.json.encode(event, enc_hook=str).decode()


def make_access_log(log: Any, *, form: str = "json", level: str = "info", stream: TextIO | None = None) -> AccessLog:
    """Writes the line of each call as `make_log(...).info("call", ...)` would, at a third of the cost."""
    if form != "json" or logging.getLevelNamesMapping()[level.upper()] > logging.INFO:
        return lambda line: log.info("call", **line)
    to = stream or sys.stderr

    def write(line: dict[str, object]) -> None:
        line["event"], line["level"], line["timestamp"] = "call", "info", dt.datetime.now(dt.UTC)
        to.write(_dumps(line) + "\n")
        to.flush()

    return write


def make_log(*, form: str = "json", level: str = "info", stream: TextIO | None = None) -> Any:
    """A logger that writes lines to standard error: `json`, or `text` for people."""
    renderer: Any = structlog.processors.JSONRenderer(_dumps)
    if form == "text":
        renderer = structlog.dev.ConsoleRenderer(colors=(stream or sys.stderr).isatty())
    return structlog.wrap_logger(
        # One write a line: those of other workers do not come between it and its end.
        structlog.WriteLogger(stream or sys.stderr),
        processors=[structlog.processors.add_log_level, structlog.processors.TimeStamper(fmt="iso"), renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        cache_logger_on_first_use=True,
    ).bind()
