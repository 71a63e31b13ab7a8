"""The processes of a benchmark: started on free ports, measured from outside, ended by their id."""

from __future__ import annotations

import base64
import json
import os
import platform
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import psutil

ROOT = Path(__file__).parent.parent


class CannotRun(Exception):
    """The benchmark cannot be run here; the message says why."""


class Process:
    """A running program. Ends with its `with` block."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        env: Mapping[str, str | None] | None = None,
        log: Path | None = None,
        cwd: Path = ROOT,
        piped: bool = False,
    ) -> None:
        """`log`: where its standard error goes, and its standard output unless that is `piped` to us.

        `env` is added to our own; None takes a variable out.
        """
        self.name = name
        self.log = log
        self.began = time.monotonic()
        errors = log.open("wb") if log else None
        try:
            self.popen = subprocess.Popen(
                command,
                cwd=cwd,
                env={name: value for name, value in {**os.environ, **(env or {})}.items() if value is not None},
                stdin=subprocess.PIPE if piped else subprocess.DEVNULL,
                stdout=subprocess.PIPE if piped else errors,
                stderr=errors,
                text=True,
            )
        finally:
            if errors:
                errors.close()
        self._processes = [psutil.Process(self.popen.pid)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def adopt_children(self) -> None:
        """Counts the processes that it has started, too."""
        self._processes = [self._processes[0], *self._processes[0].children(recursive=True)]

    def cpu_alone(self) -> float:
        """As `cpu`, of the process itself."""
        return _cpu(self._processes[0])

    def cpu(self) -> float:
        """Seconds of CPU so far, user and system, of all its threads."""
        return sum(map(_cpu, self._processes))

    def rss(self) -> int:
        """Resident bytes."""
        return sum(int(process.memory_info().rss) for process in self._processes)

    def read_line(self) -> str:
        """The next line of a piped program. Raises CannotRun when there is none."""
        assert self.popen.stdout is not None
        line: str = self.popen.stdout.readline()
        if not line:
            raise CannotRun(f"{self.name} ended by itself: {self.last_words()}")
        return line

    def require_running(self) -> None:
        """Raises CannotRun."""
        if self.popen.poll() is not None:
            raise CannotRun(f"{self.name} ended by itself: {self.last_words()}")

    def last_words(self) -> str:
        return self.log.read_text(errors="replace")[-1500:] if self.log else f"exit code {self.popen.poll()}"

    def stop(self) -> None:
        """Asks it to end, and ends it after five seconds; what it started, too."""
        started = self._processes[0].children(recursive=True) if self.popen.poll() is None else self._processes[1:]
        self.popen.terminate()
        try:
            self.popen.wait(5)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
        for stream in (self.popen.stdin, self.popen.stdout):
            if stream:
                stream.close()
        for process in started:
            if process.is_running():
                process.kill()


class Served(Process):
    """A program of ours here that prints its port."""

    def __init__(self, module: str, log: Path) -> None:
        super().__init__(module, [sys.executable, "-m", f"bench.{module}"], log=log, piped=True)
        self.address = f"127.0.0.1:{int(self.read_line())}"


class Load(Process):
    """The callers; see `bench.load`."""

    def __init__(self, log: Path) -> None:
        super().__init__("load", [sys.executable, "-m", "bench.load"], log=log, piped=True)

    def run(self, do: str, *, body: bytes = b"", **job: Any) -> dict[str, Any]:
        """Raises CannotRun when a call fails: what was measured then would mean nothing."""
        assert self.popen.stdin is not None
        line = {"do": do, "body": base64.b64encode(body).decode(), **job}
        self.popen.stdin.write(json.dumps(line) + "\n")
        self.popen.stdin.flush()
        done: dict[str, Any] = json.loads(self.read_line())
        if "error" in done:
            raise CannotRun(f"a call to {job.get('address')}{job.get('method')} failed: {done['error']}")
        return done


def _cpu(process: psutil.Process) -> float:
    if platform.system() == "Linux":
        # The process's own clock (clock_getcpuclockid): nanoseconds, where its times are in hundredths of a second.
        return time.clock_gettime(~process.pid << 3 | 2)
    times = process.cpu_times()
    return float(times.user + times.system)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for_port(process: Process, port: int, seconds: float) -> None:
    """Until something listens. Raises CannotRun."""
    until = time.monotonic() + seconds
    while True:
        process.require_running()
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
        except OSError:
            if time.monotonic() > until:
                raise CannotRun(f"{process.name} does not listen after {seconds:g} s: {process.last_words()}") from None
            time.sleep(0.002)
        else:
            return


def allow_files(wanted: int) -> None:
    """Raises the limit of open files for what is started from here. Raises CannotRun."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted or soft == resource.RLIM_INFINITY:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise CannotRun(f"{wanted} open files are needed, and the hard limit is {hard}: raise it with `ulimit -Hn`")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
