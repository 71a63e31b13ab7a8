"""Which target is tried first: one function a strategy, each at the cost of a look at every target."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from random import Random
from typing import TYPE_CHECKING, TypeAlias

from trunkline.v1alpha import route_pb2

if TYPE_CHECKING:
    from trunkline_server.routing.table import Candidate


class Moment:
    """What a choice depends on beside the targets."""

    __slots__ = ("now", "random", "streamed")

    def __init__(self, now: float, random: Random, *, streamed: bool) -> None:
        #: Monotonic seconds.
        self.now = now
        self.random = random
        self.streamed = streamed


#: Chooses one of some targets, of which there is at least one.
Choice: TypeAlias = "Callable[[Sequence[Candidate], Moment], Candidate]"


def ordered(among: Sequence[Candidate], moment: Moment) -> Candidate:
    return among[0]


def weighted(among: Sequence[Candidate], moment: Moment) -> Candidate:
    left = moment.random.random() * sum(candidate.weight for candidate in among)
    for candidate in among:
        left -= candidate.weight
        if left < 0:
            return candidate
    return among[-1]


def least_latency(among: Sequence[Candidate], moment: Moment) -> Candidate:
    """A target of which nothing is known yet is asked by one call at once, before all others."""

    def cost(candidate: Candidate) -> tuple[float, float]:
        health = candidate.health
        latency = health.latency(moment.streamed).ewma(moment.now)
        if latency is None:
            return (math.inf if health.in_flight else 0.0, float(health.in_flight))
        return (latency * (health.in_flight + 1), moment.random.random())

    return min(among, key=cost)


def least_loaded(among: Sequence[Candidate], moment: Moment) -> Candidate:
    return min(among, key=lambda one: ((one.health.in_flight + 1) / one.weight, moment.random.random()))


def cheapest(among: Sequence[Candidate], moment: Moment) -> Candidate:
    return min(among, key=lambda candidate: candidate.price)


STRATEGIES: Mapping[route_pb2.RouteStrategy.ValueType, Choice] = {
    route_pb2.ROUTE_STRATEGY_UNSPECIFIED: ordered,
    route_pb2.ROUTE_STRATEGY_ORDERED: ordered,
    route_pb2.ROUTE_STRATEGY_WEIGHTED: weighted,
    route_pb2.ROUTE_STRATEGY_LEAST_LATENCY: least_latency,
    route_pb2.ROUTE_STRATEGY_LEAST_LOADED: least_loaded,
    route_pb2.ROUTE_STRATEGY_CHEAPEST: cheapest,
}


def sticky(value: str) -> Choice:
    """The same target for the same value as long as it is there: of all others, only their share moves when one goes.

    Rendezvous hashing with weights; the same in every process.
    """
    data = value.encode(errors="surrogatepass")

    def score(candidate: Candidate) -> float:
        digest = blake2b(data, digest_size=8, key=candidate.key).digest()
        # Above 0 and below 1.
        drawn = (int.from_bytes(digest, "big") + 1) / (2**64 + 2)
        return -candidate.weight / math.log(drawn)

    def choose(among: Sequence[Candidate], moment: Moment) -> Candidate:
        return max(among, key=score)

    return choose
