"""HTTP to providers, over real sockets and with all that a provider can do wrong."""

from __future__ import annotations

import asyncio
import gzip
import socket
import threading
import time
import zlib

import httpx
import pytest

from trunkline_server.errors import InvalidRequest, LLMConnectionError, LLMInvalidResponseError, LLMTimeoutError
from trunkline_server.providers.base import UpstreamRequest
from trunkline_server.providers.http import MAX_ERROR_BYTES, HttpTimeouts, Upstream

REQUEST = UpstreamRequest("/chat/completions", b'{"model":"m"}')


def answer(body: bytes = b'{"ok":1}', *headers: bytes, status: bytes = b"200 OK") -> bytes:
    fields = b"".join(header + b"\r\n" for header in (b"content-length: %d" % len(body), *headers))
    return b"HTTP/1.1 " + status + b"\r\n" + fields + b"\r\n" + body


CHUNKED = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def upstream(url: str, **options) -> Upstream:
    return Upstream(
        url, **{"headers": {"authorization": "Bearer k"}, "timeouts": HttpTimeouts(connect=5, idle=5), **options}
    )


async def always(peer):
    """Answers every request."""
    while True:
        await peer.request()
        await peer.send(answer())


# -- what is sent and what comes back ---------------------------------------------------------------------------------


async def test_a_request_is_sent_as_built_and_its_answer_returned(serve, connection):
    seen = []

    async def script(peer):
        seen.append(await peer.request())
        await peer.send(answer(b'{"ok":1}', b"X-Request-Id: req_1", b"Set-Cookie: a=b"))

    url, server = await serve(connection.script(script))
    http = upstream(f"{url}/v1/")
    await connection.open(http)

    reply = await http.send(UpstreamRequest("/chat/completions", b'{"model":"m"}', headers=(("X-Beta", "b1"),)))

    line, headers, body = seen[0]
    assert line == "POST /v1/chat/completions HTTP/1.1"
    assert body == b'{"model":"m"}'
    assert headers.pop("host") == url.removeprefix("http://")
    assert headers.pop("user-agent").startswith("trunkline/")
    assert headers == {
        "accept": "*/*",
        "accept-encoding": "identity",
        "authorization": "Bearer k",
        "content-length": "13",
        "content-type": "application/json",
        "x-beta": "b1",
    }
    assert (reply.status, reply.body, reply.headers["x-request-id"]) == (200, b'{"ok":1}', "req_1")
    assert all(name == name.lower() for name in reply.headers)
    assert server.connections == 1
    await http.aclose()


@pytest.mark.parametrize(
    ("base", "path", "line"),
    [
        ("", "/models", "/models"),
        ("/v1", "/a?alt=sse", "/v1/a?alt=sse"),
        ("/openai?api-version=2025", "/chat", "/openai/chat?api-version=2025"),
        ("/openai?api-version=2025", "/chat?x=1", "/openai/chat?api-version=2025&x=1"),
        (
            "",
            "/model/arn%3Aaws%3Abedrock%2Fabc/invoke?q=%2F%3A+%20",
            "/model/arn%3Aaws%3Abedrock%2Fabc/invoke?q=%2F%3A+%20",
        ),
    ],
)
async def test_a_path_arrives_byte_for_byte(serve, base, path, line, connection):
    seen = []

    async def script(peer):
        seen.append(await peer.request())
        await peer.send(answer())

    url, _ = await serve(connection.script(script))
    http = upstream(url + base)
    await connection.open(http)

    await http.send(UpstreamRequest(path, b"", method="GET"))

    assert seen[0][0] == f"GET {line} HTTP/1.1"
    assert "content-length" not in seen[0][1]
    await http.aclose()


