"""The one place of HTTP to providers: everything that can go wrong on the way leaves as one of our errors."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import re
import socket
import ssl
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import httpx

from trunkline_server import __version__
from trunkline_server.errors import (
    InvalidRequest,
    LLMConnectionError,
    LLMError,
    LLMInvalidResponseError,
    LLMTimeoutError,
    Violation,
)
from trunkline_server.providers.auth import Authorizer
from trunkline_server.providers.base import UpstreamRequest
from trunkline_server.providers.http_transport import HEAD, HEADERS, AiohttpTransport, head

MAX_BODY_BYTES = 64 * 1024 * 1024
#: More of an error is not read.
MAX_ERROR_BYTES = 1024 * 1024

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_PRINTABLE = re.compile(r"[\t\x20-\x7e]*")
#: What HTTP itself needs: never a caller's to say.
_RESERVED = frozenset(
    {"accept-encoding", "connection", "content-length", "expect", "host", "keep-alive", "proxy-authorization",
     "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class HttpTimeouts:
    """In seconds; None: no limit."""

    #: To a usable connection: a free place in the pool, DNS, TCP, TLS.
    connect: float = 10.0
    #: Of silence, before the answer and in it.
    idle: float = 720.0
    #: For everything.
    total: float | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer."""

    status: int
    #: Names in lower case.
    headers: Mapping[str, str]
    body: bytes


class StreamReply:
    """An answer that is still arriving."""

    __slots__ = ("_body", "_next", "_upstream", "headers", "status")

    def __init__(self, upstream: Upstream, response: httpx.Response) -> None:
        self.status = response.status_code
        #: Names in lower case.
        self.headers = _headers_of(response)
        self._upstream = upstream
        body: Any = response.stream  # asynchronous, as its transport is
        self._body = body
        self._next: Callable[[], Awaitable[bytes]] = aiter(body).__anext__

    def chunks(self) -> StreamReply:
        """What has arrived, as it arrives. Raises LLMConnectionError when cut, LLMTimeoutError when it falls silent."""
        # Not a generator: that costs every piece a step more.
        return self

    async def aclose(self) -> None:
        """Whoever opened it closes it."""

    def __aiter__(self) -> StreamReply:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await self._next()
        except httpx.HTTPError as exc:
            raise self._upstream.failure(exc, self.status) from exc

    async def read(self) -> bytes:
        """All of it. Raises as `Upstream.send` does."""
        return await self._upstream.read(self._body, self.status)


