"""Who runs now and who waits: so many at once for the server and for each provider, and a queue that knows its length.

A call that would wait beyond its deadline, or that finds the queue full, is refused at once: it goes elsewhere while
there is time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType

from trunkline_server.call import Call
from trunkline_server.errors import GatewayOverloaded

#: Share of the newest in the mean of the times for which a place was held.
_NEWEST = 0.1
#: A pause of so many times the expected one is no chance: the calls take longer than they did.
_NO_CHANCE = 5.0


class Gate:
    """Places for calls. Used by one event loop."""

    def __init__(self, name: str, most: int | None = None, queue: int = 0, *, settings: str = "") -> None:
        """`most`: places, None for no bound; `queue`: calls that may wait; `settings`: what sets both, for errors."""
        self._name = name
        self._most = most
        self._most_waiting = queue
        self._settings = settings
        self._waiting: dict[asyncio.Future[None], None] = {}
        #: Mean of the seconds for which a place was held; 0: none was yet.
        self._held = 0.0
        self._freed_at = 0.0
        #: Calls that have a place.
        self.running = 0

    @property
    def waiting(self) -> int:
        """Calls in the queue."""
        return len(self._waiting)

    def place(self, call: Call) -> _Place:
        """A place for as long as the `async with` lasts; adds what was waited for it to `call.queued`.

        Raises GatewayOverloaded at once if the queue is full, or so long that the call would not be due before its
        deadline.
        """
        return _Place(self, call)

    def expected(self) -> float:
        """Seconds that a newcomer would wait, by the times for which places were held."""
        if self._most is None or self.running < self._most:
            return 0.0
        pace = max(self._held / self._most, (time.monotonic() - self._freed_at) / _NO_CHANCE)
        return (len(self._waiting) + 1) * pace

    def _refusal(self, call: Call) -> GatewayOverloaded | None:
        state = f"{self._name} has {self.running:,} calls in flight and {self.waiting:,} waiting{self._settings}"
        if self.waiting >= self._most_waiting:
            return GatewayOverloaded(f"{state}: call again shortly")
        remaining, expected = call.remaining(), self.expected()
        if remaining is not None and expected >= remaining:
            return GatewayOverloaded(
                f"{state}: a place is expected in {expected:.1f} s, and the call has {max(remaining, 0):.1f} s left"
            )
        return None

    async def _enter(self, call: Call) -> None:
        if self._most is None or (self.running < self._most and not self._waiting):
            self.running += 1
            if self.running == self._most:
                self._freed_at = time.monotonic()
            return
        self._press()
        refusal = self._refusal(call)
        if refusal is not None:
            raise refusal
        turn = asyncio.get_running_loop().create_future()
        self._waiting[turn] = None
        began = time.monotonic()
        try:
            with call.waiting:
                await turn
        except asyncio.CancelledError:
            self._waiting.pop(turn, None)
            if not turn.cancelled():
                # The place was handed over at the moment when the call was ended.
                self._hand_over()
            raise
        finally:
            call.queued += time.monotonic() - began

    def _leave(self, held: float) -> None:
        self._held = held if not self._held else self._held + _NEWEST * (held - self._held)
        self._hand_over()

    def _hand_over(self) -> None:
        self._freed_at = time.monotonic()
        if self._most is not None and self.running > self._most:
            # There are fewer places than there were.
            self.running -= 1
        elif not self._wake():
            self.running -= 1

    def _press(self) -> None:
        """A call finds no place."""

    def _wake(self) -> bool:
        """It is the turn of the first one that waits. False: nobody does."""
        while self._waiting:
            turn = next(iter(self._waiting))
            del self._waiting[turn]
            if not turn.done():
                turn.set_result(None)
                return True
        return False


class SharedGate(Gate):
    """Places of which other workers have their share: this one has one at least, and begins with that."""

    def __init__(self, name: str, whole: int, queue: int = 0, *, settings: str = "") -> None:
        """`whole`: places of all together."""
        super().__init__(name, 1, queue, settings=settings)
        self.whole = whole
        #: Places of this worker.
        self.most = 1
        #: Called when a call finds no place; None: nobody wants to know.
        self.pressed: Callable[[], None] | None = None

    @property
    def held(self) -> int:
        """Most calls that run here as long as it is not resized."""
        return max(self.running, self.most)

    def resize(self, most: int) -> None:
        """It has so many places from now on. What runs beyond them runs on, and is followed by nobody."""
        self.most = self._most = most
        while self._waiting and self.running < most:
            self.running += self._wake()

    def _press(self) -> None:
        if self.pressed is not None:
            self.pressed()


class _Place:
    __slots__ = ("_began", "_call", "_gate")

    def __init__(self, gate: Gate, call: Call) -> None:
        self._gate = gate
        self._call = call
        self._began = 0.0

    async def __aenter__(self) -> None:
        await self._gate._enter(self._call)
        self._began = time.monotonic()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._gate._leave(time.monotonic() - self._began)


@dataclass(frozen=True, slots=True)
class Admission:
    """The gates of one worker process."""

    server: Gate = field(default_factory=lambda: Gate("the server"))
    #: By name of the provider; one that has none is not bounded.
    providers: dict[str, Gate] = field(default_factory=dict)

    def provider(self, name: str) -> Gate:
        return self.providers.get(name) or _OPEN


_OPEN = Gate("a provider without a bound")

__all__ = ["Admission", "Gate", "SharedGate"]