async def test_what_is_said_before_an_answer_is_passed_over(serve, connection):
    async def script(peer):
        await peer.request()
        await peer.send(b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n")
        await peer.send(answer(b"late"))

    url, _ = await serve(connection.script(script))
    http = upstream(url)
    await connection.open(http)

    reply = await http.send(REQUEST)

    assert (reply.status, reply.body, "link" in reply.headers) == (200, b"late", False)
    await http.aclose()


async def test_a_connection_whose_request_had_not_gone_when_it_was_answered_is_not_used_again(serve, tmp_path):
    async def script(peer):
        await peer.request()
        await peer.send(answer())
        await peer.reader.readuntil(b"\r\n\r\n")
        peer.writer.transport.pause_reading()
        await peer.send(answer(b"too much", status=b"413 Content Too Large"))
        await peer.gone()

    path = str(tmp_path / "socket")  # its buffers do not grow, so that some of the request is left
    url, server = await serve(script, path=path)
    http = upstream(url, uds=path)

    for _ in range(2):
        await http.send(REQUEST)
        reply = await http.send(UpstreamRequest("/chat/completions", b"x" * 1_000_000))
        assert (reply.status, reply.body) == (413, b"too much")

    assert server.connections == 2
    await http.aclose()


async def test_no_header_smuggles_another_request(serve, connection):
    url, _ = await serve(connection.script(always))
    http = upstream(url)
    await connection.open(http)
    request = httpx.Request("POST", url, headers=[(b"x", b"1\r\n\r\nGET / HTTP/1.1")], stream=httpx.ByteStream(b"{}"))

    with pytest.raises((httpx.LocalProtocolError, ValueError)):
        await http._transport.handle_async_request(request)
    await http.aclose()


async def test_connections_are_kept_and_shared_by_calls_and_streams(serve):
    async def script(peer):
        while True:
            line, _, _ = await peer.request()
            await peer.send(CHUNKED + chunk(b"x") + b"0\r\n\r\n" if "stream" in line else answer())

    url, server = await serve(script)
    http = upstream(url)

    for _ in range(3):
        await http.send(REQUEST)
        async with http.stream(UpstreamRequest("/stream", b"{}")) as reply:
            assert b"".join([part async for part in reply.chunks()]) == b"x"

    assert server.connections == 1
    await http.aclose()


async def test_no_more_connections_are_opened_than_allowed(serve):
    url, server = await serve(always)
    http = upstream(url, max_connections=2)

    replies = await asyncio.gather(*(http.send(REQUEST) for _ in range(20)))

    assert [reply.status for reply in replies] == [200] * 20
    assert server.connections <= 2
    await http.aclose()


async def test_a_call_that_finds_no_free_connection_fails_in_time(serve):
    async def script(peer):
        await peer.request()
        await peer.gone()

    url, _ = await serve(script)
    http = upstream(url, max_connections=1, timeouts=HttpTimeouts(connect=0.2, idle=5))
    first = asyncio.create_task(http.send(REQUEST))
    await asyncio.sleep(0.05)

    with pytest.raises(LLMConnectionError, match=r"no connection to 127.0.0.1:[0-9]+ within 0\.2 s"):
        await http.send(REQUEST)

    first.cancel()
    await http.aclose()


async def test_pieces_come_as_they_arrive_and_together_if_they_arrived_together(serve):
    more = asyncio.Event()

    async def script(peer):
        await peer.request()
        await peer.send(CHUNKED, chunk(b"a"), chunk(b"b"), chunk(b"c"))
        await more.wait()
        await peer.send(chunk(b"d"), b"0\r\n\r\n")

    url, _ = await serve(script)
    http = upstream(url)

    async with http.stream(REQUEST) as reply:
        chunks = reply.chunks()
        assert reply.headers["content-type"] == "text/event-stream"
        assert await anext(chunks) == b"abc"
        more.set()
        assert [part async for part in chunks] == [b"d"]
    await http.aclose()


async def test_an_answer_that_comes_byte_by_byte_is_whole(serve):
    async def script(peer):
        await peer.request()
        for byte in b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + answer(b'{"ok":1}'):
            await peer.send(bytes([byte]))

    url, _ = await serve(script)
    http = upstream(url)

    assert (await http.send(REQUEST)).body == b'{"ok":1}'
    await http.aclose()


async def test_an_answer_without_a_length_ends_with_its_connection(serve):
    async def script(peer):
        await peer.request()
        await peer.send(b"HTTP/1.0 200 OK\r\n\r\n", b'{"ok":1}')

    url, _ = await serve(script)
    http = upstream(url)

    assert (await http.send(REQUEST)).body == b'{"ok":1}'
    await http.aclose()


async def test_a_unix_socket_is_called_too(serve, tmp_path):
    path = str(tmp_path / "s")
    await serve(always, path=path)
    http = upstream("http://embedded/v1", uds=path)

    assert (await http.send(REQUEST)).status == 200
    await http.aclose()


async def test_closing_ends_kept_connections(serve):
    gone = asyncio.Event()

    async def script(peer):
        await peer.request()
        await peer.send(answer())
        await peer.gone()
        gone.set()

    url, _ = await serve(script)
    http = upstream(url)
    await http.send(REQUEST)

    await http.aclose()

    await asyncio.wait_for(gone.wait(), 1)


async def test_an_upstream_that_was_never_used_closes():
    await upstream("http://127.0.0.1:1").aclose()


async def test_cookies_are_not_kept(serve):
    seen = []

    async def script(peer):
        while True:
            seen.append(await peer.request())
            await peer.send(answer(b"{}", b"set-cookie: session=1"))

    url, _ = await serve(script)
    http = upstream(url)

    await http.send(REQUEST)
    await http.send(REQUEST)

    assert ["cookie" in headers for _, headers, _ in seen] == [False, False]
    await http.aclose()


async def test_a_redirect_is_an_answer_and_not_followed(serve):
    async def script(peer):
        while True:
            await peer.request()
            await peer.send(answer(b"moved", b"location: /elsewhere", status=b"307 Temporary Redirect"))

    url, server = await serve(script)
    http = upstream(url)

    reply = await http.send(REQUEST)

    assert (reply.status, reply.headers["location"], reply.body) == (307, "/elsewhere", b"moved")
    assert server.connections == 1
    await http.aclose()


# -- headers ----------------------------------------------------------------------------------------------------------


async def test_forwarded_headers_are_added_and_never_replace_our_own(serve):
    seen = []

    async def script(peer):
        while True:
            seen.append((await peer.request())[1])
            await peer.send(answer())

    url, _ = await serve(script)
    http = upstream(url, headers={"Authorization": " Bearer k\n", "X-Api-Version": "1"})
    extra = [("x-replay-id", " 7 "), ("AUTHORIZATION", "Bearer evil"), ("x-api-version", "2"), ("beta", "b2")]

    await http.send(UpstreamRequest("/", b"{}", headers=(("beta", "b1"), ("accept", "text/event-stream"))), extra)
    await http.send(REQUEST)

    assert seen[0]["authorization"] == "Bearer k"
    assert seen[0]["x-api-version"] == "1"
    assert seen[0]["x-replay-id"] == "7"
    assert seen[0]["beta"] == "b1,b2"
    assert seen[0]["accept"] == "text/event-stream"
    assert not {"x-replay-id", "beta"} & seen[1].keys()
    assert seen[1]["accept"] == "*/*"
    await http.aclose()


async def test_headers_that_http_does_not_allow_are_refused_all_at_once(serve):
    url, server = await serve(always)
    http = upstream(url)
    bad = [
        ("x-a", "1\r\nx-evil: 1"),
        ("x-b", "1\nGET / HTTP/1.1"),
        ("x-c", "\x00"),
        ("x-d", "caf\u00e9"),
        ("x e", "1"),
        ("x:f", "1"),
        ("", "1"),
        ("x-g\r\n", "1"),
        ("Content-Length", "0"),
        ("transfer-encoding", "chunked"),
        ("host", "evil"),
        ("x-h-bin", b"\x00"),
    ]

    with pytest.raises(InvalidRequest) as refused:
        await http.send(REQUEST, [("fine", "1"), *bad])  # type: ignore[list-item]  # metadata can be bytes

    assert [violation.field for violation in refused.value.violations] == [f"metadata.{name}" for name, _ in bad]
    assert "evil" not in str([violation.description for violation in refused.value.violations])
    assert server.connections == 0
    await http.aclose()


@pytest.mark.parametrize("headers", [{"authorization": "Bearer a\r\nx: y"}, {"x y": "1"}, {"x-key": "caf\u00e9"}])
def test_a_credential_that_is_no_header_is_refused_without_showing_it(headers):
    with pytest.raises(ValueError, match="characters that HTTP does not allow") as refused:
        upstream("http://127.0.0.1:1", headers=headers)

    assert "Bearer" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    ["", "api.openai.com/v1", "ftp://host", "http://", "http://[::1", "https://user:secret@host/v1", "http://host:x"],
)
def test_a_base_url_that_cannot_work_is_refused(url):
    with pytest.raises(ValueError, match="base_url") as refused:
        upstream(url)

    assert "secret" not in str(refused.value)


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


