"""Traces that some backend has not taken yet: a log on disk in segments, read by each backend at its own pace.

Traces are numbered from 0. A batch is appended with the marks of the journals it came from, in one write, so that after
a crash both are there or neither. What was appended last lies in memory, too: a backend that keeps up costs no reading.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import msgspec

from trunkline_server.traces.frames import Damaged, frame, frames, missing

#: Segments are of this size, or of this share of the bound where that is less.
SEGMENT_BYTES, SEGMENT_SHARE = 8 * 1024 * 1024, 16
CHUNK = 1 << 19
#: Bytes of traces that lie in memory.
RECENT_BYTES = 8 * 1024 * 1024
#: Seconds after which a segment is deleted that all backends have taken, though it is not full.
QUIET = 2.0


class Stored(msgspec.Struct, array_like=True, tag=1, gc=False):
    """One trace."""

    number: int
    id: str
    #: When it was appended: Unix time in seconds.
    at: float
    payload: bytes


class Marks(msgspec.Struct, array_like=True, tag=2, gc=False):
    """How far the journals are in here."""

    files: dict[str, int]
    #: Number of the next trace.
    next: int
    #: Calls lost before they came here.
    lost: int = 0


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Stored | Marks).decode


@dataclass(slots=True)
class _Segment:
    path: Path
    #: Number of its first trace.
    first: int
    bytes: int = 0


@dataclass(slots=True)
class Cursor:
    """Where a backend is: the number of the next trace that it takes."""

    next: int
    #: Hint: the segment in which that was found, and where.
    segment: int = -1
    offset: int = 0


@dataclass(slots=True)
class Outbox:
    """The log in one folder. Used by one process. Raises OSError where the disk takes or gives nothing."""

    folder: Path
    most_bytes: int
    #: Number of the next trace.
    next: int = 0
    #: Marks of the last batch.
    marks: dict[str, int] = field(default_factory=dict)
    #: Calls lost before they came here, since the spool was made.
    lost: int = 0
    #: Segments that were damaged, and left.
    damaged: int = 0
    _segments: list[_Segment] = field(default_factory=list)
    _handle: int | None = None
    _appended: float = 0.0
    #: The last ones, without a gap, and their bytes.
    _recent: deque[Stored] = field(default_factory=deque)
    _recent_bytes: int = 0

    def open(self) -> None:
        """Reads what is there. What was half-written is cut off."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        paths = sorted(self.folder.glob("*.segment"))
        self._segments = [_Segment(path, int(path.stem), path.stat().st_size) for path in paths]
        if self._segments:
            last = self._segments[-1]
            self.next = last.first
            whole = self._recover(last)
            self._handle = os.open(last.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            os.ftruncate(self._handle, whole)
            last.bytes = whole

    def _recover(self, segment: _Segment) -> int:
        """Takes up the marks; returns where the last whole batch ends."""
        data, whole = segment.path.read_bytes(), 0
        try:
            for body, end in frames(data):
                entry = _decode(body)
                if isinstance(entry, Marks):
                    self.next, self.marks, self.lost, whole = entry.next, entry.files, entry.lost, end
        except (Damaged, msgspec.ValidationError, msgspec.DecodeError):
            self.damaged += 1
        return whole

    @property
    def first(self) -> int:
        """Number of the oldest trace that is still here."""
        return self._segments[0].first if self._segments else self.next

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(segment.bytes for segment in self._segments)

    def append(self, traces: Sequence[tuple[str, bytes]], marks: Mapping[str, int], lost: int) -> None:
        """Adds traces (id, serialized) with the marks of their journals, all or none."""
        now = time.time()
        made = [Stored(number, trace_id, now, payload) for number, (trace_id, payload) in enumerate(traces, self.next)]
        pieces: list[bytes] = []
        for stored in made:
            pieces += frame(_encode(stored))
        entry = Marks(dict(marks), self.next + len(traces), lost)
        pieces += frame(_encode(entry))
        data = b"".join(pieces)
        most = min(SEGMENT_BYTES, self.most_bytes // SEGMENT_SHARE)
        if self._handle is None or self._segments[-1].bytes > most:
            self._begin()
        segment, handle = self._segments[-1], self._handle
        if handle is None:
            raise OSError("the outbox is not open")
        try:
            done = 0
            while done < len(data):
                done += os.write(handle, data[done:] if done else data)
        except OSError:
            with suppress(OSError):
                os.ftruncate(handle, segment.bytes)
            raise
        segment.bytes += len(data)
        self.next, self.marks, self.lost = entry.next, entry.files, lost
        self._appended = time.monotonic()
        self._recent += made
        self._recent_bytes += sum(len(stored.payload) for stored in made)
        while self._recent_bytes > RECENT_BYTES:
            self._forget()

    def read(self, cursor: Cursor, most: int, most_bytes: int) -> list[Stored]:
        """The next traces from a cursor on, which goes with them; fewer than there are if they are many or large."""
        cursor.next = max(cursor.next, self.first)
        if self._recent and cursor.next >= self._recent[0].number:
            return self._recall(cursor, most, most_bytes)
        found: list[Stored] = []
        size = 0
        while len(found) < most and cursor.next < self.next:
            segment = self._segment_of(cursor.next)
            if cursor.segment != segment.first:
                cursor.segment, cursor.offset = segment.first, 0
            data = _from(segment, cursor.offset, CHUNK)
            if not data:
                # It was damaged, or cut: what it held is gone.
                self.damaged += 1
                cursor.next = self._after(segment)
                continue
            start = cursor.offset
            try:
                for body, end in frames(data):
                    entry = _decode(body)
                    if isinstance(entry, Stored) and entry.number >= cursor.next:
                        if found and size + len(entry.payload) > most_bytes:
                            return found
                        found.append(entry)
                        size += len(entry.payload)
                        cursor.next = entry.number + 1
                    cursor.offset = start + end
                    if len(found) >= most:
                        return found
            except (Damaged, msgspec.ValidationError, msgspec.DecodeError):
                self.damaged += 1
                cursor.next = max(cursor.next, self._after(segment))
                continue
            if cursor.offset == start:
                cursor.next = max(cursor.next, self._after(segment))
        return found

    def _recall(self, cursor: Cursor, most: int, most_bytes: int) -> list[Stored]:
        """As `read`, from memory."""
        found: list[Stored] = []
        size, skipped = 0, cursor.next - self._recent[0].number
        for stored in islice(self._recent, skipped, skipped + most):
            size += len(stored.payload)
            if found and size > most_bytes:
                break
            found.append(stored)
            cursor.next = stored.number + 1
        return found

    def drop(self, delivered: int, journal_bytes: int, *, last: bool = False) -> int:
        """Deletes segments whose traces have numbers below `delivered`, and the oldest ones while all that waits on
        disk, journals included, is larger than the bound. Returns how many traces went that were not delivered.
        `last`: nothing will be added now.
        """
        quiet = last or time.monotonic() - self._appended > QUIET
        if quiet and self._segments and self._segments[-1].first < self.next == delivered:
            # What was said does not lie here longer than it must.
            self._begin()
        dropped = 0
        while len(self._segments) > 1:
            begins = self._segments[1].first
            if begins > delivered:
                if self.size + journal_bytes <= self.most_bytes:
                    break
                dropped += begins - max(delivered, self._segments[0].first)
            self._segments.pop(0).path.unlink(missing_ok=True)
        while self._recent and self._recent[0].number < delivered:
            self._forget()
        return dropped

    def _forget(self) -> None:
        self._recent_bytes -= len(self._recent.popleft().payload)

    def close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _begin(self) -> None:
        """Begins the next segment; it has the marks first, so that it knows them without the ones before it."""
        path = self.folder / f"{self.next:020}.segment"
        data = b"".join(frame(_encode(Marks(self.marks, self.next, self.lost))))
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        if os.write(handle, data) < len(data):
            os.close(handle)
            path.unlink()
            raise OSError("the disk is full")
        self.close()
        self._handle = handle
        self._segments = [s for s in self._segments if s.path != path] + [_Segment(path, self.next, len(data))]

    def _segment_of(self, number: int) -> _Segment:
        return next(segment for segment in reversed(self._segments) if segment.first <= number)

    def _after(self, segment: _Segment) -> int:
        """Number of the first trace behind a segment."""
        later = [one.first for one in self._segments if one.first > segment.first]
        return min(later, default=self.next)


def _from(segment: _Segment, offset: int, size: int) -> bytes:
    """At least the whole frame that begins at `offset`, if it is there."""
    with segment.path.open("rb", buffering=0) as file:
        file.seek(offset)
        data = file.read(min(size, segment.bytes - offset))
        more = missing(data)
        return data + file.read(more) if more else data
