"""Names of models to the targets that they lead to: one object, made whole; what it says never changes.

A new configuration is a new table; calls in flight keep the one that they began with.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Self, TypeVar

from google.protobuf import json_format
from google.protobuf.message import Message

from trunkline.v1 import completion_pb2, config_pb2, generation_pb2
from trunkline.v1alpha import config_service_pb2, route_pb2
from trunkline_server import prices
from trunkline_server.admission import Admission, Gate
from trunkline_server.errors import InvalidRequest, ModelNotFound, Violation
from trunkline_server.routing.breaker import BreakerPolicy
from trunkline_server.routing.durations import seconds_of
from trunkline_server.routing.health import TargetKey
from trunkline_server.routing.strategy import STRATEGIES

if TYPE_CHECKING:
    from trunkline_server.providers.base import Dialect, Target
    from trunkline_server.providers.provider import Provider, Upstream
    from trunkline_server.routing.health import Health, Healths
    from trunkline_server.routing.strategy import Choice

M = TypeVar("M", bound=Message)

#: What a retry policy that says nothing says, in seconds. A route with more targets has an attempt for each.
ATTEMPTS, INITIAL_BACKOFF, MAX_BACKOFF = 3, 0.2, 5.0
#: Resolved names that are kept: callers choose them.
_KEPT = 4096
ROUTES, CONFIGS = "routes/", "configs/"
_NO_CONFIG = config_pb2.LlmConfig()


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """A `trunkline.v1.RetryPolicy`, read once. Times in seconds."""

    max_attempts: int
    initial_backoff: float
    max_backoff: float

    @classmethod
    def of(cls, told: config_pb2.RetryPolicy, targets: int) -> RetryPolicy:
        return cls(
            told.max_attempts if told.HasField("max_attempts") else max(ATTEMPTS, targets),
            seconds_of(told.initial_backoff) if told.HasField("initial_backoff") else INITIAL_BACKOFF,
            seconds_of(told.max_backoff) if told.HasField("max_backoff") else MAX_BACKOFF,
        )


@dataclass(frozen=True, slots=True)
class Limits:
    """Of the time of one attempt, in seconds."""

    #: To the first bytes of a stream; None: no limit but the others.
    first_token: float | None
    total_unary: float
    total_stream: float

    @classmethod
    def of(cls, told: config_pb2.Timeouts, provider: Provider) -> Limits:
        """What a config says, over what the provider has."""
        total = seconds_of(told.total) if told.HasField("total") else None
        return cls(
            seconds_of(told.first_token) if told.HasField("first_token") else provider.first_token,
            total or provider.total_unary,
            total or provider.total_stream,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """One target of a route, ready to be asked."""

    provider: Provider
    #: What its credential is called; "" is the provider's own.
    credential: str
    target: Target
    dialect: Dialect
    upstream: Upstream
    #: Lets so many attempts at the provider run at once.
    gate: Gate
    health: Health
    defaults: generation_pb2.GenerationParams | None
    weight: int
    priority: int
    #: In nano-dollars for a token in and a token out; infinite if unknown or of no interest.
    price: float
    #: What it is to rendezvous hashing.
    key: bytes
    limits: Limits
    #: In tokens, where a config says; else what is known of the model.
    window: int | None = None

    @property
    def model(self) -> str:
        return self.target.model

    def cost(self, usage: completion_pb2.Usage, model: str, tier: str) -> None:
        """Sets the cost of a usage, for the model and the service tier that the provider reported."""
        self.provider.price(self.model)(usage, model, tier)

    def fares(self, now: float) -> config_service_pb2.TargetHealth:
        """How the target fares in this process."""
        health = self.health
        attempts, failures = health.breaker.counts(now)
        return config_service_pb2.TargetHealth(
            target=f"{self.provider.name}/{self.model}",
            state=health.breaker.state_at(now),
            in_flight=health.in_flight,
            attempts=attempts,
            failures=failures,
            latency_seconds=health.streams.ewma(now) or 0.0,
        )

    @property
    def context_window(self) -> int | None:
        """In tokens; None if unknown."""
        return self.window or prices.context_window(self.provider.kind, self.model)


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """Where a name leads."""

    name: str
    #: By priority; within one, in the order in which they are written. At least one.
    candidates: tuple[Candidate, ...]
    choose: Choice
    sticky_label: str
    retry: RetryPolicy
    #: Seconds before a second target is tried beside a slow one; None: after the p95 of the slow one.
    hedge_after: float | None
    #: Share of the targets that may be left alone.
    max_ejected: float


@dataclass(frozen=True, slots=True)
class Policy:
    """What holds where a route does not say."""

    retry: config_pb2.RetryPolicy = field(default_factory=config_pb2.RetryPolicy)
    breaker: route_pb2.BreakerPolicy = field(default_factory=route_pb2.BreakerPolicy)

    def of(self, route: route_pb2.Route) -> Policy:
        """With what the route says."""
        if not route.HasField("retry_policy") and not route.HasField("breaker"):
            return self
        return Policy(_over(self.retry, route.retry_policy), _over(self.breaker, route.breaker))


def _over(default: M, told: M) -> M:
    """The default with every field that is told."""
    made = type(default)()
    made.CopyFrom(default)
    for one, _ in told.ListFields():
        # Durations would be added up otherwise.
        made.ClearField(one.name)
    made.MergeFrom(told)
    return made


class Table:
    """All names that can be asked for."""

    def __init__(
        self,
        providers: Mapping[str, Provider],
        healths: Healths,
        *,
        routes: Iterable[route_pb2.Route] = (),
        configs: Iterable[config_pb2.LlmConfig] = (),
        credentials: Mapping[str, str] | None = None,
        policy: Policy | None = None,
        admission: Admission | None = None,
    ) -> None:
        """`routes` and `configs`: checked, each name once. `credentials`: name to the provider that it belongs to."""
        self.providers = providers
        self.credentials = credentials or {}
        self.policy = policy or Policy()
        #: By what callers write.
        self.routes: Mapping[str, route_pb2.Route] = {route.name.removeprefix(ROUTES): route for route in routes}
        #: By resource name.
        self.configs: Mapping[str, config_pb2.LlmConfig] = {config.name: config for config in configs}
        self.healths = healths
        self._admission = admission or Admission()
        self._gates = self._admission.provider
        patterns = [name[:-1] for name in self.routes if name.endswith("*")]
        #: What is before the star, the longest first.
        self._prefixes = sorted(patterns, key=len, reverse=True)
        self._known: dict[tuple[str, str], Route] = {}
        #: Calls that use it.
        self.calls = 0
        #: Called when the last of them has ended.
        self.idle: Callable[[], None] | None = None

    def __enter__(self) -> Self:
        """A call uses it."""
        self.calls += 1
        return self

    def __exit__(self, *_: object) -> None:
        self.calls -= 1
        if not self.calls and self.idle is not None:
            self.idle()

    def over(self, routes: Iterable[route_pb2.Route], configs: Iterable[config_pb2.LlmConfig]) -> Table:
        """This table with more names. Those that it has already stay what they are."""
        return Table(
            self.providers,
            self.healths,
            routes=[
                *(route for route in routes if route.name.removeprefix(ROUTES) not in self.routes),
                *self.routes.values(),
            ],
            configs=configs,
            credentials=self.credentials,
            policy=self.policy,
            admission=self._admission,
        )

    def resolve(self, name: str, credential: str = "") -> Route:
        """Where a name leads; with a credential, only to targets of its provider.

        A name of a route comes before a pattern, and a longer pattern before a shorter one; the models of a provider
        are the pattern "PROVIDER/*". Raises ModelNotFound and InvalidRequest.
        """
        found = self._known.get((name, credential))
        if found is None:
            found = self._resolved(name, credential)
            if len(self._known) >= _KEPT:
                self._known.clear()
            self._known[name, credential] = found
        return found

    def _resolved(self, name: str, credential: str) -> Route:
        told, star = self._told(name)
        targets = [(self._place(target, star, name), target) for target in told.targets]
        here = [(*place, target) for place, target in targets if place[0] in self.providers]
        if not here:
            # Only the embedded model may be named and not be there.
            text = f"{name!r} leads to {targets[0][0][0]!r}, which this server does not run"
            raise ModelNotFound(text, resource=("model", name))
        if credential:
            here = self._owned(here, credential)
        policy = self.policy.of(told)
        breaker = BreakerPolicy.of(policy.breaker)
        defaults = params_from(told.defaults_json) if told.defaults_json else None
        retry = policy.retry
        if len(told.targets) == 1 and told.targets[0].config:
            retry = _over(retry, self.configs[told.targets[0].config].retry_policy)
        priced = told.strategy == route_pb2.ROUTE_STRATEGY_CHEAPEST
        candidates = [
            self._candidate(provider, model, credential or target.credential, breaker, defaults, target, priced=priced)
            for provider, model, target in here
        ]
        return Route(
            name,
            tuple(sorted(candidates, key=lambda candidate: candidate.priority)),
            STRATEGIES.get(told.strategy, STRATEGIES[route_pb2.ROUTE_STRATEGY_UNSPECIFIED]),
            told.sticky_label,
            RetryPolicy.of(retry, len(candidates)),
            seconds_of(told.hedge.after) if told.hedge.HasField("after") else None,
            policy.breaker.max_ejected if policy.breaker.HasField("max_ejected") else 1.0,
        )

    def _told(self, name: str) -> tuple[route_pb2.Route, str]:
        """The route of a name, and what a star in it stands for."""
        if name.startswith(CONFIGS):
            if name not in self.configs:
                raise ModelNotFound(f"there is no config {name!r}", resource=("config", name))
            return route_pb2.Route(targets=[route_pb2.RouteTarget(config=name)]), ""
        exact = self.routes.get(name)
        if exact is not None and not name.endswith("*"):
            return exact, ""
        prefix, slash, model = name.partition("/")
        own = len(prefix) + 1 if slash and model and prefix in self.providers else 0
        for pattern in self._prefixes:
            if len(pattern) >= own and name.startswith(pattern) and len(name) > len(pattern):
                return self.routes[pattern + "*"], name[len(pattern) :]
        if not own:
            raise ModelNotFound(self._unknown(name), resource=("model", name))
        return route_pb2.Route(targets=[route_pb2.RouteTarget(model=name)]), ""

    def _place(self, target: route_pb2.RouteTarget, star: str, name: str) -> tuple[str, str]:
        """Names of the provider and the model."""
        if target.config:
            config = self.configs.get(target.config)
            if config is None:
                raise ModelNotFound(f"{name!r} leads to {target.config!r}, which is no longer there")
            return config.provider, config.model
        provider, _, model = target.model.partition("/")
        return provider, model.replace("*", star) if star else model

    def _owned(
        self, here: Sequence[tuple[str, str, route_pb2.RouteTarget]], credential: str
    ) -> list[tuple[str, str, route_pb2.RouteTarget]]:
        owner = self.credentials.get(credential)
        owned = [place for place in here if place[0] == owner]
        if not owned:
            named = " or ".join(sorted({repr(provider) for provider, _, _ in here}))
            raise InvalidRequest(
                f"no credential {credential!r} for provider {named}",
                violations=[
                    Violation(
                        "options.credential",
                        f"{credential!r} is not a credential of provider {named}; leave it out to use the provider's "
                        "own",
                    )
                ],
            )
        return owned

    def _candidate(
        self,
        name: str,
        model: str,
        credential: str,
        breaker: BreakerPolicy,
        defaults: generation_pb2.GenerationParams | None,
        told: route_pb2.RouteTarget,
        *,
        priced: bool,
    ) -> Candidate:
        provider = self.providers[name]
        config = self.configs.get(told.config, _NO_CONFIG)
        credential = credential or config.credential
        defaults = _defaults(defaults, config)
        return Candidate(
            provider,
            credential,
            provider.target(model),
            provider.dialect_for(model),
            provider.upstreams[credential],
            self._gates(name),
            self.healths.of(TargetKey(name, model, provider.upstreams[credential].address, credential), breaker),
            defaults,
            told.weight if told.HasField("weight") else 1,
            told.priority,
            _price(provider.kind, model) if priced else math.inf,
            blake2b(f"{name}/{model}@{credential}".encode(errors="surrogatepass"), digest_size=16).digest(),
            Limits.of(config.timeouts, provider),
            config.context_window_tokens if config.HasField("context_window_tokens") else None,
        )

    def _unknown(self, name: str) -> str:
        known = ", ".join(sorted(self.providers)) or "none"
        if "/" not in name:
            return (
                f"no model {name!r}: write it as PROVIDER/MODEL with one of the configured providers ({known}), or add "
                "it to `models` in the configuration"
            )
        return f"no provider {name.partition('/')[0]!r} for model {name!r}: the configured providers are {known}"


def _defaults(
    told: generation_pb2.GenerationParams | None, config: config_pb2.LlmConfig
) -> generation_pb2.GenerationParams | None:
    """Those of a route, and over them those of a config."""
    if not config.HasField("defaults") and not config.HasField("max_output_tokens"):
        return told
    made = _over(told or generation_pb2.GenerationParams(), config.defaults)
    if config.HasField("max_output_tokens") and not made.HasField("max_output_tokens"):
        made.max_output_tokens = config.max_output_tokens
    return made


def params_from(text: str) -> generation_pb2.GenerationParams:
    """Raises json_format.ParseError for what are no parameters."""
    return json_format.ParseDict(json.loads(text), generation_pb2.GenerationParams())


def _price(kind: str, model: str) -> float:
    known = prices.pricing(kind, model)
    if known is None or not known.HasField("input_nano_usd_per_token"):
        return math.inf
    return known.input_nano_usd_per_token + known.output_nano_usd_per_token
