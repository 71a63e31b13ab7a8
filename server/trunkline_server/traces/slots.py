"""Where a server keeps its spool: a folder of its own below the state directory, locked as long as the server lives.

A server that starts again takes the first free folder, and with it what the one before has left there.
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

#: Servers that can share a state directory.
MOST = 1000


@dataclass(frozen=True, slots=True)
class Slot:
    """One server's folder."""

    path: Path

    @property
    def journal(self) -> Path:
        return self.path / "journal"

    @property
    def outbox(self) -> Path:
        return self.path / "outbox"

    @property
    def cursors(self) -> Path:
        return self.path / "cursors"

    @property
    def deleted(self) -> Path:
        return self.path / "deleted"

    @property
    def status(self) -> Path:
        return self.path / "status.json"

    @property
    def tail(self) -> Path:
        return self.path / "tail.sock"


@dataclass(slots=True)
class Lock:
    """A lock on a file; given up by `release`, or when the process ends."""

    handle: int

    def release(self) -> None:
        os.close(self.handle)


def lock(path: Path) -> Lock | None:
    """None if another process has it. Raises OSError if the file cannot be made."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return Lock(handle)


def take(state_dir: Path) -> tuple[Slot, Lock]:
    """The first free folder. Raises OSError if the state directory cannot be written."""
    spool = state_dir / "spool"
    spool.mkdir(parents=True, exist_ok=True, mode=0o700)
    for number in range(MOST):
        slot = Slot(spool / str(number))
        slot.path.mkdir(exist_ok=True, mode=0o700)
        held = lock(slot.path / "server.lock")
        if held is not None:
            for folder in (slot.journal, slot.outbox, slot.cursors):
                folder.mkdir(exist_ok=True, mode=0o700)
            return slot, held
    raise OSError(f"{spool} is used by {MOST} servers")


def slots(state_dir: Path) -> list[Slot]:
    """All folders that there are."""
    return [Slot(path) for path in sorted((state_dir / "spool").glob("*"))]


def left(state_dir: Path) -> list[Slot]:
    """Folders that are not empty, and of no server that lives."""
    found = []
    for slot in slots(state_dir):
        if not any(slot.journal.glob("*.journal")) and not any(slot.outbox.glob("*.segment")):
            continue
        held = lock(slot.path / "server.lock")
        if held is not None:
            held.release()
            found.append(slot)
    return found
