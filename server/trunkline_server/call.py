"""One call from arrival to end: what the engine learns of it and the boundary reports."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from trunkline.v1 import completion_pb2
from trunkline_server.errors import GatewayError
from trunkline_server.spending import total


class Cause(IntEnum):
    """Why an attempt is made; the numbers are those of trunkline.v1alpha.AttemptCause."""

    FIRST = 1
    RETRY = 2
    FALLBACK = 3
    HEDGE = 4
    RESTART = 5
    CONTINUE = 6
    BATCH = 7


class Kept:
    """What is kept of one body for the record of a call: its beginning, within a bound."""

    __slots__ = ("_most", "_whole", "left", "pieces", "truncated", "wants")

    def __init__(self, most: int, *, whole: bool = False) -> None:
        """`most`: bytes; 0 keeps nothing, which is no truncation. `whole`: no piece is cut, the first that does not fit
        is the end.
        """
        self.pieces: list[bytes] = []
        self._most = most
        self._whole = whole
        #: Bytes that may still be kept.
        self.left = most
        #: More pieces are of use.
        self.wants = most > 0
        self.truncated = False

    def add(self, piece: bytes) -> None:
        """Costs a call and an append: pieces are joined by whoever reads them."""
        if len(piece) > self.left:
            if not self.wants:
                return
            self.wants, self.truncated = False, True
            piece = b"" if self._whole else piece[: self.left]
            if not piece:
                return
        self.left -= len(piece)
        self.pieces.append(piece)

    @property
    def size(self) -> int:
        """Bytes that are kept."""
        return self._most - self.left

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)


class Waiting:
    """The time in which a call waits for others: `with call.waiting:` around each wait. Those at once count once.

    On the way of every event, where nothing waits beside it, a wait is added to `sum`: `with` costs more than the rest.
    """

    __slots__ = ("_deep", "_since", "sum")

    def __init__(self) -> None:
        self._deep = 0
        self._since = 0.0
        #: Seconds of the waits that are over.
        self.sum = 0.0

    def __enter__(self) -> None:
        if not self._deep:
            self._since = time.monotonic()
        self._deep += 1

    def __exit__(self, *_: object) -> None:
        self._deep -= 1
        if not self._deep:
            self.sum += time.monotonic() - self._since

    @property
    def seconds(self) -> float:
        """So far."""
        return self.sum + (time.monotonic() - self._since if self._deep else 0.0)


@dataclass(slots=True)
class Attempt:
    """One try at one target."""

    number: int
    provider: str
    model: str
    began: float
    #: What is kept of the body that was sent, and of the one that came back.
    request: Kept
    response: Kept
    cause: Cause = Cause.FIRST
    #: Name of the credential; "" is the provider's own.
    credential: str = ""
    #: Scheme, host and path that the request went to.
    endpoint: str = ""
    ended: float | None = None
    first_event_at: float | None = None
    reason: str = ""
    #: The error's own message; redacted by whoever shows it.
    message: str = ""
    http_status: int | None = None
    #: The provider's id of the HTTP request.
    request_id: str = ""
    #: Media type of the answer.
    content_type: str = ""
    usage: completion_pb2.Usage | None = None
    rate_limits: Sequence[completion_pb2.RateLimit] = ()
    #: What the provider called the model and the answer, and why each choice ended: values of FinishReason.
    response_model: str = ""
    response_id: str = ""
    finish_reasons: Sequence[int] = ()
    #: W3C id of the attempt's span, in lower-case hexadecimal; set if the call has spans.
    otel_span_id: str = ""

    @property
    def seconds(self) -> float:
        return (self.ended if self.ended is not None else time.monotonic()) - self.began


@dataclass(slots=True)
class Call:
    """Times are monotonic seconds, except `create_time` (Unix)."""

    method: str
    caller: str = ""
    #: The caller's own id of the call, for logs and errors.
    request_id: str = ""
    #: When the time of the call runs out; None: never.
    deadline: float | None = None
    #: What ends the call at its deadline.
    timer: asyncio.Timeout | None = None
    #: Headers of the caller that are passed on to the provider.
    forward: tuple[tuple[str, str], ...] = ()
    id: str = field(default_factory=lambda: "cmpl_" + os.urandom(16).hex())
    create_time: float = field(default_factory=time.time)
    received: float = field(default_factory=time.monotonic)
    #: Passed authentication, validation and admission.
    admitted: bool = False
    provider: str = ""
    model: str = ""
    attempts: list[Attempt] = field(default_factory=list)
    #: The gateway itself has tried again, or would have: nobody else is to.
    spent: bool = False
    usage: completion_pb2.Usage | None = None
    provider_request_id: str = ""
    first_event_at: float | None = None
    first_token_at: float | None = None
    #: Seconds that it waited for admission.
    queued: float = 0.0
    #: Events sent to the caller.
    sequence: int = 0
    #: Bytes of all messages sent to the caller.
    sent_bytes: int = 0
    streamed: bool = False
    #: Ends only when its caller leaves.
    endless: bool = False
    #: What the record of the call keeps, a value of Capture; UNSPECIFIED until the request is known.
    capture: int = completion_pb2.CAPTURE_UNSPECIFIED
    #: Most bytes of one body that the record keeps; 0: none.
    keep_bytes: int = 0
    #: What is kept of the messages sent to the caller, each a piece of its own.
    answer: Kept = field(default_factory=lambda: Kept(0))
    #: W3C ids in lower-case hexadecimal: of the trace, of the server's span (only if there is one), of the caller's.
    otel_trace_id: str = ""
    otel_span_id: str = ""
    otel_parent_span_id: str = ""
    #: The caller, or the server's sampler, wants the spans of this trace.
    otel_sampled: bool = False
    #: W3C tracestate, as the caller sent it.
    otel_state: str = ""
    #: For a provider, or for the caller to take an event.
    waiting: Waiting = field(default_factory=Waiting)
    #: Why the gateway itself ends the call; set before its task is cancelled.
    ending: GatewayError | None = None
    #: The completion that it waits for, if another call began it.
    follows: str = ""
    #: Where the completion runs in a task of its own: done when that has ended, which may be after the call. Holds its
    #: failure.
    run: asyncio.Future[Any] | None = None

    @property
    def completion_id(self) -> str:
        return self.follows or self.id

    def keep(self, capture: int, most: int) -> None:
        """What the record keeps of this call: `most` bytes of each body, if it keeps content at all."""
        self.capture = capture
        self.keep_bytes = most if capture == completion_pb2.CAPTURE_FULL else 0
        # Messages are of use only whole.
        self.answer = Kept(4 * self.keep_bytes, whole=True)

    def begin_attempt(self, provider: str, model: str, cause: Cause = Cause.FIRST) -> Attempt:
        self.provider, self.model = provider, model
        most = self.keep_bytes
        attempt = Attempt(
            len(self.attempts) + 1, provider, model, time.monotonic(), Kept(most), Kept(most), cause=cause
        )
        if self.otel_span_id:
            attempt.otel_span_id = os.urandom(8).hex()
        self.attempts.append(attempt)
        return attempt

    def answered(self, attempt: Attempt, status: int, request_id: str) -> None:
        """The provider has begun to answer the attempt."""
        attempt.first_event_at = time.monotonic()
        attempt.http_status, attempt.request_id = status, request_id
        if not self.provider_request_id:
            self.provider_request_id = request_id

    def follow(self, attempt: Attempt) -> None:
        """Of all attempts, this is the one that tells of the call: it answered, or it is the last that failed."""
        self.provider, self.model = attempt.provider, attempt.model
        self.first_event_at = attempt.first_event_at
        if attempt.request_id:
            self.provider_request_id = attempt.request_id

    def spend(self) -> None:
        """What was spent is the sum over all attempts."""
        attempts = self.attempts
        self.usage = attempts[0].usage if len(attempts) == 1 else total(attempt.usage for attempt in attempts)

    def trace_headers(self, attempt: Attempt) -> tuple[tuple[str, str], ...]:
        """W3C headers for the provider of an attempt; none if the call belongs to no trace."""
        if not self.otel_trace_id:
            return ()
        parent = attempt.otel_span_id or self.otel_parent_span_id
        traceparent = ("traceparent", f"00-{self.otel_trace_id}-{parent}-{'01' if self.otel_sampled else '00'}")
        return (traceparent, ("tracestate", self.otel_state)) if self.otel_state else (traceparent,)

    def remaining(self) -> float | None:
        """Seconds until the time of the call runs out; None: it does not."""
        return None if self.deadline is None else self.deadline - time.monotonic()

    def limit(self, seconds: float, since: float | None = None) -> None:
        """Brings the deadline forward to at most `seconds` from arrival, or from `since`."""
        wanted = (self.received if since is None else since) + seconds
        if self.deadline is None or wanted < self.deadline:
            self.deadline = wanted
            if self.timer is not None:
                self.timer.reschedule(asyncio.get_running_loop().time() + wanted - time.monotonic())
