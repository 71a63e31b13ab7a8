-- Calls as a table, from the spans that the collector has written. Run it once, after the first span:
--   clickhouse-client --multiquery < calls.sql
--
-- The exporter makes `otel.otel_traces` with create_schema: a row for each span (Timestamp DateTime64(9), TraceId, SpanId,
-- ParentSpanId, SpanName, SpanKind, ServiceName, Duration in ns, StatusCode, StatusMessage, ResourceAttributes and
-- SpanAttributes as Map(LowCardinality(String), String)), ORDER BY (ServiceName, SpanName, toDateTime(Timestamp)), in
-- partitions by day that its `ttl` drops.
--
-- Spans come at least once: one that comes again after an outage has the same id, and counts once here. That takes reading
-- all that a view is asked for, so both are asked for a time: `otel.calls(since = ...)`.

CREATE OR REPLACE VIEW otel.calls AS
SELECT
    Timestamp AS start_time,
    SpanAttributes['trunkline.call.id'] AS id,
    TraceId AS trace_id,
    SpanId AS span_id,
    SpanAttributes['gen_ai.operation.name'] AS operation,
    SpanAttributes['trunkline.caller'] AS caller,
    SpanAttributes['trunkline.provider'] AS provider,
    SpanAttributes['gen_ai.request.model'] AS model,
    SpanAttributes['trunkline.asked_model'] AS asked_model,
    SpanAttributes['rpc.response.status_code'] AS code,
    SpanAttributes['trunkline.reason'] AS reason,
    Duration / 1e6 AS ms,
    toFloat64OrNull(SpanAttributes['gen_ai.response.time_to_first_chunk']) * 1e3 AS first_token_ms,
    toInt64OrZero(SpanAttributes['gen_ai.usage.input_tokens']) AS input_tokens,
    toInt64OrZero(SpanAttributes['gen_ai.usage.output_tokens']) AS output_tokens,
    SpanAttributes['trunkline.usage.source'] AS usage_source,
    toFloat64OrNull(SpanAttributes['trunkline.usage.cost_usd']) AS cost_usd,
    mapFilter((name, value) -> startsWith(name, 'trunkline.label.'), SpanAttributes) AS labels
FROM otel.otel_traces
WHERE Timestamp >= {since:DateTime} AND mapContains(SpanAttributes, 'trunkline.call.id')
LIMIT 1 BY SpanId;

CREATE OR REPLACE VIEW otel.attempts AS
SELECT
    Timestamp AS start_time,
    ParentSpanId AS call_span_id,
    toInt32OrZero(SpanAttributes['trunkline.attempt.number']) AS number,
    SpanAttributes['trunkline.attempt.cause'] AS cause,
    SpanAttributes['trunkline.provider'] AS provider,
    SpanAttributes['gen_ai.request.model'] AS model,
    SpanAttributes['http.response.status_code'] AS http_status,
    SpanAttributes['error.type'] AS reason,
    Duration / 1e6 AS ms
FROM otel.otel_traces
WHERE Timestamp >= {since:DateTime} AND mapContains(SpanAttributes, 'trunkline.attempt.number')
LIMIT 1 BY SpanId;

-- What a day cost, by model, and what of it is an estimate: that of answers that were cut short.
SELECT toDate(start_time) AS day, provider, model, count() AS calls, countIf(code != 'OK') AS failed,
    sum(input_tokens) AS input, sum(output_tokens) AS output, round(sum(cost_usd), 4) AS usd,
    round(sumIf(cost_usd, usage_source = 'estimated'), 4) AS estimated_usd
FROM otel.calls(since = now() - INTERVAL 7 DAY) GROUP BY day, provider, model ORDER BY day DESC, usd DESC;

-- Why calls failed in the last hour, and how many attempts each took.
SELECT reason, count() AS calls, avg(tries) AS attempts
FROM otel.calls(since = now() - INTERVAL 1 HOUR) AS c
LEFT JOIN (
    SELECT call_span_id, count() AS tries FROM otel.attempts(since = now() - INTERVAL 1 HOUR) GROUP BY call_span_id
) AS a ON a.call_span_id = c.span_id
WHERE code != 'OK' GROUP BY reason ORDER BY calls DESC;

-- Time to the first token, by model.
SELECT model, count() AS calls, quantiles(0.5, 0.95, 0.99)(first_token_ms) AS p50_p95_p99
FROM otel.calls(since = now() - INTERVAL 1 DAY) WHERE first_token_ms IS NOT NULL GROUP BY model ORDER BY calls DESC;
