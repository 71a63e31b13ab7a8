"""What the journal of a serving process holds of its calls, as it was at hand there: nothing is built for it."""

from __future__ import annotations

import msgspec


class Opened(msgspec.Struct, array_like=True, tag=1, gc=False):
    """A call whose request is known."""

    id: str
    method: str
    #: Unix time in seconds.
    start: float
    caller: str
    request_id: str
    #: A value of Capture.
    capture: int
    streamed: bool
    otel_trace_id: str
    otel_span_id: str
    #: The request as it came over gRPC, or without what was said. Empty where nothing is kept.
    request: bytes
    #: Bytes of it as it came.
    request_bytes: int
    #: Tokens of the prompt by estimate, where `request` does not hold it.
    estimated_tokens: int = 0
    #: Of the caller's span.
    otel_parent_span_id: str = ""


class Tried(msgspec.Struct, array_like=True, gc=False):
    """An attempt. Times are seconds since the call began; messages of protobuf are serialized."""

    number: int
    cause: int
    provider: str
    model: str
    credential: str
    endpoint: str
    began: float
    seconds: float
    first_event: float | None
    reason: str
    message: str
    http_status: int | None
    request_id: str
    content_type: str
    usage: bytes | None
    rate_limits: list[bytes]
    request: list[bytes]
    request_truncated: bool
    response: list[bytes]
    response_truncated: bool
    response_model: str


class Closed(msgspec.Struct, array_like=True, tag=2, gc=False):
    """A call that has ended, with all that its record needs but the request."""

    id: str
    method: str
    start: float
    caller: str
    request_id: str
    capture: int
    streamed: bool
    otel_trace_id: str
    otel_span_id: str
    #: Code of gRPC, and ErrorReason without the prefix.
    code: int
    reason: str
    #: google.rpc.Status as the caller was sent it; empty if OK.
    status: bytes
    provider: str
    model: str
    #: Seconds since the call began.
    total: float
    first_event: float | None
    first_token: float | None
    queued: float
    response_bytes: int
    events: int
    usage: bytes | None
    attempts: list[Tried]
    #: The messages sent to the caller, as far as they are kept.
    answer: list[bytes]
    answer_truncated: bool
    #: Of the caller's span.
    otel_parent_span_id: str = ""


class Lost(msgspec.Struct, array_like=True, tag=3, gc=False):
    """Calls of which no more is known: the disk was slower than the calls, or full."""

    ids: list[str]


class Retired(msgspec.Struct, array_like=True, tag=4, gc=False):
    """Nothing follows in this file."""


class Carried(msgspec.Struct, array_like=True, tag=5, gc=False):
    """An open call, taken over from a file that held little else."""

    worker: str
    opened: Opened


class Settled(msgspec.Struct, array_like=True, tag=6, gc=False):
    """Calls that were carried and have ended."""

    ids: list[str]


Entry = Opened | Closed | Lost | Retired | Carried | Settled

encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Entry).decode
