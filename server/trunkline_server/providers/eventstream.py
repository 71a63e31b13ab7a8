"""The binary framing of AWS's streams: botocore reads the frames, which leave as events.

botocore is an optional dependency (`pip install "trunkline-server[bedrock]"`), imported on first use.
See https://smithy.io/2.0/aws/amazon-eventstream.html
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from trunkline_server.errors import LLMInvalidResponseError
from trunkline_server.providers.base import EXCEPTION, Event
from trunkline_server.providers.jsontext import dumps

#: A frame: lengths, checksums, and 24 MiB of payload at most.
_MIN_FRAME_BYTES = 16
_MAX_FRAME_BYTES = 25 * 1024 * 1024
#: Different headers that are remembered; a stream of Bedrock's has six.
_MOST_HEADERS = 32
_NO_FRAME = "the provider sent something that is no frame of an AWS event stream"

_length = struct.Struct(">I").unpack_from


class EventStreamFramer:
    """Frames one stream; however it is cut into chunks, the events are the same.

    An exception is an event too: its name is EXCEPTION and the exception's type. Raises LLMInvalidResponseError for
    what is no frame, once the events before it have been returned.
    """

    __slots__ = ("_buffer", "_errors", "_failed", "_missing", "_partial", "_size")

    def __init__(self) -> None:
        from botocore.eventstream import EventStreamBuffer, EventStreamHeaderParser, ParserError

        self._buffer = EventStreamBuffer()
        self._buffer._header_parser = _Headers(EventStreamHeaderParser())
        # Beside botocore's own: headers of an unknown type, that end too early, or are no text.
        self._errors = (ParserError, KeyError, struct.error, UnicodeDecodeError)
        self._failed = False
        #: Pieces of a frame that has not ended. botocore gets whole frames, so that tiny chunks cost linear time.
        self._partial: list[bytes] = []
        self._size = 0
        #: Bytes without which no frame can be read.
        self._missing = _MIN_FRAME_BYTES

    def feed(self, chunk: bytes) -> list[Event]:
        """Takes what arrived; returns the events that it completes."""
        self._raise_if_failed()
        if chunk:
            self._partial.append(chunk)
            self._size += len(chunk)
        if self._size < self._missing:
            return []
        data = b"".join(self._partial)
        end = self._end_of_frames(data)
        self._partial = [data[end:]]
        self._size = len(data) - end
        events: list[Event] = []
        try:
            self._buffer.add_data(data[:end])
            events.extend(_event(message.headers, message.payload) for message in self._buffer)
        except self._errors:
            self._failed = True
        if not events:
            self._raise_if_failed()
        return events

    def end(self) -> list[Event]:
        """The stream ended. A frame that was cut is dropped."""
        self._raise_if_failed()
        return []

    def _end_of_frames(self, data: bytes) -> int:
        """Where the last whole frame ends."""
        at, size = 0, len(data)
        while size - at >= _MIN_FRAME_BYTES:
            length: int = _length(data, at)[0]
            if not _MIN_FRAME_BYTES <= length <= _MAX_FRAME_BYTES:
                self._failed = True
                break
            if size - at < length:
                self._missing = length
                return at
            at += length
        self._missing = _MIN_FRAME_BYTES
        return at

    def _raise_if_failed(self) -> None:
        if self._failed:
            raise LLMInvalidResponseError(_NO_FRAME)


class _Headers:
    """Parses the headers of a frame. Most frames of a stream have the same, and parsing them is half of all work."""

    __slots__ = ("_known", "_parser")

    def __init__(self, parser: Any) -> None:
        self._parser = parser
        self._known: dict[bytes, Mapping[str, object]] = {}

    def parse(self, data: bytes) -> Mapping[str, object]:
        found = self._known.get(data)
        if found is None:
            found = self._parser.parse(data)
            if len(self._known) < _MOST_HEADERS:
                self._known[data] = found
        return found


def _event(headers: Mapping[str, object], payload: bytes) -> Event:
    kind = headers.get(":message-type")
    if kind == "event":
        return Event(_word(headers.get(":event-type")), payload)
    if kind == "error":
        # What went wrong with the stream itself is told by headers.
        message = {"message": str(headers.get(":error-message", ""))}
        return Event(EXCEPTION + _word(headers.get(":error-code")), payload or dumps(message))
    return Event(EXCEPTION + _word(headers.get(":exception-type")), payload)


def _word(value: object) -> bytes:
    return value.encode() if isinstance(value, str) else b""
