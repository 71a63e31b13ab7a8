"""A provider's end of the wire that does as it is told, and remembers what it saw and when.

A raw HTTP/1.1 server: a script answers each request piece by piece, falls silent, cuts or resets the connection. It
notices that the gateway has closed a socket at the moment when the event loop does, not at its next read.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

#: Longest wait for anything that must happen, in seconds.
PATIENCE = 20.0

Script = Callable[["Exchange"], Awaitable[None]]


class Exchange:
    """One request and its answer, written by hand."""

    def __init__(self, connection: _Connection, line: str, headers: Mapping[str, str], body: bytes) -> None:
        self.method, self.path, _ = line.split(" ", 2)
        self.headers = headers
        self.body = body
        self.arrived = time.monotonic()
        self._connection = connection

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def closed_at(self) -> float | None:
        """When the connection ended; None while it is open."""
        return self._connection.closed_at

    async def gone(self) -> float:
        """When the connection has ended, however that came about."""
        async with asyncio.timeout(PATIENCE):
            await self._connection.closed.wait()
        assert self._connection.closed_at is not None
        return self._connection.closed_at

    async def write(self, data: bytes) -> None:
        """Waits while the other end does not read."""
        await self._connection.write(data)

    async def head(self, status: int = 200, headers: Mapping[str, str] | None = None, *, chunked: bool = True) -> None:
        """Status and headers of an answer that is to follow in chunks."""
        fields = {"content-type": "text/event-stream", **(headers or {})}
        if chunked:
            fields["transfer-encoding"] = "chunked"
        lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in fields.items())]
        await self.write("\r\n".join([*lines, "", ""]).encode("latin-1"))

    async def chunk(self, data: bytes) -> None:
        """One chunk, in one write."""
        await self.write(b"%x\r\n%s\r\n" % (len(data), data))

    async def end(self) -> None:
        await self.write(b"0\r\n\r\n")

    async def answer(self, body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """A whole answer: bytes as they are, all else as JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        fields = {"content-type": "application/json", **(headers or {}), "content-length": str(len(data))}
        lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in fields.items())]
        await self.write("\r\n".join([*lines, "", ""]).encode("latin-1") + data)

    async def events(self, events: Sequence[bytes]) -> None:
        """A whole stream, each event in a chunk of its own."""
        await self.head()
        for event in events:
            await self.chunk(event)
        await self.end()

    async def silence(self) -> None:
        """Nothing more, until the other end leaves."""
        await self._connection.closed.wait()

    def cut(self) -> None:
        """Ends the connection in order (FIN)."""
        self._connection.transport.close()

    def reset(self) -> None:
        """Ends the connection as a crash does (RST)."""
        self._connection.reset()


class _Connection(asyncio.Protocol):
    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._buffer = bytearray()
        self._script: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self.closed = asyncio.Event()
        self.closed_at: float | None = None
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self.transport = transport  # type: ignore[assignment]  # uvloop's is no subclass
        self._upstream.connections += 1
        self._upstream.open.add(self)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._next()

    def _next(self) -> None:
        """Hands the next whole request to the script, once the one before is answered."""
        if self._script is not None and not self._script.done():
            return
        head, blank, rest = bytes(self._buffer).partition(b"\r\n\r\n")
        if not blank:
            return
        line, *fields = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
        size = int(headers.get("content-length", 0))
        if len(rest) < size:
            return
        self._buffer = bytearray(rest[size:])
        exchange = Exchange(self, line, headers, rest[:size])
        self._upstream.took(exchange)
        self._script = asyncio.get_running_loop().create_task(self._run(exchange))

    async def _run(self, exchange: Exchange) -> None:
        try:
            await self._upstream.script(exchange)
        except ConnectionError:
            return
        except Exception as error:  # noqa: BLE001  # told at the end of the test
            self._upstream.failures.append(error)
            self.transport.abort()
            return
        asyncio.get_running_loop().call_soon(self._next)

    async def write(self, data: bytes) -> None:
        if self.closed.is_set() or self.transport.is_closing():
            raise ConnectionResetError
        self.transport.write(data)
        # Others get their turn even if the buffer never fills.
        await asyncio.sleep(0)
        await self._writable.wait()
        if self.closed.is_set():
            raise ConnectionResetError

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed_at = time.monotonic()
        self.closed.set()
        self._writable.set()
        self._upstream.open.discard(self)

    def reset(self) -> None:
        held = socket.socket(fileno=os.dup(self.transport.get_extra_info("socket").fileno()))
        held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()
        # The connection ends with its last descriptor.
        asyncio.get_running_loop().call_soon(held.close)

    async def stop(self) -> None:
        self.transport.abort()
        if self._script is not None:
            self._script.cancel()
            await asyncio.wait({self._script})


