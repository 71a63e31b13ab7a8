"""CPU of one HTTP call to a provider, and of one read of a stream, by client: what docs/decisions/0003 rests on.

    .venv/bin/python bench/http_transport.py

Each client runs in its own process on uvloop against a mock upstream in another one, over loopback: 32 calls at a time,
a request and an answer of 1 KB; 24 streams of 200 events, one every 2 ms; 1,000 open streams. The clients take turns,
and the best of three turns counts.
"""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import httpx
import uvloop
import yarl

from trunkline_server.providers.base import UpstreamRequest
from trunkline_server.providers.http import HttpTimeouts, Upstream

REQUEST = b'{"model":"m","messages":[{"role":"user","content":"' + b"y" * 950 + b'"}]}'
ANSWER = b'{"id":"c","choices":[{"message":{"role":"assistant","content":"' + b"x" * 900 + b'"}}]}'
EVENT = b'data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"hello"}}]}\n\n'
HEADERS = {"authorization": "Bearer k", "content-type": "application/json", "accept": "*/*", "user-agent": "bench"}
TIMEOUT = {"timeout": {"connect": 10.0, "read": 300.0}}
ROUNDS = 3
RATE_LIMITS = b"".join(b"x-ratelimit-%d: 1000\r\n" % i for i in range(10))

Call = Callable[[str], AsyncIterator[bytes]]


class Mock(asyncio.Protocol):
    """Answers with as little work as possible. /stream/EVENTS: one every 2 ms; then the stream stays open for /open."""

    def connection_made(self, transport: asyncio.WriteTransport) -> None:  # type: ignore[override]  # a socket's
        self._transport = transport
        self._buffer = b""

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found or len(body) < len(REQUEST):
            return
        self._buffer = b""
        kind, _, count = head.split(b" ", 2)[1].decode().strip("/").partition("/")
        if kind == "unary":
            self._transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n%s\r\n%s" % (len(ANSWER), RATE_LIMITS, ANSWER)
            )
        else:
            self._task = asyncio.get_running_loop().create_task(self._stream(int(count), ends=kind == "stream"))

    async def _stream(self, events: int, *, ends: bool) -> None:
        self._transport.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(events):
            await asyncio.sleep(0.002)
            self._transport.write(b"%x\r\n%s\r\n" % (len(EVENT), EVENT))
        if ends:
            self._transport.write(b"0\r\n\r\n")


def with_httpx(base: str) -> Call:
    client = httpx.AsyncClient(
        headers=HEADERS, timeout=300, limits=httpx.Limits(max_connections=2000, max_keepalive_connections=2000)
    )

    async def call(path: str) -> AsyncIterator[bytes]:
        async with client.stream("POST", base + path, content=REQUEST) as response:
            async for chunk in response.aiter_raw():
                yield chunk

    return call


def with_httpx_aiohttp(base: str) -> Call:
    from httpx_aiohttp import AiohttpTransport

    transport = AiohttpTransport(limits=httpx.Limits(max_connections=2000))
    headers = httpx.Headers(HEADERS)
    urls: dict[str, httpx.URL] = {}

    async def call(path: str) -> AsyncIterator[bytes]:
        if path not in urls:
            urls[path] = httpx.URL(base + path)
        request = httpx.Request("POST", urls[path], headers=headers, content=REQUEST, extensions=TIMEOUT)
        response = await transport.handle_async_request(request)
        async for chunk in response.aiter_raw():
            yield chunk

    return call


def with_upstream(base: str) -> Call:
    upstream = Upstream(base, headers=HEADERS, timeouts=HttpTimeouts())

    async def call(path: str) -> AsyncIterator[bytes]:
        if path == "/unary":
            yield (await upstream.send(UpstreamRequest(path, REQUEST))).body
            return
        async with upstream.stream(UpstreamRequest(path, REQUEST)) as reply:
            async for chunk in reply.chunks():
                yield chunk

    return call


def with_aiohttp(base: str) -> Call:
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=2000), cookie_jar=aiohttp.DummyCookieJar())
    timeout = aiohttp.ClientTimeout(total=None, connect=10, sock_read=300)

    async def call(path: str) -> AsyncIterator[bytes]:
        url = yarl.URL(base + path, encoded=True)
        async with session.post(url, headers=HEADERS, data=REQUEST, timeout=timeout) as response:
            async for chunk in response.content.iter_any():
                yield chunk

    return call


CLIENTS: dict[str, Callable[[str], Call]] = {
    "httpx.AsyncClient": with_httpx,
    "httpx-aiohttp, called directly": with_httpx_aiohttp,
    "Upstream": with_upstream,
    "aiohttp alone": with_aiohttp,
}


async def reads(call: Call, path: str, times: int) -> int:
    return sum([1 for _ in range(times) async for _ in call(path)])


async def cpu(call: Call, path: str, *, side_by_side: int, times: int) -> float:
    """µs of CPU for one read, best of five."""
    best = float("inf")
    for _ in range(5):
        began = time.process_time()
        done = sum(await asyncio.gather(*(reads(call, path, times) for _ in range(side_by_side))))
        best = min(best, (time.process_time() - began) / done * 1e6)
    return best


async def kilobytes(call: Call, streams: int) -> float:
    """Memory of one open stream that has received ten events."""

    async def receive(stream: AsyncIterator[bytes]) -> None:
        events = 0
        async for chunk in stream:
            events += chunk.count(b"\n\n")
            if events >= 10:
                return

    await receive(call("/open/10"))
    gc.collect()
    before = resident()
    opened = [call("/open/10") for _ in range(streams)]
    for first in range(0, streams, 50):
        await asyncio.gather(*map(receive, opened[first : first + 50]))
    gc.collect()
    return (resident() - before) / streams / 1024


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


async def measure(name: str, base: str) -> None:
    call = CLIENTS[name](base)
    await asyncio.gather(*(reads(call, "/unary", 20) for _ in range(32)))
    gc.collect()
    unary = await cpu(call, "/unary", side_by_side=32, times=60)
    paced = await cpu(call, "/stream/200", side_by_side=24, times=1)
    memory = await kilobytes(call, 1000)
    print(unary, paced, memory, flush=True)
    os._exit(0)  # the open streams are nobody's to close


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Mock, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    program = [sys.executable, __file__]
    # A library that the project does without: installed by hand, to compare.
    clients = [name for name in CLIENTS if "aiohttp," not in name or importlib.util.find_spec("httpx_aiohttp")]
    with subprocess.Popen([*program, "serve"], stdout=subprocess.PIPE, text=True) as upstream:
        assert upstream.stdout is not None
        base = f"http://127.0.0.1:{upstream.stdout.readline().strip()}"
        best: dict[str, tuple[float, ...]] = {}
        try:
            for _ in range(ROUNDS):
                for name in clients:
                    ran = subprocess.run([*program, name, base], check=True, stdout=subprocess.PIPE, text=True)
                    figures = tuple(map(float, ran.stdout.split()))
                    best[name] = tuple(map(min, figures, best.get(name, figures)))
        finally:
            upstream.kill()
    print("| client | µs a unary call | µs a paced read | KB an open stream |\n|---|---:|---:|---:|")
    for name, (unary, paced, memory) in best.items():
        print(f"| {name} | {unary:,.0f} | {paced:.1f} | {memory:.0f} |")


if __name__ == "__main__":
    match sys.argv[1:]:
        case []:
            main()
        case ["serve"]:
            uvloop.run(serve())
        case [name, base]:
            uvloop.run(measure(name, base))
