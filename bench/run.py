"""`make bench`: what trunkline costs, as ratios to floors that are measured in the same run.

CPU is that of the server process, user and system, not time on the clock. Floor and server take turns, and the median
of the rounds counts, so that what else the machine does cancels out. See bench/README.md.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from bench import floor, recording
from bench.gateway import Trunkline
from bench.processes import CannotRun, Load, Process, Served, allow_files
from bench.report import Figure, compared, machine, rows, table, write
from bench.workload import (
    BURSTY,
    CALLERS,
    CALLS,
    CONNECTIONS,
    HELD,
    HELD_STREAMS,
    PACED,
    PACED_STREAMS,
    UNARY,
    WORD,
    Call,
    http_request,
)

#: What the README and the issue of the project hold it to.
MOST_UNARY, MOST_PACED, MOST_BURST = 4.5, 2.2, 0.6
MOST_KB_PER_STREAM, MOST_SECONDS_TO_SERVING = 60.0, 1.0


@dataclass(frozen=True)
class Size:
    """How long to measure."""

    rounds: int
    #: Unary calls of each caller in a round.
    calls: int
    starts: int = 0
    #: One at a time, in a round.
    latency_calls: int = 0
    held_streams: int = 0


FULL = Size(rounds=9, calls=50, starts=5, latency_calls=100, held_streams=HELD_STREAMS)
QUICK = Size(rounds=3, calls=20, starts=2, latency_calls=50, held_streams=500)


@dataclass(frozen=True)
class Scenario:
    """A kind of call, and what it is held against."""

    what: str
    call: Call
    floor_method: str = ""
    #: Most that its ratio to the floor may be.
    most: float | None = None
    #: Calls side by side.
    callers: int = CALLERS

    def job(self, size: Size) -> dict[str, Any]:
        calls = 1 if self.call.events else size.calls
        do = "stream" if self.call.events else "unary"
        return {"do": do, "callers": self.callers, "calls": calls, "connections": CONNECTIONS}

    def units(self, size: Size) -> int:
        """Calls or events in a round."""
        return self.callers * (self.call.events or size.calls)


SCENARIOS = (
    Scenario("unary call", UNARY, floor.UNARY, MOST_UNARY),
    Scenario("event at a pace of 2 ms", PACED, floor.STREAM[PACED.model], MOST_PACED, PACED_STREAMS),
    Scenario("event in a burst of 16", BURSTY, floor.STREAM[BURSTY.model], MOST_BURST),
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a third of the time; less exact")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    arguments = parser.parse_args()
    began = time.monotonic()
    try:
        figures = measure(QUICK if arguments.quick else FULL)
    except CannotRun as error:
        print(f"trunkline: the benchmark cannot run: {error}", file=sys.stderr)
        return 1
    print(table(("measured", "trunkline", "floor", "ratio", "rounds", "target", ""), rows(figures)))
    print("\n" + ", ".join(f"{name} {value}" for name, value in machine().items()))
    if arguments.json:
        write(arguments.json, figures, quick=arguments.quick, seconds=round(time.monotonic() - began, 1))
    return 0


def measure(size: Size) -> list[Figure]:
    """Raises CannotRun."""
    allow_files(3 * size.held_streams + 1000)
    with tempfile.TemporaryDirectory(prefix="trunkline-bench-") as name:
        folder = Path(name)
        with Served("upstream", folder / "upstream.log") as upstream, Load(folder / "load.log") as load:
            say("start-up")
            starting = start_up(size, upstream.address, folder)
            say("memory")
            remembering = memory(size, upstream.address, folder, load)
            with Served("floor", folder / "floor.log") as lowest, Trunkline(upstream.address, folder) as server:
                for call in CALLS.values():
                    if not (call.held or call.apart):
                        server.probe(call)
                costing = cpu(size, lowest, server, load)
                say("latency")
                waiting = latency(size, upstream.address, lowest, server, load)
            recorded = recording.measure(size.rounds, size.calls, upstream.address, folder, load, say)
            return [*costing, *waiting, *remembering, *starting, *recorded]


def cpu(size: Size, lowest: Served, server: Trunkline, load: Load) -> list[Figure]:
    """Microseconds of the server process, of each kind of call."""
    found: dict[str, tuple[list[float], list[float]]] = {scenario.what: ([], []) for scenario in SCENARIOS}
    for number in range(-1, size.rounds):
        say(f"CPU, round {number + 1} of {size.rounds}" if number >= 0 else "CPU, warming up")
        for scenario in SCENARIOS:
            job, units = scenario.job(size), scenario.units(size)
            to_floor = {"protocol": "grpc", "address": lowest.address, "method": scenario.floor_method}
            body = server.job(scenario.call)["body"]
            floor_cost = cost(lowest, lambda: load.run(**job, **to_floor, body=body), units)  # noqa: B023  # called now
            server_cost = cost(server, lambda: load.run(**job, **server.job(scenario.call)), units)  # noqa: B023
            if number >= 0:
                values, floors = found[scenario.what]
                values.append(server_cost)
                floors.append(floor_cost)
    return [compared(scenario.what, *found[scenario.what], most=scenario.most) for scenario in SCENARIOS]


def cost(process: Process, work: Callable[[], object], units: int) -> float:
    """Microseconds of a process's CPU per unit of the work."""
    before = process.cpu()
    work()
    time.sleep(0.02)  # what follows an answer: the access log, the end of the connection upstream
    return (process.cpu() - before) / units * 1e6


