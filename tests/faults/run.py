"""`make faults`: what goes wrong with providers, callers and servers, each judged from both ends.

A line for each scenario, and a last line such as `faults: 44 of 44 hold`. Exit code 0 if all hold, else 1.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.faults import callers, providers, stories
from tests.faults.table import Row, Story
from tests.faults.world import World, reads_to_the_end, world
from tests.services import Missing, required

ROWS: Sequence[Row] = (*providers.ROWS, *callers.ROWS)
#: Rows of providers that run at a time.
SIDE_BY_SIDE = 8
STORIES: Sequence[Story] = stories.STORIES
#: Of so many tries of a row about moments, so many must hold.
TRIES, LEAST = 10, 9


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=1, help="server processes that share the port")
    parser.add_argument("--only", default="", help="scenarios whose name holds this")
    parser.add_argument("--repeat", type=int, default=1, help="how many times in a row")
    options = parser.parse_args(arguments)
    for turn in range(options.repeat):
        if options.repeat > 1:
            _say(f"-- {turn + 1} of {options.repeat}")
        code = asyncio.run(_run(options.workers, options.only))
        if code:
            return code
    return 0


async def _run(workers: int, only: str) -> int:
    began = time.monotonic()
    rows = [row for row in ROWS if only.lower() in row.name.lower()]
    told = [story for story in STORIES if only.lower() in story.name.lower()]
    if not rows and not told:
        _say(f"no scenario's name holds {only!r}")
        return 2
    names = [row.name for row in rows] + [story.name for story in told]
    assert len(set(names)) == len(names), "two scenarios have the same name"
    held = 0
    with tempfile.TemporaryDirectory(prefix="trunkline-faults-") as scratch:
        async with world(Path(scratch), rows, workers) as shared:
            # Those of callers are about moments: they wait for the end of their time together, or run by themselves.
            gate = asyncio.Semaphore(SIDE_BY_SIDE)

            async def judged(row: Row) -> list[str]:
                async with gate:
                    return await _row(shared, row)

            apart = [row for row in rows if row in (*callers.LEAVING, *callers.READING)]
            waiting = [row for row in rows if row in callers.OUT_OF_TIME]
            for together in ([row for row in rows if row not in (*apart, *waiting)], waiting):
                for row, found in zip(together, await asyncio.gather(*map(judged, together)), strict=True):
                    held += _told(row.name, found)
            for row in apart:
                held += _told(row.name, await _row(shared, row))
        for story in told:
            folder = Path(scratch) / story.slug
            folder.mkdir()
            try:
                held += _told(story.name, await _story(folder, story, workers))
            except Missing as missing:
                names.remove(story.name)
                _say(f"skipped {story.name} ({missing})")
    _say(f"{time.monotonic() - began:.0f} s, workers: {workers}")
    _say(f"faults: {held} of {len(names)} hold")
    return 0 if held == len(names) else 1


async def _row(shared: World, row: Row) -> list[str]:
    broken: list[str] = []
    for kind in row.kinds:
        found = await _try(shared, row, kind)
        if found and row.timed:
            tries = [found, *[await _try(shared, row, kind) for _ in range(TRIES - 1)]]
            failed = [one for one in tries if one]
            found = [] if len(failed) <= TRIES - LEAST else [f"{len(failed)} of {TRIES} tries", *failed[-1]]
        broken += [f"{kind}: {text}" for text in found]
    return broken


async def _try(shared: World, row: Row, kind: str) -> list[str]:
    scenario = f"{row.slug}-{kind}"
    shared.forget(scenario)
    drive = row.drive or reads_to_the_end
    try:
        async with asyncio.timeout(row.deadline + 30):
            seen = await drive(shared, row, kind)
    except Exception as error:  # noqa: BLE001  # one scenario that breaks is one that does not hold
        return [f"{type(error).__name__}: {error}"]
    await shared.settled(scenario)
    provided = shared.provided(scenario)
    return [found for statement in row.holds if (found := statement.judge(seen, provided))]


async def _story(folder: Path, story: Story, workers: int) -> list[str]:
    try:
        async with asyncio.timeout(180):
            return list(await story.run(World(folder, workers, ())))
    except Missing as missing:
        if not required():
            raise
        return [str(missing)]
    except Exception as error:  # noqa: BLE001  # as above
        return [f"{type(error).__name__}: {error}"]


def _told(name: str, broken: Sequence[str]) -> int:
    _say(f"{'holds ' if not broken else 'BROKEN'}  {name}")
    for line in broken:
        _say(f"          {line}")
    return not broken


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
