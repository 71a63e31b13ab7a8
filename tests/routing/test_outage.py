"""An outage is not multiplied, and a route with one target that is well answers through it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.gateway import create, stream
from tests.routing.places import FAST, Places, cut_after, fails, places, resets, says
from tests.scale import scaled
from tests.upstream import Exchange, Script, chat

CALLS = scaled(2000, 200)
SIDE_BY_SIDE = 64


#: Ways in which a target is out.
OUTAGES: dict[str, Script] = {"500": fails(500), "reset": resets, "429": fails(429), "401": fails(401)}


async def calls(at: Places, kind: str, count: int = CALLS, model: str = FAST) -> int:
    """How many of so many calls were answered."""
    numbers = iter(range(count))
    answered = 0

    async def caller() -> None:
        nonlocal answered
        for _ in numbers:
            if kind == "unary":
                try:
                    await at.gw.complete(create(model), timeout=20)
                except Exception:  # noqa: BLE001  # counted as what is missing
                    continue
                answered += 1
            else:
                reader = await at.gw.stream(stream(model), timeout=20).rest()
                answered += reader.failed is None and reader.text == "Hello"

    await asyncio.gather(*(caller() for _ in range(SIDE_BY_SIDE)))
    return answered


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ordered", "weighted", "least_latency", "least_loaded"])
@pytest.mark.parametrize("kind", ["unary", "stream"])
async def test_a_full_outage_of_one_of_two_targets(
    kind: str, strategy: str, measured: Callable[[str, object], None]
) -> None:
    async with places(says("Hello"), says("Hello"), route={"strategy": strategy}) as at:
        assert await calls(at, kind, 200) == 200
        before = sum(at.asked)
        # It goes down in the middle of everything.
        at.ups[0].script = fails(500)
        answered = await calls(at, kind)
        asked = sum(at.asked) - before

    measured("answered", f"{answered} of {CALLS}")
    measured("upstream calls a call", round(asked / CALLS, 3))
    assert answered >= 0.999 * CALLS
    assert asked <= 1.2 * CALLS


@pytest.mark.parametrize("outage", OUTAGES)
async def test_an_outage_from_the_beginning(outage: str) -> None:
    async with places(OUTAGES[outage], says("Hello")) as at:
        answered = await calls(at, "unary", 500)

    assert answered == 500
    assert sum(at.asked) <= 1.2 * 500


@pytest.mark.parametrize("targets", [1, 2])
@pytest.mark.parametrize("kind", ["unary", "stream"])
async def test_an_outage_of_all_targets_is_not_multiplied(
    kind: str, targets: int, measured: Callable[[str, object], None]
) -> None:
    async with places(*[fails(500)] * targets) as at:
        answered = await calls(at, kind, 500)

    measured("upstream calls a call", round(sum(at.asked) / 500, 3))
    assert answered == 0
    # Each call asks at least once: a route's last target is always tried.
    assert 500 <= sum(at.asked) <= 1.2 * 500 + SIDE_BY_SIDE + 10


async def test_a_target_that_is_well_again_is_found_by_a_probe() -> None:
    route: dict[str, Any] = {"breaker": {"consecutive_failures": 3, "cool_down": "200ms"}}
    async with places(fails(500), says("Hello"), route=route) as at:
        for _ in range(5):
            await at.ask("unary")
        assert at.asked == [3, 5]
        at.ups[0].script = says("Hello")
        async with asyncio.timeout(10):
            while (await at.ask("unary")).provider == "p1":
                await asyncio.sleep(0.01)  # the time that it is left alone
        answers = [(await at.ask("unary")).provider for _ in range(5)]

    assert answers == ["p0"] * 5


async def test_streams_that_break_later_break_the_target_too() -> None:
    route: dict[str, Any] = {"breaker": {"min_attempts": 10, "failure_ratio": 0.5}}
    async with places(cut_after("Hello"), says("Hello"), route=route) as at:
        answered = await calls(at, "stream", 100)

    assert at.asked[0] <= 10 + SIDE_BY_SIDE
    assert answered == at.asked[1]


async def test_a_limit_that_is_used_up_sends_calls_elsewhere_before_anything_fails() -> None:
    async def last(exchange: Exchange) -> None:
        limits = {
            "x-ratelimit-limit-requests": "60",
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-reset-requests": "30s",
        }
        await exchange.answer(chat("Hello"), headers=limits)

    async with places(last, says("Hello")) as at:
        providers = [(await at.ask("unary")).provider for _ in range(3)]

    assert providers == ["p0", "p1", "p1"]


async def test_the_last_target_is_tried_whatever_its_provider_said() -> None:
    async with places(fails(429, retry_after="30")) as at:
        await at.refused("unary", timeout=5)
        at.ups[0].script = says("Hello")
        answer = await at.ask("unary", timeout=5)

    assert (answer.text, answer.attempts) == ("Hello", 1)


async def test_no_more_targets_are_left_alone_than_the_policy_says() -> None:
    route: dict[str, Any] = {"breaker": {"consecutive_failures": 1, "max_ejected": 0.5}, "strategy": "ordered"}
    async with places(fails(500), fails(500), says("Hello"), says("Hello"), route=route) as at:
        assert (await at.ask("unary")).provider == "p2"
        at.ups[2].script = fails(500)
        assert (await at.ask("unary")).provider == "p3"
        before = at.asked
        await at.ask("unary")

    # The one that was left alone first is tried again, although its time has not come.
    assert [now - then for now, then in zip(at.asked, before, strict=True)] == [1, 0, 0, 1]
