"""How each target fares in this process. It outlives routes: who changes the configuration forgets no outage."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeAlias

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


class TargetKey(NamedTuple):
    """What a target is called, the same in every worker."""

    provider: str
    model: str
    #: Its address.
    endpoint: str
    #: Name of its credential; "" is the provider's own.
    credential: str


#: Told that a target is left alone: by which policy, for how many seconds, and whether its provider said so.
Told: TypeAlias = Callable[[TargetKey, BreakerPolicy, float, bool], None]


class Healths:
    """The health of every target that was asked."""

    def __init__(self) -> None:
        self._known: dict[TargetKey, dict[BreakerPolicy, Health]] = {}
        #: None: nobody wants to know.
        self.told: Told | None = None

    def of(self, target: TargetKey, policy: BreakerPolicy) -> Health:
        """Routes that judge a target by the same policy share what is known of it."""
        known = self._known.get(target)
        if known is None:
            if len(self._known) >= _REMEMBERED:
                self._forget()
            known = self._known[target] = {}
        health = known.get(policy)
        if health is None:
            health = known[policy] = Health(policy)
            health.breaker.told = partial(self._tell, target, policy)
        return health

    def heard(self, target: TargetKey, policy: BreakerPolicy, seconds: float, said: bool, now: float) -> None:
        """Another worker leaves a target alone. What its provider says holds for every policy."""
        judged = self.of(target, policy)
        for health in self._known[target].values() if said else (judged,):
            health.breaker.heard(now, seconds, said=said)

    def _tell(self, target: TargetKey, policy: BreakerPolicy, seconds: float, said: bool) -> None:
        if self.told is not None:
            self.told(target, policy, seconds, said)

    def _forget(self) -> None:
        """Forgets the older half of the targets that nobody asks now."""
        idle = [key for key, known in self._known.items() if not any(health.in_flight for health in known.values())]
        for key in idle[: _REMEMBERED // 2]:
            del self._known[key]
