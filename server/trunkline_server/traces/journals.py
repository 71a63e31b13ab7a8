"""Reads the journals of all serving processes of a slot, and joins what they tell into calls that have ended.

Of an open call the place of its entry is remembered, and the entry itself within a bound of bytes. A file is deleted
when all in it is stored and no call in it is open: calls that are open for long are carried to a file of our own. The
files of one process go in their order, so that no entry of a call's beginning outlives that of its end.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from trunkline_server.traces.entries import (
    Carried,
    Closed,
    Entry,
    Lost,
    Opened,
    Retired,
    Settled,
    decode,
    encode,
)
from trunkline_server.traces.frames import HEAD, Damaged, frame, frames, missing

#: Bytes read of a file at once; a larger entry is read whole.
CHUNK = 1 << 18
#: Bytes of entries that are kept of open calls; of what is open beyond them the entry is read again.
KEPT = 8 * 1024 * 1024
#: Seconds after which the open calls of a file that is finished are carried away.
LINGER = 5.0
#: Bytes of a file of ours beyond which another is begun, and how many there may be before the oldest is rewritten.
CARRIED_BYTES, CARRIED_FILES = 8 * 1024 * 1024, 4

#: Worker of the files that are ours.
_CARRIED = "carried"

_NAME = re.compile(r"(?P<worker>[\w-]+)\.(?P<number>\d{8})\.journal")


@dataclass(frozen=True, slots=True)
class Ended:
    """A call that has ended, or whose process has."""

    opened: Opened | None
    #: None: interrupted.
    closed: Closed | None
    #: Id of the call, told though nothing else is known: it is of no use to wait for it.
    id: str


@dataclass(slots=True)
class _File:
    """One file and how far it was read."""

    path: Path
    worker: str
    number: int
    handle: int
    #: Up to here its entries were handed on, by another process of ours.
    done: int = 0
    offset: int = 0
    #: Nothing more comes.
    finished: bool = False
    finished_at: float = 0.0
    #: Open calls whose entries lie here, and their bytes.
    open: int = 0
    open_bytes: int = 0


@dataclass(slots=True)
class _Place:
    """Where the entry of an open call lies."""

    file: _File
    start: int
    size: int
    worker: str
    #: What lies there, if it is kept.
    opened: Opened | None = None


@dataclass(slots=True)
class Journals:
    """All files in one folder. Not thread-safe."""

    folder: Path
    #: File name to how far its entries were handed on before; what `marks` gave.
    done: Mapping[str, int] = field(default_factory=dict)
    #: Calls of which less is known than happened.
    lost: int = 0
    #: Files that were damaged, and left.
    damaged: int = 0
    _files: dict[str, _File] = field(default_factory=dict)
    _open: dict[str, _Place] = field(default_factory=dict)
    #: Bytes of the entries that are kept.
    _kept: int = 0
    _carried: _File | None = None
    #: Calls in files of ours that have ended, which is not yet written there.
    _settled: list[str] = field(default_factory=list)
    #: Processes that have ended, and of whose files all is read.
    _gone: set[str] = field(default_factory=set)

    def read(self, most: int) -> list[Ended]:
        """About `most` calls that have ended since; fewer only if there are no more now."""
        found: list[Ended] = []
        for file in self._listed():
            if len(found) < most:
                found += self._read(file, most - len(found))
        return found

    def interrupted(self) -> list[Ended]:
        """Calls whose process has ended before them. To be asked now and then, after `read` gave nothing."""
        workers = {place.worker for place in self._open.values()}
        self._gone = {worker for worker in workers | set(self._workers()) if self._is_gone(worker)}
        calls = [call_id for call_id, place in self._open.items() if place.worker in self._gone]
        return [Ended(self._take(call_id), None, call_id) for call_id in calls]

    def marks(self) -> dict[str, int]:
        """How far each file was read: to be stored with what was given, and given back as `done`."""
        return {name: file.offset for name, file in self._files.items()}

    def tidy(self) -> None:
        """To be called when everything that was given is stored: deletes files that nobody needs any more."""
        if self._settled:
            self._append(Settled(self._settled))
            self._settled = []
        now = time.monotonic()
        for worker, files in self._workers().items():
            for file in files:
                if worker in self._gone and not file.finished:
                    file.finished, file.finished_at = True, now
                if file.finished and file.open and self._is_to_carry(file, files, now):
                    self._carry(file)
                if not file.finished or file.open:
                    break
                os.close(file.handle)
                file.path.unlink(missing_ok=True)
                del self._files[file.path.name]
        for worker in self._gone - self._workers().keys():
            (self.folder / f"{worker}.lock").unlink(missing_ok=True)

    @property
    def open(self) -> int:
        """Calls that have not ended."""
        return len(self._open)

    @property
    def size(self) -> int:
        """Bytes on disk."""
        size = 0
        for file in self._files.values():
            with suppress(OSError):
                size += os.fstat(file.handle).st_size
        return size

    @property
    def idle(self) -> bool:
        """Nothing is here, and nothing will come: no process writes."""
        return not self._open and all(not self._lives(path.stem) for path in self.folder.glob("*.lock"))

    def close(self) -> None:
        for file in self._files.values():
            os.close(file.handle)
        self._files.clear()

    # -- files --------------------------------------------------------------------------------------------------------

    def _listed(self) -> list[_File]:
        """Files in the order in which their entries were written: ours first, then each worker's by number."""
        names = {entry.name for entry in os.scandir(self.folder) if entry.name.endswith(".journal")}
        for name in names - self._files.keys():
            matched = _NAME.fullmatch(name)
            if matched is None:
                continue
            path = self.folder / name
            with suppress(FileNotFoundError):
                handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
                self._files[name] = _File(
                    path, matched["worker"], int(matched["number"]), handle, done=self.done.get(name, 0)
                )
        return sorted(self._files.values(), key=lambda file: (file.worker != _CARRIED, file.worker, file.number))

    def _workers(self) -> dict[str, list[_File]]:
        """The files of each process, in their order."""
        found: dict[str, list[_File]] = {}
        for file in sorted(self._files.values(), key=lambda file: file.number):
            found.setdefault(file.worker, []).append(file)
        return found

    def _read(self, file: _File, most: int) -> list[Ended]:
        found: list[Ended] = []
        size = CHUNK
        while len(found) < most and not file.finished:
            data = os.pread(file.handle, size, file.offset)
            start = file.offset
            try:
                for body, end in frames(data):
                    self._take_entry(file, decode(body), start + end, end - (file.offset - start), found)
                    file.offset = start + end
                    if len(found) >= most or file.finished:
                        break
            except (Damaged, msgspec.ValidationError, msgspec.DecodeError):
                # What follows cannot be told from noise.
                self.damaged += 1
                file.finished, file.finished_at = True, time.monotonic()
            if file.offset == start:
                more = missing(data)
                if not more or len(data) < size:
                    break
                size = len(data) + more
            else:
                size = CHUNK
        if file.worker == _CARRIED and file is not self._carried and not file.finished:
            # Of a process of ours that is gone: it was read to its end at once.
            file.finished, file.finished_at = True, time.monotonic()
        return found

    def _take_entry(self, file: _File, entry: Entry, end: int, size: int, found: list[Ended]) -> None:
        """What one entry tells; `end`: where it ends in its file."""
        again = end <= file.done
        match entry:
            case Opened():
                self._opened(entry.id, _Place(file, end - size, size, file.worker, entry))
            case Carried():
                self._opened(entry.opened.id, _Place(file, end - size, size, entry.worker))
            case Closed():
                opened = self._take(entry.id)
                if not again:
                    found.append(Ended(opened, entry, entry.id))
            case Lost():
                for call_id in entry.ids:
                    self._take(call_id)
                if not again:
                    self.lost += len(entry.ids)
            case Settled():
                for call_id in entry.ids:
                    self._take(call_id)
                self._settled = [call_id for call_id in self._settled if call_id not in set(entry.ids)]
            case Retired():
                file.finished, file.finished_at = True, time.monotonic()

    def _opened(self, call_id: str, place: _Place) -> None:
        if call_id in self._open:
            self._take(call_id)
        if place.opened is not None and self._kept + place.size <= KEPT:
            self._kept += place.size
        else:
            place.opened = None
        self._open[call_id] = place
        place.file.open += 1
        place.file.open_bytes += place.size

    def _take(self, call_id: str) -> Opened | None:
        """What is known of an open call, which then is open no more."""
        place = self._open.pop(call_id, None)
        if place is None:
            return None
        file = place.file
        file.open -= 1
        file.open_bytes -= place.size
        if file.worker == _CARRIED:
            self._settled.append(call_id)
        if place.opened is not None:
            self._kept -= place.size
        return self._opened_at(place)

    def _opened_at(self, place: _Place) -> Opened | None:
        if place.opened is not None:
            return place.opened
        with suppress(OSError, msgspec.ValidationError, msgspec.DecodeError):
            entry = decode(os.pread(place.file.handle, place.size, place.start)[HEAD:])
            if isinstance(entry, Carried):
                return entry.opened
            if isinstance(entry, Opened):
                return entry
        return None

    # -- processes ----------------------------------------------------------------------------------------------------

    def _is_gone(self, worker: str) -> bool:
        return worker != _CARRIED and not self._lives(worker) and not self._has_more(worker)

    def _lives(self, worker: str) -> bool:
        try:
            handle = os.open(self.folder / f"{worker}.lock", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
        return False

    def _has_more(self, worker: str) -> bool:
        """Is there a whole entry that was not read?"""
        for file in self._listed():
            if file.worker == worker and not file.finished:
                with suppress(OSError):
                    left = os.fstat(file.handle).st_size - file.offset
                    head = os.pread(file.handle, HEAD, file.offset)
                    if left >= HEAD and left >= HEAD + missing(head):
                        return True
        return False

    # -- our own file -------------------------------------------------------------------------------------------------

    def _is_to_carry(self, file: _File, files: Sequence[_File], now: float) -> bool:
        if now - file.finished_at < LINGER:
            return False
        if file.worker != _CARRIED:
            return True
        return file is not self._carried and (file.open_bytes * 2 < file.offset or len(files) > CARRIED_FILES)

    def _carry(self, file: _File) -> None:
        """Copies the open calls of a file to ours."""
        for call_id, place in [(c, p) for c, p in self._open.items() if p.file is file]:
            opened = self._opened_at(place)
            if opened is None:
                self._take(call_id)
                continue
            start, size = self._append(Carried(place.worker, opened))
            carried = self._carried
            if carried is not None:
                if place.opened is not None:
                    self._kept -= place.size
                file.open -= 1
                file.open_bytes -= place.size
                carried.open += 1
                carried.open_bytes += size
                self._open[call_id] = _Place(carried, start, size, place.worker)

    def _append(self, entry: Entry) -> tuple[int, int]:
        """Where it begins, and its size. Raises OSError."""
        if self._carried is None or self._carried.offset > CARRIED_BYTES:
            if self._carried is not None:
                self._carried.finished, self._carried.finished_at = True, time.monotonic()
                self._carried = None
            numbers = [file.number for file in self._files.values() if file.worker == _CARRIED]
            number = max(numbers, default=0) + 1
            path = self.folder / f"{_CARRIED}.{number:08}.journal"
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            self._carried = self._files[path.name] = _File(path, _CARRIED, number, handle)
        carried = self._carried
        data = b"".join(frame(encode(entry)))
        start = carried.offset
        os.write(carried.handle, data)
        carried.offset += len(data)
        return start, len(data)
