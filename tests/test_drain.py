"""How the server goes down: NOT_SERVING first, calls in flight finish within the grace, the rest are told why."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2
from tests.gateway import Gateway, create, failing, gateway, script, stream, until
from tests.process import connected, opened, server_process
from tests.upstream import DONE, Exchange, chat, piece, silent, silent_midway, upstream, usage_event

from trunkline.v1 import completion_service_pb2 as pb

NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Held:
    """A provider that begins to answer and finishes when it may."""

    def __init__(self) -> None:
        self.may = asyncio.Event()

    async def __call__(self, exchange: Exchange) -> None:
        if not exchange.json.get("stream"):
            await self.may.wait()
            await exchange.answer(chat("whole"))
            return
        await exchange.head()
        await exchange.chunk(piece("", role="assistant") + piece("first"))
        await self.may.wait()
        await exchange.chunk(piece(" last") + piece(finish="stop") + usage_event() + DONE)
        await exchange.end()


async def not_serving(gw: Gateway) -> None:
    """Returns when health says so."""
    call = gw.health.Watch(health_pb2.HealthCheckRequest())
    while (await call.read()).status != NOT_SERVING:
        pass
    call.cancel()


async def test_calls_in_flight_finish_within_the_grace() -> None:
    held = Held()
    async with upstream(held) as up, gateway(up, drain={"grace": 20}) as gw:
        reader = gw.stream(stream())
        await reader.until("part_delta")
        whole = asyncio.ensure_future(gw.complete(create()))
        await until(lambda: len(up.exchanges) == 2)
        gw.stop.set()
        await not_serving(gw)
        assert not reader.call.done()
        held.may.set()
        await reader.rest()
        answer = await whole

    assert reader.failed is None
    assert reader.text == "first last"
    assert answer.choices[0].message.parts[0].text.text == "whole"


async def test_new_calls_are_refused_while_others_finish() -> None:
    held = Held()
    async with upstream(held) as up, gateway(up, drain={"grace": 20}) as gw:
        reader = gw.stream(stream())
        await reader.until("part_delta")
        gw.stop.set()
        await not_serving(gw)
        whole, counted, streamed = await asyncio.gather(
            failing(gw.completions.CreateCompletion(create("fake/echo"))),
            failing(gw.completions.CountTokens(pb.CountTokensRequest(spec=create().spec))),
            gw.stream(stream("fake/echo")).rest(),
        )
        later = await failing(gw.completions.CreateCompletion(create("fake/echo")))
        held.may.set()
        await reader.rest()

    assert reader.failed is None
    # The connection has been told to go elsewhere, where nobody is.
    assert later.code == grpc.StatusCode.UNAVAILABLE
    assert streamed.failed is not None
    for one in (whole, counted, streamed.failed):
        assert (one.code, one.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
        # At once, at another replica.
        assert one.pushback is None
        assert "LlmErrorDetail" not in one.details


async def test_calls_are_taken_while_load_balancers_learn_of_it() -> None:
    async with gateway(drain={"delay": 2, "grace": 0}) as gw:
        gw.stop.set()
        await not_serving(gw)
        answer = await gw.complete(create("fake/echo", "still here"))

    assert answer.choices[0].message.parts[0].text.text == "You said: still here"


@pytest.mark.parametrize("streamed", [False, True])
async def test_what_outlasts_the_grace_is_told_where_it_stood(streamed: bool) -> None:
    async with upstream(silent_midway if streamed else silent) as up, gateway(up, drain={"grace": 0.1}) as gw:
        if streamed:
            reader = gw.stream(stream())
            await reader.until("part_delta")
            gw.stop.set()
            await reader.rest()
            failed = reader.failed
            assert failed is not None
            assert failed.detail.last_sequence_number == len(reader.events) > 0
        else:
            waiting = asyncio.ensure_future(failing(gw.completions.CreateCompletion(create())))
            await up.next()
            gw.stop.set()
            failed = await waiting
        await up.exchanges[0].gone()

    assert (failed.code, failed.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
    assert failed.detail.retryable
    assert [a.provider for a in failed.detail.attempts] == ["up"]
    [line] = gw.calls()
    assert (line["code"], line["reason"]) == ("UNAVAILABLE", "SHUTTING_DOWN")


async def test_health_is_told_first_overall_and_for_each_service() -> None:
    held = Held()
    async with upstream(held) as up, gateway(up, drain={"grace": 20}) as gw:
        reader = gw.stream(stream())
        await reader.until("part_delta")
        gw.stop.set()
        await not_serving(gw)
        for name in ("", "trunkline.v1.CompletionService", "trunkline.v1.ModelService"):
            assert (await gw.health.Check(health_pb2.HealthCheckRequest(service=name))).status == NOT_SERVING
        held.may.set()
        await reader.rest()


# -- the signal -------------------------------------------------------------------------------------------------------


async def test_sigterm_lets_a_stream_finish_and_exits_with_0(tmp_path: Path) -> None:
    held = Held()
    async with (
        upstream(held) as up,
        server_process(tmp_path, providers={"up": {"kind": "vllm", "base_url": f"{up.url}/v1"}}) as server,
        connected(await server.address()) as stub,
    ):
        reader = opened(stub, stream())
        await reader.until("part_delta")
        server.signal(signal.SIGTERM)
        await server.line("draining")
        held.may.set()
        await reader.rest()
        code = await server.ended()

    assert reader.failed is None
    assert reader.text == "first last"
    assert code == 0
    assert [line["event"] for line in server.lines] == ["serving", "draining", "call", "stopped"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_what_outlasts_the_grace(tmp_path: Path, number: signal.Signals) -> None:
    async with (
        server_process(tmp_path, drain={"grace": 0.2}) as server,
        connected(await server.address()) as stub,
    ):
        request = stream("fake/script", provider_options_json=script(text="one two three", word_delay=30))
        waiting = asyncio.ensure_future(opened(stub, request).rest())
        # The call has arrived when the server is busy with it: its answer to the signal is not yet the end.
        await opened(stub, stream("fake/echo")).rest()
        server.signal(number)
        reader = await waiting
        code = await server.ended()

    assert reader.failed is not None
    assert reader.failed.reason == "SHUTTING_DOWN"
    assert code == 0


@pytest.mark.parametrize("waiting", [{"grace": 600}, {"delay": 600, "grace": 600}], ids=["grace", "delay"])
async def test_a_second_signal_ends_the_server_at_once(tmp_path: Path, waiting: dict[str, int]) -> None:
    async with (
        upstream(silent_midway) as up,
        server_process(
            tmp_path, providers={"up": {"kind": "vllm", "base_url": f"{up.url}/v1"}}, drain=waiting
        ) as server,
        connected(await server.address()) as stub,
    ):
        reader = opened(stub, stream())
        await reader.until("part_delta")
        server.signal(signal.SIGTERM)
        await server.line("draining")
        server.signal(signal.SIGTERM)
        await reader.rest()
        code = await server.ended()

    assert reader.failed is not None
    assert reader.failed.code is grpc.StatusCode.UNAVAILABLE
    assert code == 0
