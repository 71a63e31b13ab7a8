"""What a configuration leads to: providers, credentials, routes, and how much of each may run at once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from google.protobuf import json_format

from trunkline.v1 import config_pb2
from trunkline.v1alpha import route_pb2
from trunkline_server import providers
from trunkline_server.admission import Admission, Gate, SharedGate
from trunkline_server.config import ConfigError, ProviderSettings, Settings
from trunkline_server.config.models import BreakerSettings, ModelSettings, RetrySettings, RoutingSettings
from trunkline_server.embedded import Endpoint
from trunkline_server.providers import ProviderOptions
from trunkline_server.providers.provider import Provider
from trunkline_server.routing.check import mistakes as mistakes_in_route
from trunkline_server.routing.health import Healths
from trunkline_server.routing.table import ROUTES, Policy, Table, params_from
from trunkline_server.rpc import validation

LOCAL = "local"
#: What sets the places at a provider.
_OWN = " ({0}.max_in_flight, {0}.max_waiting)"
_SHARED = " in this worker ({0}.max_in_flight, which all workers share; {0}.max_waiting)"


@dataclass(slots=True)
class Targets:
    """Everything that names can lead to, of one configuration."""

    providers: Mapping[str, Provider]
    admission: Admission
    table: Table


def targets_of(
    settings: Settings,
    environ: Mapping[str, str],
    local: Endpoint | None,
    healths: Healths,
    kept: Mapping[str, Provider] | None = None,
    gates: Mapping[str, Gate] | None = None,
) -> Targets:
    """`kept`, `gates`: those of an earlier configuration that are what this one says, too. Raises ConfigError."""
    known = _providers(settings, environ, local, kept or {})
    _check_references(settings, known)
    admission = _admission(settings, gates or {})
    table = Table(
        known,
        healths,
        routes=[_route(name, model) for name, model in settings.models.items()],
        credentials={name: credential.provider for name, credential in settings.credentials.items()},
        policy=_policy(settings.routing),
        admission=admission,
    )
    return Targets(known, admission, table)


def provider_settings(settings: Settings, environ: Mapping[str, str]) -> dict[str, ProviderSettings]:
    """The configured providers, or every one whose usual key variable is set."""
    if settings.providers is not None:
        return dict(settings.providers)
    return {
        kind: ProviderSettings(api_key_env=variable)
        for kind, variable in providers.usual_keys()
        if environ.get(variable)
    }


def key_of(name: str, provider: ProviderSettings, environ: Mapping[str, str]) -> str:
    """The provider's own key, or the one in its usual variable. A key of the house goes to the usual address only."""
    if provider.api_key is not None:
        return provider.api_key.get_secret_value()
    if provider.base_url is not None:
        return ""
    variable = providers.usual_key(provider.kind or name)
    return environ.get(variable, "").strip() if variable else ""


def _providers(
    settings: Settings, environ: Mapping[str, str], local: Endpoint | None, kept: Mapping[str, Provider]
) -> dict[str, Provider]:
    made: dict[str, Provider] = {}
    mistakes: list[str] = []
    for name, asked in provider_settings(settings, environ).items():
        if name in kept:
            made[name] = kept[name]
            continue
        keys = {
            n: c.api_key.get_secret_value() for n, c in settings.credentials.items() if c.provider == name and c.api_key
        }
        options = ProviderOptions(
            name=name,
            kind=asked.kind or name,
            base_url=asked.base_url,
            keys={"": key_of(name, asked, environ), **keys},
            settings={**providers.settings_from(asked.kind or name, environ), **asked.settings},
            headers=asked.headers,
            connect=asked.timeouts.connect,
            first_token=asked.timeouts.first_token,
            idle=asked.timeouts.idle,
            total_unary=asked.timeouts.total_unary,
            total_stream=asked.timeouts.total_stream,
            ca_file=str(asked.ca_file) if asked.ca_file else None,
            max_connections=asked.max_connections,
            models=asked.models,
            propagates=settings.otel.propagate if asked.propagate is None else asked.propagate,
        )
        try:
            made[name] = providers.build(options)
        except ValueError as error:
            mistakes.append(f"  providers.{name}: {error}")
    if mistakes:
        raise ConfigError("the configuration cannot be used:\n" + "\n".join(mistakes))
    if local is not None and LOCAL not in made:
        made[LOCAL] = kept.get(LOCAL) or providers.build_local(LOCAL, local)
    return made