class Upstream:
    """One endpoint with one credential: a bounded pool of connections, closed by its owner.

    The credential is among the headers, or an `authorizer` makes it for each request. Raises LLMConnectionError,
    LLMTimeoutError and LLMInvalidResponseError, what the authorizer raises, and InvalidRequest for extra headers that
    HTTP does not allow. Cancelling a call closes its socket at once. HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY,
    SSL_CERT_FILE and SSL_CERT_DIR are honoured. Raises ValueError for settings that cannot work.
    """

    def __init__(
        self,
        base_url: str,
        *,
        headers: Mapping[str, str],
        timeouts: HttpTimeouts,
        max_connections: int = 2000,
        ca_file: str | None = None,
        uds: str | None = None,
        max_body_bytes: int = MAX_BODY_BYTES,
        authorizer: Authorizer | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        propagates: bool = False,
    ) -> None:
        url = _base(base_url)
        #: Requests carry the W3C headers of the call's trace.
        self.propagates = propagates
        #: Host and port, as errors name it.
        self._where = url.netloc.decode("ascii")
        self._url = url
        #: What a request's path is appended to.
        self.address = f"{url.scheme}://{self._where}{url.path.rstrip('/')}"
        #: By method and path: where it goes, and what the transport is told.
        self._known: dict[tuple[str, str], tuple[httpx.URL, dict[str, Any]]] = {}
        self._own = {name.lower(): _own_value(name, value) for name, value in headers.items()}
        self._headers = httpx.Headers(
            {
                "accept": "*/*",
                "accept-encoding": "identity",
                "content-type": "application/json",
                "user-agent": f"trunkline/{__version__}",
                **self._own,
            }
        )
        self._timeouts = timeouts
        self._extensions = {"timeout": {"connect": timeouts.connect, "read": timeouts.idle}}
        self._max_body_bytes = max_body_bytes
        self._authorizer = authorizer
        if transport is None:
            proxy = None if uds else proxy_from_environment(url)
            secure = url.scheme == "https" or (proxy or "").startswith("https:")
            transport = AiohttpTransport(
                max_connections=max_connections,
                ssl_context=ssl_context(ca_file) if secure else None,
                uds=uds,
                proxy=proxy,
            )
        self._transport = transport

    async def send(self, request: UpstreamRequest, extra_headers: Sequence[tuple[str, str]] = ()) -> Reply:
        """Returns the answer whatever its status; a redirect is an answer too."""
        http_request = self._request(request, extra_headers)
        if self._timeouts.total is None:
            return await self._reply(http_request, request.body)
        try:
            async with asyncio.timeout(self._timeouts.total):
                return await self._reply(http_request, request.body)
        except TimeoutError as exc:
            raise self._out_of_time() from exc

    @asynccontextmanager
    async def stream(
        self, request: UpstreamRequest, extra_headers: Sequence[tuple[str, str]] = ()
    ) -> AsyncIterator[StreamReply]:
        """Gives the answer as soon as its headers are there. Leaving before its end closes the socket."""
        http_request = self._request(request, extra_headers)
        timer = asyncio.timeout(self._timeouts.total)
        try:
            async with timer:
                response = await self._respond(http_request, request.body)
                reply, body = StreamReply(self, response), response.stream
                # A stream lasts. These hold the whole prompt, and the headers twice.
                del request, http_request, response
                try:
                    yield reply
                finally:
                    await body.aclose()  # type: ignore[union-attr]  # transports answer asynchronously
        except TimeoutError as exc:
            if not timer.expired():
                raise
            raise self._out_of_time() from exc

    async def aclose(self) -> None:
        await self._transport.aclose()

    async def read(self, body: Any, status: int) -> bytes:
        """The body of a response. Of an error that is cut or too large, what there is: it is an error all the same."""
        success = 200 <= status < 300
        limit = self._max_body_bytes if success else MAX_ERROR_BYTES
        chunks: list[bytes] = []
        size = 0
        try:
            async for chunk in body:
                chunks.append(chunk)
                size += len(chunk)
                if size > limit:
                    break
        except httpx.HTTPError as exc:
            if success:
                raise self.failure(exc, status) from exc
        if size > limit and success:
            raise LLMInvalidResponseError(
                f"the answer of {self._where} is larger than {limit} bytes", http_status=status
            )
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)[:limit]

    def failure(self, exc: httpx.HTTPError, status: int | None = None) -> LLMError:
        """Our error for an exception of the transport's. Its own text goes nowhere."""
        where = self._where
        match exc:
            case httpx.ConnectTimeout() | httpx.PoolTimeout():
                return LLMConnectionError(f"no connection to {where} within {self._timeouts.connect:g} s")
            case httpx.ProxyError():
                return LLMConnectionError(f"the proxy cannot be reached or refuses to connect to {where}")
            case httpx.ConnectError():
                return LLMConnectionError(f"cannot connect to {where}{_reason(exc)}")
            case httpx.TimeoutException():
                return LLMTimeoutError(f"{where} sent nothing for {self._timeouts.idle:g} s", http_status=status)
            case httpx.DecodingError():
                return LLMInvalidResponseError(
                    f"the encoding of the answer of {where} cannot be read", http_status=status
                )
            case httpx.RemoteProtocolError():
                return LLMInvalidResponseError(f"the answer of {where} is not valid HTTP", http_status=status)
        story = "without an answer" if status is None else "in the middle of its answer"
        return LLMConnectionError(f"{where} closed the connection {story}", http_status=status)

    # -- steps --------------------------------------------------------------------------------------------------------

    async def _reply(self, request: httpx.Request, body: bytes) -> Reply:
        response = await self._respond(request, body)
        stream: Any = response.stream  # asynchronous, as its transport is
        try:
            answer = await self.read(stream, response.status_code)
            return Reply(response.status_code, _headers_of(response), answer)
        finally:
            await stream.aclose()

    async def _respond(self, request: httpx.Request, body: bytes) -> httpx.Response:
        if self._authorizer is not None:
            url = str(request.url)
            request.headers.update(await self._authorizer.authorize(request.method, url, request.headers, body))
        try:
            return await self._transport.handle_async_request(request)
        except httpx.HTTPError as exc:
            raise self.failure(exc) from exc

    def _request(self, request: UpstreamRequest, extra_headers: Sequence[tuple[str, str]]) -> httpx.Request:
        known = self._known.get((request.method, request.path))
        if known is None:
            if len(self._known) > 1000:
                self._known.clear()
            url = _join(self._url, request.path)
            start = head(request.method, url, self._headers)
            known = self._known[request.method, request.path] = url, {**self._extensions, HEAD: start}
        url, extensions = known
        headers = self._headers
        if request.headers or extra_headers:
            headers = self._with((*request.headers, *extra_headers))
            extensions = self._extensions
        elif self._authorizer is not None:
            extensions = self._extensions
        # With `stream`, httpx adds no headers of its own: a tenth of the cost of `content`. The transport adds them.
        return httpx.Request(
            request.method, url, headers=headers, stream=httpx.ByteStream(request.body), extensions=extensions
        )

    def _with(self, extra_headers: Sequence[tuple[str, str]]) -> httpx.Headers:
        """Our headers and these. What the owner set stays; one that is given twice is sent as a list."""
        violations = [
            Violation(f"metadata.{name[:100]}", f"cannot be sent as an HTTP header: {fault}")
            for name, value in extra_headers
            if (fault := _fault(name, value))
        ]
        if violations:
            raise InvalidRequest("metadata cannot be forwarded to the provider", violations=violations)
        added: dict[str, str] = {}
        for name, value in extra_headers:
            key = name.lower()
            if key not in self._own:
                added[key] = f"{added[key]},{value.strip()}" if key in added else value.strip()
        headers = self._headers.copy()
        headers.update(added)
        return headers

    def _out_of_time(self) -> LLMTimeoutError:
        return LLMTimeoutError(f"{self._where} has not finished its answer within {self._timeouts.total:g} s")


