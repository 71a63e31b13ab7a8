"""What was recorded is there afterwards: over kill -9, restarts, backends that are down, processes that die."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
import yaml
from tests.gateway import create, script, stream
from tests.process import ServerProcess, connected, server_process, write_config
from tests.upstream import PATIENCE

from trunkline.v1.completion_service_pb2_grpc import CompletionServiceStub
from trunkline.v1alpha import trace_pb2
from trunkline.v1alpha import trace_service_pb2 as pb
from trunkline.v1alpha.trace_service_pb2_grpc import TraceServiceStub
from trunkline_server.recording import FLUSH_MOST
from trunkline_server.traces import open_backend
from trunkline_server.traces.base import Position, Reader
from trunkline_server.traces.columns import unix_us

Trace = trace_pb2.Trace
SQLITE = {"backends": ["sqlite:"]}
#: A stream whose provider says nothing begins with the first heartbeat.
BEATING: dict[str, Any] = {"stream": {"heartbeat": 0.2}}


async def stored(folder: Path, count: int, url: str = "sqlite:", patience: float = PATIENCE) -> dict[str, Trace]:
    """All traces by id, when there are so many; more fail."""
    reader = open_backend(url, folder).reader()
    assert reader is not None
    try:
        async with asyncio.timeout(patience):
            while len(found := await _all(reader)) < count:
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.3)
        found = await _all(reader)
    finally:
        await reader.aclose()
    assert len(found) == count
    return {trace.name.removeprefix("traces/"): trace for trace in found}


async def _all(reader: Reader) -> list[Trace]:
    found: list[Trace] = []
    after: Position | None = None
    while True:
        page = await reader.list(pb.TraceFilter(), after=after, size=500, oldest_first=True, full=True)
        found += page.traces
        if not page.more:
            return found
        after = Position(unix_us(found[-1].start_time), found[-1].name.removeprefix("traces/"))


def delivery_of(server: ServerProcess) -> psutil.Process | None:
    for child in psutil.Process(server.pid).children(recursive=True):
        with suppress(psutil.Error):  # it has just ended
            if any("traces.process" in part for part in child.cmdline()):
                return child
    return None


async def calls(stub: Any, count: int) -> list[str]:
    """Makes completions, and returns their ids."""
    return [(await stub.CreateCompletion(create("fake/echo"))).completion.id for _ in range(count)]


async def journaled(folder: Path, *ids: str) -> None:
    """Returns when journals on disk hold, or held, all of these."""
    missing = {name.encode() for name in ids}
    async with asyncio.timeout(PATIENCE):
        while missing:
            for held in _journals(folder):
                missing = {name for name in missing if name not in held}
            await asyncio.sleep(0.02)


def _journals(folder: Path) -> Iterator[bytes]:
    for path in folder.glob("spool/*/journal/*.journal"):
        with suppress(FileNotFoundError):  # all of it is delivered
            yield path.read_bytes()


async def delivering(server: ServerProcess) -> psutil.Process:
    """The delivery process, when it is there."""
    async with asyncio.timeout(PATIENCE):
        while (found := delivery_of(server)) is None:
            await asyncio.sleep(0.02)
    return found


# -- kill -9 ----------------------------------------------------------------------------------------------------------

#: Seconds before the end within which a call may be lost.
INTERVAL = 0.2


async def _load(stub: Any, ended: dict[str, float], opened: set[str]) -> None:
    """Calls one after the other, until the server is gone."""
    while True:
        call = stub.StreamCompletion(stream("fake/echo", "one two three"))
        name = ""
        try:
            async for event in call:
                if not name:
                    name = event.started.completion_id
                    opened.add(name)
        except grpc.aio.AioRpcError:
            return
        opened.discard(name)
        ended[name] = time.monotonic()


@pytest.mark.alone
@pytest.mark.parametrize("workers", [1, 2])
async def test_after_kill_9_all_that_ended_a_moment_before_is_there(tmp_path: Path, workers: int):
    ended: dict[str, float] = {}
    opened: set[str] = set()
    config: dict[str, Any] = {"state_dir": str(tmp_path), "traces": SQLITE, "workers": workers, **BEATING}
    async with (
        server_process(tmp_path, **config) as server,
        connected(await server.address()) as first,
        connected(await server.address()) as second,
    ):
        held = [
            stub.StreamCompletion(stream("fake/script", provider_options_json=script(text="one two", word_delay=60)))
            for stub in (first, second)
            for _ in range(5)
        ]
        waiting = [(await call.read()).started.completion_id for call in held]
        load = [asyncio.create_task(_load(stub, ended, opened)) for stub in (first, second) for _ in range(4)]
        await asyncio.sleep(2.0)
        died = time.monotonic()
        os.killpg(server.pid, signal.SIGKILL)
        await asyncio.gather(*load)
    assert len(ended) > 50
    # Those that were open a moment before, too, are known to have been.
    async with server_process(tmp_path, **config) as server:
        await server.address()
        reader = open_backend("sqlite:", tmp_path).reader()
        assert reader is not None
        async with asyncio.timeout(PATIENCE):
            while True:
                found = {trace.name.removeprefix("traces/"): trace for trace in await _all(reader)}
                if found.keys() >= {*waiting, *(name for name, at in ended.items() if at < died - INTERVAL)}:
                    break
                await asyncio.sleep(0.1)
        await reader.aclose()
    for name in waiting:
        assert found[name].state == trace_pb2.TRACE_STATE_INTERRUPTED
        assert found[name].completion_spec.model == "fake/script"
        assert not found[name].HasField("status")
    for name, trace in found.items():
        expected = trace_pb2.TRACE_STATE_FINISHED
        if name in waiting or name in opened or ended.get(name, died) >= died - INTERVAL:
            continue
        assert trace.state == expected, name
        assert trace.completion.choices[0].message.parts[0].text.text == "You said: one two three"


async def test_a_delivery_process_that_dies_is_replaced_and_nothing_is_lost(tmp_path: Path):
    config: dict[str, Any] = {"state_dir": str(tmp_path), "traces": SQLITE}
    async with server_process(tmp_path, **config) as server, connected(await server.address()) as stub:
        made = []
        for _ in range(3):
            made += await calls(stub, 5)
            process = await delivering(server)
            process.kill()
            made += await calls(stub, 5)
            async with asyncio.timeout(PATIENCE):
                while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                    await asyncio.sleep(0.02)
            await server.line("delivery of traces ended")
        assert (await stored(tmp_path, 30)).keys() == set(made)


async def test_workers_that_are_killed_leave_interrupted_calls_and_a_whole_rest(tmp_path: Path):
    config: dict[str, Any] = {"state_dir": str(tmp_path), "traces": SQLITE, "workers": 2, **BEATING}
    async with server_process(tmp_path, **config) as server:
        async with connected(await server.address()) as stub:
            call = stub.StreamCompletion(
                stream("fake/script", provider_options_json=script(text="one two", word_delay=60))
            )
            name = (await call.read()).started.completion_id
            await journaled(tmp_path, name)
            for child in psutil.Process(server.pid).children():
                if any("multiprocessing.spawn" in part for part in child.cmdline()):
                    child.kill()
            with pytest.raises(grpc.aio.AioRpcError):
                while (await call.read()) is not grpc.aio.EOF:
                    pass
        await server.line("worker ended", 2)
        [trace] = (await stored(tmp_path, 1)).values()
    assert trace.name == f"traces/{name}"
    assert trace.state == trace_pb2.TRACE_STATE_INTERRUPTED


# -- backends that are down -------------------------------------------------------------------------------------------


async def test_what_no_backend_took_is_delivered_after_a_restart(tmp_path: Path):
    blocked = tmp_path / "late"
    blocked.write_text("not a folder yet")
    config: dict[str, Any] = {
        "state_dir": str(tmp_path),
        "traces": {"backends": ["sqlite:", f"sqlite:{blocked}/traces.db"]},
    }
    made = []
    async with server_process(tmp_path, **config) as server:
        async with connected(await server.address()) as stub:
            made += await calls(stub, 20)
        assert (await stored(tmp_path, 20)).keys() == set(made)
        told = await server.line("trace backend is down")
        assert "late" in told["error"]
        server.signal()
        began = time.monotonic()
        assert await server.ended() == 0
        # It would have had longer for a backend that might come back.
        assert time.monotonic() - began < FLUSH_MOST
        assert server.lines[-1]["event"] == "traces wait on disk: the server ends before backends took them all"
    blocked.unlink()
    async with server_process(tmp_path, **config) as server:
        async with connected(await server.address()) as stub:
            made += await calls(stub, 1)
        for url in ("sqlite:", f"sqlite:{blocked}/traces.db"):
            assert (await stored(tmp_path, 21, url)).keys() == set(made)


async def test_what_was_deleted_while_it_waited_does_not_come_after_kill_9(tmp_path: Path):
    blocked = tmp_path / "late"
    blocked.write_text("not a folder yet")
    late = f"sqlite:{blocked}/traces.db"
    config: dict[str, Any] = {"state_dir": str(tmp_path), "traces": {"backends": ["sqlite:", late]}}
    async with server_process(tmp_path, **config) as server:
        async with grpc.aio.insecure_channel(await server.address()) as channel:
            made = await calls(CompletionServiceStub(channel), 3)
            await stored(tmp_path, 3)
            await server.line("trace backend is down")
            # It is in one backend, and waits for the other.
            deleted = await TraceServiceStub(channel).DeleteTrace(pb.DeleteTraceRequest(name=f"traces/{made[1]}"))
        assert list(deleted.backends) == ["sqlite"]
        for process in (psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)):
            process.kill()
        await server.ended()
    blocked.unlink()
    async with server_process(tmp_path, **config) as server:
        async with connected(await server.address()) as stub:
            made += await calls(stub, 1)
        for url in ("sqlite:", late):
            assert (await stored(tmp_path, 3, url)).keys() == set(made) - {made[1]}


async def test_what_was_recorded_is_delivered_before_the_server_ends(tmp_path: Path):
    config: dict[str, Any] = {"state_dir": str(tmp_path), "traces": SQLITE, "drain": {"grace": 1}}
    async with server_process(tmp_path, **config) as server:
        async with connected(await server.address()) as stub:
            made = await calls(stub, 10)
        server.signal()
        assert await server.ended() == 0
    # Nobody delivers any more: what is there now was delivered before the end.
    assert (await stored(tmp_path, 10, patience=5)).keys() == set(made)
    # The lock of a process that has just ended may stay: it is empty, and the next server takes it away.
    assert [path.name for path in (tmp_path / "spool" / "0" / "journal").iterdir() if path.suffix != ".lock"] == []


# -- several servers --------------------------------------------------------------------------------------------------


async def test_servers_that_share_a_state_directory_keep_apart(tmp_path: Path):
    first, second = tmp_path / "one", tmp_path / "two"
    for folder in (first, second):
        folder.mkdir()
    config: dict[str, Any] = {"state_dir": str(tmp_path), "traces": SQLITE}
    async with server_process(first, **config) as one, server_process(second, **config) as two:
        made = []
        for server in (one, two):
            async with connected(await server.address()) as stub:
                made += await calls(stub, 5)
        assert (await stored(tmp_path, 10)).keys() == set(made)
        assert {path.name for path in (tmp_path / "spool").iterdir()} == {"0", "1"}


async def test_what_another_server_left_is_delivered_by_the_next(tmp_path: Path):
    one, two, three = (tmp_path / name for name in ("one", "two", "three"))
    for folder in (one, two, three):
        folder.mkdir()
    blocked = tmp_path / "late"
    blocked.write_text("not a folder yet")
    config: dict[str, Any] = {"state_dir": str(tmp_path), "traces": {"backends": [f"sqlite:{blocked}/traces.db"]}}
    async with server_process(one, **config) as first, server_process(two, **config) as second:
        made = []
        for server in (first, second):
            async with connected(await server.address()) as stub:
                made += await calls(stub, 5)
        await journaled(tmp_path, *made)
        for server in (first, second):
            os.killpg(server.pid, signal.SIGKILL)
    blocked.unlink()
    async with server_process(three, **config):
        assert (await stored(tmp_path, 10, f"sqlite:{blocked}/traces.db")).keys() == set(made)
        async with asyncio.timeout(PATIENCE):
            while (tmp_path / "spool" / "1").exists():
                await asyncio.sleep(0.05)


# -- what cannot be used ----------------------------------------------------------------------------------------------


async def refused(folder: Path, environ: dict[str, str] | None = None, **config: Any) -> str:
    async with server_process(folder, environ=environ, **config) as server:
        assert await server.ended() == 2
        return server.text


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_wrong_url_refuses_to_start_and_names_the_schemes(tmp_path: Path, workers: int):
    told = await refused(tmp_path, traces=["sokcet:/run/x", "sqlite:", "sqlite://h/x"], workers=workers)
    assert "traces.backends.0: no trace backend has the scheme 'sokcet'; write one of sqlite:[FILE]" in told
    assert "traces.backends.2: sqlite: is a file of this machine" in told
    assert "Traceback" not in told


async def test_a_state_directory_that_cannot_be_written_refuses_to_start(tmp_path: Path):
    told = await refused(tmp_path, state_dir="/proc/nowhere", traces=SQLITE)
    assert "state_dir: /proc/nowhere cannot be written" in told
    assert "traces: off" in told


async def test_where_nobody_asked_for_records_that_is_a_warning(tmp_path: Path):
    path = write_config(tmp_path)
    config = json.dumps({key: value for key, value in _yaml(path).items() if key not in {"traces", "state_dir"}})
    path.write_text(config)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "trunkline_server", "serve", "--config", str(path)),
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "XDG_STATE_HOME": "/proc/nowhere"},
    )
    server = ServerProcess(process)
    try:
        async with connected(await server.address()) as stub:
            await stub.CreateCompletion(create("fake/echo"))
        told = await server.line(
            "calls are not recorded: the state directory cannot be written; set state_dir, or `traces: off`"
        )
        assert told["state_dir"] == "/proc/nowhere/trunkline"
    finally:
        process.terminate()
        assert await server.ended() == 0


def _yaml(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(path.read_text())
    return loaded


async def test_a_store_that_cannot_be_read_is_a_state_and_no_crash(tmp_path: Path):
    (tmp_path / "traces.db").write_bytes(b"this is no database at all" * 100)
    config: dict[str, Any] = {"state_dir": str(tmp_path), "traces": SQLITE}
    async with server_process(tmp_path, **config) as server, connected(await server.address()) as stub:
        await stub.CreateCompletion(create("fake/echo"))
        told = await server.line("trace backend is down")
        assert "not a database" in told["error"]
        (tmp_path / "traces.db").unlink()
        await server.line("trace backend is back")
        await stored(tmp_path, 1)
    with sqlite3.connect(tmp_path / "traces.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
