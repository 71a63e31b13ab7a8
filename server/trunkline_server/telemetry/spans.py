"""Spans of calls and attempts, exported over OTLP. Imported only where an exporter is configured."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from trunkline_server import __version__
from trunkline_server.call import Attempt, Call
from trunkline_server.telemetry import genai
from trunkline_server.telemetry.metrics import Metrics

#: Codes of gRPC that are the server's fault; others leave a server's span unset, as the conventions have it.
SERVER_ERRORS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})

#: The span of an RPC that a call has taken as its own.
_taken: ContextVar[Span | None] = ContextVar("span of the call", default=None)


def provider(
    environ: Mapping[str, str], metrics: Metrics, *, endpoint: str | None, service_name: str, sample: float | None
) -> TracerProvider:
    """What makes and exports spans. Headers, certificates, queue and all else come from the OTEL_ variables.

    `endpoint`: http://HOST:PORT or https://…; None: from the environment. `sample`: share of the traces that begin
    here; None: from the environment, else all.
    """
    own = {"service.name": service_name, "service.version": __version__}
    if environ.get("OTEL_SERVICE_NAME"):
        del own["service.name"]
    made = TracerProvider(
        sampler=None if sample is None else ParentBased(TraceIdRatioBased(sample)),
        resource=Resource.create(own),
        id_generator=_Ids(),
        shutdown_on_exit=False,  # without a bound
    )
    made.add_span_processor(_Ended(metrics))
    made.add_span_processor(BatchSpanProcessor(_Counted(OTLPSpanExporter(endpoint=endpoint), metrics)))
    return made


class CallSpans:
    """Tells the span of each call what the call was, and adds one for each attempt. Never waits."""

    def __init__(self, made: TracerProvider, kinds: Mapping[str, str]) -> None:
        """`kinds`: of the providers, by name."""
        self._provider = made
        self._ids = made.id_generator
        self._tracer = made.get_tracer("trunkline_server", __version__)
        self._kinds = kinds
        self._inner: dict[str, Span] = {}

    def began(self, call: Call) -> None:
        span = trace.get_current_span()
        if not span.get_span_context().is_valid:
            return
        if _taken.get() is span:
            # One of many calls in a Pipeline, in a task of its own. Its context ends with the task.
            span = self._inner[call.id] = self._tracer.start_span(call.method, kind=SpanKind.INTERNAL)
            otel_context.attach(trace.set_span_in_context(span))
        _taken.set(span)
        own = span.get_span_context()
        call.otel_trace_id, call.otel_span_id = f"{own.trace_id:032x}", f"{own.span_id:016x}"
        call.otel_sampled = own.trace_flags.sampled
        parent = getattr(span, "parent", None)
        if parent is not None:
            call.otel_parent_span_id = f"{parent.span_id:016x}"
        if own.trace_state:
            call.otel_state = own.trace_state.to_header()

    def ended(self, call: Call, code: str, reason: str) -> None:
        inner = self._inner.pop(call.id, None)
        span = inner or trace.get_current_span()
        if span.is_recording():
            span.set_attributes(_of_call(call))
            if reason:
                span.set_attribute("trunkline.reason", reason)
            if code in SERVER_ERRORS:
                span.set_attribute("error.type", reason)
        if call.otel_sampled:
            # Also where a completion has outlasted its call, and with it the span.
            for attempt in call.attempts:
                self._attempt(call, attempt, code, reason)
        if inner is not None:
            inner.set_attribute("rpc.response.status_code", code)
            if code in SERVER_ERRORS:
                inner.set_status(Status(StatusCode.ERROR, reason))
            inner.end()

    def _attempt(self, call: Call, attempt: Attempt, code: str, reason: str) -> None:
        kind = self._kinds.get(attempt.provider, attempt.provider)
        if isinstance(self._ids, _Ids):
            self._ids.next_span = int(attempt.otel_span_id or "0", 16)
        span = self._tracer.start_span(
            f"{genai.operation(call.method)} {attempt.model}",
            kind=SpanKind.CLIENT,
            attributes=_of_attempt(call, attempt, kind),
            start_time=_unix_ns(call, attempt.began),
        )
        why = attempt.reason
        if not why and code != "OK" and attempt is call.attempts[-1]:
            # It did not fail by itself: the call was ended while it went on.
            why = reason
        if why:
            span.set_attribute("error.type", why)
            if why != "CANCELLED":
                span.set_status(Status(StatusCode.ERROR, why))
        span.end(_unix_ns(call, attempt.began + attempt.seconds))

    def close(self, patience: float) -> None:
        """Exports what waits, for at most `patience` seconds."""
        # Its own bound is 30 s and more for a collector that does not answer.
        closing = threading.Thread(target=self._provider.shutdown, name="trunkline-spans", daemon=True)
        closing.start()
        closing.join(patience)


class ToLog(logging.Handler):
    """Puts what OpenTelemetry has to say, as of a collector that does not answer, into our log."""

    def __init__(self, warn: Callable[..., None], redact: Callable[[str], str]) -> None:
        super().__init__(logging.WARNING)
        self._warn = warn
        self._redact = redact

    def emit(self, record: logging.LogRecord) -> None:
        self._warn("opentelemetry", message=self._redact(record.getMessage()))

    def install(self) -> None:
        logger = logging.getLogger("opentelemetry")
        logger.handlers[:] = [self]
        logger.propagate = False


class _Ids(RandomIdGenerator):
    """Random ids; the next span's may be set before, where it is known already."""

    next_span = 0

    def generate_span_id(self) -> int:
        chosen, self.next_span = self.next_span, 0
        return chosen or super().generate_span_id()


