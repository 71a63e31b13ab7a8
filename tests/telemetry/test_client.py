"""A client whose program has spans: its trace goes on through the gateway."""

from __future__ import annotations

import asyncio
import json
import sys

import pytest
from opentelemetry import trace
from opentelemetry.propagate import inject
from opentelemetry.sdk.trace import TracerProvider
from tests.gateway import gateway
from tests.telemetry.receiver import receiver

from trunkline import AsyncClient, NotFound

#: A program as the client's README has it, which prints the spans that it made.
PROGRAM = """
import json, sys
from opentelemetry import trace
from opentelemetry.instrumentation.grpc import GrpcInstrumentorClient, filters
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from trunkline import Client

made = InMemorySpanExporter()
trace.set_tracer_provider(TracerProvider(shutdown_on_exit=False))
trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(made))
GrpcInstrumentorClient(filter_=filters.negate(filters.method_name("StreamCompletion"))).instrument()
with Client(sys.argv[1]) as client:
    client.complete("Hi", model="fake/echo")
    with client.stream("Hi", model="fake/echo") as stream:
        "".join(stream.text())
print(json.dumps([[f"{s.context.trace_id:032x}", f"{s.context.span_id:016x}"] for s in made.get_finished_spans()]))
"""


async def test_the_blocking_client_is_instrumented_as_any_grpc_client() -> None:
    with receiver() as to:
        async with gateway(otel={"endpoint": to.url}) as gw:
            program = await asyncio.create_subprocess_exec(
                sys.executable, "-c", PROGRAM, gw.address, stdout=asyncio.subprocess.PIPE
            )
            printed, _ = await program.communicate()

    [[trace_id, span_id]] = json.loads(printed)
    assert [one.parent for one in to.servers if one.trace == trace_id] == [span_id]
    assert len(to.servers) == 2


async def test_a_client_hands_its_trace_over_by_metadata() -> None:
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("program")
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
