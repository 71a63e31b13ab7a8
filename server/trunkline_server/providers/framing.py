"""How bytes of a stream become events: one framer for each framing that a dialect may name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from trunkline_server.errors import LLMInvalidResponseError
from trunkline_server.providers.base import Decoder, Event
from trunkline_server.providers.eventstream import EventStreamFramer
from trunkline_server.providers.sse import MAX_EVENT_BYTES, SseFramer, is_complete


class Framer(Protocol):
    """Frames one stream; however it is cut into chunks, the events are the same."""

    def feed(self, chunk: bytes) -> list[Event]:
        """Takes what arrived; returns the events that it completes. Raises LLMInvalidResponseError."""

    def end(self) -> list[Event]:
        """The stream ended. Returns the event that was not terminated, if it is complete: a cut one is dropped."""


class NdjsonFramer:
    """One JSON text a line; blank lines mean nothing. Raises LLMInvalidResponseError for one over MAX_EVENT_BYTES."""

    __slots__ = ("_partial", "_size")

    def __init__(self) -> None:
        #: Pieces of the line that has not ended yet. They are joined once, so that tiny chunks cost linear time.
        self._partial: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[Event]:
        *lines, rest = chunk.split(b"\n")
        if lines:
            lines[0] = b"".join([*self._partial, lines[0]])
            self._partial.clear()
            self._size = 0
        if rest:
            self._partial.append(rest)
            self._size += len(rest)
        if max(self._size, *map(len, lines), 0) > MAX_EVENT_BYTES:
            raise LLMInvalidResponseError(f"the provider sent a line of more than {MAX_EVENT_BYTES} bytes")
        return [Event(b"", line) for line in map(bytes.strip, lines) if line]

    def end(self) -> list[Event]:
        line = b"".join(self._partial).strip()
        self._partial.clear()
        return [Event(b"", line)] if line and is_complete(line) else []


#: Framers by the name that `Dialect.framing` gives.
FRAMINGS: dict[str, Callable[[], Framer]] = {
    "sse": SseFramer,
    "ndjson": NdjsonFramer,
    "eventstream": EventStreamFramer,
}


def pour(framing: str, body: bytes, decoder: Decoder) -> None:
    """Decodes a whole body that is a stream, from a server that always streams. Raises LLMError."""
    framer = FRAMINGS[framing]()
    for event in (*framer.feed(body), *framer.end()):
        decoder.event(event)
    decoder.end()
