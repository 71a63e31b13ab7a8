"""Servers that tests need and nobody has installed for them: found on the machine, started for the run, gone with it.

`make test` leaves out by name what needs a server that is not there; with CI or REQUIRE_ALL set that is an error.
"""

from __future__ import annotations

import itertools
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parent.parent

#: Most seconds that a server may take to answer for the first time, and to end.
_STARTS, _ENDS = 60.0, 20.0

#: How a process is that does not run. One that ended as its parent was held stays a zombie: nobody waits for it.
_STILL = frozenset({psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE})

#: Runs a program until it ends or until our side of standard input is closed, so that no server outlives a test run
#: that was killed. Prints the program's process id.
_LEASH = 'exec 3<&0; "$@" 3<&- </dev/null & child=$!; echo $child; (cat <&3 >/dev/null; kill -%s $child) & wait $child'


class Missing(Exception):
    """A server cannot be had on this machine; the message says what to install."""


def find(program: str, package: str, *places: str) -> Path:
    """A program of the PATH or of one of these folders (patterns), the last of several. Raises Missing."""
    folders = [str(folder) for place in places for folder in sorted(Path("/").glob(place.lstrip("/")))]
    found = shutil.which(program, path=os.pathsep.join([*reversed(folders), os.environ.get("PATH", "")]))
    if found is None:
        raise Missing(f"{program} not found; on Debian and Ubuntu: apt-get install {package}")
    return Path(found)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def folder(user: str | None = None) -> Iterator[Path]:
    """A new folder with a short path, for sockets too; of another user if we may give it away."""
    made = Path(tempfile.mkdtemp(prefix="trunkline-"))
    try:
        if user is not None:
            shutil.chown(made, user)
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


