"""Puts the rooms together: settings in, a running server out."""

from __future__ import annotations

import asyncio
import gc
import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO
from urllib.parse import unquote, urlsplit

from trunkline_server import observation as observing
from trunkline_server import prices, providers
from trunkline_server.access import Callers
from trunkline_server.catalog import Catalog
from trunkline_server.config import ConfigError, Settings
from trunkline_server.embedded import Endpoint
from trunkline_server.embedder import Embedder
from trunkline_server.engine import Engine
from trunkline_server.fleet import Fleet
from trunkline_server.observation import Observation, make_metrics, observe
from trunkline_server.recording import Recording, Spool, open_spool, passwords_of, record, state_dir
from trunkline_server.redact import Redactor
from trunkline_server.registry import Registry
from trunkline_server.reloading import Load, Reloader
from trunkline_server.replay import Bounds, Keeper, SharedKeeper
from trunkline_server.routing.health import Healths
from trunkline_server.routing.hints import Hints
from trunkline_server.rpc.boundary import Boundary, Limits, Running
from trunkline_server.rpc.completions import CompletionMethods
from trunkline_server.rpc.configs import ConfigMethods
from trunkline_server.rpc.embeddings import EmbeddingMethods
from trunkline_server.rpc.methods import Service
from trunkline_server.rpc.models import ModelMethods
from trunkline_server.rpc.pipeline import PipelineMethods
from trunkline_server.rpc.runs import Runs
from trunkline_server.rpc.server import Server, TlsFiles
from trunkline_server.rpc.traces import TraceMethods
from trunkline_server.shares import Shares
from trunkline_server.store.address import Address, StoreError
from trunkline_server.targets import key_of, provider_settings, targets_of
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
    registry: Registry
    #: None: there is no file to read again.
    reloader: Reloader | None
    #: None: workers and replicas share nothing.
    fleet: Fleet | None = None
    #: Of what providers may be asked at once; None: likewise.
    shares: Shares | None = None
    #: Others share the port.
    shares_port: bool = False
    #: Goes because another one takes its place.
    replaced: bool = False
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
        await self.registry.start()
        if self.fleet is not None:
            await self.fleet.start()
        if self.shares is not None:
            await self.shares.start()
        await self.server.start()
        # What is local is known to the worker alone that took the first call: request ids, resuming, cancelling by id;
        # and it counts by itself what providers are asked at once.
        shared = "local" if self.fleet is None else "redis"
        self.telemetry.event(
            "serving", listen=self.address, providers=sorted(self.engine.providers), completions=shared, limits=shared
        )
        serving()
        # Costs wait for it, calls do not.
        threading.Thread(target=prices.load, name="trunkline-prices", daemon=True).start()
        await stop.wait()
        drain = self.settings.drain
        delay = drain.delay
        if self.replaced:
            self.telemetry.event("leaving", within=drain.max_connection_age)
            await self.server.leave()
            delay = 0.0
        self.telemetry.event("draining", delay=delay, grace=drain.grace)
        await self.server.drain(delay, drain.grace)
        await self.registry.aclose()
        await self.engine.aclose()
        if self.shares is not None:
            await self.shares.aclose()
        if self.fleet is not None:
            await self.fleet.aclose()
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
    load: Load | None = None,
    everywhere: Callable[[], None] | None = None,
    beside: Callable[[Settings], None] = lambda _: None,
) -> App:
    """`slot`: of the spool that calls are recorded in. `load` reads the settings again, and `everywhere` has all
    processes of the server do so; `beside` tells those that do not serve. Raises ConfigError for what cannot be built.
    """
    healths = Healths()
    targets = targets_of(settings, environ, local, healths)
    redactor = Redactor(secrets_of(settings, environ, local))
    kinds = {name: provider.kind for name, provider in targets.providers.items()}
    observation = observe(settings, environ, metrics or make_metrics(settings), kinds, redactor)
    telemetry = observation.telemetry
    engine = Engine(targets.table, targets.admission)
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
    fleet = _fleet(settings, telemetry, redactor)
    shares = None
    if fleet is not None:
        Hints(healths, fleet)
        shares = Shares(targets.admission, fleet)
    runs = Runs(_keeper(settings, fleet), running, boundary.failure, settings.replay.grace, fleet)
    completions = CompletionMethods(
        engine,
        catalog,
        runs,
        heartbeat=settings.stream.heartbeat,
        stalled=settings.stream.stalled_reader,
        allow_raw=settings.allow_raw,
    )
    embeddings = EmbeddingMethods(Embedder(engine), targets.admission.server, runs)
    pipeline = PipelineMethods((completions, embeddings), running)
    services: list[Service] = [completions, embeddings, ModelMethods(catalog), pipeline]
    registry = _registry(settings, environ, engine, telemetry)
    reloader = None
    if load is not None:
        reloader = Reloader(
            settings, environ, local, load, engine, registry, callers, redactor, healths, kinds, callers_of,
            lambda new: secrets_of(new, environ, local), telemetry.event, beside, everywhere,
        )  # fmt: skip
    services.append(ConfigMethods(registry, callers, reloader.ask if reloader is not None else None))
    if recording.feed is not None and recording.readers:
        services.append(TraceMethods(recording.readers, recording.feed, callers))
    server = Server(
        services,
        boundary,
        max_request_bytes=settings.limits.max_request_bytes,
        max_connection_age=settings.drain.max_connection_age,
        share_port=share_port,
        interceptors=observation.interceptors,
    )
    return App(
        server, engine, telemetry, settings, observation, recording, registry, reloader, fleet, shares, share_port
    )


