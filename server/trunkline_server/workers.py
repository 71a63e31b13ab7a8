"""Server processes: one in this process, or several that share the port under a supervisor."""

from __future__ import annotations

import asyncio
import multiprocessing.connection
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

import prometheus_client
from prometheus_client import multiprocess

from trunkline_server import app as composition
from trunkline_server.config import ConfigError, Settings, split_address
from trunkline_server.embedded import Endpoint
from trunkline_server.observation import make_metrics
from trunkline_server.recording import Spool
from trunkline_server.telemetry.logs import make_log
from trunkline_server.traces.slots import Slot

#: A worker that dies sooner than this after its start is not replaced at once, but with growing delay.
HEALTHY_AFTER = 10.0
_LONGEST_DELAY = 30.0


def run_one(settings: Settings, environ: Mapping[str, str], local: Endpoint | None) -> int:
    """Serves in this process until it is told to stop. Returns the exit code. Raises ConfigError."""
    spool = composition.spool(settings, environ, local)
    slot = spool.slot if spool is not None else None
    if spool is None:
        return run_loop(_serve(settings, environ, local))
    watch = Watch(spool, settings)
    try:
        return run_loop(_serve(settings, environ, local, slot=slot, serving=watch.start))
    finally:
        watch.close()


def run_loop(main: Any) -> int:
    """Runs a coroutine on uvloop where that exists."""
    try:
        import uvloop  # absent on Windows
    except ImportError:
        return int(asyncio.run(main))
    return int(uvloop.run(main))


async def _serve(
    settings: Settings,
    environ: Mapping[str, str],
    local: Endpoint | None,
    *,
    share_port: bool = False,
    slot: Slot | None = None,
    serving: Callable[[], None] = lambda: None,
) -> int:
    metrics = make_metrics(settings)
    app = composition.build(settings, environ, local=local, share_port=share_port, metrics=metrics, slot=slot)
    try:
        if not share_port:
            # gRPC fails too, but with pages of its own on standard error.
            reserve(settings.listen).close()
        app.listen()
    except OSError as error:
        raise ConfigError(bind_help(settings, error)) from None
    exposition = None if share_port else _expose(settings, metrics.registry)
    await composition.serve(app, serving)
    if exposition is not None:
        exposition[0].shutdown()
    return 0


def bind_help(settings: Settings, error: OSError | None = None) -> str:
    """What to do when the server cannot listen."""
    if error is not None and error.filename:
        return f"cannot read {error.filename}: {error.strerror}"
    _, port = split_address(settings.listen)
    return (
        f"cannot listen on {settings.listen}: is something else using port {port}? Choose another port "
        "(`make run PORT=…`, `--port`, or `listen` in the configuration)"
    )


class Watch:
    """Starts the delivery of traces beside a server, in a thread, and again when it ends by itself."""

    def __init__(self, spool: Spool, settings: Settings) -> None:
        self._spool = spool
        self._log = make_log(form=settings.log.format, level=settings.log.level)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="trunkline-delivery", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Waits, within bounds, until what was recorded is delivered."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
        if not self._spool.close():
            self._log.warning("traces wait on disk: the server ends before backends took them all")

    def _run(self) -> None:
        begun = False
        while not self._stop.is_set():
            try:
                if not begun:
                    self._spool.delivery.start()
                    begun = True
                code = self._spool.delivery.ended()
                if code is not None:
                    self._log.error("delivery of traces ended", exitcode=code)
            except OSError as error:
                self._log.error("delivery of traces cannot be started", error=error.strerror)
            self._stop.wait(0.5)


