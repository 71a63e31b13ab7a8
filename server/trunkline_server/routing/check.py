"""Everything that is wrong with a route, whoever wrote it: the configuration file or an operator."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from trunkline.v1 import config_pb2
from trunkline.v1alpha import route_pb2
from trunkline_server.routing.durations import seconds_of
from trunkline_server.routing.strategy import STRATEGIES
from trunkline_server.routing.table import ROUTES

MAX_TARGETS, MAX_WEIGHT, MAX_ATTEMPTS = 32, 10_000, 32

_NAME = re.compile(r"[A-Za-z0-9._:/@-]{0,255}[A-Za-z0-9._:/@*-]")

#: A mistake: the steps of the path to the field, and what is wrong with it.
Mistake = tuple[tuple[str, ...], str]


def mistakes(
    route: route_pb2.Route, providers: Mapping[str, object], credentials: Mapping[str, str]
) -> Iterator[Mistake]:
    """All but what is wrong with `defaults_json`. `credentials`: name to the provider that it belongs to."""
    name = route.name.removeprefix(ROUTES)
    if not _NAME.fullmatch(name):
        yield (
            ("name",),
            f'{name!r} is no name of a route: 1 to 256 of A-Z, a-z, 0-9 and "._:/@-", perhaps a "*" at the end',
        )
    if not 1 <= len(route.targets) <= MAX_TARGETS:
        yield ("targets",), f"{len(route.targets)} targets: a route has 1 to {MAX_TARGETS}"
    for at, target in enumerate(route.targets):
        for field, text in _of_target(target, providers, credentials, starred=name.endswith("*")):
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
    if target.HasField("weight") and not 1 <= target.weight <= MAX_WEIGHT:
        yield "weight", f"{target.weight} is out of range: from 1 to {MAX_WEIGHT:,}"
    if target.priority < 0:
        yield "priority", f"{target.priority} is out of range: at least 0"
    if target.credential and credentials.get(target.credential) != provider:
        yield "credential", f"{target.credential!r} is not a credential of provider {provider!r}"


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
