"""The dashboard of deploy/grafana: a table of rows of panels, each with what it asks Prometheus."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tools.docs_json import written

#: Filters of the reader's; a metric without one of the labels leaves it out.
_WHOSE = 'provider=~"$provider", model=~"$model", caller=~"$caller"'
_WHERE = 'provider=~"$provider", model=~"$model"'
_RATE = "$__rate_interval"

_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True, slots=True)
class Panel:
    """One graph. `queries`: an expression, and what the lines are called."""

    title: str
    meaning: str
    unit: str
    queries: Sequence[tuple[str, str]]
    stacked: bool = False


def _by(metric: str, labels: str, where: str = _WHOSE) -> str:
    return f"sum by ({labels}) (rate({metric}{{{where}}}[{_RATE}]))"


def _quantiles(metric: str, by: str = "", where: str = _WHOSE) -> list[tuple[str, str]]:
    more = f", {by}" if by else ""
    name = f" {{{{{by}}}}}" if by else ""
    return [
        (
            f"histogram_quantile({share}, sum by (le{more}) (rate({metric}_bucket{{{where}}}[{_RATE}])))",
            f"p{round(float(share) * 100)}{name}",
        )
        for share in ("0.5", "0.95", "0.99")
    ]


_CACHED = f'sum(rate(trunkline_cached_tokens_total{{{_WHOSE}, access="read"}}[{_RATE}]))'
_INPUT = f'sum(rate(trunkline_tokens_total{{{_WHOSE}, direction="input"}}[{_RATE}]))'
_UNREPORTED = _by("trunkline_tokens_total", "direction, source", f'{_WHOSE}, source!="reported"')
_FAILED = _by("trunkline_attempts_total", "provider, reason", f'{_WHERE}, reason!=""')
_FALLBACKS = _by("trunkline_fallbacks_total", "from_provider, provider", _WHERE)

#: Title of a row, and its panels.
ROWS: Sequence[tuple[str, Sequence[Panel]]] = (
    (
        "Calls",
        (
            Panel(
                "Calls by status",
                "Calls that ended, by gRPC status",
                "reqps",
                [(_by("trunkline_calls_total", "code"), "{{code}}")],
                stacked=True,
            ),
            Panel(
                "Failures by reason",
                "By ErrorReason: docs/errors.md says whose fault each is",
                "reqps",
                [(_by("trunkline_calls_total", "reason", f'{_WHOSE}, reason!=""'), "{{reason}}")],
                stacked=True,
            ),
            Panel(
                "In flight",
                "Calls now",
                "short",
                [("sum by (method) (trunkline_calls_in_flight)", "{{method}}")],
                stacked=True,
            ),
            Panel(
                "Calls by caller",
                "Who calls",
                "reqps",
                [(f"topk(10, {_by('trunkline_calls_total', 'caller')})", "{{caller}}")],
                stacked=True,
            ),
            Panel(
                "Cancelled",
                "Callers who left, before or after the first token",
                "reqps",
                [(_by("trunkline_calls_cancelled_total", "token"), "{{token}} the first token")],
            ),
            Panel(
                "Bytes",
                "Of requests and of messages sent",
                "Bps",
                [(_by("trunkline_bytes_total", "direction"), "{{direction}}")],
            ),
        ),
    ),
    (
        "Time",
        (
            Panel("Total", "Arrival to end", "s", _quantiles("trunkline_call_seconds")),
            Panel("To the first token", "Of streams", "s", _quantiles("trunkline_time_to_first_token_seconds")),
            Panel(
                "Per output token",
                "Of streams, after the first",
                "s",
                _quantiles("trunkline_time_per_output_token_seconds"),
            ),
            Panel(
                "Added by the gateway",
                "Total less the time that a call waited for others",
                "s",
                _quantiles("trunkline_overhead_seconds"),
            ),
            Panel("Waiting for admission", "Of calls that had to", "s", _quantiles("trunkline_queued_seconds")),
            Panel(
                "Attempts by provider",
                "Begin to end, 95th percentile",
                "s",
                [_quantiles("trunkline_attempt_seconds", "provider", _WHERE)[1]],
            ),
        ),
    ),
    (
        "Tokens and cost",
        (
            Panel(
                "Tokens",
                "Input and output",
                "short",
                [(_by("trunkline_tokens_total", "direction"), "{{direction}} / s")],
            ),
            Panel(
                "Tokens that the provider did not report",
                "Estimated or partial, as of calls that were cancelled",
                "short",
                [
                    (
                        _by("trunkline_tokens_total", "direction, source", f'{_WHOSE}, source!="reported"'),
                        "{{direction}}, {{source}}",
                    )
                ],
            ),
            Panel(
                "Read from the provider's cache",
                "Share of the input tokens",
                "percentunit",
                [(f"{_CACHED} / {_INPUT}", "read")],
            ),
            Panel(
                "Reasoning",
                "Tokens, part of the output",
                "short",
                [(_by("trunkline_reasoning_tokens_total", "model"), "{{model}}")],
                stacked=True,
            ),
            Panel(
                "Cost by model",
                "US dollars an hour, of what has a known price",
                "currencyUSD",
                [(f"3600 * {_by('trunkline_cost_usd_total', 'model')}", "{{model}}")],
                stacked=True,
            ),
            Panel(
                "Cost by caller",
                "US dollars an hour",
                "currencyUSD",
                [(f"3600 * {_by('trunkline_cost_usd_total', 'caller')}", "{{caller}}")],
                stacked=True,
            ),
        ),
    ),
    (
        "Providers",
        (
            Panel(
                "Attempts",
                "By provider",
                "reqps",
                [(_by("trunkline_attempts_total", "provider", _WHERE), "{{provider}}")],
                stacked=True,
            ),
            Panel(
                "Failed attempts",
                "By provider and reason",
                "reqps",
                [
                    (
                        _by("trunkline_attempts_total", "provider, reason", f'{_WHERE}, reason!=""'),
                        "{{provider}}: {{reason}}",
                    )
                ],
                stacked=True,
            ),
            Panel(
                "Attempts beyond the first",
                "Why they were made",
                "reqps",
                [(_by("trunkline_attempts_total", "cause", f'{_WHERE}, cause!~"first|batch"'), "{{cause}}")],
                stacked=True,
            ),
            Panel(
                "Fallbacks",
                "From one provider to the next",
                "reqps",
                [
                    (
                        _by("trunkline_fallbacks_total", "from_provider, provider", _WHERE),
                        "{{from_provider}} to {{provider}}",
                    )
                ],
            ),
        ),
    ),
    (
        "Records of calls, and telemetry itself",
        (
            Panel(
                "Waiting for a backend", "Records in the spool", "short", [("trunkline_traces_waiting", "{{backend}}")]
            ),
            Panel("Age of the oldest", "Of those that wait", "s", [("trunkline_traces_oldest_seconds", "{{backend}}")]),
            Panel(
                "Delivered",
                "Records that backends took",
                "cps",
                [(f"sum by (backend) (rate(trunkline_traces_delivered_total[{_RATE}]))", "{{backend}}")],
            ),
            Panel(
                "Lost",
                "Dropped since the spool was full, refused, or never made",
                "short",
                [
                    (f"sum by (backend) (increase(trunkline_traces_dropped_total[{_RATE}]))", "dropped: {{backend}}"),
                    (f"sum by (backend) (increase(trunkline_traces_rejected_total[{_RATE}]))", "refused: {{backend}}"),
                    (f"increase(trunkline_traces_lost_total[{_RATE}])", "not made"),
                ],
            ),
            Panel("Spool", "On disk", "bytes", [("trunkline_spool_bytes", "spool")]),
            Panel(
                "Logs and spans",
                "Lines that nobody read; spans by what became of them",
                "cps",
                [
                    (f"sum(rate(trunkline_log_lines_dropped_total[{_RATE}]))", "lines dropped"),
                    (f"sum by (outcome) (rate(trunkline_spans_total[{_RATE}]))", "spans {{outcome}}"),
                ],
            ),
        ),
    ),
)

_WIDTH, _HEIGHT, _ACROSS = 8, 8, 24


def dashboard() -> str:
    """The file."""
    return written(
        {
            "uid": "trunkline",
            "title": "trunkline",
            "description": "Calls, times, tokens, cost, providers, and the records of calls.",
            "tags": ["trunkline"],
            "schemaVersion": 39,
            "editable": True,
            "refresh": "30s",
            "time": {"from": "now-6h", "to": "now"},
            "annotations": {"list": []},
            "templating": {"list": list(_variables())},
            "panels": list(_panels()),
        }
    )


def expressions() -> Iterator[tuple[str, str]]:
    """Title and expression of every query."""
    for _, panels in ROWS:
        for panel in panels:
            for expression, _ in panel.queries:
                yield panel.title, expression


def _variables() -> Iterator[dict[str, Any]]:
    yield {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    for name in ("provider", "model", "caller"):
        yield {
            "name": name,
            "label": name.capitalize(),
            "type": "query",
            "datasource": _SOURCE,
            "query": f"label_values(trunkline_calls_total, {name})",
            "refresh": 2,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"text": "All", "value": "$__all"},
        }


def _panels() -> Iterator[dict[str, Any]]:
    number, top = 0, 0
    for title, panels in ROWS:
        number += 1
        where = _at(0, top, _ACROSS, 1)
        yield {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": where, "panels": []}
        top += 1
        for at, panel in enumerate(panels):
            number += 1
            column, line = at * _WIDTH % _ACROSS, at * _WIDTH // _ACROSS
            yield _graph(number, panel, _at(column, top + line * _HEIGHT, _WIDTH, _HEIGHT))
        top += -(-len(panels) * _WIDTH // _ACROSS) * _HEIGHT


def _at(x: int, y: int, w: int, h: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": w, "h": h}


def _graph(number: int, panel: Panel, where: dict[str, int]) -> dict[str, Any]:
    custom: dict[str, Any] = {"fillOpacity": 20 if panel.stacked else 0, "showPoints": "never"}
    if panel.stacked:
        custom["stacking"] = {"mode": "normal", "group": "A"}
    return {
        "id": number,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.meaning,
        "datasource": _SOURCE,
        "gridPos": where,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0, "custom": custom}, "overrides": []},
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [
            {"refId": chr(ord("A") + at), "datasource": _SOURCE, "expr": expression, "legendFormat": legend}
            for at, (expression, legend) in enumerate(panel.queries)
        ],
    }
