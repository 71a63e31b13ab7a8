"""The sockets that gRPC holds at a port: it gives no other way to listen no more, or to learn who is still there."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_OURS = Path("/dev/fd")


def stop_listening(port: int) -> None:
    """New connections go to others that listen at the port; those that stand are untouched."""
    for found in _at(port):
        if _listens(found):
            with suppress(OSError):
                found.shutdown(socket.SHUT_RDWR)


def connected(port: int) -> int:
    """Connections that were made to the port."""
    return sum(not _listens(found) for found in _at(port))


def _at(port: int) -> Iterator[socket.socket]:
    for name in _OURS.iterdir():
        number = int(name.name)
        # What is closed meanwhile fails.
        with suppress(OSError):
            if not stat.S_ISSOCK(os.fstat(number).st_mode):
                continue
            with socket.socket(fileno=os.dup(number)) as found:
                if found.family in (socket.AF_INET, socket.AF_INET6) and found.getsockname()[1] == port:
                    yield found


def _listens(found: socket.socket) -> bool:
    return bool(found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
