"""The seam of trace backends: a sink takes batches of records, a reader finds them again.

Sinks run in the delivery process, readers in the processes that serve. Backends do not know each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from google.protobuf.message import Message

from trunkline.v1alpha import trace_pb2, trace_service_pb2
from trunkline_server.call import Call


class BackendError(Exception):
    """A backend cannot be used as it is configured: a wrong URL, a missing driver. Names what to do."""


class BackendUnavailable(Exception):  # a state that passes, not a mistake
    """A backend does not answer now. What was to be written is written again later."""


@dataclass(frozen=True)
class Record:
    """One trace on its way to a backend."""

    #: The gateway's id of the call: the trace's name without "traces/". Unique.
    id: str
    #: The trace, serialized.
    payload: bytes

    @cached_property
    def trace(self) -> trace_pb2.Trace:
        return trace_pb2.Trace.FromString(self.payload)


class Sink(Protocol):
    """Writes records to one backend. Used by one task."""

    async def open(self) -> None:
        """Connects and makes or migrates what is missing. Raises BackendUnavailable, or BackendError for good."""

    async def write(self, records: Sequence[Record]) -> None:
        """All of a batch, or BackendUnavailable. A record that was written before is written once all the same,
        where the backend can tell (SQLite, PostgreSQL, ClickHouse).
        """

    async def prune(self, before: float, most_bytes: int | None) -> int:
        """Deletes records that began before a Unix time, and the oldest ones beyond a size. Returns how many, 0 where
        the backend keeps its own house.
        """

    async def aclose(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Position:
    """Where a page ends: the key of its last record."""

    #: Unix time in microseconds.
    start_us: int
    id: str


@dataclass(frozen=True, slots=True)
class Page:
    """Records in the order asked for, and whether there are more."""

    traces: Sequence[trace_pb2.Trace]
    more: bool


@dataclass(frozen=True, slots=True)
class Total:
    """What the calls of one model came to within one span of time."""

    #: When the span begins: Unix time in microseconds, a multiple of the span's length.
    start_us: int
    provider: str
    model: str
    calls: int
    #: Those of them that did not end with OK.
    failed: int
    #: What providers counted; the cost of the calls whose cost is known.
    input_tokens: int
    output_tokens: int
    cost_nano_usd: int
    #: The same of the calls that no provider counted.
    estimated_input_tokens: int
    estimated_output_tokens: int
    estimated_cost_nano_usd: int


class Reader(Protocol):
    """Finds records in one backend. Used by many tasks side by side. Raises BackendUnavailable."""

    async def get(self, trace_id: str, *, full: bool) -> trace_pb2.Trace | None:
        """One record; without `full` it holds nothing of what was said."""

    async def list(
        self,
        which: trace_service_pb2.TraceFilter,
        *,
        after: Position | None,
        size: int,
        oldest_first: bool,
        full: bool,
    ) -> Page:
        """At most `size` records that lie after a position in the order of (start time, id)."""

    async def totals(self, which: trace_service_pb2.TraceFilter, *, span_us: int) -> Sequence[Total]:
        """Sums of the records that match, by span of time, provider and model, in this order; without empty ones."""

    async def delete(self, trace_id: str) -> bool:
        """True if it was there."""

    async def aclose(self) -> None: ...


class Backend(Protocol):
    """What a URL stands for. Made as `Class(url, state_dir)`, without connecting; raises BackendError for a URL that is
    wrong, and ImportError where its driver is not installed.
    """

    #: Name in answers, logs and metrics, without credentials, e.g. "postgresql".
    name: str

    def sink(self) -> Sink: ...

    def reader(self) -> Reader | None:
        """None where the backend cannot read."""


class Recorder(Protocol):
    """Told of every call by the boundary. Never waits and never raises."""

    def opened(self, call: Call, request: Message, data: bytes) -> None:
        """The request is known; decides what is kept of the call."""

    def closed(self, call: Call, code: int, reason: str, status: bytes) -> None:
        """The call has ended: code of gRPC, reason of ErrorReason, the google.rpc.Status that the caller was sent."""


class NoRecorder:
    """Keeps nothing."""

    def opened(self, call: Call, request: Message, data: bytes) -> None: ...

    def closed(self, call: Call, code: int, reason: str, status: bytes) -> None: ...


__all__ = [
    "Backend", "BackendError", "BackendUnavailable", "NoRecorder", "Page", "Position", "Reader", "Record", "Recorder",
    "Sink", "Total",
]  # fmt: skip
