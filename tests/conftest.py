"""What all tests of the server share: the loop that production runs on, one for all, since gRPC serves only one."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import uvloop

from tests import services


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, Callable[[], Any]]:
    return {"uvloop": uvloop.new_event_loop}


def pytest_xdist_auto_num_workers() -> int:
    """Two processes more than there are processors: more than half of their time tests wait."""
    return (os.cpu_count() or 1) + 2


@pytest.fixture(autouse=True)
def _nothing_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No key, setting or proxy of the machine's reaches a test, and no server of a test keeps anything here."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / "state"))
    for name in list(os.environ):
        if name.startswith("TRUNKLINE_") or name.endswith("_API_KEY") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _nothing_goes_wrong_in_silence(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """What gRPC and asyncio only log, an exception in a handler or in a task that nobody waits for, fails the test."""
    yield
    found = [record for phase in ("setup", "call") for record in caplog.get_records(phase)]
    assert [record.getMessage() for record in found if record.levelno >= logging.ERROR] == []


@pytest.fixture(scope="session")
def postgresql() -> Iterator[services.Postgresql]:
    """A real server, for the whole run."""
    with services.or_skip(), services.postgresql() as server:
        yield server


@pytest.fixture(scope="session")
def clickhouse() -> Iterator[services.Clickhouse]:
    """The real engine, reached over HTTP, for the whole run."""
    with services.clickhouse() as server:
        yield server


@pytest.fixture(scope="session")
def redis() -> Iterator[services.Redis]:
    """A real server, for the whole run."""
    with services.or_skip(), services.redis() as server:
        yield server


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Callable[[str, object], None]:
    """`measured("cancel, ms", 1.2)` shows a figure at the end of the run."""
    return lambda name, value: request.node.user_properties.append((name, value))


@pytest.fixture
def callers(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """Two teams, for the setting `callers`; they send `gateway.TEAM_A` and `gateway.TEAM_B`."""
    monkeypatch.setenv("KEY_A", "team-a-0123456789")
    monkeypatch.setenv("KEY_B", "team-b-0123456789")
    return [{"name": "team-a", "api_key_env": "KEY_A"}, {"name": "team-b", "api_key_env": "KEY_B"}]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for report in terminalreporter.stats.get("passed", ()) if report.user_properties]
    if reports:
        terminalreporter.section("measured")
    for report in reports:
        figures = ", ".join(f"{name} {value}" for name, value in report.user_properties)
        terminalreporter.write_line(f"{report.nodeid.rpartition('::')[2]}: {figures}")
