"""How many retries a target bears. Pure: who asks brings the time, in monotonic seconds."""

from __future__ import annotations

#: Retries for each call.
SHARE = 0.2
#: Retries that a target with few calls has all the same: so many at once, and one more each second.
RESERVE, PER_SECOND = 10.0, 1.0
#: Retries that a target with many calls can save up.
MOST = 100.0


class RetryBudget:
    """A bucket of tokens: each call brings a fifth of one, each retry takes one.

    So an outage is not multiplied: whatever happens, retries are a fifth of the calls and a few.
    """

    __slots__ = ("_at", "_tokens")

    def __init__(self) -> None:
        self._tokens = RESERVE
        self._at: float | None = None

    def deposit(self) -> None:
        """A call came."""
        if self._tokens < MOST:
            self._tokens += SHARE

    def take(self, now: float) -> bool:
        """Is there a retry left? Then it is taken."""
        at, self._at = self._at, now
        if at is not None and self._tokens < RESERVE:
            self._tokens = min(RESERVE, self._tokens + (now - at) * PER_SECOND)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
