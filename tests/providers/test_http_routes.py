"""Ways to a provider: TLS with authorities of one's own, and proxies."""

from __future__ import annotations

import asyncio
import base64
import ssl

import httpx
import pytest
import trustme

from trunkline_server.errors import LLMConnectionError
from trunkline_server.providers.base import UpstreamRequest
from trunkline_server.providers.http import HttpTimeouts, Upstream, proxy_from_environment

REQUEST = UpstreamRequest("/v1/chat", b"{}")
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
HOST = "provider.test"


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def ca_file(authority, tmp_path):
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


@pytest.fixture(scope="module")
def tls(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", HOST).configure_cert(context)
    return context


async def always(peer):
    while True:
        await peer.request()
        await peer.send(ANSWER)


def upstream(url: str, ca_file: str | None = None, timeouts: HttpTimeouts | None = None) -> Upstream:
    return Upstream(
        url, headers={"authorization": "Bearer k"}, timeouts=timeouts or HttpTimeouts(5, 5), ca_file=ca_file
    )


# -- TLS --------------------------------------------------------------------------------------------------------------


async def test_an_extra_authority_is_trusted(serve, tls, ca_file):
    url, server = await serve(always, ssl=tls)
    http = upstream(url, ca_file)

    assert [(await http.send(REQUEST)).status for _ in range(2)] == [200, 200]
    assert server.connections == 1
    await http.aclose()


async def test_ssl_cert_file_is_honoured(serve, tls, ca_file, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", ca_file)
    url, _ = await serve(always, ssl=tls)
    http = upstream(url)

    assert (await http.send(REQUEST)).status == 200
    await http.aclose()


async def test_an_unknown_authority_is_not_trusted_and_the_fix_is_named(serve, tls):
    url, _ = await serve(always, ssl=tls)
    http = upstream(url)

    with pytest.raises(
        LLMConnectionError, match="TLS certificate is not trusted; if its authority is your own, set ca_file"
    ):
        await http.send(REQUEST)
    await http.aclose()


async def test_a_certificate_of_another_host_is_not_trusted(serve, authority, ca_file):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("elsewhere.test").configure_cert(context)
    url, _ = await serve(always, ssl=context)
    http = upstream(url, ca_file)

    with pytest.raises(LLMConnectionError, match="TLS certificate is not trusted"):
        await http.send(REQUEST)
    await http.aclose()


async def test_tls_with_a_server_that_has_none_is_a_connection_error(serve):
    async def script(peer):
        await peer.reader.read(10)
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    url, _ = await serve(script)
    http = upstream(url.replace("http:", "https:"))

    with pytest.raises(LLMConnectionError, match="TLS failed"):
        await http.send(REQUEST)
    await http.aclose()


def test_files_without_certificates_are_refused_by_name(tmp_path, monkeypatch):
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("hello")

    with pytest.raises(ValueError, match=r"ca_file '.*garbage.pem' cannot be read as PEM"):
        upstream("https://host", str(garbage))
    with pytest.raises(ValueError, match="ca_file '/nowhere' cannot be read"):
        upstream("https://host", "/nowhere")
    monkeypatch.setenv("SSL_CERT_FILE", str(garbage))
    with pytest.raises(ValueError, match="SSL_CERT_FILE or SSL_CERT_DIR cannot be read"):
        upstream("https://host")


# -- proxies ----------------------------------------------------------------------------------------------------------


class Proxy:
    """Carries every CONNECT to one port, and answers plain requests itself."""

    def __init__(self, port: int = 0, refusal: bytes = b"") -> None:
        self._port = port
        self._refusal = refusal
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.closed = asyncio.Event()

    async def __call__(self, peer) -> None:
        while True:
            line, headers, _ = await peer.request()
            self.requests.append((line, headers))
            if self._refusal:
                await peer.send(self._refusal)
                return
            if line.startswith("CONNECT "):
                break
            await peer.send(ANSWER)
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        await peer.send(b"HTTP/1.1 200 Connected\r\n\r\n")
        answers = asyncio.create_task(self._copy(there, peer.writer))
        try:
            await self._copy(peer.reader, back)
        finally:
            self.closed.set()
            answers.cancel()
            await asyncio.gather(answers, return_exceptions=True)
            back.transport.abort()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass


async def test_https_goes_through_the_proxy_in_a_tunnel(serve, tls, ca_file, monkeypatch):
    url, server = await serve(always, ssl=tls)
    proxy = Proxy(httpx.URL(url).port or 0)
    proxy_url, _ = await serve(proxy)
    monkeypatch.setenv("HTTPS_PROXY", proxy_url.replace("http://", "http://user:pass%40word@"))
    http = upstream(f"https://{HOST}:8443", ca_file)

    assert [(await http.send(REQUEST)).status for _ in range(2)] == [200, 200]

    line, headers = proxy.requests[0]
    assert line == f"CONNECT {HOST}:8443 HTTP/1.1"
    assert headers["proxy-authorization"] == "Basic " + base64.b64encode(b"user:pass@word").decode()
    assert "authorization" not in headers
    assert (len(proxy.requests), server.connections) == (1, 1)
    await http.aclose()


async def test_a_cancelled_call_closes_its_tunnel(serve, tls, ca_file, monkeypatch):
    asked = asyncio.Event()

    async def script(peer):
        await peer.request()
        asked.set()
        await peer.gone()

    url, _ = await serve(script, ssl=tls)
    proxy = Proxy(httpx.URL(url).port or 0)
    monkeypatch.setenv("HTTPS_PROXY", (await serve(proxy))[0])
    http = upstream(f"https://{HOST}", ca_file)
    call = asyncio.create_task(http.send(REQUEST))
    await asyncio.wait_for(asked.wait(), 5)

    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call

    await asyncio.wait_for(proxy.closed.wait(), 0.1)
    await http.aclose()


async def test_http_goes_through_the_proxy_as_it_is(serve, monkeypatch):
    proxy = Proxy()
    proxy_url, _ = await serve(proxy)
    monkeypatch.setenv("http_proxy", proxy_url.removeprefix("http://"))
    http = upstream(f"http://{HOST}/base")

    assert (await http.send(REQUEST)).status == 200

    assert proxy.requests[0][0] == f"POST http://{HOST}/base/v1/chat HTTP/1.1"
    await http.aclose()


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_is_not_there_is_a_connection_error(scheme, monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    http = upstream(f"{scheme}://{HOST}")

    with pytest.raises(
        LLMConnectionError, match=r"the proxy cannot be reached or refuses to connect to provider\.test"
    ):
        await http.send(REQUEST)
    await http.aclose()


async def test_a_proxy_that_refuses_is_a_connection_error(serve, monkeypatch):
    refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n"
    monkeypatch.setenv("HTTPS_PROXY", (await serve(Proxy(refusal=refusal)))[0])
    http = upstream(f"https://{HOST}")

    with pytest.raises(
        LLMConnectionError, match=r"the proxy cannot be reached or refuses to connect to provider\.test"
    ):
        await http.send(REQUEST)
    await http.aclose()


async def test_a_silent_proxy_is_given_up(serve, monkeypatch):
    async def script(peer):
        await peer.gone()

    monkeypatch.setenv("HTTPS_PROXY", (await serve(script))[0])
    http = upstream(f"https://{HOST}", timeouts=HttpTimeouts(connect=0.2, idle=5))

    with pytest.raises(LLMConnectionError, match=r"no connection to provider\.test within 0\.2 s"):
        await http.send(REQUEST)
    await http.aclose()


@pytest.mark.parametrize(
    ("url", "environment", "proxy"),
    [
        ("https://a.test", {"HTTPS_PROXY": "http://p:1"}, "http://p:1"),
        ("https://a.test", {"https_proxy": "p:1"}, "http://p:1"),
        ("https://a.test", {"HTTP_PROXY": "http://p:1"}, None),
        ("http://a.test", {"HTTP_PROXY": "http://p:1"}, "http://p:1"),
        ("http://a.test", {"ALL_PROXY": "http://p:1"}, "http://p:1"),
        ("https://a.test", {"ALL_PROXY": "http://p:1", "NO_PROXY": "a.test"}, None),
        ("https://x.a.test", {"ALL_PROXY": "http://p:1", "NO_PROXY": "b.test, .a.test"}, None),
        ("https://a.test:8443", {"ALL_PROXY": "http://p:1", "NO_PROXY": "a.test:8443"}, None),
        ("https://ba.test", {"ALL_PROXY": "http://p:1", "NO_PROXY": "a.test"}, "http://p:1"),
        ("https://a.test", {"ALL_PROXY": "http://p:1", "NO_PROXY": "*"}, None),
        ("http://127.0.0.1:8000", {"ALL_PROXY": "http://p:1"}, None),
        ("http://localhost:8000", {"ALL_PROXY": "http://p:1"}, None),
        ("http://[::1]:8000", {"ALL_PROXY": "http://p:1"}, None),
        ("http://10.0.0.1", {"ALL_PROXY": "http://p:1"}, "http://p:1"),
        ("https://a.test", {}, None),
    ],
)
def test_the_environment_says_which_proxy(url, environment, proxy, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    assert proxy_from_environment(httpx.URL(url)) == proxy


@pytest.mark.parametrize("proxy", ["socks5://user:secret@p:1", "http://[::1"])
def test_a_proxy_that_cannot_be_used_is_refused_without_its_password(proxy, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", proxy)

    with pytest.raises(ValueError, match="HTTPS_PROXY or ALL_PROXY") as refused:
        upstream("https://a.test")

    assert "secret" not in str(refused.value)
