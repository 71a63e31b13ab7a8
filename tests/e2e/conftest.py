"""A gateway as a user starts it: a process of its own, found by its address."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

#: Seconds that the gateway may take to answer, and to end.
PATIENCE = 60.0


def wait_for(address: str, process: subprocess.Popen[bytes], log: Path, patience: float = PATIENCE) -> None:
    """Returns when something listens there. Fails with the log if the process ends before."""
    host, _, port = address.rpartition(":")
    until = time.monotonic() + patience
    while time.monotonic() < until and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex((host, int(port))) == 0:
                return
        time.sleep(0.02)
    pytest.fail(f"no gateway on {address}:\n{log.read_text()}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """HOST:PORT of a gateway whose only provider is the fake one."""
    where = f"127.0.0.1:{free_port()}"
    log = tmp_path_factory.mktemp("gateway") / "log"
    state = str(log.parent / "state")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TRUNKLINE_")}
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "trunkline_server", "serve", "--no-local", "--listen", where],
            env={**kept, "TRUNKLINE_PROVIDERS__FAKE__KIND": "fake", "XDG_STATE_HOME": state},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
        )
    try:
        wait_for(where, process, log)
        yield where
    finally:
        process.terminate()
        try:
            code = process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    assert code == 0, log.read_text()
