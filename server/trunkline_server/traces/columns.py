"""What backends list and filter by: the facts of a trace as one row, and a trace without what was said."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

import msgspec
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from trunkline.v1 import completion_pb2
from trunkline.v1alpha import trace_pb2

Trace = trace_pb2.Trace

#: `Row.code` of a call that no status ended: the server died first.
NO_CODE = -1

#: `Row.usage_source` of a usage that no provider counted, which is summed up apart.
ESTIMATED = int(completion_pb2.USAGE_SOURCE_ESTIMATED)
#: What is summed up of each, in the order of base.Total.
SPENT = ("input_tokens", "output_tokens", "cost_nano_usd")


class Row(msgspec.Struct, frozen=True, gc=False):
    """The listed facts of one trace, in the types that databases have. Texts hold no NUL."""

    #: The trace's name without "traces/".
    id: str
    #: Unix time in microseconds.
    start_us: int
    #: None: not known, since the call was interrupted.
    duration_us: int | None
    #: Until the first piece of content.
    first_token_us: int | None
    state: int
    method: str
    caller: str
    request_id: str
    provider: str
    model: str
    asked_model: str
    #: Code of gRPC, or NO_CODE.
    code: int
    #: ErrorReason without the prefix; empty if OK.
    reason: str
    #: The status's message; empty if OK.
    error: str
    streamed: bool
    cancelled: bool
    #: A value of Capture.
    capture: int
    attempts: int
    input_tokens: int | None
    output_tokens: int | None
    #: A value of UsageSource.
    usage_source: int
    cost_nano_usd: int | None
    otel_trace_id: str
    labels: Mapping[str, str]

    @property
    def failed(self) -> bool:
        return self.code != 0


def row(trace: Trace) -> Row:
    """The listed facts of a trace."""
    usage, timing, status = trace.usage, trace.timing, trace.status
    return Row(
        id=trace_id(trace),
        start_us=unix_us(trace.start_time),
        duration_us=micros(timing.total) if timing.HasField("total") else None,
        first_token_us=micros(timing.time_to_first_token) if timing.HasField("time_to_first_token") else None,
        state=trace.state,
        method=_plain(trace.method),
        caller=_plain(trace.caller),
        request_id=_plain(trace.request_id),
        provider=_plain(trace.provider),
        model=_plain(trace.model),
        asked_model=_plain(trace.asked_model),
        code=status.code if trace.HasField("status") else NO_CODE,
        reason=_plain(status.reason),
        error=_plain(status.message),
        streamed=trace.streamed,
        cancelled=trace.cancelled,
        capture=trace.capture,
        attempts=len(trace.attempts),
        input_tokens=usage.input_tokens if usage.HasField("input_tokens") else None,
        output_tokens=usage.output_tokens if usage.HasField("output_tokens") else None,
        usage_source=usage.source,
        cost_nano_usd=usage.cost_nano_usd if usage.HasField("cost_nano_usd") else None,
        otel_trace_id=trace.otel_trace_id,
        labels={_plain(name): _plain(value) for name, value in trace.labels.items()},
    )


def split(payload: bytes) -> tuple[Row, bytes]:
    """The listed facts of a serialized trace, and the trace without what was said, serialized."""
    trace = Trace.FromString(payload)
    found = row(trace)
    clear_content(trace)
    return found, trace.SerializeToString()


def basic(payload: bytes) -> Trace:
    """The trace without what was said, from its serialized form."""
    trace = Trace.FromString(payload)
    clear_content(trace)
    return trace


#: Fields of a spec that hold what was said. Options of providers are merged into the body last and can hold anything.
CONTENT: Mapping[str, tuple[str, ...]] = {
    "completion_spec": ("messages", "extra_system_text", "provider_options_json"),
    "embedding_spec": ("inputs", "provider_options_json"),
}


def clear_content(trace: Trace) -> None:
    """Takes what was said out of a trace."""
    request, response = trace.WhichOneof("request"), trace.WhichOneof("response")
    if request is not None:
        for name in CONTENT[request]:
            getattr(trace, request).ClearField(name)
    if response == "completion":
        trace.completion.ClearField("choices")
        trace.completion.ClearField("raw")
    elif response == "embeddings":
        trace.embeddings.ClearField("embeddings")
    for attempt in trace.attempts:
        attempt.ClearField("request")
        attempt.ClearField("response")


def trace_id(trace: Trace) -> str:
    return trace.name.removeprefix("traces/")


def unix_us(time: Timestamp) -> int:
    """Unix time in microseconds, rounded down."""
    return time.seconds * 1_000_000 + time.nanos // 1000


def micros(duration: Duration) -> int:
    """Microseconds, rounded down."""
    return duration.seconds * 1_000_000 + duration.nanos // 1000


def words(text: str) -> list[str]:
    """The words that a search knows: letters and digits that stand together, without case and accents."""
    if not text.isascii():
        text = "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))
    return re.findall(r"[^\W_]+", text.lower())


def _plain(text: str) -> str:
    return text.replace("\0", " ") if "\0" in text else text
