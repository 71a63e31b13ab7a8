"""Frames of an append-only file: length and CRC-32 of a body, each four bytes, little-endian, then the body.

What a process that was killed left half-written at the end is not complete, and is not read.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

_HEAD = struct.Struct("<II")
HEAD = _HEAD.size

#: No body is longer: what says so is damaged.
LONGEST = 1 << 30


class Damaged(Exception):
    """A frame is not what was written."""


def frame(body: bytes) -> tuple[bytes, bytes]:
    """The pieces to write."""
    return _HEAD.pack(len(body), zlib.crc32(body)), body


def frames(data: bytes) -> Iterator[tuple[memoryview, int]]:
    """Each whole frame's body, not copied, and where the frame ends. Raises Damaged."""
    start, size, view = 0, len(data), memoryview(data)
    while start + HEAD <= size:
        length, crc = _HEAD.unpack_from(data, start)
        if length > LONGEST:
            raise Damaged(f"a frame of {length} bytes")
        end = start + HEAD + length
        if end > size:
            return
        body = view[start + HEAD : end]
        if zlib.crc32(body) != crc:
            raise Damaged("a frame with another checksum than it says")
        yield body, end
        start = end


def missing(data: bytes) -> int:
    """Bytes that the frame at the beginning of `data` has beyond it; 0 if it is whole or its head is not there."""
    if len(data) < HEAD:
        return 0
    length: int = _HEAD.unpack_from(data, 0)[0]
    return max(0, HEAD + length - len(data))
