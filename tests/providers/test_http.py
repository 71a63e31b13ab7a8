"""HTTP to providers over real sockets: what is sent, what comes back, and which connections are kept."""

from __future__ import annotations

import asyncio
import socket
import threading
import time

import httpx
import pytest
from tests.providers.http_wire import CHUNKED, REQUEST, always, answer, chunk, upstream

from trunkline_server.errors import InvalidRequest, LLMConnectionError, LLMInvalidResponseError, LLMTimeoutError
from trunkline_server.providers.base import UpstreamRequest
from trunkline_server.providers.http import HttpTimeouts

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

    assert asyncio.all_tasks() == {asyncio.current_task()}


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
