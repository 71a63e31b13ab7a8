"""`make bench-idle`: thousands of streams of which each says a word every ten seconds, on one worker."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.gateway import Trunkline
from bench.processes import CannotRun, Load, Served, allow_files
from bench.report import Figure, rows, table
from bench.run import MOST_KB_PER_STREAM, say
from bench.workload import IDLE, PACED, UNARY

#: Events that a stream has beside its words: started, attempt_started, part_started, their ends and finished.
_FRAME = 6


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench-idle", description=__doc__)
    parser.add_argument("--streams", type=int, default=2000, help="side by side (default: 2000)")
    streams = parser.parse_args().streams
    allow_files(3 * streams + 1000)
    try:
        with tempfile.TemporaryDirectory(prefix="trunkline-bench-") as name:
            figures = measure(streams, Path(name))
    except CannotRun as error:
        print(f"bench-idle: {error}", file=sys.stderr)
        return 1
    print(table(("measured", "trunkline", "", "", "", "target", ""), rows(figures)))
    return 0


def measure(streams: int, folder: Path) -> list[Figure]:
    """Raises CannotRun, also if a stream fails."""
    with (
        Served("upstream", folder / "upstream.log") as upstream,
        Load(folder / "load.log") as load,
        Trunkline(upstream.address, folder) as server,
        ThreadPoolExecutor(1) as pool,
    ):
        for call in (UNARY, PACED):
            server.probe(call)
        idle, most = server.rss(), 0
        job = {"do": "stream", "callers": streams, "calls": 1, "connections": 20, **server.job(IDLE)}
        began = time.monotonic()
        done = pool.submit(load.run, **job)
        while not done.done():
            say(f"{time.monotonic() - began:.0f} s")
            time.sleep(0.5)
            most = max(most, server.rss())
        answered = done.result()
    say("")
    messages = answered["messages"] / streams
    if messages < _FRAME + IDLE.events:
        raise CannotRun(f"streams had {messages:.1f} events, and {_FRAME + IDLE.events} are due")
    return [
        Figure("streams that finished", answered["calls"], "", least=streams),
        Figure("each took", time.monotonic() - began, "s"),
        Figure(f"memory of each of {streams:,} streams", (most - idle) / streams / 1024, "KB", most=MOST_KB_PER_STREAM),
    ]


if __name__ == "__main__":
    sys.exit(main())
