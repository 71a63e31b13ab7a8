"""When a target is left alone. Pure: who asks brings the time, in monotonic seconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from trunkline.v1alpha import config_service_pb2, route_pb2
from trunkline_server.routing.durations import seconds_of

State = config_service_pb2.BreakerState
CLOSED = config_service_pb2.BREAKER_STATE_CLOSED
OPEN = config_service_pb2.BREAKER_STATE_OPEN
HALF_OPEN = config_service_pb2.BREAKER_STATE_HALF_OPEN

#: Longest time that failures keep a target alone, and longest that a provider's own word does.
MOST_COOL_DOWN, MOST_RETRY_AFTER = 300.0, 3600.0
#: Parts of the window: it moves on by one of them.
_SLOTS = 10


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """A `trunkline.v1alpha.BreakerPolicy`, read once. Times in seconds."""

    consecutive_failures: int = 5
    failure_ratio: float = 0.5
    min_attempts: int = 20
    window: float = 30.0
    cool_down: float = 5.0

    @classmethod
    def of(cls, told: route_pb2.BreakerPolicy) -> BreakerPolicy:
        """What is not told is as usual."""
        given: dict[str, Any] = {field.name: value for field, value in told.ListFields() if field.name in _FIELDS}
        given.update((name, seconds_of(given[name])) for name in _TIMES & given.keys())
        return cls(**given)


_FIELDS = frozenset(field.name for field in fields(BreakerPolicy))
_TIMES = frozenset({"window", "cool_down"})


class Breaker:
    """Counts how attempts at one target went, and says whether it is to be left alone."""

    __slots__ = (
        "_closed_at", "_in_a_row", "_level", "_opened_at", "_probes", "_window", "policy", "state", "told", "until"
    )  # fmt: skip

    def __init__(self, policy: BreakerPolicy) -> None:
        self.policy = policy
        self.state: State.ValueType = CLOSED
        #: While open: when it may be tried again.
        self.until = 0.0
        #: Told when what went on here has the target left alone: seconds, and whether its provider said so.
        self.told: Callable[[float, bool], None] | None = None
        self._opened_at = 0.0
        self._closed_at = float("-inf")
        self._level = 0
        self._in_a_row = 0
        self._probes = 0
        self._window = _Window(policy.window)

    def permits(self, now: float) -> bool:
        """May the target be chosen? One that was left alone for its time: by one call at once."""
        return self.state == CLOSED or (now >= self.until and not self._probes)

    def state_at(self, now: float) -> State.ValueType:
        """As operators see it: what has been left alone for its time waits for a probe."""
        return HALF_OPEN if self.state == OPEN and now >= self.until else self.state

    def began(self, now: float) -> bool:
        """An attempt begins. True: it is the probe, of which `succeeded`, `failed` or `left` must be told."""
        if self.state == CLOSED or now < self.until or self._probes:
            return False
        self.state = HALF_OPEN
        self._probes = 1
        return True

    def left(self, probe: bool) -> None:
        """The attempt ended without telling anything of the target."""
        if probe:
            self._probes = 0

    def succeeded(self, now: float, began: float, probe: bool = False) -> None:
        self.left(probe)
        self._in_a_row = 0
        self._window.add(now, failed=False)
        # What began before the target was left alone says nothing of how it is now.
        if self.state != CLOSED and (probe or began > self._opened_at):
            self.state = CLOSED
            self._closed_at = now
            self._window.clear()

    def failed(
        self, now: float, began: float, probe: bool = False, *, retry_after: float | None = None, counted: bool = False
    ) -> None:
        """`counted`: a success was told of the same attempt before."""
        self.left(probe)
        self._in_a_row += 1
        self._window.add(now, failed=True, counted=counted)
        if retry_after is not None:
            self.cool(now, retry_after)
        elif self.state != CLOSED:
            # Many fail together when a target goes down: those that were on their way make it no worse.
            if probe or began > self._opened_at:
                self._open(now)
        elif self._is_ill(now):
            self._open(now)

    def cool(self, now: float, seconds: float) -> None:
        """The provider says when to come back."""
        if seconds > 0:
            self._leave_alone(now, min(seconds, MOST_RETRY_AFTER))
            if self.told is not None:
                self.told(self.until - now, True)

    def heard(self, now: float, seconds: float, *, said: bool) -> None:
        """Another worker leaves the target alone for so long; `said`: because its provider says so.

        It never shortens what is known here. Failures there are believed for one cool-down, and only as long as nothing
        better is known: not if the target was seen to be well again here within the window.
        """
        if said:
            until = now + min(seconds, MOST_RETRY_AFTER)
            if self.state == CLOSED:
                self._leave_alone(now, until - now)
            elif until > self.until:
                self.state, self.until = OPEN, until
        elif self.state == CLOSED and now - self._closed_at > self.policy.window:
            self._level = 0
            self._leave_alone(now, min(seconds, self.policy.cool_down))

    def counts(self, now: float) -> tuple[int, int]:
        """Attempts within the window, and how many of them failed."""
        return self._window.counts(now)

    def _is_ill(self, now: float) -> bool:
        policy = self.policy
        if self._in_a_row >= policy.consecutive_failures:
            return True
        attempts, failures = self._window.counts(now)
        return attempts >= policy.min_attempts and failures >= policy.failure_ratio * attempts

    def _open(self, now: float) -> None:
        if self.state == CLOSED and now - self._closed_at > self.policy.window:
            # It was well for long.
            self._level = 0
        cool_down = min(self.policy.cool_down * 2**self._level, MOST_COOL_DOWN)
        if cool_down < MOST_COOL_DOWN:
            self._level += 1
        self._leave_alone(now, cool_down)
        if self.told is not None:
            self.told(cool_down, False)

    def _leave_alone(self, now: float, seconds: float) -> None:
        self.state, self._opened_at, self.until = OPEN, now, now + seconds


class _Window:
    """Attempts and failures of the last seconds."""

    __slots__ = ("_attempts", "_failures", "_slots", "_width")

    def __init__(self, seconds: float) -> None:
        self._width = seconds / _SLOTS
        self.clear()

    def clear(self) -> None:
        #: Which tenth of the time each place holds.
        self._slots = [-1] * _SLOTS
        self._attempts = [0] * _SLOTS
        self._failures = [0] * _SLOTS

    def add(self, now: float, *, failed: bool, counted: bool = False) -> None:
        slot = int(now / self._width)
        at = slot % _SLOTS
        if self._slots[at] != slot:
            self._slots[at], self._attempts[at], self._failures[at] = slot, 0, 0
        if not counted:
            self._attempts[at] += 1
        if failed:
            self._failures[at] += 1

    def counts(self, now: float) -> tuple[int, int]:
        oldest = int(now / self._width) - _SLOTS
        recent = [at for at in range(_SLOTS) if self._slots[at] > oldest]
        return sum(self._attempts[at] for at in recent), sum(self._failures[at] for at in recent)
