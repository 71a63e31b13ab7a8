"""Puts the rooms together: settings in, a running server out."""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import IO, Any

from google.protobuf import json_format

from trunkline.v1 import config_pb2
from trunkline.v1alpha import route_pb2
from trunkline_server import observation as observing
from trunkline_server import prices, providers
from trunkline_server.access import Callers
from trunkline_server.admission import Admission, Gate
from trunkline_server.catalog import Catalog
from trunkline_server.config import ConfigError, ProviderSettings, Settings
from trunkline_server.config.models import BreakerSettings, ModelSettings, RetrySettings, RoutingSettings
from trunkline_server.embedded import Endpoint
from trunkline_server.embedder import Embedder
from trunkline_server.engine import Engine
from trunkline_server.observation import Observation, make_metrics, observe
from trunkline_server.providers import ProviderOptions
from trunkline_server.providers.provider import Provider
from trunkline_server.recording import Recording, Spool, open_spool, passwords_of, record
from trunkline_server.redact import Redactor
from trunkline_server.replay import Bounds, Keeper
from trunkline_server.routing.check import mistakes as mistakes_in_route
from trunkline_server.routing.health import Healths
from trunkline_server.routing.table import ROUTES, Policy, Table, params_from
from trunkline_server.rpc import validation
from trunkline_server.rpc.boundary import Boundary, Limits, Running
from trunkline_server.rpc.completions import CompletionMethods
from trunkline_server.rpc.embeddings import EmbeddingMethods
from trunkline_server.rpc.methods import Service
from trunkline_server.rpc.models import ModelMethods
from trunkline_server.rpc.pipeline import PipelineMethods
from trunkline_server.rpc.runs import Runs
from trunkline_server.rpc.server import Server, TlsFiles
from trunkline_server.rpc.traces import TraceMethods
from trunkline_server.telemetry import Metrics, Telemetry
from trunkline_server.telemetry.logs import make_log
from trunkline_server.traces.slots import Slot
from trunkline_server.viewing import Viewing, open_page

LOCAL = "local"


@dataclass(slots=True)
class App:
    """A server and what it is made of. Made on the event loop that runs it."""

    server: Server
    engine: Engine
    telemetry: Telemetry
    settings: Settings
    observation: Observation
    recording: Recording
    #: HOST:PORT as bound: what was configured, with the port that was found for port 0.
    address: str = ""

    def listen(self) -> int:
        """Binds the configured address and returns the port. Raises OSError."""
        tls = self.settings.tls
        files = None
        if tls is not None:
            files = TlsFiles(
                str(tls.cert_file), str(tls.key_file), str(tls.client_ca_file) if tls.client_ca_file else None
            )
        port = self.server.listen(self.settings.listen, files)
        self.address = f"{self.settings.listen.rpartition(':')[0]}:{port}"
        return port

    async def run(self, stop: asyncio.Event, serving: Callable[[], None] = lambda: None) -> None:
        """Serves until `stop`, then drains. `serving` is called when it serves."""
        # What is there now stays: collecting garbage need not look at it, nor so often.
        gc.collect()
        gc.freeze()
        gc.set_threshold(2_000, 20, 50)
        await self.server.start()
        self.telemetry.event("serving", listen=self.address, providers=sorted(self.engine.providers))
        serving()
        # Costs wait for it, calls do not.
        threading.Thread(target=prices.load, name="trunkline-prices", daemon=True).start()
        await stop.wait()
        drain = self.settings.drain
        self.telemetry.event("draining", delay=drain.delay, grace=drain.grace)
        await self.server.drain(drain.delay, drain.grace)
        await self.engine.aclose()
        await self.recording.aclose()
        self.telemetry.event("stopped")
        await self.observation.aclose()


def build(
    settings: Settings,
    environ: Mapping[str, str],
    *,
    local: Endpoint | None = None,
    share_port: bool = False,
    metrics: Metrics | None = None,
    slot: Slot | None = None,
) -> App:
    """`slot`: of the spool that calls are recorded in. Raises ConfigError for what cannot be built."""
    known = _providers(settings, environ, local)
    credentials = {name: credential.provider for name, credential in settings.credentials.items()}
    _check_references(settings, known)
    redactor = Redactor(secrets_of(settings, environ, local))
    kinds = {name: provider.kind for name, provider in known.items()}
    observation = observe(settings, environ, metrics or make_metrics(settings), kinds, redactor)
    telemetry = observation.telemetry
    admission = _admission(settings)
    table = Table(
        known,
        Healths(),
        routes=[_route(name, model) for name, model in settings.models.items()],
        credentials=credentials,
        policy=_policy(settings.routing),
        admission=admission,
    )
    engine = Engine(table, admission)
    running = Running()
    callers = callers_of(settings)
    limits = Limits(
        max_calls=settings.limits.max_calls,
        max_request_bytes=settings.limits.max_request_bytes,
        forward_metadata=frozenset(settings.forward_metadata),
    )
    recording = record(settings, environ, slot, telemetry)
    boundary = Boundary(callers, limits, telemetry, running, redactor, recorder=recording.recorder)
    catalog = Catalog(engine)
    runs = Runs(_keeper(settings), running, boundary.failure, settings.replay.grace)
    completions = CompletionMethods(
        engine,
        catalog,
        running,
        runs,
        heartbeat=settings.stream.heartbeat,
        stalled=settings.stream.stalled_reader,
        allow_raw=settings.allow_raw,
    )
    embeddings = EmbeddingMethods(Embedder(engine), admission.server, runs)
    pipeline = PipelineMethods((completions, embeddings), running)
    services: list[Service] = [completions, embeddings, ModelMethods(catalog), pipeline]
    if recording.feed is not None and recording.readers:
        services.append(TraceMethods(recording.readers, recording.feed, callers))
    server = Server(
        services,
        boundary,
        max_request_bytes=settings.limits.max_request_bytes,
        share_port=share_port,
        interceptors=observation.interceptors,
    )
    return App(server, engine, telemetry, settings, observation, recording)


