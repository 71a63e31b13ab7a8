"""HTTP to providers over real sockets, with all that a provider can do wrong."""

from __future__ import annotations

import asyncio
import gzip
import socket
import time
import zlib

import pytest
from tests.providers.http_wire import CHUNKED, REQUEST, always, answer, chunk, upstream

from trunkline_server.errors import LLMConnectionError, LLMInvalidResponseError, LLMTimeoutError
from trunkline_server.providers.base import UpstreamRequest
from trunkline_server.providers.http import MAX_ERROR_BYTES, HttpTimeouts, Upstream

# -- what can go wrong ------------------------------------------------------------------------------------------------

FAULTS = {
    "drop": (b"", LLMConnectionError, "closed the connection without an answer"),
    "head cut": (b"HTTP/1.1 200 OK\r\ncontent-ty", LLMConnectionError, "closed the connection without an answer"),
    "length cut": (b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc", LLMConnectionError, "in the middle"),
    "no body": (b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n", LLMConnectionError, "in the middle"),
    "chunked cut": (CHUNKED + chunk(b"abc"), LLMConnectionError, "in the middle"),
    "chunk cut": (CHUNKED + b"10\r\nabc", LLMConnectionError, "in the middle"),
    "gzip cut": (
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 99\r\n\r\n" + gzip.compress(b"abc" * 99)[:15],
        LLMConnectionError,
        "in the middle",
    ),
    "not http": (b"\x16\x03\x01 hello\r\n\r\n", LLMInvalidResponseError, "not valid HTTP"),
    "html": (b"<html>502</html>\r\n\r\n", LLMInvalidResponseError, "not valid HTTP"),
    "two lengths": (
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        LLMInvalidResponseError,
        "not valid HTTP",
    ),
    "bad chunk": (CHUNKED + b"zz\r\nabc\r\n", LLMInvalidResponseError, "not valid HTTP"),
    "huge header": (
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000 + b"\r\n\r\n",
        LLMInvalidResponseError,
        "not valid HTTP",
    ),
    "bad gzip": (answer(b"abcde", b"content-encoding: gzip"), LLMInvalidResponseError, "cannot be read"),
    "odd coding": (answer(b"abcde", b"content-encoding: rot13"), LLMInvalidResponseError, "cannot be read"),
    "two codings": (answer(b"abcde", b"content-encoding: gzip, gzip"), LLMInvalidResponseError, "cannot be read"),
}


@pytest.mark.parametrize("streamed", [False, True], ids=["unary", "stream"])
@pytest.mark.parametrize(("wire", "error", "text"), FAULTS.values(), ids=FAULTS)
async def test_a_fault_of_the_provider_is_an_error_of_ours(serve, wire, error, text, streamed, connection):
    async def script(peer):
        await peer.request()
        if wire:
            await peer.send(wire)

    url, _ = await serve(connection.script(script))
    http = upstream(url)
    await connection.open(http)

    with pytest.raises(error, match=text) as failed:
        await (consume(http) if streamed else http.send(REQUEST))

    assert url.removeprefix("http://") in failed.value.message
    assert "aiohttp" not in failed.value.message
    await http.aclose()


async def consume(http: Upstream) -> bytes:
    async with http.stream(REQUEST) as reply:
        return b"".join([part async for part in reply.chunks()])


async def collect(reply, got: list[bytes]) -> None:
    async for part in reply.chunks():
        got.append(part)  # noqa: PERF401  # what came before the error counts


@pytest.mark.parametrize("when", ["at once", "after the request", "after the head", "in the body"])
async def test_a_reset_is_a_connection_error(serve, when, connection):
    async def script(peer):
        if when != "at once":
            await peer.request()
        if when == "after the head":
            await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n")
        if when == "in the body":
            await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")
        await asyncio.sleep(0.02)
        peer.reset()

    url, _ = await serve(connection.script(script))
    http = upstream(url)
    await connection.open(http)

    with pytest.raises(LLMConnectionError) as failed:
        await http.send(REQUEST)

    assert failed.value.http_status == (200 if "the head" in when or "body" in when else None)
    await http.aclose()


@pytest.mark.parametrize("reset", [False, True])
async def test_what_came_before_a_cut_is_delivered_even_to_a_slow_reader(serve, reset, connection):
    cut = asyncio.Event()

    async def script(peer):
        await peer.request()
        await peer.send(CHUNKED, chunk(b"one "))
        await peer.send(chunk(b"two "), chunk(b"three"))
        await asyncio.sleep(0.05)
        if reset:
            peer.reset()
        else:
            peer.writer.close()
        cut.set()

    url, _ = await serve(connection.script(script))
    http = upstream(url)
    await connection.open(http)
    got: list[bytes] = []

    async with http.stream(REQUEST) as reply:
        await cut.wait()
        await asyncio.sleep(0.05)
        with pytest.raises(LLMConnectionError, match="in the middle of its answer"):
            await collect(reply, got)

    assert b"".join(got) == b"one two three"
    await http.aclose()


@pytest.mark.parametrize(
    "wire", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc", CHUNKED, CHUNKED + chunk(b"x")]
)
@pytest.mark.parametrize("streamed", [False, True], ids=["unary", "stream"])
async def test_silence_is_a_timeout(serve, wire, streamed, connection):
    async def script(peer):
        await peer.request()
        await peer.send(wire)
        await peer.gone()

    url, _ = await serve(connection.script(script))
    http = upstream(url, timeouts=HttpTimeouts(connect=5, idle=0.2))
    await connection.open(http)

    with pytest.raises(LLMTimeoutError, match=r"sent nothing for 0\.2 s"):
        await (consume(http) if streamed else http.send(REQUEST))
    await http.aclose()


@pytest.mark.parametrize("streamed", [False, True], ids=["unary", "stream"])
async def test_a_trickle_is_not_silence_but_ends_with_the_total(serve, streamed):
    async def script(peer):
        await peer.request()
        await peer.send(CHUNKED)
        while True:
            await peer.send(chunk(b"x"))
            await asyncio.sleep(0.05)

    url, _ = await serve(script)
    http = upstream(url, timeouts=HttpTimeouts(connect=5, idle=0.3, total=0.6))
    began = time.monotonic()

    with pytest.raises(LLMTimeoutError, match=r"not finished its answer within 0\.6 s"):
        await (consume(http) if streamed else http.send(REQUEST))

    assert 0.5 < time.monotonic() - began < 2
    await http.aclose()


async def test_silence_counts_from_the_last_word(serve):
    async def script(peer):
        await peer.request()
        await peer.send(CHUNKED)
        for _ in range(8):
            await peer.send(chunk(b"x"))
            await asyncio.sleep(0.05)
        await peer.gone()

    url, _ = await serve(script)
    http = upstream(url, timeouts=HttpTimeouts(connect=5, idle=0.3))
    said_at = 0.0

    with pytest.raises(LLMTimeoutError, match=r"sent nothing for 0\.3 s"):
        async with http.stream(REQUEST) as reply:
            async for _ in reply.chunks():
                said_at = time.monotonic()

    assert 0.25 < time.monotonic() - said_at < 2
    await http.aclose()


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "chunked"])
@pytest.mark.parametrize("pauses", [1, 2, 5])
async def test_a_provider_that_is_held_up_by_its_reader_is_not_silent(serve, pauses, whole):
    body = b"x" * 2_000_000

    async def script(peer):
        await peer.request()
        await peer.send(answer(body) if whole else CHUNKED + chunk(body[:1000]) * 2000 + b"0\r\n\r\n")
        await peer.gone()

    url, _ = await serve(script)
    http = upstream(url, timeouts=HttpTimeouts(connect=5, idle=0.1))
    got = b""

    async with http.stream(REQUEST) as reply:
        async for part in reply.chunks():
            got += part
            if pauses:
                pauses -= 1
                # Longer than the provider may be silent: it waits for us.
                await asyncio.sleep(0.3)

    assert got == body
    await http.aclose()


