"""What a provider may be asked at once, shared by all workers and replicas of a Redis.

Each worker has a share of a provider's places, and its gate lets calls in by that alone: no call waits for Redis.
Beside the calls each tells Redis several times a second how many places it holds and how many it could use, and is told
its share. A place goes from one worker to another in two steps: it is given back first, so that together they never
hold more than there are. What Redis does not hear of for `LEASE` seconds is free again; a worker that does not hear of
Redis for as long has all places to itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from trunkline_server.admission import Admission, SharedGate
from trunkline_server.fleet import Away, Fleet

#: Seconds between two reports, and where a call waits or a place is on its way.
PACE, SOON = 0.25, 0.1
#: A worker that is not heard of for so many seconds holds nothing any more.
LEASE = 3.0
#: So many reports a worker makes before it serves, if the others have no place for it so far.
_INTRODUCTIONS = 6

#: KEYS: a provider. ARGV: worker, number of its report, places that it holds, those that it could use, those that there
#: are, milliseconds after which a worker is gone. Returns how many it may hold, its share, and whether it was
#: known; nothing if a later report of it is.
#:
#: Everybody's share is one place at least. If what all could use is there, the rest is divided evenly, for those who
#: come next; else it is divided by what each could use. Nobody is given what others hold yet; nor, by its first report,
#: anything but what it holds: others may be here that have not reported yet.
_REPORT = """
local me, number, held = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local limit, lease = tonumber(ARGV[5]), tonumber(ARGV[6])
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local workers, wanted, known, taken = {me}, {[me] = math.max(tonumber(ARGV[4]), 1)}, false, 0
local rows = redis.call('HGETALL', KEYS[1])
for at = 1, #rows, 2 do
  local worker = rows[at]
  local last, has, wants, seen = string.match(rows[at + 1], '^(%d+) (%d+) (%d+) (%d+)$')
  if worker == me then
    if tonumber(last) >= number then return false end
    known = true
  elseif not last or math.abs(now - seen) > lease then
    redis.call('HDEL', KEYS[1], worker)
  else
    table.insert(workers, worker)
    wanted[worker] = tonumber(wants)
    taken = taken + has
  end
end
table.sort(workers)
local all = 0
for _, worker in ipairs(workers) do all = all + wanted[worker] end
local plenty = all <= limit
local rest = math.max(limit - (plenty and all or #workers), 0)
local whole, upto, share = math.max(plenty and #workers or all - #workers, 1), 0, 1
for _, worker in ipairs(workers) do
  local weight = plenty and 1 or wanted[worker] - 1
  if worker == me then
    share = (plenty and wanted[me] or 1) + math.floor(rest * (upto + weight) / whole) - math.floor(rest * upto / whole)
  end
  upto = upto + weight
end
if known then held = math.max(held, math.min(share, limit - taken)) end
redis.call('HSET', KEYS[1], me, string.format('%d %d %d %d', number, held, wanted[me], now))
redis.call('PEXPIRE', KEYS[1], lease * 10)
return {held, share, known and 1 or 0}
"""


class Shares:
    """Of one worker. `start` it once the fleet has started, and close it before that."""

    def __init__(self, admission: Admission, fleet: Fleet) -> None:
        self._admission = admission
        self._fleet = fleet
        self._reports = 0
        self._heard = float("-inf")
        #: By provider: the gate that Redis knows of, and when it may grow again if Redis has forgotten it.
        self._known: dict[str, SharedGate] = {}
        self._grows: dict[str, float] = {}
        self._pressed = asyncio.Event()
        self._reporting: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Returns with a share of each provider; when all is taken for long; or when Redis does not answer."""
        for _ in range(_INTRODUCTIONS):
            if not await self._report():
                break
            await asyncio.sleep(SOON)
        self._reporting = asyncio.get_running_loop().create_task(self._run())

    async def aclose(self) -> None:
        """Gives everything back."""
        if self._reporting is not None:
            self._reporting.cancel()
            await asyncio.gather(self._reporting, return_exceptions=True)
        leaving = [("HDEL", self._key(name), self._fleet.worker) for name, _ in self._gates()]
        if leaving:
            with suppress(Away):
                await self._fleet.run(*leaving)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(SOON)
            if not await self._report():
                with suppress(TimeoutError):
                    async with asyncio.timeout(PACE - SOON):
                        await self._pressed.wait()
            self._pressed.clear()

    async def _report(self) -> bool:
        """True: something is on its way, so that the next report should be soon."""
        gates = list(self._gates())
        if not gates:
            return False
        self._reports += 1
        try:
            answers = await self._fleet.run(*(self._command(name, gate) for name, gate in gates))
        except Away:
            if time.monotonic() - self._heard > LEASE:
                for _, gate in gates:
                    gate.resize(gate.whole)
            return False
        self._heard = now = time.monotonic()
        moving = False
        for (name, gate), answer in zip(gates, answers, strict=True):
            if answer:
                held, share, known = answer
                if not known and self._known.get(name) is gate:
                    # The others may be forgotten, too, and not be back yet.
                    self._grows[name] = now + LEASE
                self._known[name] = gate
                most = max(min(held, share), 1)
                gate.resize(most if now >= self._grows.get(name, now) else min(most, gate.most))
                moving = moving or gate.held < held or (held < share and (gate.waiting > 0 or not held))
        return moving

    def _gates(self) -> Iterable[tuple[str, SharedGate]]:
        for name, gate in self._admission.providers.items():
            if isinstance(gate, SharedGate):
                gate.pressed = self._pressed.set
                yield name, gate

    def _command(self, name: str, gate: SharedGate) -> tuple[Any, ...]:
        # Before it serves it holds nothing.
        held, wanted = gate.held if self._reporting else 0, gate.running + gate.waiting
        return (
            "EVAL", _REPORT, 1, self._key(name),
            self._fleet.worker, self._reports, held, wanted, gate.whole, round(LEASE * 1000),
        )  # fmt: skip

    def _key(self, name: str) -> str:
        return self._fleet.key("places", name)
