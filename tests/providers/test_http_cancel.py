"""A caller who leaves stops the provider: its socket is closed within 100 ms, whatever the call was doing."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from contextlib import asynccontextmanager
from functools import partial

import psutil
import pytest
import trustme

from trunkline_server.providers.base import UpstreamRequest
from trunkline_server.providers.http import HttpTimeouts, Upstream

LIMIT = 0.1
REQUEST = UpstreamRequest("/chat/completions", b"{}")
HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
#: What the provider has sent before it falls silent.
MOMENTS = {
    "before headers": b"",
    "in the headers": b"HTTP/1.1 200 OK\r\ncontent-",
    "silent": HEAD,
    "mid-body": HEAD + b"3\r\nabc\r\n",
    "mid-chunk": HEAD + b"ff\r\nabc",
    "by length": b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nabc",
}


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(params=["plain", "tls"])
def channel(request, authority, tmp_path):
    """Options of the server, and of the upstream that calls it."""
    if request.param == "plain":
        return {}, {}
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return {"ssl": context}, {"ca_file": str(tmp_path / "ca.pem")}


class Wiretap:
    """Carries bytes between the gateway and a provider and notes when the gateway's socket closes.

    The provider is not told, so that it cannot help to close: no reset, no farewell of TLS.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self.closed = asyncio.Event()
        self.closed_at = 0.0
        self.connections = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        task = asyncio.create_task(self._copy(there, writer))
        self._tasks.add(task)
        try:
            await self._copy(reader, back)
        finally:
            self.closed_at = time.monotonic()
            self.closed.set()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            back.transport.abort()
            writer.transport.abort()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass


@asynccontextmanager
async def tapped(url: str):
    scheme, _, port = url.rpartition(":")
    tap = Wiretap(int(port))
    listening = await asyncio.start_server(tap, "127.0.0.1", 0)
    try:
        yield tap, f"{scheme}:{listening.sockets[0].getsockname()[1]}"
    finally:
        listening.close()


@pytest.mark.alone
@pytest.mark.parametrize("streamed", [False, True], ids=["unary", "stream"])
@pytest.mark.parametrize("sent", MOMENTS.values(), ids=MOMENTS)
async def test_a_cancelled_call_closes_its_socket(serve, sent, streamed, channel, connection):
    asked = asyncio.Event()

    async def script(peer):
        await peer.request()
        await peer.send(sent)
        asked.set()
        await peer.gone()

    url, _ = await serve(connection.script(script), **channel[0])
    async with tapped(url) as (tap, url):
        http = Upstream(url, headers={}, timeouts=HttpTimeouts(), **channel[1])
        await connection.open(http)
        call = asyncio.create_task(consume(http) if streamed else http.send(REQUEST))
        await asyncio.wait_for(asked.wait(), 5)
        await asyncio.sleep(0.02)

        began = time.monotonic()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(tap.closed.wait(), 5)

        assert tap.closed_at - began < LIMIT
        await http.aclose()


async def consume(http: Upstream) -> None:
    async with http.stream(REQUEST) as reply:
        async for _ in reply.chunks():
            pass


@pytest.mark.alone
async def test_leaving_a_stream_early_closes_its_socket(serve, channel):
    async def script(peer):
        await peer.request()
        await peer.send(HEAD)
        while True:
            await peer.send(b"3\r\nabc\r\n")
            await asyncio.sleep(0)

    url, _ = await serve(script, **channel[0])
    async with tapped(url) as (tap, url):
        http = Upstream(url, headers={}, timeouts=HttpTimeouts(), **channel[1])

        async with http.stream(REQUEST) as reply:
            async for _ in reply.chunks():
                break
            began = time.monotonic()
        await asyncio.wait_for(tap.closed.wait(), 5)

        assert tap.closed_at - began < LIMIT
        await http.aclose()


@pytest.mark.alone
async def test_a_call_cancelled_while_it_uploads_closes_its_socket(serve):
    asked = asyncio.Event()

    async def script(peer):
        await peer.reader.readexactly(10)  # and no more, so that the rest waits to be written
        asked.set()
        await asyncio.sleep(60)

    url, server = await serve(script)
    http = Upstream(url, headers={}, timeouts=HttpTimeouts())
    call = asyncio.create_task(http.send(UpstreamRequest("/", b"x" * 50_000_000)))
    await asyncio.wait_for(asked.wait(), 5)
    await asyncio.sleep(0.05)
    assert established(url) == 1

    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    began = time.monotonic()
    await until(lambda: established(url) == 0)

    assert time.monotonic() - began < LIMIT
    assert server.connections == 1
    await http.aclose()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.005)  # the kernel sends no events


def established(url: str) -> int:
    """Our sockets to a server."""
    port = int(url.rpartition(":")[2])
    return sum(
        bool(connection.raddr) and connection.raddr.port == port
        for connection in psutil.Process().net_connections("tcp")
        if connection.status == psutil.CONN_ESTABLISHED
    )


@pytest.mark.alone
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_a_call_cancelled_while_it_connects_closes_its_socket(serve, secure):
    accepted = asyncio.Event()
    gone = asyncio.Event()

    async def script(peer):
        accepted.set()
        await peer.gone()
        gone.set()

    url, _ = await serve(script)
    if secure:
        url = url.replace("http:", "https:")  # and nobody answers the handshake
    http = Upstream(url, headers={}, timeouts=HttpTimeouts())
    call = asyncio.create_task(http.send(REQUEST))
    await asyncio.wait_for(accepted.wait(), 5)

    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call

    await asyncio.wait_for(gone.wait(), LIMIT)
    await http.aclose()


async def test_a_handshake_that_nobody_answers_is_given_up(serve):
    async def script(peer):
        await peer.gone()

    url, _ = await serve(script)
    http = Upstream(url.replace("http:", "https:"), headers={}, timeouts=HttpTimeouts(connect=0.2))
    began = time.monotonic()

    with pytest.raises(Exception, match=r"no connection to .* within 0\.2 s"):
        await http.send(REQUEST)

    assert time.monotonic() - began < 2
    await http.aclose()


async def test_a_connection_that_was_left_in_the_middle_is_not_used_again(serve):
    async def script(peer):
        await peer.request()
        await peer.send(HEAD, b"3\r\nabc\r\n")
        await peer.request()
        raise AssertionError("a half-read connection came back")

    url, server = await serve(script)
    http = Upstream(url, headers={}, timeouts=HttpTimeouts())

    for _ in range(3):
        async with http.stream(REQUEST) as reply:
            assert await anext(reply.chunks()) == b"abc"

    assert server.connections == 3
    await http.aclose()


async def test_a_thousand_cancelled_streams_leave_no_task_and_no_socket(serve):
    async def script(peer):
        await peer.request()
        await peer.send(HEAD, b"3\r\nabc\r\n")
        await peer.gone()

    url, server = await serve(script)
    http = Upstream(url, headers={}, timeouts=HttpTimeouts(), max_connections=50)
    tasks = len(asyncio.all_tasks())

    def connected(server, connections: int) -> bool:
        return bool(server.connections == connections)

    for batch in range(20):
        calls = [asyncio.create_task(consume(http)) for _ in range(50)]
        await until(partial(connected, server, 50 * batch + 50))
        await asyncio.sleep(0.01)
        for call in calls:
            call.cancel()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results)

    async with asyncio.timeout(5):
        await until(lambda: len(asyncio.all_tasks()) <= tasks and established(url) == 0)
    assert server.connections == 1000
    await http.aclose()
