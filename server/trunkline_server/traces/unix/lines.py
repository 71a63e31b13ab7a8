"""The lines of the protocol: hello, records, and what a sidecar may say. Version 1; docs/sidecar.md has its rules."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
from google.protobuf import json_format

from trunkline.v1 import completion_pb2
from trunkline.v1alpha import trace_pb2
from trunkline_server import __version__
from trunkline_server.traces.base import Record
from trunkline_server.traces.columns import basic

PROTOCOL = "trunkline.traces"
#: Raised when a line no longer means what it did; new members do not raise it.
VERSION = 1

#: Bytes of a line, by default and at least.
MOST_BYTES, LEAST_BYTES = 8 * 1024 * 1024, 16 * 1024

#: What a part that was cut is called in `truncated`.
_CONTENT = "content"


class Said(msgspec.Struct):
    """A line of the sidecar's; what is not known is left alone."""

    #: Ids of records that are safe with it.
    ack: str | list[str] | None = None
    #: The version that it takes.
    accept: int | None = None
    #: Why it takes none of ours.
    refuse: str | None = None
    versions: list[int] = []

    @property
    def acked(self) -> list[str]:
        return [self.ack] if isinstance(self.ack, str) else self.ack or []


_said = msgspec.json.Decoder(Said)


def said(line: bytes) -> Said | None:
    """None for a line that is none of the protocol's."""
    try:
        return _said.decode(line)
    except msgspec.MsgspecError:
        return None


def hello(*, acks: bool) -> bytes:
    """The first line of a connection."""
    return _line({"protocol": PROTOCOL, "version": VERSION, "server": f"trunkline/{__version__}", "ack": acks})


def record_line(record: Record, most: int) -> bytes:
    """A record; of one that does not fit into `most` bytes as much as does, with the names of what was cut."""
    trace, cut = record.trace, _Cut()
    line = _record(record.id, trace, cut)
    if len(line) <= most:
        return line
    trace = _copy(trace)
    cut.bodies(trace, len(line) - most)
    line = _record(record.id, trace, cut)
    if len(line) <= most:
        return line
    cut.names.append(_CONTENT)
    return _record(record.id, cut.smallest(record, most), cut)


@dataclass(slots=True)
class _Cut:
    names: list[str] = field(default_factory=list)

    def bodies(self, trace: trace_pb2.Trace, excess: int) -> None:
        """Shortens raw bodies, the longest first, by `excess` bytes of JSON."""
        # Base64 has four characters for three bytes; the marks of what is cut take some too.
        left = excess * 3 // 4 + 1024
        found = [(name, body) for name, body in _bodies(trace) if body.body]
        for name, body in sorted(found, key=lambda pair: len(pair[1].body), reverse=True):
            if left <= 0:
                return
            kept = max(0, len(body.body) - left)
            left -= len(body.body) - kept
            body.body, body.truncated = body.body[:kept], True
            trace.truncated = True
            self.names.append(name)

    def smallest(self, record: Record, most: int) -> trace_pb2.Trace:
        """A trace without what was said, and, if that is too long still, without all that can be long."""
        small = basic(record.payload)
        small.truncated = True
        if len(_record(record.id, small, self)) > most:
            whole = record.trace
            small = trace_pb2.Trace(
                name=whole.name,
                state=whole.state,
                method=whole.method,
                start_time=whole.start_time,
                timing=whole.timing,
                usage=whole.usage,
                capture=whole.capture,
                truncated=True,
            )
            small.usage.raw_json = ""
            small.status.code, small.status.reason = whole.status.code, whole.status.reason
        return small


def _bodies(trace: trace_pb2.Trace) -> list[tuple[str, completion_pb2.RawPayload]]:
    found = []
    for at, attempt in enumerate(trace.attempts):
        found += [
            (f"attempts[{at}].request.body", attempt.request),
            (f"attempts[{at}].response.body", attempt.response),
        ]
    if trace.completion.HasField("raw"):
        found.append(("completion.raw.body", trace.completion.raw))
    return found


def _copy(trace: trace_pb2.Trace) -> trace_pb2.Trace:
    made = trace_pb2.Trace()
    made.CopyFrom(trace)
    return made


def _record(name: str, trace: trace_pb2.Trace, cut: _Cut) -> bytes:
    line: dict[str, Any] = {"version": VERSION, "id": name, "trace": json_format.MessageToDict(trace)}
    if cut.names:
        line["truncated"] = cut.names
    return _line(line)


def _line(value: dict[str, Any]) -> bytes:
    return msgspec.json.encode(value) + b"\n"
