"""The journal of one serving process: what happened to its calls, appended to a file by a thread of its own.

`put` costs microseconds and never waits: entries lie in memory for at most INTERVAL, within a bound of bytes. When the
disk is slower than the calls, the oldest ones go, and their ids are told. A file that is large, or has been quiet, is
retired and another begun, so that what was read of it can be deleted.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

from trunkline_server.traces.entries import Entry, Lost, Retired, encode
from trunkline_server.traces.frames import frame

#: Seconds that an entry waits for others before all are written at once.
INTERVAL = 0.05
#: Bytes that wait in memory at most.
BUFFER = 64 * 1024 * 1024
#: Bytes of a file beyond which the next one is begun, and seconds of silence after which it is.
FILE_BYTES, QUIET = 8 * 1024 * 1024, 1.0

#: Larger entries are encoded in the thread. Smaller ones at once: what they are made of is then free, and need not be
#: looked at when garbage is collected.
LARGE = 256 * 1024

#: Makes an entry.
Maker: TypeAlias = Callable[[], Entry]


class Journal:
    """Made and used in one process; never across a fork."""

    def __init__(
        self, folder: Path, *, most_bytes: int = 1 << 62, told: Callable[[str], None] = lambda why: None
    ) -> None:
        """`most_bytes`: of the files that nobody has read; beyond it the oldest is deleted. `told` hears in the thread
        why the disk takes nothing, and "" when it does again. Raises OSError if the folder cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.worker = f"{os.getpid()}-{os.urandom(4).hex()}"
        self._folder = folder
        self._most_bytes = most_bytes
        self._told = told
        self._lock_file: int | None = _locked(folder, self.worker)
        self._mutex = threading.Lock()
        self._waiting: deque[tuple[str, int, bytes | Maker]] = deque()
        self._bytes = 0
        self._lost: list[str] = []
        #: Calls of which less is recorded than happened.
        self.lost = 0
        self._file: int | None = None
        self._number = 0
        self._offset = 0
        self._failing = False
        #: What a failed write left to be written.
        self._unwritten = b""
        self._idle = True
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="trunkline-journal", daemon=True)
        self._thread.start()

    def put(self, call_id: str, size: int, make: Maker) -> None:
        """Hands over an entry of about `size` bytes, made from what does not change any more."""
        entry = encode(make()) if size < LARGE else make
        with self._mutex:
            self._waiting.append((call_id, size, entry))
            self._bytes += size
            if self._bytes > BUFFER:
                self._shed()
            if not self._idle:
                return
            self._idle = False
        self._wake.set()

    def lose(self, call_id: str) -> None:
        """Of this call no more can be told."""
        with self._mutex:
            self._lost.append(call_id)
            self.lost += 1

    def close(self, patience: float = 5.0) -> None:
        """Writes what waits, for so many seconds at most, and lets the journal go."""
        self._stop.set()
        self._wake.set()
        self._thread.join(patience)
        held, self._lock_file = self._lock_file, None
        if held is not None:
            os.close(held)

    def _shed(self) -> None:
        while self._bytes > BUFFER and len(self._waiting) > 1:
            call_id, size, _ = self._waiting.popleft()
            self._bytes -= size
            self._lost.append(call_id)
            self.lost += 1

    # -- in the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            if not self._wake.wait(QUIET if self._offset else None):
                self._retire()
                continue
            self._wake.clear()
            self._stop.wait(INTERVAL)
            while self._write_batch():
                if self._stop.is_set() and self._failing:
                    break
                self._stop.wait(INTERVAL)
            if self._stop.is_set():
                self._retire()
                return

    def _write_batch(self) -> bool:
        """False if there was nothing to write."""
        with self._mutex:
            batch, self._waiting = self._waiting, deque()
            lost, self._lost = self._lost, []
            self._bytes = 0
            if not batch and not lost and not self._unwritten:
                self._idle = True
                return False
        pieces = [self._unwritten] if self._unwritten else []
        for _, _, entry in batch:
            with suppress(Exception):  # one that cannot be encoded costs no other
                pieces += frame(entry if isinstance(entry, bytes) else encode(entry()))
        if lost:
            pieces += frame(encode(Lost(lost)))
        self._unwritten = self._append(b"".join(pieces))
        if self._unwritten:
            with self._mutex:
                self._bytes += len(self._unwritten)
        return True

    def _append(self, data: bytes) -> bytes:
        """Writes all of it and returns nothing, or none of it and returns it."""
        try:
            if self._file is None:
                self._file = self._next_file()
            done = 0
            while done < len(data):
                done += os.write(self._file, data[done:] if done else data)
        except OSError as error:
            if self._file is not None:
                with suppress(OSError):
                    os.ftruncate(self._file, self._offset)
            if not self._failing:
                self._failing = True
                self._told(f"the journal of calls cannot be written: {error.strerror}")
            return data
        if self._failing:
            self._failing = False
            self._told("")
        self._offset += len(data)
        if self._offset >= FILE_BYTES:
            self._retire()
        return b""

    def _next_file(self) -> int:
        self._number += 1
        self._trim()
        path = self._folder / f"{self.worker}.{self._number:08}.journal"
        self._offset = 0
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def _retire(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                os.write(self._file, b"".join(frame(encode(Retired()))))
            os.close(self._file)
            self._file, self._offset = None, 0

    def _trim(self) -> None:
        """Nobody may be there to read: then the oldest files go."""
        with suppress(OSError):
            files = sorted(self._folder.glob(f"{self.worker}.*.journal"))
            sizes = [file.stat().st_size for file in files]
            total = sum(sizes)
            for file, size in zip(files, sizes, strict=True):
                if total <= self._most_bytes:
                    break
                file.unlink()
                total -= size


def _locked(folder: Path, worker: str) -> int:
    """A lock that lives as long as this process, at its place only once it is locked."""
    unready = folder / f"{worker}.unready"
    held = os.open(unready, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(held, fcntl.LOCK_EX)
    unready.rename(folder / f"{worker}.lock")
    return held