class Supervisor:
    """Keeps N workers running on one port, replaces those that die, and passes on the signal to stop."""

    def __init__(self, settings: Settings, environ: Mapping[str, str], local: Endpoint | None) -> None:
        self._settings = settings
        self._environ = dict(environ)
        self._local = local
        self._context = multiprocessing.get_context("spawn")
        self._log = make_log(form=settings.log.format, level=settings.log.level)
        # A plain flag: setting an Event in a signal handler can wait for ever for the lock that its own thread holds.
        self._stopping = False
        self._workers: dict[int, tuple[BaseProcess, float]] = {}
        self._failures = 0
        self._slot: Slot | None = None

    def run(self) -> int:
        """Returns the exit code when all workers have ended. Raises ConfigError."""
        try:
            reserved = reserve(self._settings.listen)
        except OSError as error:
            raise ConfigError(bind_help(self._settings, error)) from None
        spool = composition.spool(self._settings, self._environ, self._local)
        self._slot = spool.slot if spool is not None else None
        watch = Watch(spool, self._settings) if spool is not None else None
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, self._asked)
        # Port 0 is one port for all workers.
        listen = f"{self._settings.listen.rpartition(':')[0]}:{reserved.getsockname()[1]}"
        self._settings = self._settings.model_copy(update={"listen": listen})
        with reserved, tempfile.TemporaryDirectory(prefix="trunkline-metrics-") as metrics_dir:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = metrics_dir
            registry = prometheus_client.CollectorRegistry()
            multiprocess.MultiProcessCollector(registry, path=metrics_dir)  # type: ignore[no-untyped-call]
            exposition = _expose(self._settings, registry)
            for index in range(self._settings.workers):
                self._start(index)
            if watch is not None:
                watch.start()
            try:
                return self._watch(metrics_dir)
            finally:
                if watch is not None:
                    watch.close()
                if exposition is not None:
                    exposition[0].shutdown()

    def _watch(self, metrics_dir: str) -> int:
        while not self._stopping:
            multiprocessing.connection.wait([w.sentinel for w, _ in self._workers.values()], timeout=0.5)
            for index, (worker, began) in list(self._workers.items()):
                if worker.is_alive() or self._stopping:
                    continue
                worker.join()
                if worker.pid is not None:
                    multiprocess.mark_process_dead(worker.pid, metrics_dir)  # type: ignore[no-untyped-call]
                if worker.exitcode == 2:
                    # It said why: a mistake that starting again does not mend.
                    self._stop_all()
                    return 2
                self._log.error("worker ended", worker=index, pid=worker.pid, exitcode=worker.exitcode)
                self._failures = 0 if time.monotonic() - began > HEALTHY_AFTER else self._failures + 1
                if self._failures:
                    self._pause(min(_LONGEST_DELAY, 0.1 * 2**self._failures))
                if not self._stopping:
                    self._start(index)
        self._stop_all()
        return 0

    def _start(self, index: int) -> None:
        worker = self._context.Process(
            target=_worker,
            args=(self._settings, self._environ, self._local, self._slot),
            name=f"trunkline-worker-{index}",
            daemon=True,
        )
        worker.start()
        self._workers[index] = (worker, time.monotonic())

    def _stop_all(self) -> None:
        for worker, _ in self._workers.values():
            if worker.is_alive():
                worker.terminate()
        drain = self._settings.drain
        until = time.monotonic() + drain.delay + drain.grace + 15
        for worker, _ in self._workers.values():
            worker.join(max(0.0, until - time.monotonic()))
            if worker.is_alive():
                worker.kill()
                worker.join()

    def _asked(self, number: int, frame: FrameType | None) -> None:
        self._stopping = True

    def _pause(self, seconds: float) -> None:
        """Waits, but not longer than until the server is asked to stop."""
        until = time.monotonic() + seconds
        while not self._stopping and (left := until - time.monotonic()) > 0:
            time.sleep(min(0.1, left))


def _expose(settings: Settings, registry: prometheus_client.CollectorRegistry) -> Any:
    if settings.metrics is None:
        return None
    host, port = settings.metrics.host, settings.metrics.port
    try:
        return prometheus_client.start_http_server(port, host, registry=registry)
    except OSError as error:
        raise ConfigError(f"cannot serve metrics on {host}:{port}: {error.strerror}") from None


def _worker(settings: Settings, environ: Mapping[str, str], local: Endpoint | None, slot: Slot | None) -> None:
    # A worker that outlives its supervisor would hold the port.
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    try:
        code = run_loop(_serve(settings, environ, local, share_port=True, slot=slot))
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        code = 2
    sys.exit(code)


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGTERM)


def is_free(address: str) -> bool:
    """Can the address be bound now?"""
    try:
        reserve(address).close()
    except OSError:
        return False
    return True


def reserve(address: str) -> socket.socket:
    """Binds the port without listening, so that it is ours while workers come and go. Raises OSError if it is taken."""
    host, port = split_address(address)
    family, kind, proto, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    probe = socket.socket(family, kind, proto)
    try:
        # Without SO_REUSEPORT: a server that shares its port with strangers would not be told apart.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(where)
    finally:
        probe.close()
    held = socket.socket(family, kind, proto)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    held.bind(where)
    return held
