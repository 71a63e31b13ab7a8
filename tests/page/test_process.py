"""The page beside a running server: started with it, restarted when it dies, gone with it."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
import trustme
from tests.gateway import create, until
from tests.process import ServerProcess, connected, server_process
from tests.upstream import PATIENCE

from trunkline.v1.completion_service_pb2 import CreateCompletionRequest
from trunkline_server.config import ConfigError, load

KEY = "checkout-0123456789abcdef"
HTML = {"Accept": "text/html"}


def looked_at(folder: Path, **config: Any) -> Any:
    """A server that records and has a page on a free port."""
    settings = {"traces": "sqlite:", "state_dir": str(folder / "state"), "page": {"port": 0}, **config}
    return server_process(folder, **settings)


async def page_of(server: ServerProcess) -> str:
    return str((await server.line("page"))["address"])


async def shown(http: aiohttp.ClientSession, address: str, count: int, **how: Any) -> str:
    """The list, as soon as it has so many calls."""
    async with asyncio.timeout(PATIENCE):
        while True:
            async with http.get(address, headers=HTML, **how) as answer:
                text = await answer.text()
                assert answer.status == 200, text
            if len(re.findall(r'href="/calls/', text)) == count:
                return text
            await asyncio.sleep(0.02)


def page_process(server: ServerProcess) -> psutil.Process:
    children = psutil.Process(server.pid).children(recursive=True)
    (found,) = [child for child in children if "trunkline_server.page.process" in child.cmdline()]
    return found


async def call(server: ServerProcess, request: CreateCompletionRequest | None = None, **how: Any) -> None:
    async with connected(await server.address()) as stub:
        await stub.CreateCompletion(request or create("fake/echo", "Say hello."), **how)


@pytest.mark.parametrize("workers", [1, 2])
async def test_calls_appear_as_they_end_whichever_process_served_them(tmp_path: Path, workers: int) -> None:
    async with looked_at(tmp_path, workers=workers) as server, aiohttp.ClientSession() as http:
        page = await page_of(server)
        await call(server)
        await shown(http, page, 1)
        async with http.get(f"{page}tail") as tail:
            assert await tail.content.readuntil(b"\n\n") == b": following\n\n"
            await call(server)
            async with asyncio.timeout(PATIENCE):
                event = await tail.content.readuntil(b"\n\n")
        text = await shown(http, page, 2)
        server.signal()
        assert await server.ended() == 0

    assert b"event: call" in event
    assert b"fake/echo" in event
    assert "You said" not in text


async def test_a_page_that_dies_comes_back_at_the_same_address(tmp_path: Path) -> None:
    async with looked_at(tmp_path) as server, aiohttp.ClientSession() as http:
        page = await page_of(server)
        await shown(http, page, 0)
        first = page_process(server)
        first.kill()
        await call(server)
        await server.line("page ended")
        await shown(http, page, 1)

        assert page_process(server).pid != first.pid


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_the_page_ends_with_its_server_however_that_ends(tmp_path: Path, number: signal.Signals) -> None:
    async with looked_at(tmp_path) as server, aiohttp.ClientSession() as http:
        await shown(http, await page_of(server), 0)
        page = page_process(server)
        server.signal(number)
        await server.ended()
        await until(lambda: not page.is_running() or page.status() == psutil.STATUS_ZOMBIE)


async def test_a_signal_to_all_processes_does_not_take_the_page_before_the_calls(tmp_path: Path) -> None:
    async with looked_at(tmp_path) as server, aiohttp.ClientSession() as http:
        await shown(http, await page_of(server), 0)
        os.killpg(server.pid, signal.SIGINT)

        assert await server.ended() == 0
        assert "page ended" not in server.text


async def test_the_page_wants_the_keys_that_the_calls_want(tmp_path: Path) -> None:
    callers = [{"name": "checkout", "api_key_env": "PAGE_TEST_KEY"}]
    environ = {"PAGE_TEST_KEY": KEY}
    # A browser keeps cookies of an address; this client must be told to.
    jar = aiohttp.CookieJar(unsafe=True)
    async with (
        looked_at(tmp_path, callers=callers, environ=environ) as server,
        aiohttp.ClientSession(cookie_jar=jar) as http,
    ):
        page = await page_of(server)
        await call(server, metadata=[("authorization", f"Bearer {KEY}")])
        async with http.get(page, headers=HTML, allow_redirects=False) as answer:
            assert answer.status == 303
        async with http.post(f"{page}sign-in", data={"key": KEY, "next": "/"}, headers=HTML) as answer:
            assert answer.status == 200
        await shown(http, page, 1)
        command = " ".join(page_process(server).cmdline())

    assert KEY not in server.text
    assert KEY not in command


async def test_with_certificates_the_page_has_them_too(tmp_path: Path) -> None:
    authority = trustme.CA()
    issued, client = authority.issue_cert("localhost", "127.0.0.1"), authority.issue_cert("x", common_name="ops")
    files = {"cert_file": "cert.pem", "key_file": "key.pem", "client_ca_file": "ca.pem"}
    tls = {name: str(tmp_path / file) for name, file in files.items()}
    issued.private_key_pem.write_to_path(tls["key_file"])
    issued.cert_chain_pems[0].write_to_path(tls["cert_file"])
    authority.cert_pem.write_to_path(tls["client_ca_file"])
    with_certificate, without = ssl.create_default_context(), ssl.create_default_context()
    for context in (with_certificate, without):
        authority.configure_trust(context)
    client.configure_cert(with_certificate)
    async with looked_at(tmp_path, tls=tls, operators=["ops"]) as server, aiohttp.ClientSession() as http:
        page = await page_of(server)
        text = await shown(http, page, 0, ssl=with_certificate)
        with pytest.raises(aiohttp.ClientError):
            await http.get(page, ssl=without)

    assert page.startswith("https://")
    assert "ops" in text


async def test_a_port_that_is_taken_stops_the_start(tmp_path: Path) -> None:
    taken = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
    port = taken.sockets[0].getsockname()[1]
    try:
        async with looked_at(tmp_path, page={"port": port}) as server:
            assert await server.ended() == 2
    finally:
        taken.close()

    assert f"page: cannot listen on 127.0.0.1:{port}" in server.text
    assert "page.port" in server.text


def test_a_page_for_strangers_or_without_records_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"page\.host: 0\.0\.0\.0 can be reached from other machines"):
        load(None, page={"host": "0.0.0.0"})
    with pytest.raises(ConfigError, match="page: calls are not recorded"):
        load(None, page={}, traces="off")


def test_without_the_setting_there_is_no_page() -> None:
    assert load(None).page is None


@pytest.mark.parametrize("workers", [1, 2])
async def test_who_may_look_is_what_the_file_says_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setenv("OLD_KEY", KEY)
    monkeypatch.setenv("NEW_KEY", KEY[::-1])
    callers = [{"name": "checkout", "api_key_env": "OLD_KEY"}]
    async with looked_at(tmp_path, workers=workers, callers=callers) as server, aiohttp.ClientSession() as http:
        address = await page_of(server)
        await server.line("serving", workers, 3 * PATIENCE)

        async def status(**headers: str) -> int:
            async with http.get(address, headers={**HTML, **headers}, allow_redirects=False) as answer:
                return answer.status

        async with http.post(f"{address}sign-in", data={"key": KEY, "next": "/"}, allow_redirects=False) as answer:
            assert answer.status == 303
            cookie = {"Cookie": answer.headers["Set-Cookie"].partition(";")[0]}
        assert await status(**cookie) == 200
        tail = await http.get(f"{address}tail", headers=cookie)
        assert await tail.content.readuntil(b"\n\n") == b": following\n\n"
        file = tmp_path / "trunkline.yaml"
        file.write_text(file.read_text().replace("OLD_KEY", "NEW_KEY"))
        server.signal(signal.SIGHUP)
        await server.line("configuration reloaded", workers)
        async with asyncio.timeout(PATIENCE):
            while await status(Authorization=f"Bearer {KEY[::-1]}") != 200:
                await asyncio.sleep(0.02)

        async with asyncio.timeout(PATIENCE):
            assert (await tail.content.read()).startswith(b"event: ended\n")
        assert await status(Authorization=f"Bearer {KEY}") == 303
        assert await status(**cookie) == 303
        # A process that takes its place knows it, too.
        page_process(server).kill()
        async with asyncio.timeout(PATIENCE):
            while (found := await _answered(status, Authorization=f"Bearer {KEY[::-1]}")) is None:
                await asyncio.sleep(0.02)
        assert found == 200


async def _answered(status: Any, **headers: str) -> int | None:
    try:
        return int(await status(**headers))
    except aiohttp.ClientError:
        return None
