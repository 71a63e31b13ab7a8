"""Tells the journal of every call. On the path of the call: what is known is handed over as it lies there."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message
from google.rpc.status_pb2 import Status

from trunkline.v1 import completion_pb2, error_pb2
from trunkline_server.call import Attempt, Call
from trunkline_server.estimate import prompt_tokens
from trunkline_server.traces.columns import CONTENT
from trunkline_server.traces.entries import Closed, Opened, Tried
from trunkline_server.traces.journal import Journal

FULL, NO_CONTENT, OFF = (
    completion_pb2.CAPTURE_FULL,
    completion_pb2.CAPTURE_NO_CONTENT,
    completion_pb2.CAPTURE_OFF,
)

#: Bytes of an entry beside the bodies in it.
_FACTS = 600


class JournalRecorder:
    """Records into a journal. With NO_CONTENT nothing that was said reaches a disk; with OFF, only that a call was."""

    def __init__(self, journal: Journal, *, capture: int, body_bytes: int) -> None:
        """`capture`: of calls that do not ask for it themselves; `body_bytes`: most that is kept of one body."""
        self._journal = journal
        self._capture = capture
        self._body_bytes = body_bytes

    def opened(self, call: Call, request: Message, data: bytes) -> None:
        try:
            options: Any = request.options  # type: ignore[attr-defined]  # every request that is recorded has them
            capture = options.capture or self._capture
            call.keep(capture, self._body_bytes)
            estimated = 0
            if capture == NO_CONTENT:
                data, estimated, size = *_without_content(request), len(data)
            elif capture == FULL:
                size = len(data)
            else:
                data, size = b"", 0
            # Made now: what is known changes while the call goes on.
            entry = Opened(
                call.id, call.method, call.create_time, call.caller, call.request_id, capture, call.streamed,
                call.otel_trace_id, call.otel_span_id, data, size, estimated, call.otel_parent_span_id,
            )  # fmt: skip
            self._journal.put(call.id, _FACTS + len(data), lambda: entry)
        except Exception:  # noqa: BLE001  # a record that cannot be made fails no call
            call.keep(OFF, 0)

    def closed(self, call: Call, code: int, reason: str, status: bytes) -> None:
        try:
            total = time.monotonic() - call.received
            size = _FACTS + call.answer.size
            for attempt in call.attempts:
                size += _FACTS + attempt.request.size + attempt.response.size
            self._journal.put(call.id, size, self._closing(call, code, reason, status, total))
        except Exception:  # noqa: BLE001  # as above
            self._journal.lose(call.id)

    def _closing(self, call: Call, code: int, reason: str, status: bytes, total: float) -> Callable[[], Closed]:
        capture = call.capture or self._capture

        def make() -> Closed:
            return _closed(call, capture, code, reason, status, total)

        return make


def _closed(call: Call, capture: int, code: int, reason: str, status: bytes, total: float) -> Closed:
    received = call.received
    known = capture != OFF
    if capture != FULL:
        status = _without_quotes(status) if known else b""
    usage = call.usage
    return Closed(
        id=call.id,
        method=call.method,
        start=call.create_time,
        caller=call.caller,
        request_id=call.request_id if known else "",
        capture=capture,
        streamed=call.streamed,
        otel_trace_id=call.otel_trace_id if known else "",
        otel_span_id=call.otel_span_id if known else "",
        code=code,
        reason=reason,
        status=status,
        provider=call.provider if known else "",
        model=call.model if known else "",
        total=total,
        first_event=_since(received, call.first_event_at if known else None),
        first_token=_since(received, call.first_token_at if known else None),
        queued=call.queued if known else 0.0,
        response_bytes=call.sent_bytes if known else 0,
        events=call.sequence if known else 0,
        usage=usage.SerializeToString() if usage is not None and known else None,
        attempts=[_tried(attempt, received, quoting=capture == FULL) for attempt in call.attempts] if known else [],
        answer=call.answer.pieces,
        answer_truncated=call.answer.truncated,
        otel_parent_span_id=call.otel_parent_span_id if known else "",
    )


def _tried(attempt: Attempt, received: float, *, quoting: bool) -> Tried:
    request, response, usage = attempt.request, attempt.response, attempt.usage
    return Tried(
        number=attempt.number,
        cause=attempt.cause,
        provider=attempt.provider,
        model=attempt.model,
        credential=attempt.credential,
        endpoint=attempt.endpoint,
        began=attempt.began - received,
        seconds=attempt.seconds,
        first_event=_since(attempt.began, attempt.first_event_at),
        reason=attempt.reason,
        message=attempt.message if quoting else "",
        http_status=attempt.http_status,
        request_id=attempt.request_id,
        content_type=attempt.content_type,
        usage=None if usage is None else usage.SerializeToString(),
        rate_limits=[limit.SerializeToString() for limit in attempt.rate_limits],
        request=request.pieces,
        request_truncated=request.truncated,
        response=response.pieces,
        response_truncated=response.truncated,
        response_model=attempt.response_model,
    )


def _since(began: float, then: float | None) -> float | None:
    return None if then is None else then - began


def _without_content(request: Any) -> tuple[bytes, int]:
    """The request without what was said, and how many tokens that was by estimate."""
    spec = request.spec
    kept = type(spec)()
    said = CONTENT["completion_spec" if isinstance(spec, completion_pb2.CompletionSpec) else "embedding_spec"]
    _copy(spec, kept, said)
    made = type(request)()
    _copy(request, made, ("spec",))
    made.spec.CopyFrom(kept)
    estimated = prompt_tokens(spec) if isinstance(spec, completion_pb2.CompletionSpec) else 0
    return made.SerializeToString(), estimated


def _copy(source: Any, to: Any, without: tuple[str, ...]) -> None:
    """Copies a message field by field: a prompt that is left out is not copied first."""
    for field, value in source.ListFields():
        if field.name in without:
            continue
        if field.is_repeated:
            getattr(to, field.name).MergeFrom(value)
        elif field.message_type is not None:
            getattr(to, field.name).CopyFrom(value)
        else:
            setattr(to, field.name, value)


def _without_quotes(status: bytes) -> bytes:
    """A status without texts that may quote what was said: the message, the provider's body, descriptions of fields."""
    if not status:
        return status
    told = Status.FromString(status)
    kept = Status(code=told.code)
    for packed in told.details:
        if packed.Is(error_pb2.LlmErrorDetail.DESCRIPTOR):
            detail = error_pb2.LlmErrorDetail()
            packed.Unpack(detail)
            detail.ClearField("raw_error_json")
            kept.details.add().Pack(detail)
    return kept.SerializeToString()
