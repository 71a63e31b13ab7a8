"""How each target fares in this process. It outlives routes: who changes the configuration forgets no outage."""

from __future__ import annotations

from collections.abc import Hashable

from trunkline_server.errors import LLMError
from trunkline_server.routing.breaker import Breaker, BreakerPolicy
from trunkline_server.routing.budget import RetryBudget
from trunkline_server.routing.latency import Latency

#: Callers choose the names of models: more targets than these are not remembered.
_REMEMBERED = 10_000


class Health:
    """How one target fares."""

    __slots__ = ("breaker", "budget", "in_flight", "streams", "wholes")

    def __init__(self, policy: BreakerPolicy) -> None:
        self.breaker = Breaker(policy)
        self.budget = RetryBudget()
        #: Attempts now.
        self.in_flight = 0
        #: Time to the first token of streams, and to whole answers.
        self.streams = Latency()
        self.wholes = Latency()

    def latency(self, streamed: bool) -> Latency:
        return self.streams if streamed else self.wholes

    def failed(self, error: LLMError, now: float, began: float, probe: bool, *, answered: bool) -> None:
        """`answered`: it had begun to answer before."""
        if error.unwell:
            self.breaker.failed(now, began, probe, retry_after=error.retry_after, counted=answered)
        else:
            # It answers: what it does not like is the request.
            self.breaker.succeeded(now, began, probe)


class Healths:
    """The health of every target that was asked."""

    def __init__(self) -> None:
        self._known: dict[Hashable, Health] = {}

    def of(self, provider: str, model: str, credential: str, policy: BreakerPolicy) -> Health:
        """Routes that judge a target by the same policy share what is known of it."""
        key = (provider, model, credential, policy)
        health = self._known.get(key)
        if health is None:
            if len(self._known) >= _REMEMBERED:
                self._forget()
            health = self._known[key] = Health(policy)
        return health

    def _forget(self) -> None:
        """Forgets the older half of the targets that nobody asks now."""
        for key in [key for key, health in self._known.items() if not health.in_flight][: _REMEMBERED // 2]:
            del self._known[key]
