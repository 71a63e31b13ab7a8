"""The caller's deadline bounds everything, and the gateway's own, detailed error comes first."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from tests.gateway import Failed, Stub, create, failing, gateway, script, stream
from tests.process import connected, opened, server_process
from tests.scale import scaled
from tests.upstream import Exchange, chat, chat_events, silent, silent_after_head, silent_midway, upstream

from trunkline.v1 import completion_pb2
from trunkline_server.rpc.boundary import MARGIN_LEAST, MARGIN_MOST, MARGIN_SHARE

CALLS = scaled(1000, 128)
SIDE_BY_SIDE = 128
#: A deadline whose margin is long enough even for one call on a machine that is busy elsewhere.
PLENTY = 2.0

#: Where a provider falls silent, by the model that is asked.
SILENCES = {
    "before-headers": silent,
    "before-token": silent_after_head,
    "midway": silent_midway,
}
STAGES = [("unary", "before-headers"), *(("stream", name) for name in SILENCES)]


async def falls_silent(exchange: Exchange) -> None:
    await SILENCES[exchange.json["model"]](exchange)


async def out_of_time(stub: Stub, kind: str, silence: str, seconds: float) -> Failed:
    """How a call ends that waits longer than it may."""
    if kind == "unary":
        return await failing(stub.CreateCompletion(create(f"up/{silence}"), timeout=seconds))
    reader = await opened(stub, stream(f"up/{silence}"), timeout=seconds).rest()
    assert reader.failed is not None
    return reader.failed


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_our_error_comes_before_the_callers_own_timer(
    tmp_path: Path, measured: Callable[[str, object], None]
) -> None:
    """The gateway is a process of its own, as it is for its callers."""
    ended: list[tuple[Failed, float]] = []
    plan = itertools.cycle((stage, 1.6 + 0.8 * step / 16) for step in range(16) for stage in STAGES)
    numbers = iter(range(CALLS))

    async with (
        upstream(falls_silent) as up,
        server_process(tmp_path, providers={"up": {"kind": "vllm", "base_url": f"{up.url}/v1"}}) as server,
        connected(await server.address()) as stub,
    ):

        async def caller(delay: float) -> None:
            # Callers come when they come, not in step.
            await asyncio.sleep(delay)
            for _ in numbers:
                (kind, silence), seconds = next(plan)
                began = time.monotonic()
                failed = await out_of_time(stub, kind, silence, seconds)
                ended.append((failed, seconds - (time.monotonic() - began)))

        await asyncio.gather(*(caller(2 * number / SIDE_BY_SIDE) for number in range(SIDE_BY_SIDE)))
        await server.line("call", CALLS)
        # Each exchange ends before the caller's deadline, and so at most a margin after our error.
        took = [await exchange.gone() - exchange.arrived for exchange in up.exchanges]

    ours = [failed for failed, _ in ended if failed.reason == "GATEWAY_TIMEOUT"]
    measured("with our ErrorInfo", f"{len(ours)} of {CALLS}")
    measured("least ms left", round(min(left for _, left in ended) * 1000, 1))
    assert len(took) == CALLS
    assert max(took) < 2.4 + 0.1
    assert {failed.code for failed, _ in ended} == {grpc.StatusCode.DEADLINE_EXCEEDED}
    assert len(ours) >= 0.99 * CALLS
    for failed in ours:
        assert [a.attempt for a in failed.detail.attempts] == [1]
        assert failed.detail.provider == "up"
        assert failed.pushback is None


@pytest.mark.alone
@pytest.mark.parametrize(("kind", "silence"), STAGES)
async def test_the_providers_socket_closes_with_the_deadline(
    kind: str, silence: str, measured: Callable[[str, object], None]
) -> None:
    took = []
    async with upstream(falls_silent) as up, gateway(up) as gw:
        for _ in range(5):
            await out_of_time(gw.completions, kind, silence, 0.3)
            ended = time.monotonic()
            took.append(await (await up.next()).gone() - ended)

    measured("median ms after the error", round(statistics.median(took) * 1000, 2))
    assert sorted(took)[3] <= 0.1


@pytest.mark.parametrize(("kind", "silence"), STAGES)
async def test_an_error_of_time_tells_what_was_tried_and_spent(kind: str, silence: str) -> None:
    async with upstream(falls_silent) as up, gateway(up) as gw:
        failed = await out_of_time(gw.completions, kind, silence, PLENTY)

    assert (failed.code, failed.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "GATEWAY_TIMEOUT")
    detail = failed.detail
    [attempt] = detail.attempts
    assert (attempt.provider, attempt.model, detail.model) == ("up", silence, silence)
    assert 0 < attempt.duration.seconds + attempt.duration.nanos / 1e9 < PLENTY
    assert detail.HasField("upstream_status") == (silence != "before-headers")
    assert (detail.last_sequence_number > 0) == (silence == "midway")
    assert not detail.retryable
    [line] = gw.calls()
    assert (line["code"], line["reason"]) == ("DEADLINE_EXCEEDED", "GATEWAY_TIMEOUT")


@pytest.mark.alone
@pytest.mark.parametrize("seconds", [0.2, 1.0])
async def test_the_margin_is_a_twentieth_within_bounds(seconds: float) -> None:
    margin = min(MARGIN_MOST, max(MARGIN_LEAST, MARGIN_SHARE * seconds))
    async with upstream(falls_silent) as up, gateway(up) as gw:

        async def one(delay: float) -> tuple[float, str]:
            # One after the other, and not each after the end of the other.
            await asyncio.sleep(delay)
            began = time.monotonic()
            failed = await out_of_time(gw.completions, "unary", "before-headers", seconds)
            return time.monotonic() - began, failed.reason

        took = await asyncio.gather(*(one(0.1 * number) for number in range(5)))

    assert all(seconds - margin - 0.01 <= each for each, _ in took)
    # On a machine that is busy elsewhere one may be late.
    assert sum(each < seconds and reason == "GATEWAY_TIMEOUT" for each, reason in took) >= 3, took


@pytest.mark.parametrize("seconds", [0.010, 0.001])
@pytest.mark.parametrize("kind", ["unary", "stream"])
async def test_a_deadline_too_short_for_anything_costs_no_call(kind: str, seconds: float) -> None:
    async with upstream(falls_silent) as up, gateway(up) as gw:
        failures = [await out_of_time(gw.completions, kind, "before-headers", seconds) for _ in range(20)]
        await gw.idle()

    assert {failed.code for failed in failures} == {grpc.StatusCode.DEADLINE_EXCEEDED}
    assert {failed.reason for failed in failures} <= {"GATEWAY_TIMEOUT", ""}
    # The margin is longer than the deadline: nothing is sent that nobody will wait for.
    assert up.exchanges == []


async def test_a_deadline_that_has_passed_reaches_nobody() -> None:
    async with upstream(falls_silent) as up, gateway(up) as gw:
        failed = await out_of_time(gw.completions, "unary", "before-headers", -1.0)
        await gw.complete(create("fake/echo"))

    assert failed.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert up.exchanges == []
    # A call that never arrived is none.
    assert [line["code"] for line in gw.calls() if line["code"] != "OK"] in ([], ["DEADLINE_EXCEEDED"], ["CANCELLED"])


def within(seconds: float) -> completion_pb2.CallOptions:
    whole = int(seconds)
    return completion_pb2.CallOptions(timeout=Duration(seconds=whole, nanos=int((seconds - whole) * 1e9)))


@pytest.mark.alone
@pytest.mark.parametrize("silence", SILENCES)
async def test_the_timeout_of_the_options_ends_a_call_without_a_deadline(silence: str) -> None:
    async with upstream(falls_silent) as up, gateway(up) as gw:
        began = time.monotonic()
        reader = await gw.stream(stream(f"up/{silence}", options=within(0.25))).rest()
        took = time.monotonic() - began
        await (await up.next()).gone()

    assert reader.failed is not None
    assert reader.failed.reason == "GATEWAY_TIMEOUT"
    assert 0.25 <= took < 1.0


async def test_the_shorter_of_timeout_and_deadline_counts() -> None:
    async with upstream(falls_silent) as up, gateway(up) as gw:
        began = time.monotonic()
        unary = create("up/before-headers", options=within(60))
        failed = await failing(gw.completions.CreateCompletion(unary, timeout=PLENTY))
        took = time.monotonic() - began

    assert failed.reason == "GATEWAY_TIMEOUT"
    assert took < PLENTY


async def test_a_call_in_time_is_not_touched_by_its_deadline() -> None:
    async def slow(exchange: Exchange) -> None:
        await exchange.head()
        for event in chat_events("one ", "two ", "three"):
            await asyncio.sleep(0.05)  # the pace of a provider
            await exchange.chunk(event)
        await exchange.end()

    async with upstream(slow) as up, gateway(up) as gw:
        reader = await gw.stream(stream(), timeout=10).rest()

    assert reader.failed is None
    assert reader.text == "one two three"


async def test_the_wait_for_a_free_connection_counts() -> None:
    async with upstream(falls_silent) as up, gateway(up, {"max_connections": 1}) as gw:
        held = gw.completions.CreateCompletion(create("up/before-headers"))
        exchange = await up.next()
        failed = await out_of_time(gw.completions, "unary", "before-headers", PLENTY)
        held.cancel()
        await exchange.gone()

    assert failed.reason == "GATEWAY_TIMEOUT"
    assert not failed.detail.HasField("upstream_status")


@pytest.mark.parametrize(
    ("timeouts", "silence", "kind"),
    [
        ({"idle": 0.2}, "before-headers", "unary"),
        ({"idle": 0.2}, "before-headers", "stream"),
        ({"idle": 0.2}, "before-token", "stream"),
        ({"idle": 0.2}, "midway", "stream"),
        ({"first_token": 0.2}, "before-token", "stream"),
        ({"first_token": 0.2}, "before-headers", "stream"),
    ],
)
async def test_a_provider_that_is_silent_for_too_long_is_what_timed_out(
    timeouts: dict[str, float], silence: str, kind: str
) -> None:
    async with upstream(falls_silent) as up, gateway(up, {"timeouts": timeouts}) as gw:
        failed = await out_of_time(gw.completions, kind, silence, 10.0)
        await (await up.next()).gone()

    assert (failed.code, failed.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "LLM_TIMEOUT")
    assert failed.detail.attempts[0].reason == "LLM_TIMEOUT"
    assert failed.detail.retryable


@pytest.mark.parametrize("kind", ["unary", "stream"])
async def test_the_total_of_a_provider_ends_a_call(kind: str) -> None:
    timeouts = {"total_unary": 0.2, "total_stream": 0.2}
    async with upstream(falls_silent) as up, gateway(up, {"timeouts": timeouts}) as gw:
        failed = await out_of_time(gw.completions, kind, "before-headers", 10.0)

    assert failed.reason in {"GATEWAY_TIMEOUT", "LLM_TIMEOUT"}


@pytest.mark.parametrize("microseconds", [0, 100, 200, 300, 500, 800])
async def test_time_that_runs_out_while_an_event_is_written_ends_the_call(microseconds: int) -> None:
    async with gateway() as gw:
        for _ in range(20):
            options = completion_pb2.CallOptions(timeout=Duration(nanos=1 + microseconds * 1000))
            reader = await gw.stream(stream("fake/echo", "word " * 50, options=options)).rest()
            assert reader.failed is None or reader.failed.reason == "GATEWAY_TIMEOUT"


@pytest.mark.alone
async def test_a_delta_in_time_is_delivered_before_the_error_of_time() -> None:
    async with gateway() as gw:
        options = script(text="one two", word_delay=0.15)
        reader = await gw.stream(stream("fake/script", provider_options_json=options, options=within(0.4))).rest()

    assert reader.failed is not None
    assert reader.failed.reason == "GATEWAY_TIMEOUT"
    assert reader.text == "one two"
    assert reader.failed.detail.last_sequence_number == len(reader.events)


async def test_an_answer_that_comes_at_once_beats_any_deadline() -> None:
    async with upstream(lambda exchange: exchange.answer(chat())) as up, gateway(up) as gw:
        answer = await gw.complete(create(), timeout=5)

    assert answer.choices[0].finish_reason == completion_pb2.FINISH_REASON_STOP
