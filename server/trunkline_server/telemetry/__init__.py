"""What operators see: a log line a call, metrics, spans, the story of what nobody foresaw. No content, no secrets."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from trunkline_server.call import Call
from trunkline_server.telemetry.logs import AccessLog, LineWriter, make_access_log, make_log
from trunkline_server.telemetry.metrics import Metrics


class Spans(Protocol):
    """Told of calls while the server's span is the current one."""

    def began(self, call: Call) -> None:
        """Gives the call its W3C ids."""

    def ended(self, call: Call, code: str, reason: str) -> None:
        """Adds what is known of the call to its span, and a span for each attempt."""


class Telemetry:
    """Told of every call, once when it begins and once when it ends. Never raises, never waits."""

    def __init__(
        self,
        metrics: Metrics,
        log: Any,
        redact: Callable[[str], str] = str,
        *,
        access: AccessLog | None = None,
        writer: LineWriter | None = None,
        spans: Spans | None = None,
    ) -> None:
        """`writer`: where the lines of `log` and `access` wait to be written."""
        self.metrics = metrics
        self.writer = writer
        self._log = log
        self._redact = redact
        self._access = access or (lambda line: log.info("call", **line))
        self._spans = spans

    def began(self, call: Call) -> None:
        self.metrics.began(call.method)
        if self._spans is not None:
            with suppress(Exception):
                self._spans.began(call)

    def ended(self, call: Call, code: str, reason: str, request_bytes: int) -> None:
        """`code`: of gRPC; `reason`: of ErrorReason, empty if OK."""
        # What is told of a call must not change how it ends: a log that cannot be written (a closed pipe, a full disk)
        # fails no call.
        seconds = time.monotonic() - call.received
        with suppress(Exception):
            self.metrics.ended(call, code, reason, request_bytes, seconds)
        with suppress(Exception):
            self._access(facts(call, code, reason, request_bytes, seconds))
        if self._spans is not None:
            with suppress(Exception):
                self._spans.ended(call, code, reason)

    def unforeseen(self, call: Call, error: BaseException) -> None:
        """Logs what the caller is not told: a bug of ours."""
        with suppress(Exception):
            story = "".join(traceback.format_exception(error))
            self._log.error("bug", id=call.id, method=call.method, traceback=self._redact(story))

    def event(self, name: str, **facts: object) -> None:
        """Logs something about the server itself."""
        with suppress(Exception):
            self._log.info(name, **facts)

    def warning(self, name: str, **facts: object) -> None:
        """Logs something about the server itself that an operator should look at."""
        with suppress(Exception):
            self._log.warning(name, **facts)

    def drain(self) -> None:
        """Waits, within bounds, until what was logged is written."""
        if self.writer is not None:
            self.writer.drain()

    def close(self) -> None:
        """As `drain`, and nothing more is expected."""
        if self.writer is not None:
            self.writer.close()


def facts(call: Call, code: str, reason: str, request_bytes: int, seconds: float) -> dict[str, object]:
    """The line of a call."""
    line: dict[str, object] = {
        "id": call.id,
        "method": call.method,
        "caller": call.caller,
        "code": code,
        "ms": round(seconds * 1000, 2),
        "overhead_ms": round(max(0.0, seconds - call.waiting.seconds) * 1000, 2),
        "request_bytes": request_bytes,
        "response_bytes": call.sent_bytes,
    }
    if reason:
        line["reason"] = reason
    if call.follows:
        line["completion"] = call.follows
    if call.request_id:
        line["request_id"] = call.request_id
    if call.otel_trace_id:
        line["trace_id"] = call.otel_trace_id
        line["span_id"] = call.otel_span_id or call.otel_parent_span_id
    if call.queued:
        line["queued_ms"] = round(call.queued * 1000, 2)
    if call.provider:
        line["provider"] = call.provider
        line["model"] = call.model
        _add_attempts(call, line)
    if call.sequence:
        line["events"] = call.sequence
        if call.first_token_at is not None:
            line["first_token_ms"] = round((call.first_token_at - call.received) * 1000, 2)
    usage = call.usage
    if usage is not None:
        line["input_tokens"], line["output_tokens"] = usage.input_tokens, usage.output_tokens
        if usage.cost_nano_usd:
            line["cost_usd"] = usage.cost_nano_usd / 1e9
    return line


def _add_attempts(call: Call, line: dict[str, object]) -> None:
    if call.attempts:
        last = call.attempts[-1]
        line["attempts"] = last.number
        if last.http_status is not None:
            line["upstream_status"] = last.http_status
    if call.provider_request_id:
        line["provider_request_id"] = call.provider_request_id


__all__ = ["AccessLog", "LineWriter", "Metrics", "Spans", "Telemetry", "make_access_log", "make_log"]