class Upstream:
    """A server whose every request is answered by `script`."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.url = ""
        self.exchanges: list[Exchange] = []
        self.failures: list[BaseException] = []
        self.open: set[_Connection] = set()
        self.connections = 0
        self._arrived: asyncio.Queue[Exchange] = asyncio.Queue()

    def took(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        self._arrived.put_nowait(exchange)

    async def next(self) -> Exchange:
        """The next request that arrives, or that has arrived and was not asked for yet."""
        async with asyncio.timeout(PATIENCE):
            return await self._arrived.get()


@asynccontextmanager
async def upstream(script: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[Upstream]:
    """Listens while the block runs; a script that failed fails the block."""
    made = Upstream(script)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(made), "127.0.0.1", 0, ssl=tls, backlog=1024)
    port = server.sockets[0].getsockname()[1]
    made.url = f"{'https' if tls else 'http'}://{'localhost' if tls else '127.0.0.1'}:{port}"
    try:
        yield made
    finally:
        server.close()
        for connection in list(made.open):
            await connection.stop()
    assert made.failures == []


# -- what providers say -----------------------------------------------------------------------------------------------


def sse(value: object, name: str = "") -> bytes:
    """One server-sent event."""
    prefix = f"event: {name}\n".encode() if name else b""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return prefix + b"data: " + data + b"\n\n"


USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
DONE = b"data: [DONE]\n\n"


def chat(text: str = "Hello there.", **more: Any) -> dict[str, Any]:
    """A whole chat completion."""
    message = {"role": "assistant", "content": text}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "up-1",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": USAGE,
        **more,
    }


def piece(text: str | None = None, *, finish: str | None = None, **delta: Any) -> bytes:
    """One event of a streamed chat completion."""
    said = {**({"content": text} if text is not None else {}), **delta}
    return sse(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "up-1",
            "choices": [{"index": 0, "delta": said, "finish_reason": finish}],
        }
    )


def usage_event(usage: Mapping[str, Any] = USAGE) -> bytes:
    return sse(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "up-1",
            "choices": [],
            "usage": usage,
        }
    )


def chat_events(*texts: str) -> list[bytes]:
    """A whole streamed chat completion."""
    return [
        piece("", role="assistant"),
        *(piece(text) for text in (texts or ("Hello", " there."))),
        piece(finish="stop"),
        usage_event(),
        DONE,
    ]


def says(*texts: str) -> Script:
    """Answers every chat completion with the texts: streamed where it was asked so."""

    async def script(exchange: Exchange) -> None:
        if exchange.method == "POST" and exchange.json.get("stream"):
            await exchange.events(chat_events(*texts))
        else:
            await exchange.answer(chat("".join(texts) or "Hello there."))

    return script


async def silent(exchange: Exchange) -> None:
    """Takes the request and never says anything."""
    await exchange.silence()


async def silent_after_head(exchange: Exchange) -> None:
    """Status and headers, and then nothing."""
    await exchange.head()
    await exchange.silence()


async def silent_midway(exchange: Exchange) -> None:
    """The first words, and then nothing."""
    await exchange.head()
    await exchange.chunk(b"".join(chat_events("Hello")[:2]))
    await exchange.silence()