class _Ended(SpanProcessor):
    """Counts spans that are to be exported."""

    def __init__(self, metrics: Metrics) -> None:
        self._count = metrics.spans.labels("ended")

    def on_end(self, span: ReadableSpan) -> None:
        if span.context is not None and span.context.trace_flags.sampled:
            self._count.inc()


class _Counted(SpanExporter):
    """Counts what an exporter does."""

    def __init__(self, exporter: SpanExporter, metrics: Metrics) -> None:
        self._exporter = exporter
        self._counts = {
            SpanExportResult.SUCCESS: metrics.spans.labels("exported"),
            SpanExportResult.FAILURE: metrics.spans.labels("failed"),
        }

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        self._counts[result].inc(len(spans))
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


def _of_call(call: Call) -> genai.Attributes:
    found: genai.Attributes = {"trunkline.call.id": call.id}
    if call.caller:
        found["trunkline.caller"] = call.caller
    if call.request_id:
        found["trunkline.request_id"] = call.request_id
    if call.provider:
        found["trunkline.provider"] = call.provider
        found["gen_ai.request.model"] = call.model
    return found


def _of_attempt(call: Call, attempt: Attempt, kind: str) -> genai.Attributes:
    found: genai.Attributes = {
        "gen_ai.operation.name": genai.operation(call.method),
        "gen_ai.provider.name": genai.provider_name(kind),
        "gen_ai.request.model": attempt.model,
        "trunkline.provider": attempt.provider,
        "trunkline.attempt.number": attempt.number,
        "trunkline.attempt.cause": genai.cause(attempt.cause),
        **genai.server(attempt.endpoint),
    }
    if call.streamed:
        found["gen_ai.request.stream"] = True
        if attempt.first_event_at is not None:
            found["gen_ai.response.time_to_first_chunk"] = attempt.first_event_at - attempt.began
    for name, value in (
        ("gen_ai.response.model", attempt.response_model),
        ("gen_ai.response.id", attempt.response_id),
        ("gen_ai.response.finish_reasons", genai.finish_reasons(attempt.finish_reasons)),
        ("http.response.status_code", attempt.http_status),
        ("trunkline.provider_request_id", attempt.request_id),
    ):
        if value:
            found[name] = value
    if attempt.usage is not None:
        found.update(genai.usage(attempt.usage))
    return found


def _unix_ns(call: Call, moment: float) -> int:
    """Of a monotonic moment."""
    return int((call.create_time + moment - call.received) * 1e9)


__all__ = ["SERVER_ERRORS", "CallSpans", "ToLog", "provider"]
