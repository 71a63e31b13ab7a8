"""A record as spans: the call, and below it each attempt. Pure, and the same ids each time.

A call that has W3C ids is a child of the span that they name, in its trace; another has a trace of its own. The names
of attributes are those of `telemetry.genai`.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, TypeAlias

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.trace.v1 import trace_pb2 as otlp

from trunkline.v1 import generation_pb2
from trunkline.v1alpha import trace_pb2
from trunkline_server import __version__
from trunkline_server.telemetry import genai
from trunkline_server.traces.base import Record
from trunkline_server.traces.otlp.content import content_of

Span: TypeAlias = otlp.Span
Status: TypeAlias = otlp.Status

#: UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS: the server's fault.
_SERVER_ERRORS = frozenset({2, 4, 12, 13, 14, 15})
_CODES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip

#: `error.type` of a call that the end of its server ended.
_INTERRUPTED = "INTERRUPTED"

_HEX = re.compile(r"[0-9a-f]{32}")

#: Attribute by field of GenerationParams.
_PARAMS = {
    "max_output_tokens": "gen_ai.request.max_tokens",
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "top_k": "gen_ai.request.top_k",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
    "seed": "gen_ai.request.seed",
    "n": "gen_ai.request.choice.count",
}


def resource_spans(record: Record, *, content: bool, service: str) -> otlp.ResourceSpans:
    """`content`: with what was said."""
    made = otlp.ResourceSpans()
    _put(made.resource.attributes, {"service.name": service, "service.version": __version__})
    scope = made.scope_spans.add()
    scope.scope.name, scope.scope.version = "trunkline.traces", __version__
    call = scope.spans.add()
    _call(call, record, content=content)
    for attempt in record.trace.attempts:
        _attempt(scope.spans.add(), call, record, attempt)
    return made


def trace_id(record: Record) -> bytes:
    """The caller's or the server's, else one that the call's own id makes."""
    if record.trace.otel_trace_id:
        return bytes.fromhex(record.trace.otel_trace_id)
    own = record.id.removeprefix("cmpl_")
    return bytes.fromhex(own) if _HEX.fullmatch(own) and own.strip("0") else _digest(record.id, "trace", 16)


def span_id(record: Record, attempt: int = 0) -> bytes:
    """Of the call, or of an attempt by its number."""
    return _digest(record.id, f"span {attempt}", 8)


def _digest(name: str, what: str, size: int) -> bytes:
    return hashlib.sha256(f"{what} {name}".encode()).digest()[:size]


def _call(span: Span, record: Record, *, content: bool) -> None:
    trace = record.trace
    span.trace_id, span.span_id = trace_id(record), span_id(record)
    above = trace.otel_span_id or trace.otel_parent_span_id
    span.parent_span_id = bytes.fromhex(above)
    # Below the server's own span it is a part of it; else it is the server's span.
    span.kind = Span.SPAN_KIND_INTERNAL if trace.otel_span_id else Span.SPAN_KIND_SERVER
    operation = genai.operation(trace.method)
    span.name = f"{operation} {trace.model or trace.asked_model}".strip()
    span.start_time_unix_nano = _unix_ns(trace.start_time)
    span.end_time_unix_nano = _end(trace)
    said: genai.Attributes = {
        "gen_ai.operation.name": operation,
        "trunkline.call.id": record.id,
        "trunkline.trace.state": trace_pb2.TraceState.Name(trace.state).removeprefix("TRACE_STATE_").lower(),
    }
    for name, value in (
        ("gen_ai.provider.name", genai.provider_name(trace.provider)),
        ("gen_ai.request.model", trace.model),
        ("gen_ai.request.stream", trace.streamed),
        ("trunkline.provider", trace.provider),
        ("trunkline.asked_model", trace.asked_model),
        ("trunkline.caller", trace.caller),
        ("trunkline.request_id", trace.request_id),
        ("trunkline.reason", trace.status.reason),
        ("trunkline.cancelled", trace.cancelled),
    ):
        if value:
            said[name] = value
    for label, text in trace.labels.items():
        said[f"trunkline.label.{label}"] = text
    if trace.timing.HasField("time_to_first_token"):
        said["gen_ai.response.time_to_first_chunk"] = _seconds(trace.timing.time_to_first_token)
    if trace.HasField("usage"):
        said.update(genai.usage(trace.usage))
    said.update(_request(trace))
    said.update(_response(trace))
    if content:
        said.update(content_of(trace))
    _status(span, trace, said)
    _put(span.attributes, said)


def _status(span: Span, trace: trace_pb2.Trace, said: genai.Attributes) -> None:
    if trace.state == trace_pb2.TRACE_STATE_INTERRUPTED:
        said["error.type"] = _INTERRUPTED
        span.status.code = Status.STATUS_CODE_ERROR
    if not trace.HasField("status"):
        return
    code = trace.status.code
    said["rpc.response.status_code"] = _CODES[code] if code < len(_CODES) else str(code)
    if code in _SERVER_ERRORS:
        said["error.type"] = trace.status.reason or str(said["rpc.response.status_code"])
        span.status.code, span.status.message = Status.STATUS_CODE_ERROR, trace.status.reason


