"""A second target beside a slow first one, for calls that ask for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from tests.gateway import create, stream
from tests.routing.places import FAST, WIRES, cut_after, fails, places, says
from tests.upstream import Exchange, Script

from trunkline_server.call import Cause

pytestmark = pytest.mark.alone

KINDS = ("unary", "stream")
SOON: dict[str, Any] = {"hedge": {"after": "50ms"}}
HEDGE: dict[str, Any] = {"options": {"hedge": True}}


async def silent(exchange: Exchange) -> None:
    """Takes the request, begins a stream where one was asked for, and says nothing."""
    if exchange.json.get("stream"):
        await exchange.head()
    await exchange.silence()


def late(seconds: float, *texts: str) -> Script:
    async def script(exchange: Exchange) -> None:
        await asyncio.sleep(seconds)  # a provider that is slow
        await says(*texts)(exchange)

    return script


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wire", WIRES)
async def test_the_second_answers_and_the_first_is_let_go(
    wire: str, kind: str, measured: Callable[[str, object], None]
) -> None:
    spoken = WIRES[wire]
    async with places(silent, says("Hello", wire=spoken), wires=[spoken] * 2, route=SOON) as at:
        answer = await at.ask(kind, **HEDGE)
        ended = time.monotonic()
        gone = await (await at.ups[0].next()).gone()
        [line] = at.gw.calls()

    measured("first let go, ms before the caller has the answer", round((ended - gone) * 1000, 1))
    assert (answer.text, answer.provider, answer.attempts) == ("Hello", "p1", 2)
    assert gone - ended <= 0.1
    assert (line["provider"], line["attempts"]) == ("p1", 2)


@pytest.mark.parametrize("kind", KINDS)
async def test_the_first_may_still_win(kind: str) -> None:
    async with places(late(0.2, "Hello"), silent, route=SOON) as at:
        answer = await at.ask(kind, **HEDGE)
        await (await at.ups[1].next()).gone()
        [line] = at.gw.calls()

    assert (answer.text, answer.provider, answer.attempts) == ("Hello", "p0", 2)
    assert line["provider"] == "p0"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_fast_first_target_needs_no_second(kind: str) -> None:
    async with places(says("Hello"), says("x"), route={"hedge": {"after": "10s"}}) as at:
        answer = await at.ask(kind, **HEDGE)

    assert (answer.attempts, at.asked) == (1, [1, 0])


@pytest.mark.parametrize("kind", KINDS)
async def test_nobody_is_hedged_who_did_not_ask_for_it(kind: str) -> None:
    async with places(late(0.3, "Hello"), says("x"), route=SOON) as at:
        answer = await at.ask(kind)

    assert (answer.text, at.asked) == ("Hello", [1, 0])


@pytest.mark.parametrize("kind", KINDS)
async def test_a_second_that_fails_spoils_nothing(kind: str) -> None:
    async with places(late(0.3, "Hello"), fails(500), route=SOON) as at:
        answer = await at.ask(kind, **HEDGE)

    assert (answer.text, answer.provider, at.asked) == ("Hello", "p0", [1, 1])


@pytest.mark.parametrize("kind", KINDS)
async def test_a_first_that_fails_leaves_it_to_the_second(kind: str) -> None:
    async def slow_failure(exchange: Exchange) -> None:
        await asyncio.sleep(0.15)  # as slow as that
        await fails(400)(exchange)

    async with places(slow_failure, late(0.3, "Hello"), route=SOON) as at:
        answer = await at.ask(kind, **HEDGE)

    assert (answer.text, answer.provider, at.asked) == ("Hello", "p1", [1, 1])


@pytest.mark.parametrize("kind", KINDS)
async def test_two_that_fail_are_two_attempts(kind: str) -> None:
    async def slow_failure(exchange: Exchange) -> None:
        await asyncio.sleep(0.15)  # as slow as that
        await fails(401)(exchange)

    async with places(slow_failure, slow_failure, route=SOON) as at:
        failed = await at.refused(kind, **HEDGE)

    assert failed.reason == "LLM_AUTHENTICATION"
    assert [attempt.provider for attempt in failed.detail.attempts] == ["p0", "p1"]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_caller_who_leaves_ends_both(kind: str) -> None:
    async with places(silent, silent, route=SOON) as at:
        call = (
            at.gw.completions.CreateCompletion(create(FAST, **HEDGE))
            if kind == "unary"
            else at.gw.stream(stream(FAST, **HEDGE)).call
        )
        waiting = asyncio.ensure_future(call.read() if kind == "stream" else call)
        exchanges = [await up.next() for up in at.ups]
        left = time.monotonic()
        call.cancel()
        await asyncio.wait({waiting})
        gone = [await exchange.gone() for exchange in exchanges]
        await at.gw.idle()

    assert max(gone) - left <= 0.1


async def test_a_stream_goes_on_after_the_race_as_any_other() -> None:
    options = {"hedge": True, "after_first_token": 2}
    async with places(silent, cut_after("Once"), says("Hello"), route=SOON) as at:
        reader = await at.gw.stream(stream(FAST, options=options)).rest()

    assert reader.failed is None
    assert reader.completion.choices[0].message.parts[0].text.text == "Hello"
    assert [attempt_of(event) for event in reader.events if event.HasField("attempt_started")] == ["p1", "p2"]


async def test_hedges_draw_on_the_budget() -> None:
    async with places(silent, says("Hello"), route={"hedge": {"after": "1ms"}}) as at:
        for _ in range(11):
            await at.ask("unary", **HEDGE)
        with pytest.raises(Exception, match="ran out"):
            for _ in range(10):
                await at.ask("unary", timeout=1, **HEDGE)

    # Ten in reserve, and a fifth of a call for each.
    assert 11 <= at.asked[1] <= 14


async def test_without_a_time_of_its_own_a_route_hedges_after_the_p95() -> None:
    async with places(late(0.02, "Hello"), says("other")) as at:
        for _ in range(19):
            await at.ask("stream", **HEDGE)
        at.ups[0].script = late(0.4, "Hello")
        # Too little is known of the target.
        assert (await at.ask("stream", **HEDGE)).provider == "p0"
        at.ups[0].script = late(0.02, "Hello")
        for _ in range(20):
            await at.ask("stream", **HEDGE)
        at.ups[0].script = silent
        answer = await at.ask("stream", **HEDGE)

    assert (answer.text, answer.provider) == ("other", "p1")


async def test_each_attempt_of_a_race_is_recorded_with_its_cause() -> None:
    seen: list[list[tuple[str, Cause, bool]]] = []
    async with places(silent, says("Hello"), route=SOON) as at:
        ended = at.gw.app.telemetry.ended

        def record(call: Any, *facts: Any) -> None:
            seen.append([(a.provider, a.cause, a.ended is not None) for a in call.attempts])
            ended(call, *facts)

        at.gw.app.telemetry.ended = record  # type: ignore[method-assign, assignment]  # looks on
        await at.ask("unary", **HEDGE)

    assert seen == [[("p0", Cause.FIRST, True), ("p1", Cause.HEDGE, True)]]


def attempt_of(event: Any) -> str:
    return str(event.attempt_started.provider)
