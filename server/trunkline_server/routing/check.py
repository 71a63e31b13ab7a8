"""Everything that is wrong with a route, whoever wrote it: the configuration file or an operator."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping
from typing import Any

from trunkline.v1 import config_pb2
from trunkline.v1alpha import route_pb2
from trunkline_server.routing.durations import seconds_of
from trunkline_server.routing.strategy import STRATEGIES
from trunkline_server.routing.table import ROUTES

MAX_TARGETS, MAX_WEIGHT, MAX_ATTEMPTS = 32, 10_000, 32
MAX_MODEL, MAX_DISPLAY_NAME = 1024, 256

_NAME = re.compile(r"[A-Za-z0-9._:/@-]{0,255}[A-Za-z0-9._:/@*-]")

#: A mistake: the steps of the path to the field, and what is wrong with it.
Mistake = tuple[tuple[str, ...], str]


def mistakes(
    route: route_pb2.Route,
    providers: Mapping[str, object],
    credentials: Mapping[str, str],
    configs: Container[str] = (),
) -> Iterator[Mistake]:
    """All but what is wrong with `defaults_json`. `credentials`: name to the provider that it belongs to; `configs`:
    resource names of those that there are.
    """
    name = route.name.removeprefix(ROUTES)
    if not _NAME.fullmatch(name):
        yield (
            ("name",),
            f'{name!r} is no name of a route: 1 to 256 of A-Z, a-z, 0-9 and "._:/@-", perhaps a "*" at the end',
        )
    if not 1 <= len(route.targets) <= MAX_TARGETS:
        yield ("targets",), f"{len(route.targets)} targets: a route has 1 to {MAX_TARGETS}"
    for at, target in enumerate(route.targets):
        found = (
            _of_config_target(target, configs)
            if target.WhichOneof("target") == "config"
            else _of_target(target, providers, credentials, starred=name.endswith("*"))
        )
        for field, text in (*found, *_of_place(target)):
            yield ("targets", str(at), field), text
    if route.strategy not in STRATEGIES:
        yield ("strategy",), f"{route.strategy} is no RouteStrategy that this server knows"
    for field, text in _of_retry(route.retry_policy):
        yield ("retry_policy", field), text
    for field, text in _of_breaker(route.breaker):
        yield ("breaker", field), text
    if route.hedge.HasField("after") and seconds_of(route.hedge.after) <= 0:
        yield ("hedge", "after"), "must be more than 0"


def _of_target(
    target: route_pb2.RouteTarget, providers: Mapping[str, object], credentials: Mapping[str, str], *, starred: bool
) -> Iterator[tuple[str, str]]:
    provider, slash, model = target.model.partition("/")
    if not (provider and slash and model):
        yield "model", f"{target.model!r}: write PROVIDER/MODEL"
        return
    if provider not in providers:
        yield "model", f"no provider {provider!r} is configured"
    if "*" in model and not starred:
        yield "model", f'{target.model!r} has a "*", and the name of the route ends with none'
    if target.credential and credentials.get(target.credential) != provider:
        yield "credential", f"{target.credential!r} is not a credential of provider {provider!r}"


def _of_config_target(target: route_pb2.RouteTarget, configs: Container[str]) -> Iterator[tuple[str, str]]:
    if target.config not in configs:
        yield "config", f"there is no config {target.config!r}"
    if target.credential:
        yield "credential", "a config names its own credential: leave it out here"


def _of_place(target: route_pb2.RouteTarget) -> Iterator[tuple[str, str]]:
    if target.HasField("weight") and not 1 <= target.weight <= MAX_WEIGHT:
        yield "weight", f"{target.weight} is out of range: from 1 to {MAX_WEIGHT:,}"
    if target.priority < 0:
        yield "priority", f"{target.priority} is out of range: at least 0"


def mistakes_in_config(
    config: config_pb2.LlmConfig, providers: Mapping[str, object], credentials: Mapping[str, str]
) -> Iterator[Mistake]:
    """All but what is wrong with `defaults`."""
    if config.provider not in providers:
        yield ("provider",), f"no provider {config.provider!r} is configured"
    if not 1 <= len(config.model) <= MAX_MODEL:
        yield ("model",), f"give the provider's own id of the model, 1 to {MAX_MODEL:,} characters"
    if config.HasField("endpoint"):
        yield ("endpoint",), "endpoints belong to the server's configuration: name a provider that has this base_url"
    if config.credential and credentials.get(config.credential) != config.provider:
        yield ("credential",), f"{config.credential!r} is not a credential of provider {config.provider!r}"
    if len(config.display_name) > MAX_DISPLAY_NAME:
        yield ("display_name",), f"{len(config.display_name):,} characters: use at most {MAX_DISPLAY_NAME}"
    for field in ("context_window_tokens", "max_output_tokens"):
        if config.HasField(field) and getattr(config, field) < 1:
            yield (field,), f"{getattr(config, field)} is out of range: at least 1"
    for field, text in _of_retry(config.retry_policy):
        yield ("retry_policy", field), text
    for field, text in _of_timeouts(config.timeouts):
        yield ("timeouts", field), text


def _of_timeouts(told: config_pb2.Timeouts) -> Iterator[tuple[str, str]]:
    for field, value in told.ListFields():
        if field.name in {"connect", "idle"}:
            yield field.name, "is the provider's: set it in the server's configuration, under providers"
        elif seconds_of(value) <= 0:
            yield field.name, "must be more than 0"


def _of_retry(policy: config_pb2.RetryPolicy) -> Iterator[tuple[str, str]]:
    if policy.HasField("max_attempts") and not 1 <= policy.max_attempts <= MAX_ATTEMPTS:
        yield "max_attempts", f"{policy.max_attempts} is out of range: from 1 to {MAX_ATTEMPTS}"
    for field in ("initial_backoff", "max_backoff"):
        if seconds_of(getattr(policy, field)) < 0:
            yield field, "must not be negative"


def _of_breaker(policy: Any) -> Iterator[tuple[str, str]]:
    for field in ("consecutive_failures", "min_attempts"):
        if policy.HasField(field) and getattr(policy, field) < 1:
            yield field, f"{getattr(policy, field)} is out of range: at least 1"
    if policy.HasField("failure_ratio") and not 0 < policy.failure_ratio <= 1:
        yield "failure_ratio", f"{policy.failure_ratio} is out of range: above 0 and at most 1"
    if policy.HasField("max_ejected") and not 0 <= policy.max_ejected <= 1:
        yield "max_ejected", f"{policy.max_ejected} is out of range: from 0 to 1"
    for field in ("window", "cool_down"):
        if policy.HasField(field) and seconds_of(getattr(policy, field)) <= 0:
            yield field, "must be more than 0"