async def test_a_connection_that_waits_for_its_next_request_is_not_silent(serve):
    url, server = await serve(always)
    http = upstream(url, timeouts=HttpTimeouts(connect=5, idle=0.1))
    await http.send(REQUEST)

    # Longer than the provider may be silent.
    await asyncio.sleep(0.3)

    assert (await http.send(REQUEST)).body == b'{"ok":1}'
    assert server.connections == 1
    await http.aclose()


async def test_a_timeout_of_the_callers_own_is_left_alone(serve):
    url, _ = await serve(always)
    http = upstream(url)

    with pytest.raises(TimeoutError, match="mine"):
        async with http.stream(REQUEST):
            raise TimeoutError("mine")
    await http.aclose()


async def test_a_refused_connection_says_so():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        http = upstream(f"http://127.0.0.1:{unused.getsockname()[1]}")

        with pytest.raises(LLMConnectionError, match=r"cannot connect to 127.0.0.1:[0-9]+: connection refused"):
            await http.send(REQUEST)
    await http.aclose()


async def test_an_unknown_host_says_so(monkeypatch):
    def unknown(*args, **options):
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    http = upstream("http://provider.invalid/v1")
    monkeypatch.setattr(asyncio.get_running_loop().__class__, "getaddrinfo", unknown, raising=True)

    with pytest.raises(LLMConnectionError, match=r"cannot connect to provider.invalid: no address for this host name"):
        await http.send(REQUEST)
    await http.aclose()


