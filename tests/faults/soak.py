"""`make soak`: mixed load for minutes, with faults and callers who leave; nothing may grow, leak or get lost.

Memory of the serving processes is steady if the median of the last third of the time is within 5 % of that of the
second. When the load has ended no task, connection or file may be left that was not there before, and the records of
calls must be as many as the calls.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import grpc
import psutil
from tests.faults.providers import ROUTE
from tests.faults.scripts import answers, cuts_midway, limited, resets, silent, slow, status
from tests.faults.seen import Seen
from tests.faults.stories.serving import begun, served, whole
from tests.faults.world import World, leaves, read
from tests.process import ServerProcess
from tests.upstream import Exchange, Script, says

from trunkline.v1alpha import trace_service_pb2
from trunkline.v1alpha.trace_service_pb2_grpc import TraceServiceStub

#: Shares of the calls.
FAULTS, CANCELS = 0.05, 0.05
CALLERS = 32
#: Makes processes of Python write down how many tasks they have.
TASKS = Path(__file__).parent / "tasks"
#: Files and tasks that may be more after the load than before: a write under way, a file that is opened when needed.
KEPT = 8
#: How much the last third may be above the second.
STEADY = 1.05
SEED = 20_26


@dataclass
class Samples:
    """The serving processes from outside, twice a second."""

    began: float = field(default_factory=time.monotonic)
    #: Seconds since the beginning, bytes of memory, open files.
    rows: list[tuple[float, int, int]] = field(default_factory=list)

    def take(self, server: ServerProcess) -> tuple[int, int]:
        memory = files = 0
        for process in _processes(server):
            memory += process.memory_full_info().uss
            files += process.num_fds()
        self.rows.append((time.monotonic() - self.began, memory, files))
        return memory, files

    def thirds(self) -> list[float]:
        """Median memory of each third of the time."""
        last = self.rows[-1][0]
        return [
            median([memory for at, memory, _ in self.rows if part * last / 3 <= at <= (part + 1) * last / 3])
            for part in range(3)
        ]


def _processes(server: ServerProcess) -> list[psutil.Process]:
    """Those that serve: they listen on the port, or are the one that was started."""
    main = psutil.Process(server.pid)
    return [main, *main.children(recursive=True)]


def upstream_script(chance: random.Random) -> Script:
    """Mostly answers; one in twenty goes wrong in one of the ways that providers have."""
    faults: Sequence[Script] = (
        status(500), status(503), limited(retry_after="0.05"), limited(), resets, cuts_midway, slow(0.5), silent,
    )  # fmt: skip
    words = says(*(["some words that make an answer "] * 20))

    async def script(exchange: Exchange) -> None:
        await chance.choice(faults if chance.random() < FAULTS else (words, answers))(exchange)

    return script


async def caller(stub: Any, chance: random.Random, until: float, ended: Counter[str]) -> None:
    """One call after another, half of them streams; one in twenty is left."""
    while time.monotonic() < until:
        seen = Seen()
        if chance.random() < 0.5:
            call = begun(stub, "both", timeout=5)
            if chance.random() < CANCELS * 2:
                seen = await read(call, seen, until=chance.choice(("started", "part_delta")))
                if not seen.code:
                    seen = await leaves(call, seen)
            else:
                seen = await read(call, seen)
        else:
            seen = await whole(stub, "both", timeout=5)
        ended[f"{seen.code} {seen.reason}".strip()] += 1


async def recorded(channel: grpc.aio.Channel, wanted: int, patience: float = 30.0) -> int:
    """Records of calls, as soon as there are as many as calls, or when they stay fewer."""
    stub: Any = TraceServiceStub(channel)
    found, until = -1, time.monotonic() + patience
    while time.monotonic() < until:
        found = 0
        request = trace_service_pb2.ExportTracesRequest(view=trace_service_pb2.TRACE_VIEW_BASIC)
        async for chunk in stub.ExportTraces(request):
            found += chunk.count
        if found >= wanted:
            break
        await asyncio.sleep(0.5)
    return found


async def soak(minutes: float, workers: int, folder: Path) -> list[str]:
    """What does not hold."""
    chance = random.Random(SEED)
    ended: Counter[str] = Counter()
    samples = Samples()
    config: dict[str, Any] = {
        "traces": "sqlite:",
        "models": {"both": {"targets": [{"model": "up/m"}, {"model": "up/n", "priority": 1}], **ROUTE}},
    }
    counted = folder / "tasks"
    counted.mkdir()
    environ = {"PYTHONPATH": str(TASKS), "TRUNKLINE_FAULTS_TASKS": str(counted)}
    async with served(World(folder, workers, ()), upstream_script(chance), environ=environ, **config) as made:
        up, server, stub = made
        # What a server holds once it has served at all.
        await asyncio.gather(*(caller(stub, chance, time.monotonic() + 5, ended) for _ in range(CALLERS)))
        await _quiet(server, samples)
        files = samples.take(server)[1] - len(up.open)
        tasks = _tasks(counted)
        samples = Samples()
        until = time.monotonic() + minutes * 60
        load = [asyncio.create_task(caller(stub, chance, until, ended)) for _ in range(CALLERS)]
        while time.monotonic() < until:
            samples.take(server)
            await asyncio.sleep(0.5)
        await asyncio.gather(*load)
        await _quiet(server, samples)
        files_after = samples.take(server)[1] - len(up.open)
        tasks_after = _tasks(counted)
        kept = len(up.open)
        calls = sum(ended.values())
        async with grpc.aio.insecure_channel(await server.address()) as channel:
            records = await recorded(channel, calls)
        bugs = [line for line in server.lines if line["event"] == "bug"]
    first, second, last = samples.thirds()
    _say(f"{calls} calls in {minutes:g} min: {dict(ended.most_common())}")
    _say(f"memory of all processes, MB, by thirds: {first / 1e6:.1f} {second / 1e6:.1f} {last / 1e6:.1f}")
    _say(f"open files before and after: {files} {files_after}, and {kept} connections kept to the provider")
    _say(f"tasks before and after: {tasks} {tasks_after}")
    _say(f"records: {records} of {calls}")
    unknown = [code for code in ended if code.startswith("UNKNOWN") or code == ""]
    return [
        text
        for text, holds in (
            ("memory is steady", last <= second * STEADY),
            ("no file or socket is left open", files_after <= files + KEPT),
            ("no task is left", 0 < tasks_after <= tasks + KEPT),
            ("every call is accounted for", records == calls),
            ("no call ends without a reason", not unknown),
            ("no bug is logged", not bugs),
        )
        if not holds
    ]


def _tasks(counted: Path) -> int:
    """Of all processes, as they wrote it last."""
    return sum(int(file.read_text() or 0) for file in counted.iterdir())


async def _quiet(server: ServerProcess, samples: Samples) -> None:
    """Waits until what was open for calls has been closed: files have stopped to become fewer."""
    least, since = samples.take(server)[1], time.monotonic()
    while time.monotonic() - since < 2.0:
        await asyncio.sleep(0.2)
        files = samples.take(server)[1]
        if files < least:
            least, since = files, time.monotonic()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="trunkline-soak-") as scratch:
        broken = asyncio.run(soak(options.minutes, options.workers, Path(scratch)))
    for text in broken:
        _say(f"BROKEN  {text}")
    _say(f"soak: {6 - len(broken)} of 6 hold")
    return 1 if broken else 0


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