# -- kept connections -------------------------------------------------------------------------------------------------


def test_a_post_is_not_lost_on_a_connection_that_the_provider_has_closed():
    """The provider closes while our loop is busy, so that the loop cannot have heard of it before the next request."""
    closed = threading.Event()
    requests = []

    def provide(listening: socket.socket) -> None:
        for _ in range(3):
            connection, _ = listening.accept()
            with connection:
                requests.append(connection.recv(65536))
                connection.sendall(answer())
            closed.set()

    async def calls(url: str) -> list[int]:
        http = upstream(url)
        statuses = []
        for _ in range(3):
            closed.clear()
            statuses.append((await http.send(REQUEST)).status)
            closed.wait(5)
            time.sleep(0.02)  # noqa: ASYNC251  # the loop is busy
        await http.aclose()
        return statuses

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=provide, args=(listening,))
        thread.start()
        assert asyncio.run(calls(f"http://127.0.0.1:{listening.getsockname()[1]}")) == [200, 200, 200]
        thread.join()
    assert [request.count(b"POST") for request in requests] == [1, 1, 1]


async def test_a_connection_with_bytes_that_nobody_asked_for_is_not_used_again(serve):
    async def script(peer):
        await peer.request()
        await peer.send(answer(), answer(b"poison"))
        await peer.gone()

    url, server = await serve(script)
    http = upstream(url)

    replies = [(await http.send(REQUEST)).body for _ in range(3)]

    assert replies == [b'{"ok":1}'] * 3
    assert server.connections == 3
    await http.aclose()