def _admission(settings: Settings, kept: Mapping[str, Gate]) -> Admission:
    limits = settings.limits
    gate, bounds = (Gate, _OWN) if settings.redis is None else (SharedGate, _SHARED)
    return Admission(
        Gate(
            "the server",
            limits.max_in_flight,
            limits.max_waiting,
            settings=" (limits.max_in_flight, limits.max_waiting)",
        ),
        {
            name: kept.get(name)
            or gate(
                f"provider {name!r}",
                provider.max_in_flight,
                provider.max_waiting,
                settings=bounds.format(f"providers.{name}"),
            )
            for name, provider in (settings.providers or {}).items()
            if provider.max_in_flight is not None
        },
    )


def _check_references(settings: Settings, known: Mapping[str, Provider]) -> None:
    mistakes = []
    for name, credential in settings.credentials.items():
        provider = known.get(credential.provider)
        if provider is None:
            mistakes.append(f"  credentials.{name}: no provider {credential.provider!r} is configured")
        elif name not in provider.upstreams:
            mistakes.append(f"  credentials.{name}: the provider {credential.provider!r} takes no credentials")
    # The embedded model may be named where it does not run.
    named = {**known, LOCAL: None}
    owners = {name: credential.provider for name, credential in settings.credentials.items()}
    for name, model in settings.models.items():
        found = mistakes_in_route(_route(name, model), named, owners)
        mistakes += [f"  models.{name}.{'.'.join(path)}: {text}" for path, text in found]
        mistakes += [f"  models.{name}.{mistake}" for mistake in default_mistakes(model.defaults)]
    if mistakes:
        raise ConfigError("the configuration cannot be used:\n" + "\n".join(mistakes))


def default_mistakes(defaults: Mapping[str, object]) -> list[str]:
    """What is wrong with the defaults of a model, as a request with them would be told."""
    try:
        params = params_from(json.dumps(defaults))
    except (json_format.ParseError, TypeError) as error:
        return [f"defaults: {error}"]
    return [f"{violation.field}: {violation.description}" for violation in validation.of_params(params, "defaults")]


def _route(name: str, model: ModelSettings) -> route_pb2.Route:
    """A model of the file in the words of the contract."""
    route = route_pb2.Route(
        name=ROUTES + name,
        targets=[
            route_pb2.RouteTarget(
                model=target.model, weight=target.weight, priority=target.priority, credential=target.credential
            )
            for target in model.targets
        ],
        strategy=route_pb2.RouteStrategy.Value(f"ROUTE_STRATEGY_{model.strategy.upper()}"),
        sticky_label=model.sticky_label,
        retry_policy=_retry(model.retry),
        breaker=_breaker(model.breaker),
        defaults_json=json.dumps(model.defaults) if model.defaults else "",
        source=route_pb2.CONFIG_SOURCE_FILE,
    )
    if model.hedge.after is not None:
        route.hedge.after.FromMilliseconds(round(model.hedge.after * 1000))
    return route


def _retry(told: RetrySettings) -> config_pb2.RetryPolicy:
    return config_pb2.RetryPolicy(**_given(told))


def _breaker(told: BreakerSettings) -> route_pb2.BreakerPolicy:
    return route_pb2.BreakerPolicy(**_given(told))


def _given(told: RetrySettings | BreakerSettings) -> dict[str, Any]:
    """What is told of a policy; times as durations."""
    given = told.model_dump(exclude_none=True)
    return {name: timedelta(seconds=value) if name in _TIMES else value for name, value in given.items()}


_TIMES = frozenset({"initial_backoff", "max_backoff", "window", "cool_down"})


def _policy(told: RoutingSettings) -> Policy:
    return Policy(_retry(told.retry), _breaker(told.breaker))
