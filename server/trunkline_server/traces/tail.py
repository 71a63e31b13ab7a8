"""Traces as they are made, from the delivery process to whoever follows in a serving process, over a Unix socket.

Each is a frame: its length and how many this follower has lost so far, then the trace, serialized.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import struct
import tempfile
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from trunkline.v1alpha import trace_pb2
from trunkline_server.traces.base import BackendUnavailable

_HEAD = struct.Struct("<IQ")

#: Bytes that wait for one follower at most; what comes then is lost to it.
QUEUE_BYTES = 32 * 1024 * 1024
#: The longest path that a socket can have on every system.
_LONGEST_PATH = 100
#: Seconds after which a follower that takes nothing is let go.
PATIENCE = 60.0


class Followed:
    """What a follower reads."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        #: Traces lost so far, because they were not read in time.
        self.dropped = 0

    def __aiter__(self) -> AsyncIterator[trace_pb2.Trace]:
        return self

    async def __anext__(self) -> trace_pb2.Trace:
        """Ends when the delivery process does."""
        try:
            size, self.dropped = _HEAD.unpack(await self._reader.readexactly(_HEAD.size))
            return trace_pb2.Trace.FromString(await self._reader.readexactly(size))
        except (asyncio.IncompleteReadError, OSError):
            raise StopAsyncIteration from None


@asynccontextmanager
async def follow(path: Path) -> AsyncIterator[Followed]:
    """Traces from now on; `path` is the slot's `tail`. Raises BackendUnavailable if nobody feeds it."""
    try:
        reader, writer = await asyncio.open_unix_connection(place(path))
    except OSError as error:
        raise BackendUnavailable(f"nobody feeds {path}: {error.strerror}") from error
    try:
        yield Followed(reader)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


class Feeder:
    """Sends to all who follow. Never waits: a follower that is too slow loses some."""

    def __init__(self, path: Path) -> None:
        self._path = place(path)
        self._server: asyncio.Server | None = None
        self._followers: set[_Follower] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Raises OSError."""
        with suppress(FileNotFoundError):
            os.unlink(self._path)  # noqa: PTH108  # of a process before us
        self._server = await asyncio.start_unix_server(self._connected, self._path)
        os.chmod(self._path, 0o600)  # noqa: PTH101  # nobody has connected yet

    @property
    def wanted(self) -> bool:
        """Somebody follows."""
        return bool(self._followers)

    def send(self, payload: bytes) -> None:
        for follower in self._followers:
            follower.offer(payload)

    async def aclose(self) -> None:
        if self._server is not None:
            self._server.close()
            with suppress(FileNotFoundError):
                os.unlink(self._path)  # noqa: PTH108  # it leads nowhere now
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        follower = _Follower(writer)
        self._followers.add(follower)
        task = asyncio.create_task(follower.run())
        self._tasks.add(task)
        try:
            await reader.read()  # a follower says nothing; it ends
        except OSError:
            pass
        finally:
            self._followers.discard(follower)
            task.cancel()
            self._tasks.discard(task)


class _Follower:
    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._dropped = 0
        self._arrived = asyncio.Event()

    def offer(self, payload: bytes) -> None:
        if self._waiting and self._bytes + len(payload) > QUEUE_BYTES:
            self._dropped += 1
            return
        self._waiting.append(payload)
        self._bytes += len(payload)
        self._arrived.set()

    async def run(self) -> None:
        try:
            while True:
                await self._arrived.wait()
                self._arrived.clear()
                while self._waiting:
                    payload = self._waiting.popleft()
                    self._bytes -= len(payload)
                    self._writer.write(_HEAD.pack(len(payload), self._dropped) + payload)
                    async with asyncio.timeout(PATIENCE):
                        await self._writer.drain()
        except (OSError, TimeoutError):
            pass
        finally:
            self._writer.close()


def place(path: Path) -> str:
    """Where the socket is: at `path`, or in a folder of ours if that is longer than a socket's path can be."""
    if len(os.fsencode(path)) <= _LONGEST_PATH:
        return str(path)
    folder = Path(tempfile.gettempdir()) / f"trunkline-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid() or folder.is_symlink():
        raise BackendUnavailable(f"{folder} belongs to somebody else")
    return str(folder / f"{hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:24]}.sock")