def _request(trace: trace_pb2.Trace) -> genai.Attributes:
    """What was asked for beside what was said."""
    found: genai.Attributes = {}
    params = trace.completion_spec.params
    for descriptor, value in params.ListFields():
        name = _PARAMS.get(descriptor.name)
        if name is not None and (name != "gen_ai.request.choice.count" or value != 1):
            found[name] = value
    if params.stop_sequences:
        found["gen_ai.request.stop_sequences"] = list(params.stop_sequences)
    if params.reasoning.effort:
        effort = generation_pb2.ReasoningEffort.Name(params.reasoning.effort)
        found["gen_ai.request.reasoning.level"] = effort.removeprefix("REASONING_EFFORT_").lower()
    if trace.completion_spec.HasField("previous_response_id"):
        found["gen_ai.request.previous_response.id"] = trace.completion_spec.previous_response_id
    if trace.embedding_spec.HasField("dimensions"):
        found["gen_ai.embeddings.dimension.count"] = trace.embedding_spec.dimensions
    return found


def _response(trace: trace_pb2.Trace) -> genai.Attributes:
    found: genai.Attributes = {}
    answer = trace.completion
    model = answer.model or trace.embeddings.model
    if model:
        found["gen_ai.response.model"] = model
    if answer.provider_response_id:
        found["gen_ai.response.id"] = answer.provider_response_id
    if answer.choices:
        found["gen_ai.response.finish_reasons"] = genai.finish_reasons(c.finish_reason for c in answer.choices)
    return found


def _attempt(span: Span, call: Span, record: Record, attempt: trace_pb2.Attempt) -> None:
    trace = record.trace
    span.trace_id, span.parent_span_id = call.trace_id, call.span_id
    span.span_id = span_id(record, attempt.number)
    span.kind = Span.SPAN_KIND_CLIENT
    span.name = f"{genai.operation(trace.method)} {attempt.model}"
    span.start_time_unix_nano = _unix_ns(attempt.start_time)
    span.end_time_unix_nano = span.start_time_unix_nano + _ns(attempt.duration)
    said: genai.Attributes = {
        "gen_ai.operation.name": genai.operation(trace.method),
        "gen_ai.provider.name": genai.provider_name(attempt.provider),
        "gen_ai.request.model": attempt.model,
        "trunkline.provider": attempt.provider,
        "trunkline.attempt.number": attempt.number,
        "trunkline.attempt.cause": genai.cause(attempt.cause),
        **genai.server(attempt.endpoint),
    }
    if trace.streamed:
        said["gen_ai.request.stream"] = True
        if attempt.HasField("time_to_first_event"):
            said["gen_ai.response.time_to_first_chunk"] = _seconds(attempt.time_to_first_event)
    if attempt.HasField("upstream_status"):
        said["http.response.status_code"] = attempt.upstream_status
    if attempt.provider_request_id:
        said["trunkline.provider_request_id"] = attempt.provider_request_id
    if attempt.HasField("usage"):
        said.update(genai.usage(attempt.usage))
    why = attempt.reason
    if not why and attempt.number == len(trace.attempts):
        # It did not fail by itself: the call was ended while it went on.
        why = _INTERRUPTED if trace.state == trace_pb2.TRACE_STATE_INTERRUPTED else trace.status.reason
    if why:
        said["error.type"] = why
        if why != "CANCELLED":
            span.status.code, span.status.message = Status.STATUS_CODE_ERROR, why
    _put(span.attributes, said)


def _end(trace: trace_pb2.Trace) -> int:
    """When the call ended, or the last thing that is known of one that was interrupted."""
    begin = _unix_ns(trace.start_time)
    if trace.timing.HasField("total"):
        return begin + _ns(trace.timing.total)
    return max([begin, *(_unix_ns(one.start_time) + _ns(one.duration) for one in trace.attempts)])


def _unix_ns(time: Timestamp) -> int:
    return time.seconds * 1_000_000_000 + time.nanos


def _ns(duration: Duration) -> int:
    return duration.seconds * 1_000_000_000 + duration.nanos


def _seconds(duration: Duration) -> float:
    return _ns(duration) / 1e9


def _put(to: Any, attributes: genai.Attributes) -> None:
    """`to`: a repeated field of KeyValue."""
    for name, value in attributes.items():
        _set(to.add(key=name).value, value)


def _set(to: common_pb2.AnyValue, value: genai.Value) -> None:
    match value:
        case bool():
            to.bool_value = value
        case int():
            to.int_value = value
        case float():
            to.double_value = value
        case str():
            to.string_value = value
        case _:
            to.array_value.SetInParent()
            for text in value:
                to.array_value.values.add(string_value=text)
