"""A process that serves: this one, or one of several that share the port."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any, Self

from trunkline_server import app as composition
from trunkline_server.child import Child
from trunkline_server.config import ConfigError, Settings, split_address
from trunkline_server.embedded import Endpoint
from trunkline_server.exposition import expose
from trunkline_server.observation import make_metrics
from trunkline_server.reloading import Load
from trunkline_server.telemetry.logs import make_log
from trunkline_server.traces.slots import Slot


def run_one(settings: Settings, environ: Mapping[str, str], local: Endpoint | None, load: Load | None = None) -> int:
    """Serves in this process until it is told to stop. Returns the exit code. Raises ConfigError."""
    with Beside(settings, environ, local) as beside:
        return run_loop(
            _serve(settings, environ, local, load, slot=beside.slot, serving=beside.start, beside=beside.become)
        )


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
    load: Load | None = None,
    *,
    share_port: bool = False,
    slot: Slot | None = None,
    serving: Callable[[], None] = lambda: None,
    beside: Callable[[Settings], None] = lambda _: None,
) -> int:
    metrics = make_metrics(settings)
    app = composition.build(
        settings,
        environ,
        local=local,
        share_port=share_port,
        metrics=metrics,
        slot=slot,
        load=load,
        everywhere=_all_reread if share_port else None,
        beside=beside,
    )
    try:
        if not share_port:
            # gRPC fails too, but with pages of its own on standard error.
            reserve(settings.listen).close()
        app.listen()
    except OSError as error:
        raise ConfigError(bind_help(settings, error)) from None
    exposition = None if share_port else expose(settings, metrics.registry, slot)
    await composition.serve(app, serving)
    if exposition is not None:
        exposition.shutdown()
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


class Beside:
    """What runs beside a server: the delivery of traces and the page. Looked after by a thread of its own."""

    def __init__(self, settings: Settings, environ: Mapping[str, str], local: Endpoint | None) -> None:
        """Starts nothing yet. Raises ConfigError."""
        self._environ, self._local = environ, local
        self._log = make_log(form=settings.log.format, level=settings.log.level)
        self._spool = composition.spool(settings, environ, local)
        self.slot = self._spool.slot if self._spool is not None else None
        try:
            self._page = composition.page(settings, environ, local, self.slot)
        except ConfigError:
            if self._spool is not None:
                self._spool.close()
            raise
        self._children: dict[str, Child] = {}
        if self._spool is not None:
            self._children["delivery of traces"] = self._spool.delivery
        if self._page is not None:
            self._children["page"] = self._page.process
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="trunkline-beside", daemon=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Waits, within bounds, until what was recorded is delivered."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
        if self._page is not None:
            self._page.close()
        if self._spool is not None and not self._spool.close():
            self._log.warning("traces wait on disk: the server ends before backends took them all")

    def start(self) -> None:
        if self._page is not None:
            self._log.info("page", address=self._page.address)
        if self._children:
            self._thread.start()

    def become(self, settings: Settings) -> None:
        """Tells them the secrets and the callers that are in force from now on."""
        secrets = composition.secrets_of(settings, self._environ, self._local)
        if self._spool is not None:
            self._spool.become(secrets, composition.kinds_of(settings, self._environ))
        if self._page is not None:
            self._page.become(settings, secrets)

    def _run(self) -> None:
        waiting = dict(self._children)
        while not self._stop.is_set():
            for name, child in self._children.items():
                try:
                    if name in waiting:
                        child.start()
                        del waiting[name]
                    code = child.ended()
                    if code is not None:
                        self._log.error(f"{name} ended", exitcode=code)
                except OSError as error:
                    self._log.error(f"{name} cannot be started", error=error.strerror)
            self._stop.wait(0.5)


def work(
    settings: Settings,
    environ: Mapping[str, str],
    local: Endpoint | None,
    load: Load | None,
    slot: Slot | None,
    told: Connection,
) -> None:
    """The life of one of several workers. `told` is sent something as soon as it serves."""
    # A worker that outlives its supervisor would hold the port.
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    try:
        code = run_loop(
            _serve(
                settings, environ, local, load, share_port=True, slot=slot, serving=lambda: told.send_bytes(b"serving")
            )
        )
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        code = 2
    sys.exit(code)


def _all_reread() -> None:
    """Has the supervisor read the configuration again, and with it all workers."""
    os.kill(os.getppid(), signal.SIGHUP)


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
