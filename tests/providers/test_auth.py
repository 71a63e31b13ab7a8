"""Credentials that are made for each request, and tokens that end."""

from __future__ import annotations

import asyncio
import threading

import pytest

from trunkline_server.errors import LLMAuthenticationError
from trunkline_server.providers.auth import EARLY, PAUSE, BearerToken, Token
from trunkline_server.providers.base import UpstreamRequest
from trunkline_server.providers.http import HttpTimeouts, Upstream


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Fetch:
    """Hands out tokens that last an hour, and counts them."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.calls = 0
        self.threads: set[int] = set()
        self.failure: LLMAuthenticationError | None = None

    def __call__(self) -> Token:
        self.calls += 1
        self.threads.add(threading.get_ident())
        if self.failure is not None:
            raise self.failure
        return Token(f"t{self.calls}", self.clock.now + 3600, {"x-goog-user-project": "p"})


def made() -> tuple[Clock, Fetch, BearerToken]:
    clock = Clock()
    fetch = Fetch(clock)
    return clock, fetch, BearerToken(fetch, clock=clock)


async def ask(token: BearerToken) -> str:
    return (await token.authorize("POST", "https://a.test/", {}, b""))["authorization"]


async def settled() -> None:
    """Returns when what runs in the background is done."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.gather(*(task for task in others if "Kept" in repr(task)), return_exceptions=True)


async def test_a_token_is_fetched_once_for_all_who_wait_and_off_the_event_loop():
    _, fetch, token = made()

    answers = await asyncio.gather(*(ask(token) for _ in range(20)))

    assert answers == ["Bearer t1"] * 20
    assert fetch.calls == 1
    assert threading.get_ident() not in fetch.threads
    assert (await token.authorize("GET", "https://a.test/", {}, b""))["x-goog-user-project"] == "p"


async def test_a_token_is_replaced_before_it_ends_and_nobody_waits_for_that():
    clock, fetch, token = made()
    await ask(token)

    clock.now += 3600 - EARLY - 1
    assert await ask(token) == "Bearer t1"
    assert fetch.calls == 1
    clock.now += 2
    assert await ask(token) == "Bearer t1"
    await settled()

    assert await ask(token) == "Bearer t2"
    assert fetch.calls == 2


async def test_a_token_that_ended_is_waited_for():
    clock, _, token = made()
    await ask(token)

    clock.now += 3601

    assert await ask(token) == "Bearer t2"


async def test_a_good_token_outlives_a_failure_to_replace_it_and_the_failure_is_not_repeated_at_once():
    clock, fetch, token = made()
    await ask(token)
    clock.now += 3600 - EARLY + 1
    fetch.failure = LLMAuthenticationError("no token")

    for _ in range(3):
        assert await ask(token) == "Bearer t1"
        await settled()
    assert fetch.calls == 2
    clock.now += PAUSE
    await ask(token)
    await settled()
    assert fetch.calls == 3
    clock.now += EARLY
    with pytest.raises(LLMAuthenticationError, match="no token"):
        await ask(token)

    fetch.failure = None
    assert await ask(token) == "Bearer t5"


async def test_who_leaves_does_not_take_the_token_from_those_who_wait_for_it_too():
    clock = Clock()
    go = threading.Event()

    def fetch() -> Token:
        assert go.wait(10)
        return Token("t", clock.now + 3600)

    token = BearerToken(fetch, clock=clock)
    first = asyncio.create_task(ask(token))
    second = asyncio.create_task(ask(token))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    go.set()

    assert await second == "Bearer t"


def test_a_token_is_not_shown():
    assert "secret" not in repr(Token("secret", 1.0, {"a": "secret"}))


class Signature:
    """Signs what it is given with its own words."""

    async def authorize(self, method, url, headers, body):
        return {"authorization": f"SIG {method} {url} {headers['x-date']} {body.decode()}", "x-date": "signed"}


async def test_a_request_is_signed_as_it_is_sent(serve):
    seen = []

    async def script(peer):
        while True:
            seen.append(await peer.request())
            await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")

    url, _ = await serve(script)
    http = Upstream(url, headers={"x-date": "today"}, timeouts=HttpTimeouts(), authorizer=Signature())
    request = UpstreamRequest("/model/a%3Ab/converse", b'{"a":1}', headers=(("authorization", "a caller's"),))

    await http.send(request)
    async with http.stream(request) as reply:
        await reply.read()

    for _, headers, body in seen:
        assert headers["authorization"] == f"SIG POST {url}/model/a%3Ab/converse today {body.decode()}"
        assert headers["x-date"] == "signed"
    assert len(seen) == 2
    await http.aclose()


async def test_a_credential_that_cannot_be_made_ends_the_call_before_anything_is_sent(serve):
    async def script(peer):
        raise AssertionError("nothing is sent")

    def fetch() -> Token:
        raise LLMAuthenticationError("no credential here: set one")

    url, server = await serve(script)
    http = Upstream(url, headers={}, timeouts=HttpTimeouts(), authorizer=BearerToken(fetch))

    with pytest.raises(LLMAuthenticationError, match="set one"):
        await http.send(UpstreamRequest("/", b"{}"))

    assert server.connections == 0
    await http.aclose()