def _registry(settings: Settings, environ: Mapping[str, str], engine: Engine, telemetry: Telemetry) -> Registry:
    try:
        address = Address.parse(settings.store, state_dir(settings, environ))
    except StoreError as error:
        raise ConfigError(f"the configuration cannot be used:\n  {error}") from None
    return Registry(engine, address, telemetry.warning)


def callers_of(settings: Settings) -> Callers:
    """Who may call, and who of them is an operator."""
    return Callers(settings.caller_keys, operators=settings.operator_names, certificates=settings.by_certificate)


def secrets_of(settings: Settings, environ: Mapping[str, str], local: Endpoint | None = None) -> list[str]:
    """What must never be shown: keys of callers, providers, credentials and the embedded model."""
    references = (*settings.callers, *settings.credentials.values())
    keys = [reference.api_key.get_secret_value() for reference in references if reference.api_key]
    keys += [key_of(name, provider, environ) for name, provider in provider_settings(settings, environ).items()]
    if local is not None:
        keys.append(local.api_key)
    return [
        *providers.secrets_of(keys),
        *observing.secrets_of(environ),
        *passwords_of(settings),
        *_password_of(settings),
    ]


def kinds_of(settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    """Provider by name to its kind."""
    return {name: asked.kind or name for name, asked in provider_settings(settings, environ).items()}


def _password_of(settings: Settings) -> list[str]:
    """Of Redis."""
    password = urlsplit(settings.redis.address).password if settings.redis is not None else None
    return [unquote(password)] if password else []


def spool(
    settings: Settings, environ: Mapping[str, str], local: Endpoint | None = None, *, stderr: IO[bytes] | None = None
) -> Spool | None:
    """Where the server records calls; one for all its processes. None if it does not. Raises ConfigError."""
    log = make_log(form=settings.log.format, level=settings.log.level)
    secrets, kinds = secrets_of(settings, environ, local), kinds_of(settings, environ)
    return open_spool(settings, environ, secrets, kinds, log, stderr=stderr)


def page(
    settings: Settings, environ: Mapping[str, str], local: Endpoint | None = None, slot: Slot | None = None
) -> Viewing | None:
    """The page of calls, one for all processes of the server. None if there is none. Raises ConfigError."""
    return open_page(settings, environ, secrets_of(settings, environ, local), slot)


def _fleet(settings: Settings, telemetry: Telemetry, redactor: Redactor) -> Fleet | None:
    asked = settings.redis
    if asked is None:
        return None

    def told(name: str, **facts: str) -> None:
        telemetry.warning(name, **{fact: redactor(value) for fact, value in facts.items()})

    ca_file = None if asked.ca_file is None else str(asked.ca_file)
    try:
        return Fleet(asked.address, prefix=asked.prefix, patience=asked.timeout, ca_file=ca_file, told=told)
    except ValueError as error:
        raise ConfigError(f"the configuration cannot be used:\n  redis: {redactor(str(error))}") from None


def _keeper(settings: Settings, fleet: Fleet | None) -> Keeper | None:
    replay = settings.replay
    if not replay.window:
        return None
    bounds = Bounds(replay.window, replay.max_completion_bytes, replay.max_bytes)
    return Keeper(bounds) if fleet is None else SharedKeeper(bounds, fleet)


async def serve(app: App, serving: Callable[[], None] = lambda: None) -> None:
    """Serves until SIGTERM or SIGINT; a second signal ends the server at once. `serving` is called when it serves.

    SIGUSR2 has one of several workers leave to those that share its port, which takes as long as connections last.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def asked() -> None:
        if app.replaced:
            app.replaced = False
            app.server.hurry()
        elif stop.is_set():
            for name in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(name)
            loop.create_task(app.server.stop())  # noqa: RUF006  # the loop ends with it
        stop.set()

    def replaced() -> None:
        if not app.shares_port:
            app.telemetry.warning("this server has one worker (workers: 1), which nobody replaces: start it again")
        elif not stop.is_set():
            app.replaced = True
            stop.set()

    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, asked)
    loop.add_signal_handler(signal.SIGUSR2, replaced)
    reading: set[asyncio.Task[None]] = set()

    def reread() -> None:
        if app.reloader is None:
            app.telemetry.warning("this server was started without a configuration to read again")
            return
        task = loop.create_task(app.reloader.reread())
        reading.add(task)
        task.add_done_callback(reading.discard)

    loop.add_signal_handler(signal.SIGHUP, reread)
    await app.run(stop, serving)
