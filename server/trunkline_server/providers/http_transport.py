"""An httpx transport over aiohttp: httpx as the interface, at a fraction of its cost.

docs/decisions/0003-http-transport.md and 0007 have what was measured, and why this is not `httpx-aiohttp`.
"""

from __future__ import annotations

import asyncio
import io
import math
import select
import ssl
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import aiohttp
import httpx
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from aiohttp.helpers import TimerNoop
from aiohttp.http_exceptions import ContentEncodingError, HttpProcessingError
from multidict import CIMultiDict
from yarl import URL

#: Bytes that may wait for a slow reader (twice that for a moment) before reading from the socket pauses.
READ_BUFFER = 64 * 1024
#: Larger bodies are written piece by piece, with a turn for other calls in between.
ONE_WRITE = 1024 * 1024
#: Seconds that an unused connection is kept. Load balancers close theirs after a minute or more.
KEEP_ALIVE = 30.0
#: Most bytes of one header of an answer, and most headers.
MAX_HEADER_BYTES, MAX_HEADERS = 64 * 1024, 256

_BOUNDS: dict[str, Any] = {
    "read_bufsize": READ_BUFFER,
    "max_line_size": MAX_HEADER_BYTES,
    "max_field_size": MAX_HEADER_BYTES,
    "max_headers": MAX_HEADERS,
}
_NO_TIMER = TimerNoop()

#: Extension of a response: its headers by names in lower case, those of one name joined. httpx's own class for them
#: costs as much as encoding a request.
HEADERS = "headers"
#: Extension of a request: what `head` makes of it, if that is known.
HEAD = "head"
_WITHOUT_BODY = ("GET", "HEAD", "OPTIONS", "TRACE")

#: First match.
_ERRORS: tuple[tuple[type[Exception], type[httpx.TransportError | httpx.DecodingError]], ...] = (
    (aiohttp.ConnectionTimeoutError, httpx.ConnectTimeout),
    (aiohttp.ServerTimeoutError, httpx.ReadTimeout),
    (aiohttp.ClientProxyConnectionError, httpx.ProxyError),
    (aiohttp.ClientHttpProxyError, httpx.ProxyError),
    (aiohttp.ClientConnectorError, httpx.ConnectError),
    (aiohttp.ClientResponseError, httpx.RemoteProtocolError),
    (ContentEncodingError, httpx.DecodingError),
    (HttpProcessingError, httpx.RemoteProtocolError),
    (aiohttp.ClientError, httpx.ReadError),
    (OSError, httpx.ReadError),
)


class AiohttpTransport(httpx.AsyncBaseTransport):
    """A bounded pool of keep-alive connections. Follows no redirect, keeps no cookie and reads no environment.

    Its time limits are the "connect" and "read" of httpx's timeout extension; connecting includes waiting for a free
    connection, resolving the host and TLS. A compressed answer arrives decompressed, without its content-encoding.
    Leaving a response before its end closes the socket at once.
    """

    def __init__(
        self,
        *,
        max_connections: int,
        ssl_context: ssl.SSLContext | None = None,
        uds: str | None = None,
        proxy: str | None = None,
    ) -> None:
        self._max_connections = max_connections
        self._ssl_context = ssl_context
        self._uds = uds
        self._proxy = proxy
        self._session: aiohttp.ClientSession | None = None
        self._connector: _TcpConnector | _UnixConnector | None = None
        #: By origin: under which key the pool keeps its connections.
        self._keys: dict[tuple[bytes, bytes, int | None], ConnectionKey] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        stream = request.stream
        body = b"".join(stream) if isinstance(stream, httpx.ByteStream) else await request.aread()
        limits = request.extensions.get("timeout", {})
        session = self._open()
        try:
            if self._proxy is None and len(body) <= ONE_WRITE:
                connection = await self._connect(request, limits.get("connect"))
                return await _exchange(connection, request, body, limits.get("read"))
            response = await session.request(
                request.method,
                _url(str(request.url)),
                headers=_headers(request.headers),
                data=(body if len(body) <= ONE_WRITE else io.BytesIO(body)) or None,
                allow_redirects=False,
                timeout=_timeout(limits.get("connect"), limits.get("read")),
                proxy=self._proxy,
            )
        except (aiohttp.ClientError, HttpProcessingError, OSError) as exc:
            raise _to_httpx(exc) from exc
        return _response(response.status, response.raw_headers, _Body(response.content, response.release))

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _connect(self, request: httpx.Request, limit: float | None) -> Connection:
        """A connection from the pool, or a new one."""
        assert self._connector is not None  # noqa: S101  # made with the session
        url = request.url
        origin = (url.raw_scheme, url.raw_host, url.port)
        key = self._keys.get(origin)
        if key is not None:
            kept: Connection | None = await self._connector._get(key, [])
            if kept is not None:
                return kept
        # To aiohttp, this says where to; what is sent there is ours.
        to = aiohttp.ClientRequest("GET", _url(str(url)), loop=asyncio.get_running_loop())
        self._keys[origin] = to.connection_key
        try:
            return await self._connector.connect(to, traces=[], timeout=_timeout(limit, None))
        except TimeoutError as exc:
            raise aiohttp.ConnectionTimeoutError from exc

    def _open(self) -> aiohttp.ClientSession:
        """Made on first use: it belongs to the loop that runs then."""
        if self._session is None:
            if self._uds is not None:
                connector: _TcpConnector | _UnixConnector = _UnixConnector(
                    self._uds, limit=self._max_connections, keepalive_timeout=KEEP_ALIVE
                )
            else:
                connector = _TcpConnector(
                    limit=self._max_connections, keepalive_timeout=KEEP_ALIVE, ssl=self._ssl_context or True
                )
            self._connector = connector
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                # The request says what is sent.
                skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
                **_BOUNDS,
            )
        return self._session


