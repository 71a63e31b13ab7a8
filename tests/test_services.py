"""The servers that tests start for themselves."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests import services


def test_a_server_that_is_missing_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "/nowhere")

    with pytest.raises(services.Missing, match="nosuchd not found; on Debian and Ubuntu: apt-get install nosuch"):
        services.find("nosuchd", "nosuch", "/nowhere/*/bin")


@pytest.mark.parametrize(("environment", "outcome"), [({}, "skipped"), ({"REQUIRE_ALL": "1"}, "missing")])
def test_a_missing_server_skips_unless_everything_must_run(monkeypatch, environment, outcome):
    for name in ("CI", "REQUIRE_ALL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    kind = {"skipped": pytest.skip.Exception, "missing": services.Missing}[outcome]
    with pytest.raises(kind, match="no server"), services.or_skip():
        raise services.Missing("no server")


def test_every_database_is_new_and_a_crash_keeps_what_was_committed(postgresql):
    first, second = postgresql.database(), postgresql.database()
    name = first.rpartition("/")[2]
    postgresql.sql("CREATE TABLE kept AS SELECT 1 AS one", name)

    postgresql.sql("CHECKPOINT", name)
    postgresql.kill()
    postgresql.start()

    assert first != second
    assert postgresql.sql("SELECT one FROM kept", name) == "1"


def test_a_server_that_is_held_does_not_answer_and_then_does(postgresql):
    assert postgresql._answers()

    with postgresql.held():
        assert psutil.Process(postgresql.pid).status() == psutil.STATUS_STOPPED
        assert not postgresql._answers()

    assert postgresql._answers()


def test_a_server_can_be_held_while_one_of_its_processes_ends(tmp_path: Path):
    # It has a child that has ended and that it does not wait for: as a server that was held at that moment.
    with_a_zombie = ["python3", "-c", "import os, time; os.fork() or os._exit(0); time.sleep(600)"]
    service = services.Service("zombie", with_a_zombie, tmp_path / "log", ready=lambda: bool(zombies(service.pid)))
    service.start()

    with service.held():
        assert psutil.Process(service.pid).status() == psutil.STATUS_STOPPED

    service.kill()


def zombies(pid: int) -> list[psutil.Process]:
    return [child for child in psutil.Process(pid).children() if child.status() == psutil.STATUS_ZOMBIE]


def test_no_server_outlives_a_run_that_was_killed(tmp_path: Path):
    script = (
        "import sys, time; from pathlib import Path; from tests.services import Service\n"
        f"service = Service('sleep', ['sleep', '600'], Path({str(tmp_path / 'log')!r}), ready=lambda: True)\n"
        "service.start(); print(service.pid, flush=True); time.sleep(600)"
    )
    root = Path(__file__).parent.parent
    run = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=root)
    assert run.stdout is not None
    server = psutil.Process(int(run.stdout.readline()))

    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    run.stdout.close()

    # How long may only say that it hangs: other work on the machine takes what it takes.
    server.wait(60)
    until = time.monotonic() + 60
    while server.is_running() and time.monotonic() < until:
        time.sleep(0.01)
    assert not server.is_running()
