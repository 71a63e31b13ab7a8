"""A client whose program has spans: its trace goes on through the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.grpc import GrpcInstrumentorClient, filters
from opentelemetry.propagate import inject
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.gateway import gateway
from tests.telemetry.receiver import receiver

from trunkline import AsyncClient, Client, NotFound


@pytest.fixture
def spans() -> Iterator[tuple[TracerProvider, InMemorySpanExporter]]:
    provider, exporter = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider, exporter
    provider.shutdown()


async def test_the_blocking_client_is_instrumented_as_any_grpc_client(
    spans: tuple[TracerProvider, InMemorySpanExporter],
) -> None:
    provider, exporter = spans
    # Of a stream it makes a generator, which cannot be cancelled.
    instrumentor = GrpcInstrumentorClient(filter_=filters.negate(filters.method_name("StreamCompletion")))
    instrumentor.instrument(tracer_provider=provider)
    try:
        with receiver() as to:
            async with gateway(otel={"endpoint": to.url}) as gw:
                await asyncio.to_thread(used, gw.address)
    finally:
        instrumentor.uninstrument()

    [span] = exporter.get_finished_spans()
    assert span.name.endswith("/CreateCompletion")
    assert span.context is not None
    [server] = [one for one in to.servers if one.trace == f"{span.context.trace_id:032x}"]
    assert server.parent == f"{span.context.span_id:016x}"
    assert len(to.servers) == 2


def used(address: str) -> None:
    with Client(address) as client:
        assert client.complete("Hi", model="fake/echo").choices
        with client.stream("Hi", model="fake/echo") as stream:
            assert "".join(stream.text())


async def test_an_asynchronous_client_hands_its_trace_over_by_metadata(
    spans: tuple[TracerProvider, InMemorySpanExporter],
) -> None:
    tracer = spans[0].get_tracer("program")
    with receiver() as to:
        async with gateway(otel={"endpoint": to.url}) as gw, AsyncClient(gw.address) as client:
            with tracer.start_as_current_span("work") as span:
                headers: dict[str, str] = {}
                inject(headers)
                await client.complete("Hi", model="fake/echo", metadata=headers)
                with pytest.raises(NotFound):
                    await client.complete("Hi", model="nobody/x", metadata=headers)

    own = span.get_span_context()
    assert {(one.trace, one.parent) for one in to.servers} == {(f"{own.trace_id:032x}", f"{own.span_id:016x}")}
    assert trace.get_current_span() is trace.INVALID_SPAN
