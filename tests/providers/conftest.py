"""A provider's end of the wire, down to its bytes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

import pytest
import uvloop

from trunkline_server.providers.base import UpstreamRequest
from trunkline_server.providers.http import Upstream


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, Callable[[], Any]]:
    """The loop that the server runs on."""
    return {"uvloop": uvloop.new_event_loop}


class Peer:
    """One accepted connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def request(self) -> tuple[str, dict[str, str], bytes]:
        """Request line, headers and body of the next request."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *fields = head.rstrip("\r\n").split("\r\n")
        headers = {name.lower(): value for name, _, value in (field.partition(": ") for field in fields)}
        return line, headers, await self.reader.readexactly(int(headers.get("content-length", 0)))

    async def send(self, *parts: bytes) -> None:
        self.writer.write(b"".join(parts))
        await self.writer.drain()

    def reset(self) -> None:
        self.writer.transport.abort()

    async def gone(self) -> float:
        """The time at which the other end has closed."""
        try:
            while await self.reader.read(65536):
                pass
        except ConnectionError:
            pass
        return time.monotonic()


Script = Callable[[Peer], Awaitable[None]]


class Server:
    """Runs `script` for each connection, and closes it at the end of the script."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.connections = 0
        self.failures: list[BaseException] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._script(Peer(reader, writer))
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client has left, or the test is over
        except Exception as exc:
            self.failures.append(exc)
            raise
        finally:
            self._tasks.discard(task)
            writer.close()

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        assert self.failures == []


Start = Callable[..., Awaitable[tuple[str, Server]]]


class Connection:
    """Is the call that a test makes the first one on its connection, or the second? They take different ways."""

    def __init__(self, kept: bool) -> None:
        self._kept = kept

    def script(self, script: Script) -> Script:
        async def both(peer: Peer) -> None:
            if self._kept:
                await peer.request()
                await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
            await script(peer)

        return both

    async def open(self, http: Upstream) -> None:
        """To be called before the call that is tested."""
        if self._kept:
            await http.send(UpstreamRequest("/before", b"{}"))


@pytest.fixture(params=[False, True], ids=["new", "kept"])
def connection(request: pytest.FixtureRequest) -> Connection:
    return Connection(request.param)


@pytest.fixture
async def serve() -> AsyncIterator[Start]:
    """`await serve(script, **options of asyncio.start_server)` is a URL and its server, which ends with the test."""
    async with AsyncExitStack() as stack:

        async def start(script: Script, **options: Any) -> tuple[str, Server]:
            server = Server(script)
            if "path" in options:
                listening: Any = await asyncio.start_unix_server(server, **options)
                url = "http://localhost"
            else:
                listening = await asyncio.start_server(server, "127.0.0.1", 0, **options)
                scheme = "https" if "ssl" in options else "http"
                url = f"{scheme}://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
            stack.push_async_callback(server.stop)
            stack.callback(listening.close)
            return url, server

        yield start
