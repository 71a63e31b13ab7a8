"""What metrics count, beyond how calls end (test_exits.py)."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.gateway import Gateway, create, failing, gateway, script, stream
from tests.process import connected, server_process
from tests.test_processes import exposed, free_port
from tests.upstream import Exchange, chat, chat_events, says, upstream

from trunkline.v1 import completion_pb2
from trunkline_server.call import Call, Cause
from trunkline_server.exposition import SpoolCollector
from trunkline_server.telemetry.metrics import MOST_COMBINATIONS, Metrics
from trunkline_server.traces import status as statuses
from trunkline_server.traces.status import BackendStatus, Status


def value(metrics: Metrics, name: str, **labels: str) -> float:
    found = [
        sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    return sum(found)


def ended(metrics: Metrics, code: str = "OK", reason: str = "", **facts: Any) -> Call:
    call = Call("CreateCompletion", caller=facts.pop("caller", "a"))
    attempts = facts.pop("attempts", [("up", "m", Cause.FIRST)])
    metrics.began(call.method)
    for provider, model, cause in attempts:
        call.begin_attempt(provider, model, cause).ended = time.monotonic()
    for name, fact in facts.items():
        setattr(call, name, fact)
    metrics.ended(call, code, reason, 10, 0.5)
    return call


# -- overhead ---------------------------------------------------------------------------------------------------------


def overhead(gw: Gateway) -> float:
    return gw.metric("trunkline_overhead_seconds_sum")


@pytest.mark.alone
async def test_the_time_of_a_provider_is_not_the_gateways() -> None:
    async def slow(exchange: Exchange) -> None:
        await asyncio.sleep(0.3)
        if exchange.json.get("stream"):
            await exchange.head()
            for event in chat_events("a", "b"):
                await asyncio.sleep(0.1)
                await exchange.chunk(event)
            await exchange.end()
        else:
            await exchange.answer(chat())

    async with upstream(slow) as up, gateway(up) as gw:
        await gw.complete(create())
        unary = overhead(gw)
        await gw.stream(stream()).rest()
        both, total = overhead(gw), gw.metric("trunkline_call_seconds_sum")
        lines = gw.calls()

    assert total > 1.0
    assert 0 < unary < 0.15
    assert 0 < both - unary < 0.15
    assert sum(line["overhead_ms"] for line in lines) == pytest.approx(both * 1000, abs=0.1)


@pytest.mark.alone
async def test_the_pause_before_a_retry_is_not_the_gateways() -> None:
    async def limited_once(exchange: Exchange) -> None:
        if len(up.exchanges) == 1:
            await exchange.answer({"error": {"message": "slow down"}}, 429, {"retry-after-ms": "400"})
        else:
            await exchange.answer(chat())

    async with upstream(limited_once) as up, gateway(up, routing={"retry": {"max_attempts": 2}}) as gw:
        await gw.complete(create())
        added, total = overhead(gw), gw.metric("trunkline_call_seconds_sum")
        causes = [gw.metric("trunkline_attempts_total", cause=cause) for cause in ("first", "retry")]

    assert causes == [1, 1]
    assert total > 0.3
    assert added < 0.15


async def test_waits_side_by_side_count_once() -> None:
    call = Call("CreateEmbeddings")
    began = time.monotonic()

    async def wait() -> None:
        with call.waiting:
            await asyncio.sleep(0.1)

    await asyncio.gather(*(wait() for _ in range(5)))
    took = time.monotonic() - began

    assert 0.09 < call.waiting.seconds <= took


@pytest.mark.alone
async def test_the_time_of_a_caller_who_does_not_read_is_not_the_gateways() -> None:
    texts = ["x" * 50_000] * 200
    # The client reads no further ahead than a window.
    narrow = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65_536)]
    async with upstream(says(*texts)) as up, gateway(up, channel_options=narrow) as gw:
        reader = gw.stream(stream())
        await reader.next()
        await asyncio.sleep(0.5)
        await reader.rest()
        added, total = overhead(gw), gw.metric("trunkline_call_seconds_sum")

    assert total > 0.5
    assert added < total - 0.3


# -- counts -----------------------------------------------------------------------------------------------------------


async def test_a_fallback_is_counted_with_where_it_came_from() -> None:
    metrics = Metrics()
    metrics.know(models=["m1", "m2"])
    ended(metrics, attempts=[("one", "m1", Cause.FIRST), ("one", "m1", Cause.RETRY), ("two", "m2", Cause.FALLBACK)])

    assert value(metrics, "trunkline_attempts_total", provider="one", cause="first") == 1
    assert value(metrics, "trunkline_attempts_total", provider="one", cause="retry") == 1
    assert value(metrics, "trunkline_fallbacks_total", from_provider="one", from_model="m1", provider="two") == 1
    assert value(metrics, "trunkline_attempt_seconds_count", provider="one") == 2


def test_what_the_provider_did_not_report_is_summed_apart() -> None:
    metrics = Metrics()
    for source in (
        completion_pb2.USAGE_SOURCE_REPORTED,
        completion_pb2.USAGE_SOURCE_PARTIAL,
        completion_pb2.USAGE_SOURCE_ESTIMATED,
    ):
        usage = completion_pb2.Usage(
            input_tokens=100,
            output_tokens=10,
            cache_read_input_tokens=60,
            cache_write_input_tokens=20,
            reasoning_tokens=4,
            cost_nano_usd=10**9,
            source=source,
        )
        ended(metrics, usage=usage, provider="up", model="m")

    for name in ("reported", "partial", "estimated"):
        assert value(metrics, "trunkline_tokens_total", source=name, direction="input") == 100
        assert value(metrics, "trunkline_tokens_total", source=name, direction="output") == 10
        assert value(metrics, "trunkline_cost_usd_total", source=name) == 1
    assert value(metrics, "trunkline_cached_tokens_total", access="read") == 180
    assert value(metrics, "trunkline_cached_tokens_total", access="write") == 60
    assert value(metrics, "trunkline_reasoning_tokens_total") == 12


@pytest.mark.alone
async def test_time_per_token_is_that_after_the_first() -> None:
    text = "one two three four five"
    async with gateway() as gw:
        await gw.stream(stream("fake/script", provider_options_json=script(text=text, word_delay=0.05))).rest()
        count = gw.metric("trunkline_time_per_output_token_seconds_count", provider="fake", model="script")
        mean = gw.metric("trunkline_time_per_output_token_seconds_sum")

    assert count == 1
    assert 0.04 < mean < 0.2


async def test_bytes_are_those_of_the_messages() -> None:
    request = create("fake/echo", "x" * 1000)
    async with gateway() as gw:
        answer = await gw.completions.CreateCompletion(request)
        sizes = [gw.metric("trunkline_bytes_total", direction=way, method="CreateCompletion") for way in ("in", "out")]

    assert sizes == [request.ByteSize(), answer.ByteSize()]


def test_no_number_of_callers_and_models_makes_more_than_so_many_series() -> None:
    metrics = Metrics(most_values=100_000)
    for n in range(MOST_COMBINATIONS + 200):
        ended(metrics, caller=f"c{n}", provider="up", model=f"m{n}")

    assert value(metrics, "trunkline_calls_total") == MOST_COMBINATIONS + 200
    assert value(metrics, "trunkline_calls_total", model="other", caller="other") == 200
    assert value(metrics, "trunkline_calls_total", caller="c5") == 1


async def test_callers_of_the_configuration_have_their_place_whoever_comes_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys = {f"caller-{n}": f"key-of-the-caller-number-{n}" for n in range(4)}
    for name, key in keys.items():
        monkeypatch.setenv(name.upper().replace("-", "_"), key)
    callers = [{"name": name, "api_key_env": name.upper().replace("-", "_")} for name in keys]
    async with gateway(callers=callers, metrics={"port": 1, "max_values": 3}) as gw:
        for key in reversed(keys.values()):
            await gw.complete(create("fake/echo"), metadata=(("x-api-key", key),))
        await failing(gw.completions.CreateCompletion(create("fake/echo"), metadata=(("x-api-key", "nobody's"),)))
        counts = {name: gw.metric("trunkline_calls_total", caller=name) for name in (*keys, "other", "")}

    assert counts == {"caller-0": 1, "caller-1": 1, "caller-2": 1, "caller-3": 0, "other": 1, "": 1}


# -- the page ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
async def test_the_page_tells_of_the_delivery_of_records_too(tmp_path: Path, workers: int) -> None:
    port = free_port()
    config: dict[str, Any] = {
        "workers": workers,
        "metrics": {"port": port},
        "state_dir": str(tmp_path / "state"),
        "traces": ["sqlite:", f"unix:{tmp_path}/nobody.sock"],
    }
    async with server_process(tmp_path, **config) as server:
        address = await server.address()
        await server.line("serving", workers)
        for _ in range(5):
            async with connected(address) as stub:
                await stub.CreateCompletion(create("fake/echo"), timeout=10)
        async with asyncio.timeout(20):
            while (found := samples(await exposed(port))).get(("trunkline_traces_delivered_total", "sqlite")) != 5:
                await asyncio.sleep(0.1)
        server.signal()
        assert await server.ended() == 0

    assert found["trunkline_traces_made_total", ""] == 5
    assert found["trunkline_trace_backend_up", "sqlite"] == 1
    assert found["trunkline_trace_backend_up", "unix"] == 0
    assert found["trunkline_traces_waiting", "sqlite"] == 0
    assert found["trunkline_traces_waiting", "unix"] == 5
    assert found["trunkline_traces_oldest_seconds", "unix"] > 0
    assert found["trunkline_traces_dropped_total", "unix"] == 0
    assert found["trunkline_spool_bytes", ""] > 0
    assert found["trunkline_trace_delivery_seen_seconds", ""] < 60


def samples(page: str) -> dict[tuple[str, str], float]:
    text = page.partition("\r\n\r\n")[2]
    return {
        (sample.name, sample.labels.get("backend", "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_two_backends_of_a_kind_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    collector = SpoolCollector(path)
    assert list(collector.collect()) == []
    backends = [BackendStatus("postgresql", waiting=n, oldest=1.0) for n in (1, 2)]
    statuses.write(path, Status(at=time.time() - 5, backends=backends))

    found = {
        (sample.name, sample.labels.get("backend")): sample.value
        for family in collector.collect()
        for sample in family.samples
    }
    assert found["trunkline_traces_waiting", "postgresql"] == 1
    assert found["trunkline_traces_waiting", "postgresql-2"] == 2
    # The older what was said is, the older is what waits.
    assert found["trunkline_traces_oldest_seconds", "postgresql"] == pytest.approx(6, abs=1)