async def test_a_missing_socket_says_so(tmp_path):
    http = upstream("http://embedded/v1", uds=str(tmp_path / "none"))

    with pytest.raises(LLMConnectionError, match="cannot connect to embedded: no such socket"):
        await http.send(REQUEST)
    await http.aclose()


@pytest.mark.parametrize(
    ("coding", "compressed"),
    [("gzip", gzip.compress(b'{"ok":1}' * 99, mtime=0)), ("Deflate", zlib.compress(b'{"ok":1}' * 99))],
    ids=["gzip", "deflate"],
)
async def test_a_compressed_answer_is_read_although_none_was_asked_for(serve, coding, compressed):
    async def script(peer):
        while True:
            await peer.request()
            await peer.send(answer(compressed, b"content-encoding: " + coding.encode()))

    url, server = await serve(script)
    http = upstream(url)

    reply = await http.send(REQUEST)

    assert reply.body == b'{"ok":1}' * 99
    assert not {"content-encoding", "content-length"} & set(reply.headers)
    assert await consume(http) == reply.body
    assert server.connections == 1
    await http.aclose()


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
async def test_an_answer_that_is_too_large_is_refused(serve, packed):
    body = b" " * 1_000_000

    async def script(peer):
        await peer.request()
        await peer.send(answer(gzip.compress(body), b"content-encoding: gzip") if packed else answer(body))
        await peer.gone()

    url, _ = await serve(script)
    http = upstream(url, max_body_bytes=999_999)

    with pytest.raises(LLMInvalidResponseError, match="larger than 999999 bytes"):
        await http.send(REQUEST)
    await http.aclose()


@pytest.mark.parametrize("size", [1, 1_000_000, 5_000_000])
async def test_requests_and_answers_of_any_size_are_whole(serve, size):
    async def script(peer):
        while True:
            _, _, body = await peer.request()
            await peer.send(answer(body))

    url, server = await serve(script)
    http = upstream(url)
    body = bytes(range(256)) * (size // 256 + 1)

    for _ in range(2):
        assert (await http.send(UpstreamRequest("/", body))).body == body
    assert server.connections == 1
    await http.aclose()


@pytest.mark.parametrize("streamed", [False, True], ids=["unary", "stream"])
@pytest.mark.parametrize("fault", ["cut", "huge"])
async def test_an_error_of_the_provider_stays_one_when_its_body_is_broken(serve, fault, streamed):
    async def script(peer):
        await peer.request()
        if fault == "cut":
            await peer.send(b'HTTP/1.1 429 Slow\r\nretry-after: 3\r\ncontent-length: 999\r\n\r\n{"error":1}')
        else:
            await peer.send(answer(b"x" * (MAX_ERROR_BYTES + 1), b"retry-after: 3", status=b"429 Slow"))

    url, _ = await serve(script)
    http = upstream(url)

    if streamed:
        async with http.stream(REQUEST) as reply:
            status, headers, body = reply.status, reply.headers, await reply.read()
    else:
        whole = await http.send(REQUEST)
        status, headers, body = whole.status, whole.headers, whole.body

    assert (status, headers["retry-after"]) == (429, "3")
    assert body == (b'{"error":1}' if fault == "cut" else b"x" * MAX_ERROR_BYTES)
    await http.aclose()
