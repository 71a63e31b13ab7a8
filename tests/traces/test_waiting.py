"""No call waits for its record: whatever backends and the disk do, calls take as long as without records."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from statistics import median

import pytest
from tests.gateway import Gateway, create, until
from tests.traces.recorded import found, recorded

CALLS = 150


async def _seconds(server: Gateway) -> list[float]:
    """Of calls one after the other."""
    taken = []
    for _ in range(CALLS):
        began = time.perf_counter()
        await server.complete(create("fake/echo", "word " * 400))
        taken.append(time.perf_counter() - began)
    return taken


@pytest.mark.alone
async def test_a_backend_that_hangs_makes_no_call_slower(tmp_path: Path, measured: Callable[[str, object], None]):
    async with recorded(tmp_path, backends=["sqlite:", "sqlite:hangs.db"]) as server:
        await _seconds(server)
        await found(server, CALLS)
        well, hanging = [], []
        # In turns, so that what else the machine does is in both.
        for _ in range(3):
            well += await _seconds(server)
            with closing(sqlite3.connect(tmp_path / "hangs.db", isolation_level=None)) as holder:
                holder.execute("BEGIN EXCLUSIVE")
                hanging += await _seconds(server)
    measured("median ms, backends well", round(median(well) * 1e3, 3))
    measured("median ms, one hangs", round(median(hanging) * 1e3, 3))
    assert median(hanging) < 1.5 * median(well)


@pytest.mark.parametrize("stopped", [False, True])
async def test_a_delivery_process_that_stands_still_holds_up_nobody(tmp_path: Path, stopped: bool):
    async with recorded(tmp_path) as server:
        assert server.spool is not None
        await until((tmp_path / "spool" / "0" / "status.json").exists)
        pid = server.spool.delivery.pid
        assert pid is not None
        if stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            async with asyncio.timeout(30):
                await _seconds(server)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert len(await found(server, CALLS, full=False)) == CALLS


async def test_a_disk_that_takes_nothing_fails_no_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    async with recorded(tmp_path) as server:
        journal = server.app.recording.journal
        assert journal is not None
        write = os.write
        full = [True]

        def limited(handle: int, data: bytes) -> int:
            if full[0] and handle == journal._file:
                raise OSError(28, "No space left on device")
            return write(handle, data)

        monkeypatch.setattr(os, "write", limited)
        await _seconds(server)
        await until(lambda: "the journal of calls cannot be written" in server.log)
        full[0] = False
        assert len(await found(server, CALLS, full=False)) == CALLS
