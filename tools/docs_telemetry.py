"""The metrics of docs/operations.md, from `trunkline_server.telemetry`."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client.metrics import MetricWrapperBase
from tools.docs_tables import code, codes, table

from trunkline_server.telemetry.metrics import Metrics

#: How a scrape ends the name of a metric of a type.
_SUFFIXES = {"counter": "_total"}


def blocks() -> Mapping[str, str]:
    found = (metric for metric in vars(Metrics()).values() if isinstance(metric, MetricWrapperBase))
    return {"metrics": table(["metric", "type", "labels", "meaning"], map(_row, found))}


def _row(metric: MetricWrapperBase) -> list[str]:
    (told,) = metric.describe()
    name = told.name + _SUFFIXES.get(told.type, "")
    return [code(name), told.type, codes(metric._labelnames), told.documentation]
