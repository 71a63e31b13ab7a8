"""Workers and replicas that share a Redis tell each other which targets to leave alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from redis.asyncio import Redis as Client
from tests.gateway import Gateway, create, failing, gateway
from tests.routing.places import FAST, fails, in_turn, says
from tests.services import Redis
from tests.upstream import PATIENCE, Exchange, Script, Upstream, chat, upstream

from tests import services
from trunkline.v1alpha import config_service_pb2 as pb
from trunkline.v1alpha.config_service_pb2_grpc import ConfigServiceStub
from trunkline_server.routing.breaker import CLOSED, OPEN

KEY = "house-key-0123456789"
TEAM_KEY = "team-key-0123456789"
BUSY = fails(429, retry_after="30")


@dataclass(frozen=True)
class Workers:
    """Servers that share nothing but a Redis, and the providers p0, p1 ... behind all of them."""

    gws: Sequence[Gateway]
    ups: Sequence[Upstream]
    #: The channel on which all are told.
    channel: str

    @property
    def asked(self) -> list[int]:
        return [len(up.exchanges) for up in self.ups]

    async def ask(self, at: int, count: int = 1, model: str = FAST) -> list[str]:
        """The providers that answered calls at a worker, one after the other."""
        return [(await self.gws[at].complete(create(model))).provider for _ in range(count)]

    async def states(self, at: int, route: str = FAST) -> list[int]:
        """What the breakers of a route's targets say at a worker."""
        stub: Any = ConfigServiceStub(self.gws[at].channel)
        found = await stub.GetRoute(pb.GetRouteRequest(name=f"routes/{route}"))
        return [one.state for one in found.health]

    async def until(self, at: int, *states: int, route: str = FAST) -> None:
        async with asyncio.timeout(PATIENCE):
            while await self.states(at, route) != list(states):
                await asyncio.sleep(0.01)


@asynccontextmanager
async def workers(
    redis: Redis,
    *scripts: Script,
    breaker: Mapping[str, Any] | None = None,
    shared: Mapping[str, Any] | None = None,
    **more: Any,
) -> AsyncIterator[Workers]:
    """Two of them; `fast` leads to a provider for each script."""
    settings = {**redis.settings(), **(shared or {})}
    async with AsyncExitStack() as stack:
        ups = [await stack.enter_async_context(upstream(script)) for script in scripts]
        known: dict[str, Any] = {
            f"p{at}": {"kind": "vllm", "base_url": f"{up.url}/v1", "api_key_env": "HOUSE_KEY"}
            for at, up in enumerate(ups)
        }
        targets = [f"p{at}/m" for at in range(len(ups))]
        models = {FAST: {"targets": targets, "breaker": breaker or {}}, **more.pop("models", {})}
        routing = {"retry": {"initial_backoff": "10ms"}}
        gws = [
            await stack.enter_async_context(
                gateway(providers=known, models=models, routing=routing, redis=settings, **more)
            )
            for _ in range(2)
        ]
        yield Workers(gws, ups, f"{settings['prefix']}:all")


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOUSE_KEY", KEY)
    monkeypatch.setenv("TEAM_KEY", TEAM_KEY)


async def test_a_target_whose_breaker_opens_in_one_worker_is_left_alone_by_the_others(redis: Redis) -> None:
    async with workers(redis, fails(500), says("ok"), breaker={"cool_down": "60s"}) as at:
        assert await at.ask(0, 5) == ["p1"] * 5
        assert at.asked[0] == 5
        await at.until(1, OPEN, CLOSED)
        assert await at.ask(1, 5) == ["p1"] * 5

    assert at.asked[0] == 5


async def test_what_a_provider_says_is_heard_by_routes_of_every_policy_and_credentials_apart(redis: Redis) -> None:
    routes = {
        "patient": {"targets": ["p0/m", "p1/m"], "breaker": {"consecutive_failures": 1000}},
        "teams": {"targets": [{"model": "p0/m", "credential": "team"}, "p1/m"]},
    }
    credentials = {"team": {"provider": "p0", "api_key_env": "TEAM_KEY"}}
    script = in_turn(BUSY, says("ok"))
    async with workers(redis, script, says("ok"), models=routes, credentials=credentials) as at:
        # The other one knows both routes already.
        assert await at.states(1, "patient") == await at.states(1, "teams") == [CLOSED, CLOSED]
        assert await at.ask(0) == ["p1"]
        await at.until(1, OPEN, CLOSED)
        assert await at.states(1, "patient") == [OPEN, CLOSED]
        assert await at.ask(1, model="patient") == ["p1"]
        assert await at.states(1, "teams") == [CLOSED, CLOSED]
        assert await at.ask(1, model="teams") == ["p0"]

    assert at.asked[0] == 2