def _headers_of(response: httpx.Response) -> Mapping[str, str]:
    found: Mapping[str, str] | None = response.extensions.get(HEADERS)
    return dict(response.headers.items()) if found is None else found


def proxy_from_environment(url: httpx.URL) -> str | None:
    """The proxy for a URL. As in Go, none for this machine. Raises ValueError for one that cannot be used."""
    if _is_loopback(url.host):
        return None
    proxies = urllib.request.getproxies_environment()
    host = url.host if url.port is None else f"{url.host}:{url.port}"
    if urllib.request.proxy_bypass_environment(host, proxies):  # type: ignore[attr-defined]  # as old as the other
        return None
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if not proxy:
        return None
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    try:
        scheme = httpx.URL(proxy).scheme
    except httpx.InvalidURL:
        scheme = "an unreadable address"
    if scheme not in {"http", "https"}:
        name = f"{url.scheme.upper()}_PROXY or ALL_PROXY"
        raise ValueError(f"{name} has {scheme}; only http:// and https:// proxies can be used")
    return proxy


def ssl_context(ca_file: str | None) -> ssl.SSLContext:
    """Trusts the usual authorities, or those of SSL_CERT_FILE or SSL_CERT_DIR, and those in `ca_file`.

    Raises ValueError for a file that holds no certificates.
    """
    return _ssl_context(ca_file, os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@lru_cache(maxsize=32)  # loading the authorities takes 10 ms and 1 MB, and all upstreams may share them
def _ssl_context(ca_file: str | None, cert_file: str | None, cert_dir: str | None) -> ssl.SSLContext:
    try:
        context = httpx.create_ssl_context()
    except OSError as exc:
        raise ValueError(f"SSL_CERT_FILE or SSL_CERT_DIR cannot be read: {cert_file or cert_dir!r}") from exc
    context.set_alpn_protocols(["http/1.1"])
    if ca_file:
        try:
            context.load_verify_locations(cafile=ca_file)
        except OSError as exc:
            raise ValueError(f"ca_file {ca_file!r} cannot be read as PEM certificates") from exc
    return context


def _base(base_url: str) -> httpx.URL:
    try:
        url = httpx.URL(base_url.strip())
    except httpx.InvalidURL as exc:
        raise ValueError(f"base_url is not a URL: {base_url!r}") from exc
    if url.userinfo:
        raise ValueError("base_url holds a user name or a password; give the credential by itself")
    if url.scheme not in {"http", "https"} or not url.host:
        raise ValueError(f"base_url must be http://HOST or https://HOST, not {base_url!r}")
    return url


def _join(base: httpx.URL, path: str) -> httpx.URL:
    """`path` under `base`, byte for byte; both may have a query."""
    prefix, _, query = base.raw_path.partition(b"?")
    path, _, own_query = path.partition("?")
    joined = prefix.rstrip(b"/") + path.encode()
    queries = b"&".join(filter(None, (query, own_query.encode())))
    return base.copy_with(raw_path=joined + b"?" + queries if queries else joined)


def _own_value(name: str, value: str) -> str:
    value = value.strip()
    if not _TOKEN.fullmatch(name) or not _PRINTABLE.fullmatch(value):
        raise ValueError(f"header {name!r} holds characters that HTTP does not allow")
    return value


def _fault(name: str, value: str | bytes) -> str:
    """What is wrong with a header that is to be forwarded; "" if nothing is."""
    if not isinstance(value, str) or not _PRINTABLE.fullmatch(value):
        return "its value is not printable ASCII"
    if not _TOKEN.fullmatch(name):
        return "its name is not one of HTTP"
    if name.lower() in _RESERVED:
        return "HTTP reserves it for the connection itself"
    return ""


#: First match; else nothing is said.
_REASONS: tuple[tuple[type[BaseException], str], ...] = (
    (ssl.SSLCertVerificationError, ": its TLS certificate is not trusted; if its authority is your own, set ca_file"),
    (ssl.SSLError, ": TLS failed"),
    (socket.gaierror, ": no address for this host name"),
    (ConnectionRefusedError, ": connection refused"),
    (FileNotFoundError, ": no such socket"),
)


def _reason(exc: BaseException) -> str:
    """Why a connection failed, from the exception's causes."""
    cause: BaseException | None = exc
    while cause is not None:
        for kind, text in _REASONS:
            if isinstance(cause, kind):
                return text
        cause = cause.__cause__ or cause.__context__
    return ""


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
