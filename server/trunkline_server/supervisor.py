"""Several workers that share a port: started, replaced when they die, and replaced one by one on request."""

from __future__ import annotations

import asyncio
import multiprocessing.connection
import os
import signal
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import FrameType

import prometheus_client
from prometheus_client import multiprocess

from trunkline_server.config import ConfigError, Settings, split_address
from trunkline_server.embedded import Endpoint
from trunkline_server.exposition import expose
from trunkline_server.reloading import Load, check
from trunkline_server.telemetry.logs import make_log
from trunkline_server.traces.slots import Slot
from trunkline_server.workers import Beside, bind_help, reserve, work

#: A worker that dies sooner than this after its start is not replaced at once, but with growing delay.
HEALTHY_AFTER = 10.0
_LONGEST_DELAY = 30.0
#: Seconds that a new worker may take to serve before the old one is left in its place.
_STARTS = 60.0
#: What a worker may take beyond its drain.
_ENDS = 15.0


@dataclass(slots=True)
class Worker:
    """One process."""

    process: BaseProcess
    #: It sends something as soon as it serves.
    serving: Connection
    began: float

    def serves(self, seconds: float) -> bool:
        """Waits for so long at most until it serves."""
        return self.serving.poll(seconds) and self.process.is_alive()


class Supervisor:
    """Keeps N workers running on one port, replaces those that die, and passes on the signal to stop."""

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str],
        local: Endpoint | None,
        load: Load | None = None,
    ) -> None:
        """`load`: reads the settings again; None: there is no file."""
        self._settings = settings
        self._environ = dict(environ)
        self._local = local
        self._load = load
        self._context = multiprocessing.get_context("spawn")
        self._log = make_log(form=settings.log.format, level=settings.log.level)
        # Plain flags: setting an Event in a signal handler can wait for ever for the lock that its own thread holds.
        self._stopping = False
        self._rolling = False
        self._rereading = False
        self._workers: dict[int, Worker] = {}
        #: Those that have been replaced and finish their calls.
        self._leaving: list[Worker] = []
        self._failures = 0
        self._slot: Slot | None = None
        self._beside: Beside
        self._metrics_dir = ""

    def run(self) -> int:
        """Returns the exit code when all workers have ended. Raises ConfigError."""
        try:
            reserved = reserve(self._settings.listen)
        except OSError as error:
            raise ConfigError(bind_help(self._settings, error)) from None
        with reserved, Beside(self._settings, self._environ, self._local) as beside:
            return self._run(reserved, beside)

    def _run(self, reserved: socket.socket, beside: Beside) -> int:
        self._slot, self._beside = beside.slot, beside
        for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
            signal.signal(name, self._asked)
        # Port 0 is one port for all workers.
        self._settings = _at(self._settings, reserved.getsockname()[1])
        with tempfile.TemporaryDirectory(prefix="trunkline-metrics-") as self._metrics_dir:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = self._metrics_dir
            registry = prometheus_client.CollectorRegistry()
            multiprocess.MultiProcessCollector(registry, path=self._metrics_dir)  # type: ignore[no-untyped-call]
            exposition = expose(self._settings, registry, self._slot)
            for index in range(self._settings.workers):
                self._workers[index] = self._started(index)
            beside.start()
            try:
                return self._watch()
            finally:
                if exposition is not None:
                    exposition.shutdown()

    def _watch(self) -> int:
        while not self._stopping:
            multiprocessing.connection.wait([w.process.sentinel for w in self._all()], timeout=0.5)
            self._leaving = [worker for worker in self._leaving if worker.process.is_alive() or self._ended(worker)]
            for index, worker in list(self._workers.items()):
                if worker.process.is_alive() or self._stopping:
                    continue
                self._ended(worker)
                if worker.process.exitcode == 2:
                    # It said why: a mistake that starting again does not mend.
                    self._stop_all()
                    return 2
                self._replace_dead(index, worker)
            if self._rereading:
                self._rereading = False
                self._reread()
            if self._rolling:
                self._rolling = False
                self._roll()
        self._stop_all()
        return 0

    def _replace_dead(self, index: int, worker: Worker) -> None:
        self._log.error("worker ended", worker=index, pid=worker.process.pid, exitcode=worker.process.exitcode)
        self._failures = 0 if time.monotonic() - worker.began > HEALTHY_AFTER else self._failures + 1
        if self._failures:
            self._pause(min(_LONGEST_DELAY, 0.1 * 2**self._failures))
        if not self._stopping:
            self._workers[index] = self._started(index)

    def _reread(self) -> None:
        """Has every worker read the configuration again; those that start later begin with the new one."""
        settings = self._loaded()
        if settings is None:
            return
        self._settings = settings
        for worker in self._all():
            if worker.process.pid is not None and worker.process.is_alive():
                os.kill(worker.process.pid, signal.SIGHUP)

    def _roll(self) -> None:
        """Replaces the workers one by one, each when its successor serves; no more than one starts at a time.

        The old ones go when their connections have moved on, which is not waited for.
        """
        settings = self._settings if self._load is None else self._loaded()
        if settings is None:
            return
        self._settings = settings
        self._log.info("replacing workers", workers=len(self._workers))
        for index, old in list(self._workers.items()):
            new = self._started(index)
            until = time.monotonic() + _STARTS
            while not self._stopping and new.process.is_alive() and time.monotonic() < until:
                if new.serves(0.1):
                    break
            else:
                # As it was: the old one goes on.
                new.process.terminate()
                self._leaving.append(new)
                if not self._stopping:
                    self._log.error("a new worker does not serve; the old ones stay", worker=index)
                return
            self._workers[index] = new
            if old.process.is_alive() and old.process.pid is not None:
                os.kill(old.process.pid, signal.SIGUSR2)
            self._leaving.append(old)
        self._log.info("workers replaced", workers=len(self._workers))

    def _loaded(self) -> Settings | None:
        """The configuration as it is now, which those beside the workers then know; None, with a line in the log, if it
        cannot be used.
        """
        if self._load is None:
            self._log.error("this server was started without a configuration to read again")
            return None
        try:
            settings = self._load()
            asyncio.run(check(settings, self._environ, self._local))
            self._beside.become(settings)
        except ConfigError as error:
            self._log.error("configuration not reloaded", mistakes=str(error))
            return None
        _, port = split_address(self._settings.listen)
        # The port was bound once and for all, and the number of places too.
        return _at(settings, port or 0).model_copy(update={"workers": self._settings.workers})

    def _started(self, index: int) -> Worker:
        receiver, sender = self._context.Pipe(duplex=False)
        process = self._context.Process(
            target=work,
            args=(self._settings, self._environ, self._local, self._load, self._slot, sender),
            name=f"trunkline-worker-{index}",
            daemon=True,
        )
        process.start()
        # The worker's end is the worker's alone: that it has died ends the pipe.
        sender.close()
        return Worker(process, receiver, time.monotonic())

    def _ended(self, worker: Worker) -> bool:
        """Buries one that has ended."""
        worker.process.join()
        worker.serving.close()
        if worker.process.pid is not None:
            multiprocess.mark_process_dead(worker.process.pid, self._metrics_dir)  # type: ignore[no-untyped-call]
        return False

    def _all(self) -> Iterator[Worker]:
        yield from self._workers.values()
        yield from self._leaving

    def _stop_all(self) -> None:
        for worker in self._all():
            if worker.process.is_alive():
                worker.process.terminate()
        drain = self._settings.drain
        until = time.monotonic() + drain.delay + drain.grace + _ENDS
        for worker in self._all():
            worker.process.join(max(0.0, until - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()

    def _asked(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._rereading = True
        elif number == signal.SIGUSR2:
            self._rolling = True
        else:
            self._stopping = True

    def _pause(self, seconds: float) -> None:
        """Waits, but not longer than until the server is asked to stop."""
        until = time.monotonic() + seconds
        while not self._stopping and (left := until - time.monotonic()) > 0:
            time.sleep(min(0.1, left))


def _at(settings: Settings, port: int) -> Settings:
    """The same on this port."""
    return settings.model_copy(update={"listen": f"{settings.listen.rpartition(':')[0]}:{port}"})
