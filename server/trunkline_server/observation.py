"""Puts together what watches over calls: log, metrics and, where an exporter is configured, spans."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from trunkline_server.config import ConfigError, Settings
from trunkline_server.redact import Redactor
from trunkline_server.telemetry import Metrics, Spans, Telemetry
from trunkline_server.telemetry.logs import LineWriter, make_access_log, make_log

#: Longest wait at the end for spans that the collector does not take, in seconds.
SPANS_PATIENCE = 5.0

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_HEADERS = ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS")


class _ClosedSpans(Spans, Protocol):
    def close(self, patience: float) -> None: ...


@dataclass(slots=True)
class Observation:
    """What a server tells of its calls, and to whom."""

    telemetry: Telemetry
    #: For the gRPC server.
    interceptors: tuple[Any, ...] = ()
    spans: _ClosedSpans | None = None

    async def aclose(self) -> None:
        """Waits, within bounds, until what was told has left."""
        if self.spans is not None:
            await asyncio.to_thread(self.spans.close, SPANS_PATIENCE)
        await asyncio.to_thread(self.telemetry.close)


def make_metrics(settings: Settings) -> Metrics:
    """With the bounds of the configuration."""
    made = Metrics() if settings.metrics is None else Metrics(most_values=settings.metrics.max_values)
    listed = [model for provider in (settings.providers or {}).values() for model in provider.models]
    led_to = (target.model.partition("/")[2] for model in settings.models.values() for target in model.targets)
    models = [*led_to, *listed]
    made.know(models=models, callers=[caller.name for caller in settings.callers])
    return made


def observe(
    settings: Settings, environ: Mapping[str, str], metrics: Metrics, kinds: Mapping[str, str], redactor: Redactor
) -> Observation:
    """`kinds`: of the providers, by name. Raises ConfigError."""
    form, level = settings.log.format, settings.log.level
    writer = LineWriter(sys.stderr, on_drop=metrics.dropped_lines.inc)
    log = make_log(form=form, level=level, stream=writer)
    access = make_access_log(log, form=form, level=level, stream=writer)
    if not _exports(settings, environ):
        return Observation(Telemetry(metrics, log, redactor, access=access, writer=writer))
    try:
        # A third of a second that only a server with spans needs.
        from trunkline_server.rpc.spans import ServerSpans
        from trunkline_server.telemetry import spans as otel
    except ImportError as error:
        raise ConfigError(
            f"otel: spans need a package that is not installed ({error.name}); "
            "install it with: pip install 'trunkline-server[otel]'"
        ) from None
    asked = settings.otel
    try:
        provider = otel.provider(
            environ, metrics, endpoint=asked.endpoint, service_name=asked.service_name, sample=asked.sample
        )
    except (ValueError, OSError, RuntimeError) as error:
        raise ConfigError(f"otel: {redactor(str(error))}") from None
    spans = otel.CallSpans(provider, kinds)
    telemetry = Telemetry(metrics, log, redactor, access=access, writer=writer, spans=spans)
    otel.ToLog(telemetry.warning, redactor).install()
    tracer = provider.get_tracer("opentelemetry.instrumentation.grpc")
    return Observation(telemetry, (ServerSpans(tracer),), spans)


def secrets_of(environ: Mapping[str, str]) -> list[str]:
    """What the collector is sent and must never be shown."""
    pairs = [pair for name in _HEADERS for pair in environ.get(name, "").split(",")]
    return [value.strip() for _, _, value in (pair.partition("=") for pair in pairs) if value.strip()]


def _exports(settings: Settings, environ: Mapping[str, str]) -> bool:
    """Is an exporter of spans configured, here or by the usual variables?"""
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    exporter = environ.get("OTEL_TRACES_EXPORTER") or "otlp"
    if settings.otel.endpoint is None and (exporter == "none" or not any(environ.get(name) for name in _ENDPOINTS)):
        return False
    for name, value in ((name, environ.get(name)) for name in _PROTOCOLS):
        if value not in (None, "", "grpc"):
            raise ConfigError(f"otel: {name} is {value!r}; spans leave over gRPC: set it to grpc, with the gRPC port")
    return True
