"""The metrics of docs/operations.md, from `trunkline_server.telemetry`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from prometheus_client.core import Metric
from prometheus_client.metrics import MetricWrapperBase
from tools.docs_tables import code, codes, table

from trunkline_server.exposition import BACKENDS, LABELS, SPOOL
from trunkline_server.telemetry.metrics import Metrics

#: How a scrape ends the name of a metric of a type.
_SUFFIXES = {"counter": "_total"}


def blocks() -> Mapping[str, str]:
    return {"metrics": table(["metric", "type", "labels", "meaning"], map(_row, families()))}


def families() -> Iterator[tuple[Metric, Sequence[str]]]:
    """Every metric there is, with its labels."""
    for metric in vars(Metrics()).values():
        if isinstance(metric, MetricWrapperBase):
            (told,) = metric.describe()
            yield told, metric._labelnames
    yield from ((told.family(), ()) for told in SPOOL)
    yield from ((told.family(LABELS), LABELS) for told in BACKENDS)


def _row(family: tuple[Metric, Sequence[str]]) -> list[str]:
    told, labels = family
    name = told.name + _SUFFIXES.get(told.type, "")
    return [code(name), told.type, codes(labels), told.documentation]
