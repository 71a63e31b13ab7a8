"""Names of models and where they lead."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from trunkline_server.config.values import Seconds, Strict


class RetrySettings(Strict):
    """When the gateway tries again, as long as nothing of the answer has been sent."""

    #: Attempts in all; default: 3, or one for each target where those are more.
    max_attempts: Annotated[int, Field(ge=1, le=32)] | None = None
    #: Longest wait before the second attempt at the same target: a random part of it is waited. Doubled each time.
    initial_backoff: Seconds | None = None
    #: Longest wait.
    max_backoff: Seconds | None = None


class BreakerSettings(Strict):
    """When a target is left alone. A model's last target never is."""

    #: Failures in a row after which it is.
    consecutive_failures: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    #: Share of failed attempts within the window after which it is.
    failure_ratio: Annotated[float, Field(gt=0, le=1)] | None = None
    #: Attempts within the window before the share counts.
    min_attempts: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    #: The window.
    window: Annotated[Seconds, Field(gt=0)] | None = None
    #: How long it is left alone the first time; doubled each time up to 5 min. A Retry-After of the provider's wins.
    cool_down: Annotated[Seconds, Field(gt=0)] | None = None
    #: Most targets of a model that may be left alone at once, as a share.
    max_ejected: Annotated[float, Field(ge=0, le=1)] | None = None


class HedgeSettings(Strict):
    """When a second target is started beside a slow one, for calls that ask for it."""

    #: After so long without the first token, or without the answer of a unary call; default: the p95 of the target.
    after: Annotated[Seconds, Field(gt=0)] | None = None


class TargetSettings(Strict):
    """One place that a name leads to."""

    #: PROVIDER/MODEL: a name in `providers`, or `local`, and the provider's own id of the model.
    model: str
    #: Share of the calls among targets of the same priority.
    weight: Annotated[int, Field(ge=1, le=10_000)] = 1
    #: Targets of a lower number are tried first.
    priority: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    #: A name in `credentials`; default: the provider's own.
    credential: str = ""


def _one_target(value: object) -> object:
    return {"model": value} if isinstance(value, str) else value


class ModelSettings(Strict):
    """Where a name leads, which callers write as the model. PROVIDER/MODEL alone stands for one target."""

    #: Each PROVIDER/MODEL, or with more about it.
    targets: Annotated[
        tuple[Annotated[TargetSettings, BeforeValidator(_one_target)], ...], Field(min_length=1, max_length=32)
    ]
    #: Which target is tried first among those of the same priority.
    strategy: Literal["ordered", "weighted", "least_latency", "least_loaded", "cheapest"] = "ordered"
    #: Calls with the same value of this label go to the same target while it is well, for its prompt cache.
    sticky_label: str = ""
    #: When to try again; default: as in `routing`.
    retry: RetrySettings = RetrySettings()
    #: When a target is left alone; default: as in `routing`.
    breaker: BreakerSettings = BreakerSettings()
    #: When a second target is started beside a slow one.
    hedge: HedgeSettings = HedgeSettings()
    #: Defaults as in GenerationParams, e.g. {temperature: 0.2}.
    defaults: dict[str, Any] = {}


def model_from(value: object) -> object:
    if isinstance(value, str):
        provider, slash, model = value.partition("/")
        if not (provider and slash and model):
            raise ValueError("write PROVIDER/MODEL")
        return {"targets": [value]}
    return value


class RoutingSettings(Strict):
    """What holds for every model that does not say otherwise."""

    #: When the gateway tries again.
    retry: RetrySettings = RetrySettings()
    #: When a target is left alone.
    breaker: BreakerSettings = BreakerSettings()
