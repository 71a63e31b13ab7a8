"""Calls that are ended at any moment, by any hand: each ends once, and nothing of it stays."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

import grpc
import pytest
from tests.gateway import Gateway, Reader, gateway, stream, until
from tests.scale import scaled
from tests.upstream import DONE, Exchange, piece, upstream, usage_event

from trunkline.v1 import completion_service_pb2 as pb

CALLS = scaled(600, 150)
SIDE_BY_SIDE = 16

#: What may end a call before its time; `None`: nothing does.
HANDS = ("caller", "timeout", "cancel", "provider", "reset", None)


async def provider(exchange: Exchange) -> None:
    """Words at a quick pace; cut or reset somewhere, if the model's name says so."""
    hand, _, seed = exchange.json["model"].partition("-")
    source = random.Random(seed)
    words = source.randrange(1, 12)
    await asyncio.sleep(source.random() * 0.004)
    await exchange.head()
    await exchange.chunk(piece("", role="assistant"))
    for _ in range(words):
        await exchange.chunk(piece("word ") * source.choice((1, 1, 8)))
        await asyncio.sleep(source.random() * 0.002)
    if hand == "provider":
        exchange.cut()
        return
    if hand == "reset":
        exchange.reset()
        return
    await exchange.chunk(piece(finish="stop") + usage_event() + DONE)
    await exchange.end()


async def one(gw: Gateway, number: int) -> tuple[str | None, Reader]:
    source = random.Random(number)
    hand = source.choice(HANDS)
    request = stream(f"up/{hand}-{number}")
    if hand == "timeout":
        request.options.timeout.nanos = source.randrange(1, 15_000_000)
    reader = gw.stream(request)
    if hand == "caller":
        asyncio.get_running_loop().call_later(source.random() * 0.015, reader.call.cancel)
    try:
        if hand == "cancel" and await reader.next():
            await asyncio.sleep(source.random() * 0.01)
            # It may be over before.
            with suppress(grpc.aio.AioRpcError):
                await gw.completions.CancelCompletion(pb.CancelCompletionRequest(completion_id=reader.id))
        await reader.rest()
    except asyncio.CancelledError:
        assert hand == "caller"
    return hand, reader


@pytest.mark.slow
@pytest.mark.parametrize("heartbeat", [15, 0.001])
async def test_calls_that_end_at_any_moment_end_once(heartbeat: float) -> None:
    numbers = iter(range(CALLS))
    ends: list[tuple[str | None, Reader]] = []
    async with upstream(provider) as up, gateway(up, stream={"heartbeat": heartbeat}) as gw:
        before = len(asyncio.all_tasks())

        async def take() -> None:
            for number in numbers:
                ended = await one(gw, number)
                ends.append(ended)

        await asyncio.gather(*(take() for _ in range(SIDE_BY_SIDE)))
        await gw.idle()
        await until(lambda: len(asyncio.all_tasks()) <= before + len(up.open))

    for hand, reader in ends:
        reason = reader.failed.reason if reader.failed else ""
        match hand:
            case "timeout":
                assert reason in {"GATEWAY_TIMEOUT", ""}
            case "cancel":
                assert reason in {"CANCELLED", ""}
            case "provider" | "reset":
                assert reason == "LLM_CONNECTION"
            case None:
                assert reason == ""
        assert hand == "caller" or reason or reader.kinds[-1] == "finished"
    # Callers may leave before their call has arrived.
    assert CALLS - sum(hand == "caller" for hand, _ in ends) <= len(gw.calls()) <= CALLS


async def test_a_drain_at_any_moment_ends_every_call() -> None:
    heard = 0
    for number in range(12):
        async with upstream(provider) as up, gateway(up, drain={"grace": 0}) as gw:
            await gw.channel.channel_ready()
            readers = [gw.stream(stream(f"up/none-{number}{n}")) for n in range(12)]
            ending = asyncio.gather(*(reader.rest() for reader in readers))
            await asyncio.sleep(random.Random(number).random() * 0.02)
            gw.stop.set()
            await ending

        unheard = 0
        for reader in readers:
            if reader.failed is not None and not reader.failed.reason:
                # It had not been handed over when gRPC closed its doors: the server knows nothing of it.
                assert reader.events == []
                unheard += 1
            elif reader.failed is not None:
                assert (reader.failed.code, reader.failed.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
        assert len(gw.calls()) == len(readers) - unheard
        heard += len(gw.calls())
    assert heard
