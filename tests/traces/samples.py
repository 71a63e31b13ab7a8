"""Traces to store: made by hand, every fact as the test says."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from trunkline.v1 import completion_pb2, message_pb2
from trunkline.v1alpha import trace_pb2
from trunkline_server.traces.base import Record

#: 2026-11-20, in microseconds.
NOON = 1_795_176_000_000_000

_numbers = itertools.count(1)


def trace_id(number: int) -> str:
    """An id of the usual form; larger numbers have larger ids."""
    return f"cmpl_{number:032x}"


def timestamp(us: int) -> Timestamp:
    return Timestamp(seconds=us // 1_000_000, nanos=us % 1_000_000 * 1000)


def duration(us: int) -> Duration:
    return Duration(seconds=us // 1_000_000, nanos=us % 1_000_000 * 1000)


def sample(
    *,
    id: str = "",  # noqa: A002  # what it is called
    start_us: int | None = None,
    duration_us: int | None = 250_000,
    labels: Mapping[str, str] | None = None,
    code: int | None = 0,
    reason: str = "",
    error: str = "",
    cost: int | None = 1_500,
    said: str = "Hello.",
    body: bytes = b'{"choices": []}',
    source: completion_pb2.UsageSource.ValueType = completion_pb2.USAGE_SOURCE_REPORTED,
    **facts: Any,
) -> trace_pb2.Trace:
    """A finished, streamed completion; `code=None`: interrupted."""
    number = next(_numbers)
    start_us = NOON + number * 1_000 if start_us is None else start_us
    known: dict[str, Any] = {
        "name": f"traces/{id or trace_id(number)}",
        "state": trace_pb2.TRACE_STATE_INTERRUPTED if code is None else trace_pb2.TRACE_STATE_FINISHED,
        "method": "StreamCompletion",
        "start_time": timestamp(start_us),
        "caller": "checkout",
        "provider": "openai",
        "model": "gpt-5.2",
        "asked_model": "openai/gpt-5.2",
        "streamed": True,
        "capture": completion_pb2.CAPTURE_FULL,
        "request_bytes": 120,
        "response_bytes": 480,
        "events": 7,
    }
    trace = trace_pb2.Trace(**{**known, **facts})
    trace.labels.update(labels or {})
    trace.completion_spec.model = trace.asked_model
    trace.completion_spec.messages.append(_message(message_pb2.ROLE_USER, f"Say: {said}"))
    trace.completion_spec.params.temperature = 0.5
    trace.completion.id = trace.name.removeprefix("traces/")
    trace.completion.choices.add(message=_message(message_pb2.ROLE_ASSISTANT, said))
    if code is not None:
        trace.status.code, trace.status.reason, trace.status.message = code, reason, error
    trace.usage.input_tokens, trace.usage.output_tokens = 12, 34
    trace.usage.source = source
    if cost is not None:
        trace.usage.cost_nano_usd = cost
    if duration_us is not None:
        trace.timing.total.CopyFrom(duration(duration_us))
        trace.timing.time_to_first_token.CopyFrom(duration(duration_us // 2))
    attempt = trace.attempts.add(number=1, provider=trace.provider, model=trace.model, upstream_status=200)
    attempt.cause = trace_pb2.ATTEMPT_CAUSE_FIRST
    attempt.start_time.CopyFrom(timestamp(start_us))
    attempt.request.content_type = attempt.response.content_type = "application/json"
    attempt.request.body, attempt.response.body = b'{"said": "' + said.encode() + b'"}', body
    return trace


def record(trace: trace_pb2.Trace) -> Record:
    return Record(trace.name.removeprefix("traces/"), trace.SerializeToString())


def _message(role: message_pb2.Role.ValueType, text: str) -> message_pb2.Message:
    return message_pb2.Message(role=role, parts=[message_pb2.ContentPart(text=message_pb2.Text(text=text))])
