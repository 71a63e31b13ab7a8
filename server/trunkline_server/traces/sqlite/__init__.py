"""`sqlite:`, the default: records in one file, without set-up.

`sqlite:` is traces.db in the state directory, `sqlite:FILE` another file, a relative one in the state directory.
"""

from __future__ import annotations

from pathlib import Path

from trunkline_server.traces.base import BackendError
from trunkline_server.traces.sqlite.reader import SqliteReader
from trunkline_server.traces.sqlite.sink import SqliteSink

__all__ = ["SqliteBackend", "SqliteReader", "SqliteSink"]


class SqliteBackend:
    """One file."""

    name = "sqlite"

    def __init__(self, url: str, state_dir: Path) -> None:
        """Raises BackendError."""
        where = url.partition(":")[2]
        if where.startswith("//"):
            host, slash, path = where[2:].partition("/")
            if host or not slash:
                raise BackendError(f"sqlite: is a file of this machine: write sqlite:FILE, not {url!r}")
            where = slash + path
        if "?" in where or "\0" in where:
            raise BackendError(f"sqlite: takes no parameters: write sqlite:FILE, not {url!r}")
        self.path = state_dir / Path(where).expanduser() if where else state_dir / "traces.db"
        if self.path.is_dir():
            raise BackendError(f"sqlite: {self.path} is a directory; write sqlite:FILE")

    def sink(self) -> SqliteSink:
        return SqliteSink(self.path)

    def reader(self) -> SqliteReader:
        return SqliteReader(self.path)
