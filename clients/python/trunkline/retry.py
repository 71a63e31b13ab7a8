"""How long a call may still take, and whether there is room for another try."""

import math
import random
import time

from trunkline.errors import RateLimited, TrunklineError, Unavailable

# A stream is given up that was resumed so often without going on; seconds before the first and the longest wait.
_RESUMES = 5
_FIRST, _LONGEST = 0.1, 5.0
# What ends a call and not the completion that it reads. "": not the gateway said it, but the connection broke.
_CONNECTION = frozenset({"", "SHUTTING_DOWN", "STORE_UNAVAILABLE"})


class Budget:
    """Time and tries of one call, all of its attempts together."""

    def __init__(self, timeout: float, rate_limit_retries: int) -> None:
        if not timeout > 0:
            raise ValueError(f"timeout: must be more than 0 seconds, is {timeout!r}")
        self._deadline = time.monotonic() + timeout
        self._retries = rate_limit_retries

    def left(self) -> float | None:
        """Seconds until the deadline; None if there is none."""
        return None if math.isinf(self._deadline) else max(self._deadline - time.monotonic(), 0.001)

    def wait(self, error: TrunklineError) -> float | None:
        """Seconds to wait before another try; None if there shall be none.

        Only a rate limit that says when to come back, and only where that is before the deadline: gRPC itself takes
        care of UNAVAILABLE.
        """
        delay = error.retry_after
        if self._retries < 1 or delay is None or not isinstance(error, RateLimited):
            return None
        if time.monotonic() + delay >= self._deadline:
            return None
        self._retries -= 1
        return delay

    def until(self, delay: float) -> bool:
        """Is there time for so many seconds?"""
        return time.monotonic() + delay < self._deadline


class Resumes:
    """How a resumable stream fares over connections that break."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._tries = 0
        self._at = -1

    def wait(self, error: TrunklineError, last_number: int) -> float | None:
        """Seconds to wait before the stream is resumed after that event; None if it shall not be."""
        if not isinstance(error, Unavailable) or error.reason not in _CONNECTION:
            return None
        if last_number != self._at:
            self._at, self._tries = last_number, 0
        self._tries += 1
        delay = min(_LONGEST, _FIRST * 2 ** (self._tries - 1)) * random.uniform(0.5, 1.0)  # noqa: S311  # no secret
        return delay if self._tries <= _RESUMES and self._budget.until(delay) else None