class Service:
    """A server that can be stopped, killed, held and started again; its data stay where its command keeps them."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        log: Path,
        *,
        ready: Callable[[], bool],
        user: str | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.name = name
        self.log = log
        self._command = [str(part) for part in command]
        self._ready = ready
        self._user = user
        self._signal = stop_signal
        self._leash: subprocess.Popen[bytes] | None = None
        self._process: psutil.Process | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Returns when it answers."""
        leash = ["/bin/sh", "-c", _LEASH % self._signal.name.removeprefix("SIG"), "sh", *self._command]
        with self.log.open("ab") as log:
            self._leash = subprocess.Popen(
                leash, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, user=self._user,
                cwd=self.log.parent, env={**os.environ, "PYTHONPATH": str(ROOT)},
            )  # fmt: skip
        assert self._leash.stdout is not None
        self._process = psutil.Process(int(self._leash.stdout.readline()))
        until = time.monotonic() + _STARTS
        while not self._ready():
            if self._leash.poll() is not None or time.monotonic() > until:
                self.kill()
                raise RuntimeError(f"{self.name} does not start:\n{self.log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Asks it to end and waits until it has."""
        leash, self._leash = self._leash, None
        if leash is None:
            return
        assert leash.stdin is not None
        assert leash.stdout is not None
        leash.stdin.close()
        try:
            leash.wait(_ENDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        finally:
            leash.stdout.close()

    def kill(self) -> None:
        """As a crash: nothing that it holds in memory is kept."""
        processes = self._all()
        for process in processes:
            with suppress(psutil.NoSuchProcess):  # it had ended already, and its parent was the first to be killed
                process.kill()
        psutil.wait_procs(processes, _ENDS)
        self.stop()

    @contextmanager
    def held(self) -> Iterator[None]:
        """While the block runs it takes connections and requests, and answers none: none of its processes runs."""
        # The server first: once it is still, no child of it begins, and none that ends is gone.
        self._still([psutil.Process(self.pid)])
        processes = self._all()
        self._still(processes)
        try:
            yield
        finally:
            # The server last: it waits for those that have ended.
            for process in reversed(processes):
                process.resume()

    def _still(self, processes: Sequence[psutil.Process]) -> None:
        """Stops them, and waits until they are."""
        until = time.monotonic() + _ENDS
        for process in processes:
            process.suspend()
        while not all(process.status() in _STILL for process in processes):
            if time.monotonic() > until:
                raise RuntimeError(f"{self.name} is not held: {[process.status() for process in processes]}")
            time.sleep(0.001)

    def _all(self) -> list[psutil.Process]:
        process = self._process
        return [process, *process.children(recursive=True)] if process is not None and process.is_running() else []


class Postgresql(Service):
    """A PostgreSQL server with one superuser, which has a password over TCP and needs none over its socket."""

    def __init__(self, where: Path, user: str | None, *, durable: bool = False) -> None:
        """`durable`: as a server in production syncs its files; tests have no use for that."""
        programs = find("initdb", "postgresql", "/usr/lib/postgresql/*/bin", "/opt/homebrew/opt/postgresql*/bin").parent
        self.port = free_port()
        self._where, self._programs, self._password = where, programs, secrets.token_hex(8)
        self._names = (f"test_{number}" for number in itertools.count(1))
        settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": where, "max_connections": 100}
        if not durable:
            settings |= {"fsync": "off", "full_page_writes": "off"}
        arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        command: list[str | Path] = [programs / "postgres", "-D", where / "data", "-p", str(self.port), *arguments]
        super().__init__(
            "postgresql", command, where / "log", ready=self._answers, user=user, stop_signal=signal.SIGINT
        )

    def make(self) -> None:
        """Makes its files."""
        password = self._where / "password"
        password.write_text(self._password)
        if self._user is not None:
            shutil.chown(password, self._user)
        command: list[str | Path] = [
            self._programs / "initdb", "-D", self._where / "data", "-U", "trunkline", f"--pwfile={password}",
            "--auth-local=trust", "--auth-host=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync",
        ]  # fmt: skip
        subprocess.run(command, user=self._user, cwd=self._where, check=True, stdout=subprocess.DEVNULL)

    def database(self) -> str:
        """The URL of a new, empty database."""
        name = next(self._names)
        self.sql(f"CREATE DATABASE {name}", "postgres")
        return f"postgresql://trunkline:{self._password}@127.0.0.1:{self.port}/{name}"

    def sql(self, statement: str, database: str) -> str:
        """What psql prints: the rows, columns parted by "|"."""
        command: list[str | Path] = [self._programs / "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", *self._reach]
        done = subprocess.run([*command, "-d", database, "-c", statement], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    @property
    def _reach(self) -> list[str]:
        return ["-h", str(self._where), "-p", str(self.port), "-U", "trunkline"]

    def _answers(self) -> bool:
        command: list[str | Path] = [self._programs / "pg_isready", "-q", *self._reach]
        return subprocess.run(command, check=False).returncode == 0


@contextmanager
def postgresql(*, durable: bool = False) -> Iterator[Postgresql]:
    """Runs while the block does. Raises Missing."""
    # It refuses to run as root.
    user = _other_user("postgres", "nobody") if os.geteuid() == 0 else None
    with folder(user) as where:
        server = Postgresql(where, user, durable=durable)
        server.make()
        server.start()
        try:
            yield server
        finally:
            server.stop()


class Clickhouse(Service):
    """ClickHouse's engine behind its HTTP interface; see tests/traces/clickhouse_server.py."""

    def __init__(self, where: Path) -> None:
        self.port = free_port()
        self._password = secrets.token_hex(8)
        self._names = (f"test_{number}" for number in itertools.count(1))
        program = [sys.executable, "-m", "tests.traces.clickhouse_server"]
        command: list[str | Path] = [*program, where / "data", str(self.port), "me", self._password]
        super().__init__("clickhouse", command, where / "log", ready=self._answers)

    def database(self) -> str:
        """The URL of a database that is not there yet."""
        return f"clickhouse://me:{self._password}@127.0.0.1:{self.port}/{next(self._names)}"

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/ping", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


@contextmanager
def clickhouse() -> Iterator[Clickhouse]:
    """Runs while the block does."""
    with folder() as where:
        server = Clickhouse(where)
        server.start()
        try:
            yield server
        finally:
            server.stop()


class Redis(Service):
    """A Redis that keeps nothing on disk."""

    def __init__(self, where: Path) -> None:
        self.port = free_port()
        program = find("redis-server", "redis-server")
        settings = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        command: list[str | Path] = [program, *settings, "--dir", where]
        super().__init__("redis", command, where / "log", ready=self._answers)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def settings(self, **more: object) -> dict[str, object]:
        """For the setting `redis`: keys and channels of its own."""
        return {"url": self.url, "prefix": f"test-{secrets.token_hex(6)}", **more}

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16) == b"+PONG\r\n"
        except OSError:
            return False


@contextmanager
def redis() -> Iterator[Redis]:
    """Runs while the block does. Raises Missing."""
    with folder() as where:
        server = Redis(where)
        server.start()
        try:
            yield server
        finally:
            server.stop()


def _other_user(*names: str) -> str:
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in names if name in known)


def required() -> bool:
    """Must everything run here?"""
    return any(os.environ.get(name, "") not in {"", "0", "false"} for name in ("CI", "REQUIRE_ALL"))


@contextmanager
def or_skip() -> Iterator[None]:
    """A server that is missing skips the test by name, or fails it where everything must run."""
    try:
        yield
    except Missing as missing:
        if required():
            raise
        pytest.skip(str(missing))
