"""What a provider's HTTP server says, byte by byte."""

from __future__ import annotations

from trunkline_server.providers.base import UpstreamRequest
from trunkline_server.providers.http import HttpTimeouts, Upstream

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