async def _exchange(connection: Connection, request: httpx.Request, body: bytes, read: float | None) -> httpx.Response:
    """One request and its answer.

    What aiohttp's client does for any request there can be costs as much as all the rest of a call. Here nothing is
    left to decide: the connection stands, the bytes are ready, and aiohttp's own protocol reads the answer.
    """
    protocol, transport = connection.protocol, connection.transport
    assert protocol is not None  # noqa: S101  # nobody has released it yet
    assert transport is not None  # noqa: S101
    try:
        protocol.set_response_params(
            timer=_NO_TIMER, skip_payload=request.method == "HEAD", read_until_eof=True, read_timeout=read, **_BOUNDS
        )
        start = request.extensions.get(HEAD) or head(request.method, request.url, request.headers)
        length = b"content-length: %d\r\n\r\n" % len(body) if body or request.method not in _WITHOUT_BODY else b"\r\n"
        transport.write(start + length + body)
        protocol.start_timeout()
        message, content = await protocol.read()
        while 100 <= message.code < 200 and message.code != 101:
            message, content = await protocol.read()
    except BaseException:
        connection.close()
        raise

    content.on_eof(connection.release)
    return _response(message.code, message.raw_headers, _Body(content, connection.release))


def head(method: str, url: httpx.URL, headers: httpx.Headers) -> bytes:
    """Request line and headers. Raises httpx.LocalProtocolError for a header with an end of line in it."""
    lines = [b"%s %s HTTP/1.1" % (method.encode("ascii"), url.raw_path), b"host: " + url.netloc]
    lines.extend([name + b": " + value for name, value in headers.raw])
    made = b"\r\n".join([*lines, b""])
    if made.count(b"\n") != len(lines) or made.count(b"\r") != len(lines):
        raise httpx.LocalProtocolError("a header holds an end of line")
    return made


def _response(status: int, headers: Any, body: _Body) -> httpx.Response:
    """Without its request: a stream would hold the whole prompt in memory as long as it lasts."""
    found: dict[str, str] = {}
    for name, value in headers:
        key = name.decode("latin-1").lower()
        try:
            text = value.decode()
        except UnicodeDecodeError:
            text = value.decode("latin-1")
        found[key] = f"{found[key]}, {text}" if key in found else text
    coding = found.pop("content-encoding", None)
    if coding is not None:
        if coding.lower() not in _CODINGS:
            body.release()
            raise httpx.DecodingError("unknown content-encoding")
        found.pop("content-length", None)
    return httpx.Response(status, stream=body, extensions={HEADERS: found})


class _Body(httpx.AsyncByteStream):
    """What has arrived, in one piece, as often as something has."""

    __slots__ = ("_content", "release")

    def __init__(self, content: aiohttp.StreamReader, release: Callable[[], object]) -> None:
        self._content = content
        #: Gives the connection back, or closes it if the answer has not ended.
        self.release = release

    def __aiter__(self) -> _Body:
        return self

    async def __anext__(self) -> bytes:
        content = self._content
        try:
            chunk = await content.readany()
        except (aiohttp.ClientError, HttpProcessingError, OSError) as exc:
            # aiohttp reports a cut at once, but what came before it and was not read yet is the provider's word too.
            content.set_exception(None)  # type: ignore[arg-type]
            chunk = content.read_nowait()
            content.set_exception(exc)
            if not chunk:
                raise _to_httpx(exc) from exc
        if not chunk:
            raise StopAsyncIteration
        return chunk

    async def aclose(self) -> None:
        self.release()


