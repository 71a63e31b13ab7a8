"""The log: nobody who reads it slowly holds up a call, and what is lost is counted."""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tests.gateway import create
from tests.process import connected, write_config
from tests.upstream import PATIENCE

from trunkline_server.telemetry.logs import LineWriter, make_access_log, make_log


class Stuck(io.StringIO):
    """A pipe that nobody reads, until `reads`."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = threading.Event()
        self.entered = threading.Event()

    def write(self, text: str) -> int:
        self.entered.set()
        self.reads.wait(PATIENCE)
        return super().write(text)


def test_a_full_pipe_holds_up_nobody_and_lost_lines_are_told() -> None:
    stream, dropped = Stuck(), []
    writer = LineWriter(stream, most=100, on_drop=lambda: dropped.append(1))
    writer.write("first\n")
    assert stream.entered.wait(PATIENCE)

    began = time.monotonic()
    for number in range(150):
        writer.write(f"{number}\n")
    took = time.monotonic() - began
    stuck = writer.drain(0.05)
    stream.reads.set()

    # It would have waited for as long as nobody reads.
    assert took < PATIENCE / 2
    assert stuck is False
    assert writer.drain(PATIENCE)
    lines = stream.getvalue().splitlines()
    assert lines[:3] == ["first", "0", "1"]
    assert (writer.dropped, len(dropped)) == (50, 50)
    told = json.loads(lines[-1])
    assert (told["event"], told["level"], told["count"]) == ("log lines dropped", "warning", 50)


def test_lines_of_many_threads_are_all_written_whole() -> None:
    stream = io.StringIO()
    writer = LineWriter(stream)

    def write(name: str) -> None:
        for number in range(500):
            writer.write(f"{name}-{number}\n")

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert writer.drain(PATIENCE)
    assert sorted(stream.getvalue().split()) == sorted(f"{name}-{n}" for name in "abcd" for n in range(500))


def test_what_is_written_at_once_is_no_larger_than_a_pipe_takes_whole() -> None:
    sizes: list[int] = []

    class Sized(io.StringIO):
        def write(self, text: str) -> int:
            assert text.endswith("\n")
            sizes.append(len(text))
            return len(text)

    writer = LineWriter(Sized())
    for _ in range(500):
        writer.write("x" * 99 + "\n")
    writer.write("x" * 9999 + "\n")

    assert writer.drain(PATIENCE)
    assert sum(sizes) == 60_000
    assert [size for size in sizes if size > 4096] == [10_000]


def test_a_closed_writer_has_no_thread_and_takes_lines_all_the_same() -> None:
    stream = io.StringIO()
    writer = LineWriter(stream)
    for word in ("one", "two"):
        writer.write(f"{word}\n")
        assert writer.close(PATIENCE)
        thread = writer._thread
        if thread is not None:
            thread.join(PATIENCE)
        assert writer._thread is None

    assert stream.getvalue().split() == ["one", "two"]


@pytest.mark.parametrize("form", ["json", "text"])
def test_both_forms_go_through_the_writer(form: str) -> None:
    stream = io.StringIO()
    writer = LineWriter(stream)
    log = make_log(form=form, stream=writer)
    log.warning("hello")
    make_access_log(log, form=form, stream=writer)({"id": "cmpl_1"})

    assert writer.drain(PATIENCE)
    assert [word in stream.getvalue() for word in ("hello", "cmpl_1")] == [True, True]


async def test_a_server_whose_log_nobody_reads_goes_on_and_ends(tmp_path: Path) -> None:
    config = write_config(tmp_path, drain={"grace": 1})
    reading, writing = os.pipe()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "trunkline_server", "serve", "--config", str(config)), stderr=writing
    )
    os.close(writing)
    try:
        first = await asyncio.wait_for(asyncio.to_thread(os.read, reading, 4096), PATIENCE)
        address = json.loads(first.splitlines()[0])["listen"]
        # 64 KB fit into the pipe; nobody reads on.
        async with connected(address) as stub:
            began = time.monotonic()
            for _ in range(10):
                await asyncio.gather(*(answer(stub) for _ in range(100)))
            took = time.monotonic() - began
        process.terminate()
        code = await asyncio.wait_for(process.wait(), PATIENCE)
    finally:
        if process.returncode is None:
            process.kill()
        os.close(reading)

    assert took < PATIENCE
    assert code == 0


async def answer(stub: Any) -> None:
    await stub.CreateCompletion(create("fake/echo"), timeout=PATIENCE)


def test_what_was_logged_last_is_written_at_the_end_of_the_process() -> None:
    code = (
        "import sys; from trunkline_server.telemetry.logs import LineWriter, make_log;"
        "make_log(stream=LineWriter(sys.stderr)).info('the last words')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert json.loads(done.stderr)["event"] == "the last words"
