"""Server-sent events: bytes as they arrive in, events out. See https://html.spec.whatwg.org/multipage/server-sent-events.html"""

from __future__ import annotations

import json

from trunkline_server.errors import LLMInvalidResponseError
from trunkline_server.providers.base import BARE, Event

#: Most bytes of one event. An image in an event is a few MiB.
MAX_EVENT_BYTES = 16 * 1024 * 1024

_BOM = b"\xef\xbb\xbf"
_BLANKS = b" \t"
#: As numbers: for one byte in bytes, CPython first raises an error and takes it back if it is given as bytes.
_CR, _LF = 13, 10
#: What the first line of a stream begins with.
_FIELDS = (b"data:", b"event:", b":")
#: What a line outside the field syntax begins with when it is JSON.
_JSON_STARTS = (b"{", b"[")
#: What nearly every event is: one line of JSON.
_JSON_DATA = b"data: {"


class SseFramer:
    """Frames one stream; however it is cut into chunks, the events are the same.

    Events without data are keep-alives and are left out. Blanks around data are removed: JSON has no use for them, and
    some providers send "[DONE] ". Lines that are JSON instead of a field, as some send an error, are an event named
    BARE. Raises LLMInvalidResponseError for an event over MAX_EVENT_BYTES.
    """

    __slots__ = ("_after_cr", "_bare", "_begun", "_data", "_events", "_name", "_open", "_partial", "_size")

    def __init__(self) -> None:
        self._events: list[Event] = []
        #: Pieces of a line that has not ended yet. They are joined once, so that tiny chunks cost linear time.
        self._partial: list[bytes] = []
        #: The event that has not ended yet.
        self._name = b""
        self._data: list[bytes] = []
        self._bare: list[bytes] = []
        #: Bytes held in all of these.
        self._size = 0
        #: Was a line or an event begun and not ended? So it is, too, until the first line has been seen.
        self._open = True
        self._begun = False
        self._after_cr = False

    def feed(self, chunk: bytes) -> list[Event]:
        """Takes what arrived; returns the events that it completes."""
        events: list[Event] = []
        self._events = events
        if self._after_cr or _CR in chunk:
            chunk = self._with_line_feeds(chunk)
        start = 0
        # To the end of what an earlier chunk began.
        while self._open:
            end = chunk.find(b"\n", start)
            if end < 0:
                self._keep(chunk[start:])
                return events
            self._line(self._completed(chunk[start:end]))
            self._open = bool(self._data or self._name or self._bare)
            start = end + 1
        # Whole events: nearly always all there is.
        end = chunk.rfind(b"\n\n", start)
        if end >= 0 and len(chunk) <= MAX_EVENT_BYTES:
            for block in chunk[start:end].split(b"\n\n"):
                if block.startswith(_JSON_DATA) and _LF not in block:
                    events.append(Event(b"", block[6:].rstrip()))
                else:
                    self._block(block)
            start = end + 2
            if start == len(chunk):
                return events
        # The beginning of the next event.
        *lines, rest = chunk[start:].split(b"\n")
        for line in lines:
            self._line(line)
        self._keep(rest)
        self._open = bool(rest or self._data or self._name or self._bare)
        return events

    def end(self) -> list[Event]:
        """The stream ended. Returns the event that was not terminated, if it is complete: a cut one is dropped."""
        events: list[Event] = []
        self._events = events
        if self._partial:
            self._line(self._completed(b""))
        if self._data and is_complete(b"\n".join(self._data)):
            self._dispatch()
        elif self._bare and is_complete(b"\n".join(self._bare)):
            self._dispatch_bare()
        return events

    def _with_line_feeds(self, chunk: bytes) -> bytes:
        """CR and CRLF end lines too, and a CRLF may be cut in two."""
        if not chunk:
            return chunk
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
            self._after_cr = False
            if not chunk:
                return chunk
        self._after_cr = chunk.endswith(b"\r")
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _keep(self, piece: bytes) -> None:
        if piece:
            self._partial.append(piece)
            self._grow(len(piece))

    def _grow(self, size: int) -> None:
        self._size += size
        if self._size > MAX_EVENT_BYTES:
            raise LLMInvalidResponseError(f"the provider sent a stream event of more than {MAX_EVENT_BYTES} bytes")

    def _completed(self, piece: bytes) -> bytes:
        """The line that ends with `piece`."""
        if self._partial:
            self._partial.append(piece)
            line = b"".join(self._partial)
            self._partial.clear()
            self._size -= len(line) - len(piece)
        else:
            line = piece
        if not self._begun:
            # Some streams begin with blanks.
            self._begun = True
            line = line.removeprefix(_BOM).lstrip(_BLANKS)
        return line

    def _block(self, block: bytes) -> None:
        """Lines up to a blank one while no event is open: the two usual shapes without a look at each line."""
        if block.startswith(b"data: ") and _LF not in block:
            if data := block[6:].strip():
                self._events.append(Event(b"", data))
            return
        if block.startswith(b"event: "):
            name, _, data = block[7:].partition(b"\ndata: ")
            if data and _LF not in name and _LF not in data:
                if data := data.strip():
                    self._events.append(Event(name, data))
                return
        for line in block.split(b"\n"):
            self._line(line)
        self._line(b"")

    def _line(self, line: bytes) -> None:
        if not line:
            self._dispatch()
            self._dispatch_bare()
            return
        field, colon, value = line.partition(b":")
        if field == b"data":
            self._dispatch_bare()
            value = value.removeprefix(b" ")
            self._data.append(value)
            self._grow(len(value) + 1)
        elif field == b"event":
            self._dispatch_bare()
            self._name = value.removeprefix(b" ")
        elif (colon and not field) or field in (b"id", b"retry"):
            self._dispatch_bare()
        elif self._bare or line.startswith(_JSON_STARTS):
            self._bare.append(line)
            self._grow(len(line) + 1)

    def _dispatch(self) -> None:
        if self._data:
            self._size -= sum(map(len, self._data)) + len(self._data)
            if data := b"\n".join(self._data).strip():
                self._events.append(Event(self._name, data))
            self._data.clear()
        self._name = b""

    def _dispatch_bare(self) -> None:
        if self._bare:
            self._size -= sum(map(len, self._bare)) + len(self._bare)
            self._events.append(Event(BARE, b"\n".join(self._bare).strip()))
            self._bare.clear()


def is_stream(body: bytes) -> bool:
    """Does a body begin as a stream does?"""
    return body[:256].lstrip().startswith(_FIELDS)


def is_complete(data: bytes) -> bool:
    """Can this be all of an event's data: JSON to its end, or the mark that OpenAI ends streams with?"""
    if data.strip() == b"[DONE]":
        return True
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return False
    return True