class _Protocol(ResponseHandler):
    """aiohttp's reader of answers, with three differences.

    A body whose rest cannot be parsed fails: aiohttp tells only who waits for headers, and a reader of the body would
    wait for ever. What follows costs nothing where there is nothing to do: aiohttp would make a timer for every piece
    that arrives, and would look for more to parse after every piece that is read, also where reading never paused.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        #: When silence is too long, and when the timer looks next, in the loop's time.
        self._late = self._looks = math.inf

    def set_exception(self, exc: BaseException, *cause: Any) -> None:
        body: Any = self._payload
        super().set_exception(exc, *cause)
        if body is not None and not body.is_eof() and body.exception() is None:
            body.set_exception(exc)

    def resume_reading(self, resume_parser: bool = True) -> None:
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._end_timer()

    def _reschedule_timeout(self) -> None:
        # aiohttp asks for it also where what was left of a piece paused reading again: then the reader is waited for.
        if not self._read_timeout or self._reading_paused:
            self._late = math.inf
            return
        self._late = late = self._loop.time() + self._read_timeout
        if late < self._looks:
            self._end_timer()
            self._look_at(late)

    def _drop_timeout(self) -> None:
        # The timer stays: on a connection that is used again it is there already.
        self._late = math.inf

    def _look_at(self, when: float) -> None:
        self._looks = when
        self._read_timeout_handle = self._loop.call_at(when, self._look)

    def _look(self) -> None:
        self._read_timeout_handle, self._looks = None, math.inf
        if self._late <= self._loop.time():
            self._on_read_timeout()
        elif self._late < math.inf:
            self._look_at(self._late)

    def _end_timer(self) -> None:
        if self._read_timeout_handle is not None:
            self._read_timeout_handle.cancel()
        self._read_timeout_handle, self._looks = None, math.inf


class _Connector(aiohttp.BaseConnector):
    """Three things that aiohttp leaves to chance."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._factory = partial(_Protocol, loop=self._loop)  # type: ignore[assignment]  # partial is invariant

    async def _get(self, key: Any, traces: Any) -> Any:
        """Leaves out connections that the provider has closed, even if the loop has not heard of it yet.

        A POST on one would be lost: whether it may be sent again is not for this room to say.
        """
        while (connection := await super()._get(key, traces)) is not None:
            if not _is_readable(connection.transport):
                return connection
            connection.close()
        return None

    def _release(self, key: Any, protocol: Any, *, should_close: bool = False) -> None:
        """Closes a connection in the middle of an answer at once.

        Closing politely waits for what is still to be written, and under TLS up to 30 s for the provider's farewell.
        In the middle it is, too, when the answer came before all of the request had gone.
        """
        transport = protocol.transport
        if should_close or protocol.should_close or (transport is not None and transport.get_write_buffer_size()):
            protocol.abort()
            should_close = True
        super()._release(key, protocol, should_close=should_close)


class _TcpConnector(_Connector, aiohttp.TCPConnector):
    pass


class _UnixConnector(_Connector, aiohttp.UnixConnector):
    pass


#: What aiohttp decodes, some with a library that may be missing: then the answer is one that cannot be read.
_CODINGS = ("gzip", "deflate", "br", "zstd", "identity")


def _is_readable(transport: Any) -> bool:
    """On a connection that waits for nothing this is the end of it, or bytes that nobody asked for."""
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _to_httpx(exc: BaseException) -> httpx.HTTPError:
    if isinstance(exc.__cause__, ContentEncodingError):
        exc = exc.__cause__
    to = next(to for kind, to in _ERRORS if isinstance(exc, kind))
    return to(type(exc).__name__)


@lru_cache(maxsize=4096)
def _url(url: str) -> URL:
    """As it is: yarl would turn %3A into a colon, which breaks signatures."""
    return URL(url, encoded=True)


@lru_cache(maxsize=256)
def _timeout(connect: float | None, read: float | None) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, connect=connect, sock_read=read)


def _headers(headers: httpx.Headers) -> CIMultiDict[str]:
    encoding = headers.encoding
    return CIMultiDict((name.decode("ascii"), value.decode(encoding)) for name, value in headers.raw)
