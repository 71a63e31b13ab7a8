"""What is handed to Prometheus and Grafana: every metric and label in it is one of the server's, and it can be read."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from tools.docs_dashboard import expressions
from tools.docs_telemetry import families

from trunkline.v1 import error_pb2

ROOT = Path(__file__).resolve().parents[1]
GRAFANA = ROOT / "deploy/grafana"

#: Name in a scrape to labels.
KNOWN: dict[str, set[str]] = {}
for told, labels in families():
    endings = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"]}.get(told.type, [""])
    for ending in endings:
        KNOWN[told.name + ending] = {*labels, *(["le"] if ending == "_bucket" else [])}

_SELECTOR = re.compile(r"\b(trunkline_\w+)(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
_GROUPING = re.compile(r"\b(?:by|without)\s*\(([^)]*)\)")


def alerts() -> list[dict[str, Any]]:
    read = yaml.safe_load((GRAFANA / "alerts.yaml").read_text())
    return [rule for group in read["groups"] for rule in group["rules"]]


def queries() -> list[tuple[str, str]]:
    """Everything that is asked, by where."""
    return [*((rule["alert"], rule["expr"]) for rule in alerts()), *expressions()]


@pytest.mark.parametrize(("where", "query"), queries())
def test_a_query_asks_for_metrics_and_labels_that_there_are(where: str, query: str) -> None:
    found = _SELECTOR.findall(query)
    assert found, where
    for name, matchers in found:
        assert name in KNOWN, f"{where}: no metric {name}"
        for label, _, _ in _MATCHER.findall(matchers):
            assert label in KNOWN[name], f"{where}: {name} has no label {label}"
    for labels in _GROUPING.findall(query):
        for label in re.split(r"\s*,\s*", labels.strip()):
            assert any(label in KNOWN[name] for name, _ in found), f"{where}: grouped by {label}"


def test_every_reason_in_an_alert_is_a_reason() -> None:
    known = {name.removeprefix("ERROR_REASON_") for name, _ in error_pb2.ErrorReason.items()}
    asked = {
        reason
        for rule in alerts()
        for label, _, value in _MATCHER.findall(rule["expr"])
        if label == "reason"
        for reason in value.split("|")
        if reason
    }

    assert asked <= known
    assert len(asked) >= 8


def test_the_dashboard_shows_every_metric_of_calls() -> None:
    """One that nobody looks at is a cost."""
    shown = {name for _, query in queries() for name, _ in _SELECTOR.findall(query)}
    counted = {name for name in KNOWN if not name.endswith(("_count", "_sum"))}

    assert counted - shown == {
        "trunkline_traces_made_total", "trunkline_traces_open", "trunkline_traces_pruned_total",
        "trunkline_trace_backend_up", "trunkline_trace_delivery_failures_total",
    }  # fmt: skip


def test_panels_of_the_dashboard_do_not_overlap() -> None:
    panels = json.loads((GRAFANA / "dashboard.json").read_text())["panels"]
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        where = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(where["x"], where["x"] + where["w"])
            for y in range(where["y"], where["y"] + where["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells

    assert len({panel["id"] for panel in panels}) == len(panels)


def promtool(*arguments: str) -> str:
    if shutil.which("promtool") is None:
        pytest.skip("promtool not found")
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_prometheus_reads_the_alerts_and_they_fire_when_they_should() -> None:
    assert f"{len(alerts())} rules found" in promtool("check", "rules", str(GRAFANA / "alerts.yaml"))
    assert "SUCCESS" in promtool("test", "rules", str(GRAFANA / "alerts.test.yaml"))


def test_every_alert_is_tried_when_it_fires_and_when_it_does_not() -> None:
    tests = yaml.safe_load((GRAFANA / "alerts.test.yaml").read_text())["tests"]
    asked = [test for group in tests for test in group["alert_rule_test"]]
    fired = {test["alertname"] for test in asked if test.get("exp_alerts")}
    silent = {test["alertname"] for test in asked if not test.get("exp_alerts")}

    assert fired == silent == {rule["alert"] for rule in alerts()}


def test_prometheus_reads_every_query_of_the_dashboard(tmp_path: Path) -> None:
    rules = [
        {"record": f"q{at}", "expr": query.replace("$__rate_interval", "5m").replace("$", "")}
        for at, (_, query) in enumerate(expressions())
    ]
    path = tmp_path / "queries.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))

    assert f"{len(rules)} rules found" in promtool("check", "rules", "--lint=none", str(path))


@pytest.mark.timeout(600)  # a first build of what Go depends on
def test_grafana_reads_the_dashboard() -> None:
    if shutil.which("go") is None:
        pytest.skip("go not found")
    done = subprocess.run(
        ["go", "run", ".", str(GRAFANA / "dashboard.json")],
        cwd=ROOT / "tools/dashboard_check",
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