def latency(size: Size, upstream: str, lowest: Served, server: Trunkline, load: Load) -> list[Figure]:
    """What trunkline adds to one call at a time. An empty gRPC call is shown beside it."""
    job: dict[str, Any] = {"do": "alone", "calls": size.latency_calls, "connections": 1}
    ways: dict[str, dict[str, Any]] = {
        "direct": {
            "protocol": "http",
            "address": upstream,
            "method": "/v1/chat/completions",
            "body": http_request(UNARY),
        },
        "floor": {"protocol": "grpc", "address": lowest.address, "method": floor.UNARY},
        "trunkline": server.job(UNARY),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(-1, size.rounds):
        for way, to in ways.items():
            took = load.run(**job, **to)["seconds"]
            if number >= 0:  # the first round warms up
                seconds[way] += took
    at = {way: quantiles(values, n=100, method="inclusive") for way, values in seconds.items()}
    return [
        Figure(
            f"added to one call at a time, p{percent}",
            (at["trunkline"][percent - 1] - at["direct"][percent - 1]) * 1000,
            "ms",
            floor=(at["floor"][percent - 1]) * 1000,
        )
        for percent in (50, 99)
    ]


def memory(size: Size, upstream: str, folder: Path, load: Load) -> list[Figure]:
    """Of a server that has just started: idle, and for each of many streams that stay open."""
    with Trunkline(upstream, folder) as server:
        for call in (UNARY, PACED):
            server.probe(call)
        idle = server.rss()
        hold = {"do": "hold", "connections": 20, "text": WORD, "count": HELD.events, **server.job(HELD)}
        load.run(**hold, callers=size.held_streams)
        held = server.rss()
        load.run("release")
    per_stream = (held - idle) / size.held_streams / 1024
    return [
        Figure("memory, idle", idle / 2**20, "MB"),
        Figure(f"memory of each of {size.held_streams:,} streams", per_stream, "KB", most=MOST_KB_PER_STREAM),
    ]


def start_up(size: Size, upstream: str, folder: Path) -> list[Figure]:
    seconds: list[float] = []
    # The first start writes the bytecode.
    for _ in range(1 + size.starts):
        with Trunkline(upstream, folder) as server:
            seconds.append(server.seconds_to_serving)
    return [Figure("start to SERVING", median(seconds[1:]), "s", most=MOST_SECONDS_TO_SERVING, rounds=seconds[1:])]


def say(what: str) -> None:
    """Tells a person who waits."""
    if sys.stderr.isatty():
        print(f"\r\033[K{what} ...", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
