"""What Prometheus is told of the delivery of records: read when it asks, from what the delivery process writes down."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from trunkline_server.config import ConfigError, Settings
from trunkline_server.traces import status as statuses
from trunkline_server.traces.slots import Slot
from trunkline_server.traces.status import BackendStatus, Status


@dataclass(frozen=True, slots=True)
class Told:
    """One metric, and what it is of the status, of a backend, and of how many seconds ago that was written down."""

    name: str
    kind: type[CounterMetricFamily | GaugeMetricFamily]
    meaning: str
    value: Callable[[Any, float], float]

    def family(self, labels: Sequence[str] = ()) -> Metric:
        return self.kind(f"trunkline_{self.name}", self.meaning, labels=list(labels))


#: Of the spool.
SPOOL: Sequence[Told] = (
    Told("spool_bytes", GaugeMetricFamily, "Bytes of the spool on disk", lambda s, _: s.spool_bytes),
    Told("traces_open", GaugeMetricFamily, "Records of calls that have not ended", lambda s, _: s.open),
    Told("traces_made", CounterMetricFamily, "Records that were made", lambda s, _: s.made),
    Told(
        "traces_lost",
        CounterMetricFamily,
        "Calls of which no whole record could be made, because the disk was slower than the calls",
        lambda s, _: s.lost,
    ),
    Told(
        "trace_delivery_seen_seconds",
        GaugeMetricFamily,
        "Since the process that delivers records last said how it goes; it says so every few seconds",
        lambda _, ago: ago,
    ),
)

#: Of each backend.
BACKENDS: Sequence[Told] = (
    Told("trace_backend_up", GaugeMetricFamily, "1: it took the last records", lambda b, _: b.up),
    Told("traces_waiting", GaugeMetricFamily, "Records in the spool that it has not taken", lambda b, _: b.waiting),
    Told(
        "traces_oldest_seconds",
        GaugeMetricFamily,
        "Age of the oldest record that it has not taken",
        lambda b, ago: b.oldest + ago if b.waiting else 0.0,
    ),
    Told("traces_delivered", CounterMetricFamily, "Records that it took", lambda b, _: b.delivered),
    Told(
        "traces_dropped",
        CounterMetricFamily,
        "Records that it never had, because the spool was full",
        lambda b, _: b.dropped,
    ),
    Told("traces_rejected", CounterMetricFamily, "Records that it refused for themselves", lambda b, _: b.rejected),
    Told(
        "trace_delivery_failures",
        CounterMetricFamily,
        "Batches that failed",
        lambda b, _: b.failures,
    ),
    Told(
        "traces_pruned",
        CounterMetricFamily,
        "Records that were deleted there",
        lambda b, _: b.pruned,
    ),
)

LABELS = ("backend",)


class SpoolCollector(Collector):
    """Nothing while the delivery process has not said anything yet."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def collect(self) -> Iterator[Metric]:
        status = statuses.read(self._path)
        if status is None:
            return
        ago = max(0.0, time.time() - status.at)
        for told in SPOOL:
            family: Any = told.family()
            family.add_metric((), float(told.value(status, ago)))
            yield family
        for told in BACKENDS:
            family = told.family(LABELS)
            for name, backend in _named(status):
                family.add_metric((name,), float(told.value(backend, ago)))
            yield family


def expose(settings: Settings, registry: CollectorRegistry, slot: Slot | None) -> Any:
    """Serves the metrics where that is configured. Returns the HTTP server, or None. Raises ConfigError."""
    if settings.metrics is None:
        return None
    if slot is not None:
        registry.register(SpoolCollector(slot.status))
    host, port = settings.metrics.host, settings.metrics.port
    try:
        server, _ = start_http_server(port, host, registry=registry)
    except OSError as error:
        raise ConfigError(f"cannot serve metrics on {host}:{port}: {error.strerror}") from None
    return server


def _named(status: Status) -> Iterator[tuple[str, BackendStatus]]:
    """Backends of one kind are told apart by their order."""
    seen: dict[str, int] = {}
    for backend in status.backends:
        count = seen[backend.name] = seen.get(backend.name, 0) + 1
        yield backend.name if count == 1 else f"{backend.name}-{count}", backend
