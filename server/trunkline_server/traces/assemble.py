"""A call that has ended, as the journal told it, becomes a trace."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.status_pb2 import Status

from trunkline.collect import Collector
from trunkline.errors import TrunklineError
from trunkline.v1 import completion_pb2, completion_service_pb2, embedding_service_pb2
from trunkline.v1alpha import trace_pb2
from trunkline_server import estimate, prices
from trunkline_server.traces.entries import Closed, Opened, Tried
from trunkline_server.traces.journals import Ended
from trunkline_server.traces.masking import Masker, cut

Trace = trace_pb2.Trace
Usage = completion_pb2.Usage

_REQUESTS: Mapping[str, Any] = {
    "CreateCompletion": completion_service_pb2.CreateCompletionRequest,
    "StreamCompletion": completion_service_pb2.StreamCompletionRequest,
    "CountTokens": completion_service_pb2.CountTokensRequest,
    "CreateEmbeddings": embedding_service_pb2.CreateEmbeddingsRequest,
}
_OFF, _NO_CONTENT = completion_pb2.CAPTURE_OFF, completion_pb2.CAPTURE_NO_CONTENT
_CANCELLED, _DEADLINE_EXCEEDED = 1, 4

#: Fields of a usage that are counts; costs add up as they do.
_COUNTS = tuple(field.name for field in Usage.DESCRIPTOR.fields if field.name not in {"source", "raw_json"})


class Assembler:
    """Makes traces, without secrets and not larger than they may be."""

    def __init__(self, masker: Masker, kinds: Mapping[str, str], record_bytes: int) -> None:
        """`kinds`: what kind each provider of the configuration is, for prices."""
        self._masker = masker
        self._kinds = kinds
        self._most = record_bytes

    def payload(self, ended: Ended) -> bytes:
        """The trace of a call, serialized."""
        trace = bare(ended)
        if trace.capture != _OFF:
            request = _request(ended.opened, trace)
            if ended.closed is not None:
                self._add_end(trace, ended.closed, request, ended.opened)
        payload = trace.SerializeToString()
        if self._masker(trace, payload):
            payload = trace.SerializeToString()
        if len(payload) > self._most:
            cut(trace, self._most)
            payload = trace.SerializeToString()
        return payload

    def _add_end(self, trace: Trace, closed: Closed, request: Any, opened: Opened | None) -> None:
        trace.provider, trace.model = closed.provider, closed.model
        trace.response_bytes, trace.events = closed.response_bytes, closed.events
        _set_timing(trace.timing, closed)
        for tried in closed.attempts:
            _add_attempt(trace, tried)
        if closed.answer_truncated or any(t.request_truncated or t.response_truncated for t in closed.attempts):
            trace.truncated = True
        _ANSWERS[closed.method](trace, closed.answer)
        self._add_usage(trace, closed, request, opened)
        if trace.capture == _NO_CONTENT and closed.code == 0:
            _add_bare_answer(trace, closed)

    def _add_usage(self, trace: Trace, closed: Closed, request: Any, opened: Opened | None) -> None:
        """Of the attempts together, or of the call; an estimate where nobody told."""
        known = [attempt.usage for attempt in trace.attempts if attempt.HasField("usage")]
        if _was_cut_short(trace, closed):
            last = trace.attempts[-1]
            _estimate(last.usage, trace, request, closed, opened)
            prices.load()
            prices.add_cost(self._kinds.get(last.provider, last.provider), last.model, last.usage, last.model)
            known.append(last.usage)
        if len(known) > 1:
            trace.usage.CopyFrom(_summed(known))
        elif closed.usage is not None:
            trace.usage.ParseFromString(closed.usage)
        elif known:
            trace.usage.CopyFrom(known[0])


def bare(ended: Ended) -> Trace:
    """The facts of a call that need no look into what was said."""
    facts: Opened | Closed | None = ended.closed or ended.opened
    trace = Trace(name=f"traces/{ended.id}")
    if facts is None:
        trace.state = trace_pb2.TRACE_STATE_INTERRUPTED
        return trace
    trace.state = trace_pb2.TRACE_STATE_FINISHED if ended.closed else trace_pb2.TRACE_STATE_INTERRUPTED
    trace.method, trace.caller = facts.method, facts.caller
    trace.capture = facts.capture  # type: ignore[assignment]  # the numbers are its own
    _set_time(trace.start_time, facts.start)
    if ended.closed is not None:
        _set_status(trace, ended.closed)
    if facts.capture != _OFF:
        trace.request_id, trace.streamed = facts.request_id, facts.streamed
        trace.otel_trace_id, trace.otel_span_id = facts.otel_trace_id, facts.otel_span_id
        trace.otel_parent_span_id = facts.otel_parent_span_id
    return trace


def _request(opened: Opened | None, trace: Trace) -> Any:
    """Adds what was asked; returns the whole request, or None."""
    if opened is None:
        return None
    trace.request_bytes = opened.request_bytes
    try:
        request = _REQUESTS[opened.method].FromString(opened.request)
    except (DecodeError, KeyError):
        return None
    if not request.HasField("spec"):
        return None
    spec = request.spec
    (trace.embedding_spec if opened.method == "CreateEmbeddings" else trace.completion_spec).CopyFrom(spec)
    if spec.labels:
        trace.labels.MergeFrom(spec.labels)
    trace.asked_model = spec.config if spec.WhichOneof("target") == "config" else spec.model
    trace.request_id = trace.request_id or getattr(request, "request_id", "")
    return request


def _set_status(trace: Trace, closed: Closed) -> None:
    status = trace.status
    status.code, status.reason = closed.code, closed.reason
    trace.cancelled = closed.code == _CANCELLED
    if closed.status:
        told = Status.FromString(closed.status)
        status.message = told.message
        for packed in told.details:
            packed.Unpack(status.detail)  # if it is one


def _add_attempt(trace: Trace, tried: Tried) -> None:
    # In its place at once, and field by field: bodies are large, and a message that is put into another is copied.
    attempt = trace.attempts.add()
    attempt.number = tried.number
    attempt.cause = tried.cause  # type: ignore[assignment]  # the numbers are its own
    attempt.provider, attempt.model = tried.provider, tried.model
    attempt.credential, attempt.endpoint = tried.credential, tried.endpoint
    attempt.reason, attempt.message = tried.reason, tried.message
    attempt.provider_request_id = tried.request_id
    if tried.http_status is not None:
        attempt.upstream_status = tried.http_status
    start = trace.start_time
    _set_time(attempt.start_time, start.seconds + start.nanos / 1e9 + tried.began)
    _set_duration(attempt.duration, tried.seconds)
    if tried.first_event is not None:
        _set_duration(attempt.time_to_first_event, tried.first_event)
    if tried.usage is not None:
        attempt.usage.ParseFromString(tried.usage)
    for limit in tried.rate_limits:
        attempt.rate_limits.add().ParseFromString(limit)
    if tried.request:
        _set_body(attempt.request, "application/json", tried.request, tried.request_truncated)
    if tried.response:
        _set_body(attempt.response, tried.content_type, tried.response, tried.response_truncated)


def _set_body(to: completion_pb2.RawPayload, content_type: str, pieces: Sequence[bytes], truncated: bool) -> None:
    to.content_type, to.body, to.truncated = content_type, b"".join(pieces), truncated


# -- answers ----------------------------------------------------------------------------------------------------------


def _add_completion(trace: Trace, answer: Sequence[bytes]) -> None:
    for data in answer:
        trace.completion.CopyFrom(completion_service_pb2.CreateCompletionResponse.FromString(data).completion)


def _add_stream(trace: Trace, answer: Sequence[bytes]) -> None:
    """What was delivered. Events of which some are missing tell as much as those before them."""
    collector = Collector()
    began = False
    try:
        for data in answer:
            event = completion_service_pb2.StreamCompletionResponse.FromString(data)
            collector.add(event)
            began = began or event.HasField("attempt_started")
    except (TrunklineError, DecodeError):
        trace.truncated = True
    if began:
        trace.completion.CopyFrom(collector.completion())


def _add_embeddings(trace: Trace, answer: Sequence[bytes]) -> None:
    for data in answer:
        trace.embeddings.ParseFromString(data)


def _add_count(trace: Trace, answer: Sequence[bytes]) -> None:
    for data in answer:
        trace.counted_tokens = completion_service_pb2.CountTokensResponse.FromString(data).input_tokens


_ANSWERS: Mapping[str, Callable[[Trace, Sequence[bytes]], None]] = {
    "CreateCompletion": _add_completion,
    "StreamCompletion": _add_stream,
    "CreateEmbeddings": _add_embeddings,
    "CountTokens": _add_count,
}


def _add_bare_answer(trace: Trace, closed: Closed) -> None:
    """An answer without what was said."""
    if closed.method == "CountTokens":
        return
    answer = trace.embeddings if closed.method == "CreateEmbeddings" else trace.completion
    answer.id, answer.provider, answer.model = closed.id, closed.provider, closed.model
    if closed.attempts:
        last = closed.attempts[-1]
        answer.model, answer.provider_request_id = last.response_model or closed.model, last.request_id
    if trace.HasField("usage"):
        answer.usage.CopyFrom(trace.usage)
    if isinstance(answer, completion_pb2.Completion):
        answer.create_time.CopyFrom(trace.start_time)
        answer.timing.CopyFrom(trace.timing)
        answer.attempts = len(closed.attempts)


# -- usage ------------------------------------------------------------------------------------------------------------


def _was_cut_short(trace: Trace, closed: Closed) -> bool:
    """Did a provider work for this call, and nobody hear how much?"""
    if closed.code == 0 or closed.usage is not None or not trace.attempts or closed.method == "CountTokens":
        return False
    last = trace.attempts[-1]
    if last.HasField("usage"):
        return False
    if last.HasField("upstream_status"):
        return 200 <= last.upstream_status < 300
    return closed.code in (_CANCELLED, _DEADLINE_EXCEEDED)


def _estimate(usage: Usage, trace: Trace, request: Any, closed: Closed, opened: Opened | None) -> None:
    usage.source = completion_pb2.USAGE_SOURCE_ESTIMATED
    if trace.capture == _NO_CONTENT:
        usage.input_tokens = opened.estimated_tokens if opened is not None else 0
        if closed.events:
            # An event has about so much beside its text.
            usage.output_tokens = estimate.tokens(max(0, closed.response_bytes - 40 * closed.events))
    else:
        if request is not None and trace.HasField("completion_spec"):
            usage.input_tokens = estimate.prompt_tokens(request.spec)
        if trace.HasField("completion"):
            usage.output_tokens = estimate.answer_tokens(trace.completion)
    usage.total_tokens = usage.input_tokens + usage.output_tokens


def _summed(usages: Sequence[Usage]) -> Usage:
    """The sums of what each has; the source is the least sure one."""
    total = Usage(source=max(usage.source for usage in usages))
    for name in _COUNTS:
        counts = [getattr(usage, name) for usage in usages if usage.HasField(name)]  # type: ignore[arg-type]  # a field of it
        if counts:
            setattr(total, name, min(sum(counts), 2**63 - 1 if name == "cost_nano_usd" else 2**31 - 1))
    return total


# -- times ------------------------------------------------------------------------------------------------------------


def _set_timing(timing: completion_pb2.Timing, closed: Closed) -> None:
    _set_duration(timing.total, closed.total)
    if closed.first_event is not None:
        _set_duration(timing.time_to_first_event, closed.first_event)
    if closed.first_token is not None and closed.streamed:
        _set_duration(timing.time_to_first_token, closed.first_token)
    if closed.queued:
        _set_duration(timing.queued, closed.queued)


def _set_time(time: Timestamp, unix: float) -> None:
    """Whole microseconds: what databases can order by."""
    time.seconds, micros = divmod(int(unix * 1e6), 1_000_000)
    time.nanos = micros * 1000


def _set_duration(duration: Duration, seconds: float) -> None:
    duration.seconds, duration.nanos = divmod(max(0, round(seconds * 1e9)), 1_000_000_000)