def provider_settings(settings: Settings, environ: Mapping[str, str]) -> dict[str, ProviderSettings]:
    """The configured providers, or every one whose usual key variable is set."""
    if settings.providers is not None:
        return dict(settings.providers)
    return {
        kind: ProviderSettings(api_key_env=variable)
        for kind, variable in providers.usual_keys()
        if environ.get(variable)
    }


def callers_of(settings: Settings) -> Callers:
    """Who may call, and who of them is an operator."""
    return Callers(settings.caller_keys, operators=settings.operator_names, certificates=settings.by_certificate)


def secrets_of(settings: Settings, environ: Mapping[str, str], local: Endpoint | None = None) -> list[str]:
    """What must never be shown: keys of callers, providers, credentials and the embedded model."""
    references = (*settings.callers, *settings.credentials.values())
    keys = [reference.api_key.get_secret_value() for reference in references if reference.api_key]
    keys += [_key_of(name, provider, environ) for name, provider in provider_settings(settings, environ).items()]
    if local is not None:
        keys.append(local.api_key)
    return [*providers.secrets_of(keys), *observing.secrets_of(environ), *passwords_of(settings)]


def spool(
    settings: Settings, environ: Mapping[str, str], local: Endpoint | None = None, *, stderr: IO[bytes] | None = None
) -> Spool | None:
    """Where the server records calls; one for all its processes. None if it does not. Raises ConfigError."""
    kinds = {name: asked.kind or name for name, asked in provider_settings(settings, environ).items()}
    log = make_log(form=settings.log.format, level=settings.log.level)
    return open_spool(settings, environ, secrets_of(settings, environ, local), kinds, log, stderr=stderr)


def page(
    settings: Settings, environ: Mapping[str, str], local: Endpoint | None = None, slot: Slot | None = None
) -> Viewing | None:
    """The page of calls, one for all processes of the server. None if there is none. Raises ConfigError."""
    return open_page(settings, environ, secrets_of(settings, environ, local), slot)


def _key_of(name: str, provider: ProviderSettings, environ: Mapping[str, str]) -> str:
    """The provider's own key, or the one in its usual variable. A key of the house goes to the usual address only."""
    if provider.api_key is not None:
        return provider.api_key.get_secret_value()
    if provider.base_url is not None:
        return ""
    variable = providers.usual_key(provider.kind or name)
    return environ.get(variable, "").strip() if variable else ""


def _providers(settings: Settings, environ: Mapping[str, str], local: Endpoint | None) -> dict[str, Provider]:
    made: dict[str, Provider] = {}
    mistakes: list[str] = []
    for name, asked in provider_settings(settings, environ).items():
        keys = {
            n: c.api_key.get_secret_value() for n, c in settings.credentials.items() if c.provider == name and c.api_key
        }
        options = ProviderOptions(
            name=name,
            kind=asked.kind or name,
            base_url=asked.base_url,
            keys={"": _key_of(name, asked, environ), **keys},
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
        made[LOCAL] = providers.build_local(LOCAL, local)
    return made


def _keeper(settings: Settings) -> Keeper | None:
    replay = settings.replay
    return Keeper(Bounds(replay.window, replay.max_completion_bytes, replay.max_bytes)) if replay.window else None


def _admission(settings: Settings) -> Admission:
    limits = settings.limits
    return Admission(
        Gate(
            "the server",
            limits.max_in_flight,
            limits.max_waiting,
            settings=" (limits.max_in_flight, limits.max_waiting)",
        ),
        {
            name: Gate(
                f"provider {name!r}",
                provider.max_in_flight,
                provider.max_waiting,
                settings=f" (providers.{name}.max_in_flight, providers.{name}.max_waiting)",
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


async def serve(app: App, serving: Callable[[], None] = lambda: None) -> None:
    """Serves until SIGTERM or SIGINT; a second signal ends the server at once. `serving` is called when it serves."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def asked() -> None:
        if stop.is_set():
            for name in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(name)
            loop.create_task(app.server.stop())  # noqa: RUF006  # the loop ends with it
        stop.set()

    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, asked)
    await app.run(stop, serving)
