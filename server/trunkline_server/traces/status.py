"""How the delivery of a slot's traces goes: written by the delivery process now and then, read for metrics."""

from __future__ import annotations

from pathlib import Path

import msgspec


class BackendStatus(msgspec.Struct):
    """One backend."""

    name: str
    #: It took the last batch, or nothing was tried yet.
    up: bool = True
    #: Traces that wait for it, and for how many seconds the oldest has.
    waiting: int = 0
    oldest: float = 0.0
    #: Counts since the delivery process began: traces that it took; that it refused; that it never had, because the
    #: bound of the disk was reached; batches that failed; traces that were too old and deleted there.
    delivered: int = 0
    rejected: int = 0
    dropped: int = 0
    failures: int = 0
    pruned: int = 0


class Status(msgspec.Struct):
    """All backends of a slot, and the spool."""

    #: When this was written: Unix time in seconds.
    at: float = 0.0
    #: Process id of the delivery process.
    pid: int = 0
    #: Bytes on disk: journals and traces that wait.
    spool_bytes: int = 0
    #: Calls that have not ended.
    open: int = 0
    #: Counts since the delivery process began: traces made; calls of which no trace could be made, because the disk was
    #: slower than the calls.
    made: int = 0
    lost: int = 0
    backends: list[BackendStatus] = msgspec.field(default_factory=list)


def read(path: Path) -> Status | None:
    """None if nothing was written yet."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Status)
    except (OSError, msgspec.MsgspecError):
        return None


def write(path: Path, status: Status) -> None:
    """Raises OSError."""
    written = path.with_suffix(".new")
    written.write_bytes(msgspec.json.encode(status))
    written.chmod(0o600)
    written.replace(path)
