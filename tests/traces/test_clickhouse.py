"""ClickHouse as a backend, a server and embedded, by its real engine: what the contract of all does not say."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.gateway import until
from tests.services import Clickhouse
from tests.traces.contract import Kept, names, newest_first, opened
from tests.traces.samples import NOON, sample, trace_id

from trunkline_server.traces import open_backend
from trunkline_server.traces.base import BackendError, BackendUnavailable
from trunkline_server.traces.clickhouse.address import Address, Place
from trunkline_server.traces.clickhouse.embedded import EmbeddedEngine
from trunkline_server.traces.clickhouse.engine import Engine
from trunkline_server.traces.clickhouse.http import HttpEngine

DAY = 86_400_000_000


@asynccontextmanager
async def kept_at(url: str, folder: Path) -> AsyncIterator[Kept]:
    kept = await opened(open_backend(url, folder))
    try:
        yield kept
    finally:
        await kept.reader.aclose()
        await kept.sink.aclose()


@asynccontextmanager
async def engine(url: str, folder: Path) -> AsyncIterator[Engine]:
    """For looking behind a backend."""
    made: Engine
    if url.startswith("clickhouse+chdb:"):
        made = EmbeddedEngine(Place.parse(url, folder))
    else:
        made = HttpEngine(Address.parse(url))
    try:
        yield made
    finally:
        await made.aclose()


async def asked(url: str, folder: Path, statement: str) -> list[Any]:
    """The first column of an answer."""
    async with engine(url, folder) as one:
        return [row[0] for row in await one.query(statement, {}, seconds=20)]


def holder(folder: Path) -> psutil.Process:
    """The process that holds the engine of this folder."""
    marks = {"trunkline_server.traces.clickhouse.holder", str(folder / "chdb")}
    (found,) = [p for p in psutil.process_iter(["cmdline"]) if marks <= set(p.info["cmdline"] or ())]
    return found


# -- URLs -------------------------------------------------------------------------------------------------------------


def test_all_that_is_wrong_with_a_url_is_told_at_once_and_no_password(tmp_path: Path):
    with pytest.raises(BackendError) as told:
        open_backend("clickhouse://me:hunter2@:port/a-b?partition=week&timeout=0&secure=yes&tls=1", tmp_path)

    text = str(told.value)
    for part in ("port", "name the server", "'a-b'", "partition=week", "timeout=0", "secure=yes"):
        assert part in text
    assert "no such option: tls" in text
    assert "hunter2" not in text


@pytest.mark.parametrize(
    ("url", "port", "secure"),
    [
        ("clickhouse://h/d", 8123, False),
        ("clickhouses://h/d", 8443, True),
        ("clickhouse://h/d?secure=1", 8443, True),
        ("clickhouse://h:9999", 9999, False),
    ],
)
def test_a_port_goes_without_saying(url: str, port: int, secure: bool):
    address = Address.parse(url)
    assert (address.port, address.secure) == (port, secure)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("clickhouse+chdb:", "chdb"),
        ("clickhouse+chdb:calls", "calls"),
        ("clickhouse+chdb:/var/x/calls", "/var/x/calls"),
        ("clickhouse+chdb:///var/x/calls?partition=month", "/var/x/calls"),
    ],
)
def test_the_embedded_engine_names_a_folder(url: str, path: str):
    assert Place.parse(url, Path("/state")).folder == Path("/state") / path


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("clickhouse+chdb://host/x", "folder of this machine"),
        ("clickhouse+chdb:x?partition=week", "partition=week"),
        ("clickhouse+chdb:" + "long/" * 30, "choose a shorter"),
        ("clickhouse+chdb:file", "is a file"),
    ],
)
def test_the_embedded_engine_refuses_what_is_no_folder(url: str, told: str, tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(BackendError, match=told):
        open_backend(url, tmp_path)


@pytest.mark.parametrize(
    ("url", "missing", "extra"),
    [("clickhouse://h/d", "clickhouse_connect", "clickhouse"), ("clickhouse+chdb:", "chdb", "chdb")],
)
def test_a_missing_driver_is_named_and_none_is_loaded(monkeypatch, tmp_path: Path, url: str, missing: str, extra: str):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else find(name))

    with pytest.raises(BackendError, match=rf"'{missing}'.*pip install 'trunkline-server\[{extra}\]'"):
        open_backend(url, tmp_path)
    assert "chdb" not in sys.modules


async def test_a_password_that_is_wrong_is_a_mistake_and_is_not_shown(clickhouse: Clickhouse, tmp_path: Path):
    url = clickhouse.database().replace("me:", "me:hunter2")

    with pytest.raises(BackendError, match=r"(?i)authentication") as told:
        await open_backend(url, tmp_path).sink().open()
    assert "hunter2" not in str(told.value)


# -- a server ---------------------------------------------------------------------------------------------------------


async def test_a_server_that_hangs_holds_nobody_longer_than_the_timeout(clickhouse: Clickhouse, tmp_path: Path):
    async with kept_at(clickhouse.database() + "?timeout=2", tmp_path) as kept:
        await kept.write(trace := sample())
        assert await kept.get(trace) == trace

        with clickhouse.held():
            began = time.monotonic()
            reads = [kept.reader.get(trace_id(n), full=True) for n in range(8)]
            ends = await asyncio.gather(*reads, return_exceptions=True)
            took = time.monotonic() - began
        assert [type(end) for end in ends] == [BackendUnavailable] * 8
        assert took < 4

        async with asyncio.timeout(20):
            while True:
                try:
                    assert await kept.get(trace) == trace
                    break
                except BackendUnavailable:  # it still works off what it was asked
                    await asyncio.sleep(0.1)


async def test_a_server_that_is_down_is_unavailable_and_then_answers(clickhouse: Clickhouse, tmp_path: Path):
    async with kept_at(clickhouse.database(), tmp_path) as kept:
        await kept.write(trace := sample())
        await asyncio.to_thread(clickhouse.stop)
        with pytest.raises(BackendUnavailable):
            await kept.get(trace)
        with pytest.raises(BackendUnavailable):
            await kept.write(sample())
        await asyncio.to_thread(clickhouse.start)
        assert await kept.get(trace) == trace
        await kept.write(sample())
        assert len(await kept.all()) == 2


async def test_a_table_that_somebody_else_made_is_used_as_it_is(clickhouse: Clickhouse, tmp_path: Path):
    url = clickhouse.database()
    async with kept_at(url + "?partition=month", tmp_path):
        pass
    async with kept_at(url, tmp_path) as kept:
        await kept.write(sample())
        where = f"active AND database = '{url.rpartition('/')[2]}'"
        assert await asked(url, tmp_path, f"SELECT partition FROM system.parts WHERE {where}") == ["202611"]


# -- once ------------------------------------------------------------------------------------------------------------


async def test_a_batch_that_was_sent_again_counts_once_also_before_its_parts_are_merged(
    clickhouse: Clickhouse, tmp_path: Path
):
    url = clickhouse.database()
    async with kept_at(url, tmp_path) as kept:
        name = url.rpartition("/")[2]
        async with engine(url, tmp_path) as one:
            await one.command(f"SYSTEM STOP MERGES {name}.traces", {}, seconds=20)
        traces = [sample(start_us=NOON + n, labels={"a": "b"}, cost=1_000) for n in range(40)]
        await kept.write(*traces)
        await kept.write(*traces[10:])
        await kept.write(*traces[20:])

        assert await asked(url, tmp_path, f"SELECT count() FROM {name}.traces") == [40 + 30 + 20]
        assert names(await kept.all(size=7)) == names(newest_first(traces))
        (total,) = await kept.reader.totals(kept_filter(), span_us=DAY)
        assert (total.calls, total.cost_nano_usd) == (40, 40_000)
        async with engine(url, tmp_path) as one:
            # Deleting is a kind of merge.
            await one.command(f"SYSTEM START MERGES {name}.traces", {}, seconds=20)
        assert await kept.reader.delete(traces[30].name.removeprefix("traces/"))
        assert len(await kept.all()) == 39


def kept_filter() -> Any:
    from trunkline.v1alpha.trace_service_pb2 import TraceFilter

    return TraceFilter(labels={"a": "b"})


# -- retention --------------------------------------------------------------------------------------------------------


async def test_pruning_drops_whole_days_and_the_rest_by_row(clickhouse: Clickhouse, tmp_path: Path):
    url = clickhouse.database()
    async with kept_at(url, tmp_path) as kept:
        traces = [sample(start_us=NOON + number * DAY // 4) for number in range(12)]
        await kept.write(*traces)

        assert await kept.sink.prune((NOON + DAY + DAY // 4) / 1e6, None) == 5
        assert names(await kept.all()) == names(newest_first(traces[5:]))
        # Of a partition that still holds something rows go once an hour, since each time a mask is written.
        assert await kept.sink.prune((NOON + 2 * DAY) / 1e6, None) == 1
        assert names(await kept.all()) == names(newest_first(traces[6:]))


async def test_the_table_knows_how_long_it_keeps(clickhouse: Clickhouse, tmp_path: Path):
    url = clickhouse.database()
    async with kept_at(url, tmp_path) as kept:
        for days in (30, 30, 7):
            await kept.sink.prune(time.time() - days * 86_400, None)
            name = url.rpartition("/")[2]
            (made,) = await asked(
                url, tmp_path, f"SELECT create_table_query FROM system.tables WHERE database = '{name}'"
            )
            assert f"TTL toDateTime(start_time) + toIntervalSecond({(days + 1) * 86_400}" in made


async def test_a_size_is_kept_by_dropping_the_oldest_days(clickhouse: Clickhouse, tmp_path: Path):
    async with kept_at(clickhouse.database(), tmp_path) as kept:
        traces = [sample(start_us=NOON + n // 10 * DAY + n, body=random.Random(n).randbytes(50_000)) for n in range(40)]
        await kept.write(*traces)

        assert await kept.sink.prune(0, 10_000_000) == 0
        assert await kept.sink.prune(0, 1_100_000) == 20
        assert names(await kept.all()) == names(newest_first(traces[20:]))
        # The newest day stays.
        assert await kept.sink.prune(0, 1_000) == 10
        assert await kept.sink.prune(0, 1_000) == 0


async def test_a_backlog_of_more_days_than_a_block_may_have_is_written(clickhouse: Clickhouse, tmp_path: Path):
    async with kept_at(clickhouse.database(), tmp_path) as kept:
        traces = [sample(start_us=NOON - n * DAY) for n in range(130)]
        await kept.write(*traces)
        assert names(await kept.all()) == names(newest_first(traces))


async def test_a_time_out_of_all_bounds_is_kept(clickhouse: Clickhouse, tmp_path: Path):
    async with kept_at(clickhouse.database(), tmp_path) as kept:
        traces = [sample(start_us=us) for us in (-62_135_596_800_000_000, 0, 253_402_300_799_000_000)]
        await kept.write(*traces)
        for trace in traces:
            assert await kept.get(trace) == trace
        assert len(await kept.all()) == 3


# -- embedded ---------------------------------------------------------------------------------------------------------


async def test_the_process_that_holds_the_engine_is_the_only_one_to_load_it(tmp_path: Path):
    async with kept_at("clickhouse+chdb:", tmp_path) as kept:
        await kept.write(trace := sample())
        assert await kept.get(trace) == trace
        assert "chdb" not in sys.modules
        assert (tmp_path / "chdb").stat().st_mode & 0o077 == 0
        assert (tmp_path / "chdb.sock").stat().st_mode & 0o077 == 0
        process = holder(tmp_path)
    assert not process.is_running()
    assert not (tmp_path / "chdb.sock").exists()


async def test_without_that_process_reading_is_unavailable(tmp_path: Path):
    reader = open_backend("clickhouse+chdb:", tmp_path).reader()
    assert reader is not None
    with pytest.raises(BackendUnavailable, match="does not run"):
        await reader.get(trace_id(1), full=True)


async def test_a_crash_of_that_process_loses_nothing_that_was_taken(tmp_path: Path):
    async with kept_at("clickhouse+chdb:", tmp_path) as kept:
        traces = [sample() for _ in range(50)]
        await kept.write(*traces)
        holder(tmp_path).kill()

        with pytest.raises(BackendUnavailable):
            await kept.write(*traces)
        await kept.write(*traces)
        assert names(await kept.all()) == names(newest_first(traces))


async def test_writers_of_one_folder_share_the_process_and_the_next_one_takes_over(tmp_path: Path):
    async with kept_at("clickhouse+chdb:", tmp_path) as second_to_none:
        await second_to_none.write(first := sample())
        other = await opened(open_backend("clickhouse+chdb:", tmp_path))
        await other.write(second := sample())
        assert len(await second_to_none.all()) == 2
    with pytest.raises(BackendUnavailable):
        await other.write(second)
    await other.write(second)
    assert names(await other.all()) == names(newest_first([first, second]))
    await other.sink.aclose()


async def test_that_process_ends_with_the_one_that_started_it_however_that_ends(tmp_path: Path):
    script = (
        "import asyncio, sys; from pathlib import Path; from trunkline_server.traces import open_backend\n"
        "async def main():\n"
        "    sink = open_backend('clickhouse+chdb:', Path(sys.argv[1])).sink(); await sink.open()\n"
        "    print('open', flush=True); await asyncio.sleep(600)\n"
        "asyncio.run(main())"
    )
    writer = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert writer.stdout is not None
    assert await writer.stdout.readline() == b"open\n"
    process = holder(tmp_path)

    os.kill(writer.pid, signal.SIGKILL)
    await writer.wait()

    await until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)
    # And the folder can be held again.
    async with kept_at("clickhouse+chdb:", tmp_path) as kept:
        await kept.write(sample())


async def test_a_folder_that_cannot_be_held_says_why(tmp_path: Path):
    place = tmp_path / "chdb"
    place.mkdir()
    (place / "data").write_text("no folder")
    sink = open_backend("clickhouse+chdb:", tmp_path).sink()

    with pytest.raises(BackendUnavailable, match="the engine does not start: "):
        await sink.open()
    await sink.aclose()


async def test_statements_run_side_by_side(tmp_path: Path):
    async with kept_at("clickhouse+chdb:", tmp_path) as kept:
        traces = [sample() for _ in range(20)]
        await kept.write(*traces)

        found = await asyncio.gather(*(kept.get(trace) for trace in traces * 3))

        assert found == traces * 3
