"""`unix:`: records to a sidecar on the same machine, as lines of JSON over a socket.

`unix:/run/sidecar.sock`; `?ack=1` waits until the sidecar has confirmed each record, `?max_bytes=N` bounds a line. The
protocol is in docs/sidecar.md.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from trunkline_server.traces.base import BackendError
from trunkline_server.traces.unix.lines import LEAST_BYTES, MOST_BYTES
from trunkline_server.traces.unix.sink import UnixSink

__all__ = ["UnixBackend"]

#: The kernel takes no longer path of a socket.
_LONGEST_PATH = 107

_OPTIONS = {"ack": "0", "max_bytes": str(MOST_BYTES)}


class UnixBackend:
    """One socket."""

    name = "unix"

    def __init__(self, url: str, state_dir: Path) -> None:
        """Raises BackendError with all that is wrong."""
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        wrong = [
            f"no option {name!r}; there are {', '.join(_OPTIONS)}" for name in sorted(options.keys() - _OPTIONS.keys())
        ]
        options = {**_OPTIONS, **options}
        if parts.netloc or not parts.path or parts.path.endswith("/"):
            wrong.append("write unix:/PATH/OF/THE/SOCKET")
        #: Where the sidecar listens.
        self.path = state_dir / unquote(parts.path)
        if len(str(self.path).encode()) > _LONGEST_PATH:
            wrong.append(f"the path of the socket is longer than {_LONGEST_PATH} bytes")
        if options["ack"] not in ("0", "1"):
            wrong.append(f"ack is {options['ack']!r}: give 1 if the sidecar confirms records, else 0")
        size = options["max_bytes"]
        if not (size.isascii() and size.isdigit() and int(size) >= LEAST_BYTES):
            wrong.append(f"max_bytes is {size!r}: give at least {LEAST_BYTES}")
        if wrong:
            raise BackendError(f"unix: {'; '.join(wrong)}")
        self._acks = options["ack"] == "1"
        self._max_bytes = int(size)

    def sink(self) -> UnixSink:
        return UnixSink(self.path, acks=self._acks, max_bytes=self._max_bytes)

    def reader(self) -> None:
        """A sidecar does not give back what it took."""
