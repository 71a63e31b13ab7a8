"""A sidecar that takes records of calls: reads them from a socket, keeps them in a file, confirms them.

    python examples/sidecar/reader.py /run/sidecar.sock records.ndjson

and in trunkline.yaml: `traces: ["unix:/run/sidecar.sock?ack=1"]`. It needs nothing but Python. docs/sidecar.md has the
protocol.
"""

from __future__ import annotations

import json
import socketserver
import sys
import threading
from pathlib import Path
from typing import Any, TextIO

#: Versions of the protocol that this program understands.
VERSIONS = [1]


class Records:
    """A file of records, each once."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._lock = threading.Lock()
        file.seek(0)
        self._known = {json.loads(line)["id"] for line in file}

    def keep(self, record: dict[str, Any]) -> None:
        """Returns when the record is on disk. What was sent twice is kept once."""
        with self._lock:
            if record["id"] not in self._known:
                self._file.write(json.dumps(record) + "\n")
                self._file.flush()
                self._known.add(record["id"])


class Sidecar(socketserver.ThreadingUnixStreamServer):
    """Takes connections of gateways."""

    daemon_threads = True

    def __init__(self, path: str, records: Records) -> None:
        self.records = records
        super().__init__(path, Connection)


class Connection(socketserver.StreamRequestHandler):
    """One gateway: hello, then records until it leaves."""

    server: Sidecar

    def handle(self) -> None:
        hello = json.loads(self.rfile.readline() or "{}")
        if hello.get("protocol") != "trunkline.traces" or hello.get("version") not in VERSIONS:
            self.say({"refuse": f"this sidecar does not know version {hello.get('version')}", "versions": VERSIONS})
            return
        self.say({"accept": hello["version"]})
        for line in self.rfile:
            if not line.endswith(b"\n"):
                return  # cut off; it comes again
            record = json.loads(line)
            self.server.records.keep(record)
            if hello.get("ack"):
                self.say({"ack": record["id"]})

    def say(self, value: dict[str, Any]) -> None:
        self.wfile.write(json.dumps(value).encode() + b"\n")


def main() -> None:
    path, file = Path(sys.argv[1]), Path(sys.argv[2])
    path.unlink(missing_ok=True)
    with file.open("a+") as opened, Sidecar(str(path), Records(opened)) as sidecar:
        print(f"listening on {path}", flush=True)
        sidecar.serve_forever()


if __name__ == "__main__":
    main()
