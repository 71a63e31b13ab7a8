"""The W3C trace context of a caller's metadata."""

from __future__ import annotations

import re

from trunkline_server.call import Call

#: Version, trace id, parent's span id, flags; later versions may have more behind them.
_TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
#: Longest tracestate that is passed on.
_STATE_MOST = 512


def follow(call: Call, traceparent: str, tracestate: str) -> None:
    """The call belongs to the caller's trace; one that cannot be read is none, as W3C has it."""
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is None or (found[1] == "00" and len(traceparent) != 55):
        return
    call.otel_trace_id, call.otel_parent_span_id = found[2], found[3]
    call.otel_sampled = bool(int(found[4], 16) & 1)
    if len(tracestate) <= _STATE_MOST:
        call.otel_state = tracestate
