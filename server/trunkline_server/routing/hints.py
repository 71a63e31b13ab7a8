"""What workers and replicas that share a Redis tell each other of targets: leave this one alone for so long.

A hint costs the call that it comes of nothing: it is sent beside it, with all others of the same second, and lost while
Redis is away. It tells durations, because the clocks of machines differ, and names, no secrets.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import msgspec

from trunkline_server.fleet import Away, Fleet
from trunkline_server.routing.breaker import BreakerPolicy
from trunkline_server.routing.health import Healths, TargetKey

#: Hints are sent together, so many seconds apart, and so many of them at most.
PACE, MOST = 1.0, 1000

_KIND = "leave alone"


class Hint(msgspec.Struct, array_like=True):
    target: TargetKey
    policy: BreakerPolicy
    seconds: float
    #: Its provider says so.
    said: bool


class Hints:
    """Tells the others what this worker finds out, and its own targets what the others do."""

    def __init__(self, healths: Healths, fleet: Fleet) -> None:
        self._healths = healths
        self._fleet = fleet
        #: What is to be told, and until when it holds.
        self._due: dict[tuple[TargetKey, BreakerPolicy, bool], float] = {}
        self._sending = False
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(list[Hint]).decode
        healths.told = self._tell
        fleet.hears(_KIND, self._hear)

    def _tell(self, target: TargetKey, policy: BreakerPolicy, seconds: float, said: bool) -> None:
        key = (target, policy, said)
        if len(self._due) < MOST or key in self._due:
            self._due[key] = time.monotonic() + seconds
        if not self._sending:
            self._sending = True
            self._fleet.spawn(self._send())

    async def _send(self) -> None:
        try:
            while self._due:
                due, self._due = self._due, {}
                now = time.monotonic()
                hints = [Hint(target, policy, until - now, said) for (target, policy, said), until in due.items()]
                # ValueError: of a name that is no text, which no provider can be asked for either.
                with suppress(Away, ValueError):
                    await self._fleet.tell(_KIND, self._encode(hints))
                await asyncio.sleep(PACE)
        finally:
            self._sending = False

    def _hear(self, body: bytes) -> None:
        now = time.monotonic()
        for hint in self._decode(body):
            self._healths.heard(hint.target, hint.policy, hint.seconds, hint.said, now)
