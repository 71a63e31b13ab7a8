"""How long a call may still take, and whether a rate limit leaves room for another try."""

import math
import time

from trunkline.errors import RateLimited, TrunklineError


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
