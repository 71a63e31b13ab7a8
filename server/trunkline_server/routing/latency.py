"""How fast a target is: what strategies compare, and what hedges wait for. Times in seconds."""

from __future__ import annotations

import math

#: Seconds in which a peak is forgotten to a third.
MEMORY = 10.0
#: Latest times that the quantile is of, and how few of them say nothing.
_KEPT, _FEWEST = 128, 20


class Latency:
    """A peak EWMA (rises at once, falls slowly, also while nothing is asked) and the latest times."""

    __slots__ = ("_at", "_ewma", "_next", "_times")

    def __init__(self) -> None:
        self._ewma = 0.0
        self._at = 0.0
        self._times: list[float] = []
        self._next = 0

    def observe(self, seconds: float, now: float) -> None:
        weight = math.exp((self._at - now) / MEMORY)
        self._at = now
        self._ewma = max(seconds, self._ewma * weight + seconds * (1 - weight))
        if len(self._times) < _KEPT:
            self._times.append(seconds)
        else:
            self._times[self._next] = seconds
            self._next = (self._next + 1) % _KEPT

    def ewma(self, now: float) -> float | None:
        """None: nothing was observed."""
        return self._ewma * math.exp((self._at - now) / MEMORY) if self._times else None

    def p95(self) -> float | None:
        """None: too little was observed."""
        if len(self._times) < _FEWEST:
            return None
        return sorted(self._times)[math.ceil(0.95 * len(self._times)) - 1]