async def test_a_request_that_may_have_been_read_is_not_sent_again(serve):
    async def script(peer):
        await peer.request()
        await peer.send(answer())
        await peer.request()

    url, server = await serve(script)
    http = upstream(url)
    await http.send(REQUEST)

    with pytest.raises(LLMConnectionError, match="without an answer"):
        await http.send(REQUEST)

    assert server.connections == 1
    await http.aclose()


# -- other transports -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exception", "error"),
    [
        (httpx.ConnectTimeout, LLMConnectionError),
        (httpx.PoolTimeout, LLMConnectionError),
        (httpx.ConnectError, LLMConnectionError),
        (httpx.ProxyError, LLMConnectionError),
        (httpx.ReadTimeout, LLMTimeoutError),
        (httpx.WriteTimeout, LLMTimeoutError),
        (httpx.ReadError, LLMConnectionError),
        (httpx.WriteError, LLMConnectionError),
        (httpx.CloseError, LLMConnectionError),
        (httpx.RemoteProtocolError, LLMInvalidResponseError),
        (httpx.DecodingError, LLMInvalidResponseError),
    ],
)
async def test_any_httpx_transport_can_carry_requests(exception, error):
    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/fail"):
            raise exception("secret story")
        return httpx.Response(200, content=request.method + " " + str(request.url))

    http = upstream("http://provider/v1", transport=httpx.MockTransport(handle))

    assert (await http.send(REQUEST)).body == b"POST http://provider/v1/chat/completions"
    with pytest.raises(error) as failed:
        await http.send(UpstreamRequest("/fail", b""))
    assert "secret" not in failed.value.message
    await http.aclose()
