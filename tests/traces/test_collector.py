"""deploy/clickhouse-collector: its views find our calls in the table that the exporter makes of our spans."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from tests.services import Clickhouse
from tests.traces.samples import record, sample

from trunkline.v1 import completion_pb2
from trunkline.v1alpha import trace_pb2
from trunkline_server.traces.clickhouse.address import Address
from trunkline_server.traces.clickhouse.http import HttpEngine
from trunkline_server.traces.otlp.spans import resource_spans

FOLDER = Path(__file__).parents[2] / "deploy" / "clickhouse-collector"

#: What the exporter (0.165) makes, less indexes and codecs.
TABLE = """
CREATE TABLE otel.otel_traces (
  Timestamp DateTime64(9), TraceId String, SpanId String, ParentSpanId String, TraceState String,
  SpanName LowCardinality(String), SpanKind LowCardinality(String), ServiceName LowCardinality(String),
  ResourceAttributes Map(LowCardinality(String), String), ScopeName String, ScopeVersion String,
  SpanAttributes Map(LowCardinality(String), String), Duration UInt64, StatusCode LowCardinality(String),
  StatusMessage String
) ENGINE = MergeTree PARTITION BY toDate(Timestamp) ORDER BY (ServiceName, SpanName, toDateTime(Timestamp))
"""

COLUMNS = {
    "Timestamp": "DateTime64(9)", "TraceId": "String", "SpanId": "String", "ParentSpanId": "String",
    "SpanName": "LowCardinality(String)", "ServiceName": "LowCardinality(String)",
    "SpanAttributes": "Map(LowCardinality(String), String)", "Duration": "UInt64",
}  # fmt: skip

#: Before all that is written here.
OLD = "toDateTime('2026-11-01 00:00:00')"


def row(span: Any) -> tuple[Any, ...]:
    """As the exporter writes a span."""
    attributes = {pair.key: text(pair.value) for pair in span.attributes}
    ids = (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex())
    took = span.end_time_unix_nano - span.start_time_unix_nano
    return span.start_time_unix_nano, *ids, span.name, "trunkline", attributes, took


def text(value: Any) -> str:
    """As the exporter writes an attribute."""
    found = getattr(value, value.WhichOneof("value"))
    return str(found).lower() if isinstance(found, bool) else f"{found}"


def statements(name: str) -> list[str]:
    return [one for one in re.split(r";\s*\n", (FOLDER / name).read_text()) if one.strip()]


async def test_calls_and_attempts_are_found_in_the_spans(clickhouse: Clickhouse):
    engine = HttpEngine(Address.parse(clickhouse.database().rpartition("/")[0] + "/otel"))
    failed = sample(code=14, reason="LLM_OVERLOADED", error="busy", labels={"team": "search"}, cost=10**8)
    failed.usage.source = completion_pb2.USAGE_SOURCE_ESTIMATED
    failed.attempts.add(number=2, provider="openai", model="gpt-5.2", reason="LLM_OVERLOADED")
    failed.attempts[1].cause = trace_pb2.ATTEMPT_CAUSE_RETRY
    failed.attempts[1].start_time.CopyFrom(failed.attempts[0].start_time)
    good = sample(duration_us=2_000_000, cost=250_000_000, labels={"team": "search"})
    spans = [
        span
        for trace in (failed, good)
        for scope in resource_spans(record(trace), content=True, service="trunkline").scope_spans
        for span in scope.spans
    ]
    try:
        await engine.command("DROP DATABASE IF EXISTS otel", {}, seconds=20)
        await engine.command("CREATE DATABASE otel", {}, seconds=20)
        await engine.command(TABLE, {}, seconds=20)
        # Twice, as after an outage.
        for _ in range(2):
            await engine.insert("otel_traces", COLUMNS, [row(span) for span in spans], seconds=20)
        *views, cost, reasons, first_tokens = statements("calls.sql")
        for view in views:
            await engine.command(view, {}, seconds=20)

        usage = "input_tokens, output_tokens, usage_source, cost_usd"
        columns = f"id, provider, model, asked_model, code, reason, ms, {usage}, labels"
        found = await engine.query(
            f"SELECT {columns} FROM otel.calls(since = {OLD}) ORDER BY start_time",
            {},
            seconds=20,
        )
        assert [tuple(one) for one in found] == [
            (
                trace.name.removeprefix("traces/"), "openai", "gpt-5.2", "openai/gpt-5.2", code, trace.status.reason,
                ms, 12, 34, source, usd, {"trunkline.label.team": "search"},
            )
            for trace, code, ms, source, usd in (
                (failed, "UNAVAILABLE", 250.0, "estimated", 0.1), (good, "OK", 2000.0, "reported", 0.25),
            )
        ]  # fmt: skip
        by_model = await engine.query(re.sub(r"now\(\) - INTERVAL \d+ DAY", OLD, cost), {}, seconds=20)
        assert [tuple(one[1:]) for one in by_model] == [("openai", "gpt-5.2", 2, 1, 24, 68, 0.35, 0.1)]
        why = await engine.query(re.sub(r"now\(\) - INTERVAL \d+ HOUR", OLD, reasons), {}, seconds=20)
        assert [tuple(one) for one in why] == [("LLM_OVERLOADED", 1, 2.0)]
        tokens = await engine.query(re.sub(r"now\(\) - INTERVAL \d+ DAY", OLD, first_tokens), {}, seconds=20)
        assert [(one[0], one[1], one[2][1]) for one in tokens] == [("gpt-5.2", 2, 956.25)]
    finally:
        await engine.command("DROP DATABASE IF EXISTS otel", {}, seconds=20)
        await engine.aclose()


def test_the_collectors_configuration_names_what_it_uses():
    configuration = yaml.safe_load((FOLDER / "collector.yaml").read_text())
    pipeline = configuration["service"]["pipelines"]["traces"]

    for kind in ("receivers", "processors", "exporters"):
        assert set(pipeline[kind]) == set(configuration[kind])
    assert set(configuration["service"]["extensions"]) == set(configuration["extensions"])
    exporter = configuration["exporters"]["clickhouse"]
    assert f"{exporter['database']}.{exporter['traces_table_name']}" in (FOLDER / "calls.sql").read_text()
