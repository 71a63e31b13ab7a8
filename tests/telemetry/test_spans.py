"""Spans beside the calls: what a server with and without an exporter does with a caller's trace."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from tests.gateway import create, failing, gateway, settings, stream
from tests.process import connected, server_process
from tests.telemetry.receiver import receiver
from tests.upstream import Exchange, says, silent, upstream

from trunkline.v1alpha import pipeline_service_pb2
from trunkline.v1alpha.pipeline_service_pb2_grpc import PipelineServiceStub
from trunkline_server import app as composition
from trunkline_server.config import ConfigError

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def traceparent(text: str = f"00-{TRACE}-{PARENT}-01") -> tuple[tuple[str, str], ...]:
    return (("traceparent", text),)


def test_a_server_without_spans_does_not_load_opentelemetry() -> None:
    code = (
        "import os, sys; from trunkline_server import app, config;"
        "app.build(config.load(None, providers={'fake': {}}, local={'enabled': False}), os.environ);"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={}, check=True)

    assert done.stdout.strip() == "[]", done.stderr


async def test_the_callers_trace_is_in_the_log_also_without_an_exporter() -> None:
    async with gateway() as gw:
        await gw.complete(create("fake/echo"), metadata=traceparent())
        await gw.complete(create("fake/echo"))
        followed, alone = gw.calls()

    assert (followed["trace_id"], followed["span_id"]) == (TRACE, PARENT)
    assert not {"trace_id", "span_id"} & alone.keys()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        f"00-{TRACE}-{PARENT}",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01-more",
        f"00-{TRACE}-{PARENT}-0g",
    ],
)
async def test_a_traceparent_that_is_none_is_left_out(text: str) -> None:
    async with upstream(says()) as up, gateway(up, otel={"propagate": True}) as gw:
        await gw.complete(create(), metadata=traceparent(text))
        [line] = gw.calls()

    assert "trace_id" not in line
    assert "traceparent" not in up.exchanges[0].headers


async def test_a_later_version_of_traceparent_is_read_as_far_as_it_is_known() -> None:
    async with gateway() as gw:
        await gw.complete(create("fake/echo"), metadata=traceparent(f"01-{TRACE}-{PARENT}-01-more"))
        [line] = gw.calls()

    assert line["trace_id"] == TRACE


async def test_providers_see_nothing_of_a_trace_unless_asked() -> None:
    with receiver() as to:
        async with upstream(says()) as up, gateway(up, otel={"endpoint": to.url}) as gw:
            await gw.complete(create(), metadata=traceparent())

    assert not {"traceparent", "tracestate", "baggage"} & up.exchanges[0].headers.keys()


@pytest.mark.parametrize("exported", [True, False])
@pytest.mark.parametrize("streamed", [True, False])
async def test_a_provider_that_may_see_it_is_told_the_span_of_the_attempt(exported: bool, streamed: bool) -> None:
    metadata = (*traceparent(), ("tracestate", "vendor=1"))
    with receiver() as to:
        async with (
            upstream(says()) as up,
            gateway(
                up,
                {"propagate": True},
                otel={"endpoint": to.url} if exported else {},
                forward_metadata=["traceparent"],
            ) as gw,
        ):
            if streamed:
                await gw.stream(stream(), metadata=metadata).rest()
            else:
                await gw.complete(create(), metadata=metadata)

    sent = up.exchanges[0].headers
    parent = next(one.id for one in to.spans if one.name == "chat up-1") if exported else PARENT
    assert sent["traceparent"] == f"00-{TRACE}-{parent}-01"
    assert sent["tracestate"] == "vendor=1"


async def test_a_provider_may_be_left_out_of_what_is_propagated() -> None:
    async with upstream(says()) as up, gateway(up, {"propagate": False}, otel={"propagate": True}) as gw:
        await gw.complete(create(), metadata=traceparent())

    assert "traceparent" not in up.exchanges[0].headers


async def test_what_the_caller_does_not_sample_is_not_exported_and_said_so_to_the_provider() -> None:
    with receiver() as to:
        async with upstream(says()) as up, gateway(up, otel={"endpoint": to.url, "propagate": True}) as gw:
            await gw.complete(create(), metadata=traceparent(f"00-{TRACE}-{PARENT}-00"))
            [line] = gw.calls()

    assert to.spans == []
    assert up.exchanges[0].headers["traceparent"].endswith("-00")
    assert line["trace_id"] == TRACE


async def test_a_share_of_the_traces_that_begin_here_is_exported() -> None:
    with receiver() as to:
        async with gateway(otel={"endpoint": to.url, "sample": 0}) as gw:
            await gw.complete(create("fake/echo"))
            await gw.complete(create("fake/echo"), metadata=traceparent())

    assert {one.trace for one in to.spans} == {TRACE}


async def test_the_usual_variables_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiver() as to:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", to.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20of-the-collector-1234")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "gateway-of-mine")
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        async with gateway() as gw:
            await gw.complete(create("fake/echo"))
            log = gw.log

    assert {one.resource["service.name"] for one in to.spans} == {"gateway-of-mine"}
    assert {one.resource["deployment.environment.name"] for one in to.spans} == {"test"}
    assert to.metadata[0]["authorization"] == "Bearer of-the-collector-1234"
    assert "of-the-collector" not in log + to.text


@pytest.mark.parametrize("off", [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")])
async def test_the_usual_variables_turn_spans_off(off: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    with receiver() as to:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", to.url)
        monkeypatch.setenv(*off)
        async with gateway() as gw:
            await gw.complete(create("fake/echo"))

    assert to.spans == []


async def test_a_protocol_that_is_not_spoken_here_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")

    with pytest.raises(ConfigError, match="OTEL_EXPORTER_OTLP_PROTOCOL is 'http/protobuf'; spans leave over gRPC"):
        composition.build(settings(otel={"endpoint": "http://127.0.0.1:4318"}), os.environ)


async def test_a_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trunkline_server.rpc.spans", None)

    with pytest.raises(ConfigError, match=r"pip install 'trunkline-server\[otel\]'"):
        composition.build(settings(otel={"endpoint": "http://127.0.0.1:4317"}), os.environ)


async def test_spans_leave_over_tls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    issued = authority.issue_cert("localhost")
    chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
    credentials = grpc.ssl_server_credentials([(issued.private_key_pem.bytes(), chain)])
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(tmp_path / "ca.pem"))
    with receiver(credentials) as to:
        async with gateway(otel={"endpoint": to.url}) as gw:
            await gw.complete(create("fake/echo"))

    assert len(to.spans) == 2


async def test_a_collector_that_is_not_there_holds_up_no_call_and_no_end() -> None:
    async with gateway(otel={"endpoint": "http://127.0.0.1:9"}) as gw:
        began = time.monotonic()
        for _ in range(20):
            await gw.complete(create("fake/echo"))
        took = time.monotonic() - began
        leaving = time.monotonic()
    ended = time.monotonic() - leaving

    assert took < 2
    assert ended < 8
    assert gw.metric("trunkline_spans_total", outcome="ended") == 40
    assert gw.metric("trunkline_spans_total", outcome="exported") == 0


async def test_a_collector_that_refuses_is_told_in_the_log_as_json() -> None:
    with receiver() as to:
        to.refusing = grpc.StatusCode.PERMISSION_DENIED
        async with gateway(otel={"endpoint": to.url}) as gw:
            await gw.complete(create("fake/echo"))
    told = [line for line in gw.lines if line["event"] == "opentelemetry"]

    assert to.refused >= 1
    assert "PERMISSION_DENIED" in told[0]["message"]
    assert gw.metric("trunkline_spans_total", outcome="failed") == 2


async def test_each_call_of_a_pipeline_has_a_span_of_its_own() -> None:
    def asked(name: str, model: str) -> pipeline_service_pb2.PipelineRequest:
        call = pipeline_service_pb2.PipelineCall(id=name, create_completion=create(model))
        return pipeline_service_pb2.PipelineRequest(call=call)

    with receiver() as to:
        async with gateway(otel={"endpoint": to.url}) as gw:
            stub: Any = PipelineServiceStub(gw.channel)
            pipeline = stub.Pipeline(metadata=traceparent())
            for name, model in (("a", "fake/echo"), ("b", "fake/none")):
                await pipeline.write(asked(name, model))
            await pipeline.done_writing()
            while await pipeline.read() is not grpc.aio.EOF:
                pass

    [server] = to.servers
    inner = to.below(server)
    assert server.name.endswith("/Pipeline")
    assert [one.name for one in inner] == ["CreateCompletion"] * 2
    assert sorted(one.attributes["rpc.response.status_code"] for one in inner) == ["NOT_FOUND", "OK"]
    assert sorted(child.name for one in inner for child in to.below(one)) == ["chat echo", "chat none"]
    ids = {line["id"]: line["span_id"] for line in gw.calls("CreateCompletion")}
    assert ids == {one.attributes["trunkline.call.id"]: one.id for one in inner}


async def test_health_and_reflection_have_no_spans() -> None:
    from grpc_health.v1 import health_pb2

    with receiver() as to:
        async with gateway(otel={"endpoint": to.url}) as gw:
            await gw.health.Check(health_pb2.HealthCheckRequest())

    assert to.spans == []


async def test_workers_export_what_they_served(tmp_path: Path) -> None:
    with receiver() as to:
        async with server_process(tmp_path, workers=2, otel={"endpoint": to.url}) as server:
            address = await server.address()
            await server.line("serving", 2)
            for _ in range(20):
                async with connected(address) as stub:
                    await stub.CreateCompletion(create("fake/echo"), timeout=10)
            server.signal()
            assert await server.ended() == 0

    assert len(to.servers) == 20
    assert len({one.resource["service.instance.id"] for one in to.servers}) == 2


async def test_a_stream_that_lasts_has_one_span_for_all_of_it() -> None:
    async def slow(exchange: Exchange) -> None:
        await says("one", " two")(exchange)

    with receiver() as to:
        async with upstream(slow) as up, gateway(up, otel={"endpoint": to.url}) as gw:
            readers = [gw.stream(stream()) for _ in range(10)]
            await asyncio.gather(*(reader.rest() for reader in readers))

    assert len(to.servers) == 10
    assert all(len(to.below(one)) == 1 for one in to.servers)


async def test_a_failed_call_says_whose_fault_it_was() -> None:
    with receiver() as to:
        async with (
            upstream(silent) as up,
            gateway(up, {"timeouts": {"idle": "100ms"}}, otel={"endpoint": to.url}) as gw,
        ):
            failed = await failing(gw.completions.CreateCompletion(create()))

    [server] = to.servers
    [attempt] = to.below(server)
    assert failed.reason == "LLM_TIMEOUT"
    assert server.attributes["error.type"] == attempt.attributes["error.type"] == "LLM_TIMEOUT"
    assert attempt.attributes["server.port"] == int(up.url.rpartition(":")[2])