async def test_failures_are_judged_by_the_same_policy_only(redis: Redis) -> None:
    routes = {"patient": {"targets": ["p0/m", "p1/m"], "breaker": {"consecutive_failures": 1000}}}
    script = in_turn(*[fails(500)] * 5, says("ok"))
    async with workers(redis, script, says("ok"), models=routes) as at:
        await at.ask(0, 5)
        await at.until(1, OPEN, CLOSED)
        assert await at.ask(1, model="patient") == ["p0"]


async def test_a_rate_limit_that_is_used_up_is_heard_of(redis: Redis) -> None:
    async def last(exchange: Exchange) -> None:
        limits = {"limit": "1", "remaining": "0", "reset": "30s"}
        await exchange.answer(
            chat("ok"), headers={f"x-ratelimit-{name}-requests": told for name, told in limits.items()}
        )

    async with workers(redis, last, says("ok")) as at:
        assert await at.ask(0) == ["p0"]
        await at.until(1, OPEN, CLOSED)
        assert await at.ask(1) == ["p1"]


async def test_a_hint_ejects_no_last_target_and_a_success_ends_it(redis: Redis) -> None:
    async with workers(redis, in_turn(BUSY, says("ok")), in_turn(BUSY, says("ok"))) as at:
        failed = await failing(at.gws[0].completions.CreateCompletion(create(FAST), timeout=3))
        assert failed.reason == "LLM_RATE_LIMITED"
        await at.until(1, OPEN, OPEN)
        assert await at.ask(1, model="p1/m") == ["p1"]
        await at.until(1, OPEN, CLOSED)
        assert await at.ask(1, 2) == ["p1"] * 2

    assert at.asked == [1, 4]


async def test_a_probe_of_its_own_decides_when_the_time_is_over(redis: Redis) -> None:
    script = in_turn(*[fails(500)] * 5, says("ok"))
    async with workers(redis, script, says("ok"), breaker={"cool_down": "200ms"}) as at:
        await at.ask(0, 5)
        await at.until(1, OPEN, CLOSED)
        async with asyncio.timeout(PATIENCE):
            while await at.ask(1) != ["p0"]:
                await asyncio.sleep(0.02)
        assert await at.states(1) == [CLOSED, CLOSED]


async def test_a_flood_is_few_messages_without_a_secret(redis: Redis, measured: Callable[[str, object], None]) -> None:
    heard: list[bytes] = []

    async def listen(channel: str, begun: asyncio.Event) -> None:
        async with Client.from_url(redis.url) as client, client.pubsub(ignore_subscribe_messages=True) as pubsub:
            await pubsub.subscribe(channel)
            await pubsub.get_message(timeout=PATIENCE)
            begun.set()
            while True:
                message = await pubsub.get_message(timeout=PATIENCE)
                if message is not None:
                    heard.append(message["data"])

    async with workers(redis, BUSY, says("ok")) as at:
        begun = asyncio.Event()
        listening = asyncio.ensure_future(listen(at.channel, begun))
        await begun.wait()
        since = time.monotonic()
        await asyncio.gather(
            *(at.gws[0].complete(create("p0/m"), timeout=2) for _ in range(300)), return_exceptions=True
        )
        took = time.monotonic() - since
        await at.until(1, OPEN, CLOSED)
        listening.cancel()

    measured("messages", f"{len(heard)} for {at.asked[0]} refusals in {took:.1f} s")
    assert at.asked[0] >= 300
    assert 1 <= len(heard) <= took + 2
    assert all(b"p0" in data and KEY.encode() not in data and TEAM_KEY.encode() not in data for data in heard)


@pytest.mark.alone
async def test_a_redis_that_is_away_is_not_noticed_by_calls_that_would_tell(redis: Redis) -> None:
    del redis  # skips where there is none
    with services.redis() as own:
        async with workers(own, BUSY, says("ok"), shared={"timeout": 5}) as at:
            own.kill()
            # Each finds out by itself.
            assert await at.ask(0, 3) == ["p1"] * 3
            assert await at.ask(1, 3) == ["p1"] * 3

    assert at.asked[0] == 2


@pytest.mark.alone
async def test_a_redis_that_takes_and_does_not_answer_holds_up_no_call_that_would_tell(redis: Redis) -> None:
    async with workers(redis, BUSY, says("ok"), shared={"timeout": 5}) as at:
        with redis.held():
            began = time.monotonic()
            assert await at.ask(0, 20) == ["p1"] * 20
            assert time.monotonic() - began < 2
        # It was sent all the same.
        await at.until(1, OPEN, CLOSED)
