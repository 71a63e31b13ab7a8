"""A gRPC caller made of HTTP/2 frames, that reads no more than it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import h2.connection
import h2.events
from google.protobuf.message import Message
from tests.upstream import PATIENCE


class Stalled:
    """One connection with one call on it. Its flow-control windows are opened by `read` alone."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._h2 = h2.connection.H2Connection()
        #: Bytes of the answer that have come.
        self.received = 0
        self.trailers: dict[str, str] = {}
        #: Error code of a RST_STREAM.
        self.reset: int | None = None
        self._ended = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._receive())

    def call(self, path: str, request: Message, authority: str) -> None:
        self._h2.initiate_connection()
        headers = [
            (":method", "POST"), (":scheme", "http"), (":path", path), (":authority", authority),
            ("content-type", "application/grpc"), ("te", "trailers"),
        ]  # fmt: skip
        self._h2.send_headers(1, headers)
        data = request.SerializeToString()
        self._h2.send_data(1, b"\0" + len(data).to_bytes(4, "big") + data, end_stream=True)
        self._flush()

    def read(self, size: int) -> None:
        """Lets the server send so many bytes more."""
        if self._ended.is_set():
            return
        self._h2.increment_flow_control_window(size)
        self._h2.increment_flow_control_window(size, stream_id=1)
        self._flush()

    async def ended(self) -> None:
        async with asyncio.timeout(PATIENCE):
            await self._ended.wait()

    async def close(self) -> None:
        self._task.cancel()
        self._writer.transport.abort()
        await asyncio.wait({self._task})

    def _flush(self) -> None:
        self._writer.write(self._h2.data_to_send())

    async def _receive(self) -> None:
        while data := await self._reader.read(65_536):
            for event in self._h2.receive_data(data):
                self._take(event)
            self._flush()
        self._ended.set()

    def _take(self, event: Any) -> None:
        if isinstance(event, h2.events.DataReceived):
            self.received += len(event.data)
        elif isinstance(event, h2.events.TrailersReceived):
            pairs: Sequence[tuple[bytes, bytes]] = event.headers
            self.trailers = {_text(name): _text(value) for name, value in pairs}
        elif isinstance(event, h2.events.StreamReset):
            self.reset = int(event.error_code)
            self._ended.set()
        elif isinstance(event, h2.events.StreamEnded):
            self._ended.set()


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")


@asynccontextmanager
async def stalled(address: str, path: str, request: Message) -> AsyncIterator[Stalled]:
    """A call whose caller reads the first 64 KiB, and nothing more until it is told to."""
    host, _, port = address.rpartition(":")
    made = Stalled(*await asyncio.open_connection(host, int(port)))
    made.call(path, request, address)
    try:
        yield made
    finally:
        await made.close()
