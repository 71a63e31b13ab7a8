"""Logs: JSON or text, one line a call. The event loop never waits for whoever reads them."""

from __future__ import annotations

import atexit
import collections
import datetime as dt
import logging
import sys
import threading
import time
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from typing import Any, TextIO, TypeAlias

import msgspec

#: Lines that wait for a reader who is slow; more are dropped and counted.
MOST_WAITING = 10_000
#: Seconds in which lines gather before they are written together.
_GATHER = 0.02
#: Characters that a pipe takes in one piece (PIPE_BUF).
_WHOLE = 4096
#: Longest wait at the end of the process for lines that nobody reads, in seconds.
_PATIENCE = 2.0

#: Takes what is told of a call, by name.
AccessLog: TypeAlias = Callable[[dict[str, object]], None]


class LineWriter:
    """Writes whole lines to a stream, from a thread of its own: a pipe that is full holds up that thread alone.

    Up to `most` lines wait; then new ones are dropped and counted, and a line tells how many as soon as there is room.
    """

    def __init__(
        self, stream: TextIO, most: int = MOST_WAITING, *, on_drop: Callable[[], object] | None = None
    ) -> None:
        #: Lines dropped so far.
        self.dropped = 0
        self._on_drop = on_drop
        self._stream = stream
        self._most = most
        self._lines: collections.deque[str] = collections.deque()
        self._told = 0
        self._more = threading.Event()
        self._hurry = threading.Event()
        self._closing = threading.Event()
        # A thread that ends may meet the one that follows it.
        self._lock = threading.Lock()
        self._writing = False
        self._thread: threading.Thread | None = None

    def write(self, text: str) -> None:
        """Never waits and never raises. `text`: one line and its end."""
        if len(self._lines) >= self._most:
            self.dropped += 1
            if self._on_drop is not None:
                self._on_drop()
            return
        self._lines.append(text)
        if not self._more.is_set():
            self._more.set()
            if self._thread is None:
                self._start()

    def flush(self) -> None:
        """As a stream has it. Lines leave by themselves; `drain` waits for it."""

    def isatty(self) -> bool:
        return self._stream.isatty()

    def drain(self, patience: float = _PATIENCE) -> bool:
        """Waits until all lines are written; False if that takes longer than `patience` seconds."""
        until = time.monotonic() + patience
        self._hurry.set()
        while (self._lines or self._writing) and time.monotonic() < until:
            time.sleep(0.001)
        self._hurry.clear()
        return not (self._lines or self._writing)

    def close(self, patience: float = _PATIENCE) -> bool:
        """As `drain`, and the thread ends. A line that is written later begins another."""
        done = self.drain(patience)
        self._closing.set()
        self._more.set()
        return done

    def _start(self) -> None:
        # A daemon: a reader who never reads must not keep the process alive.
        self._closing.clear()
        self._thread = threading.Thread(target=self._run, name="trunkline-log", daemon=True)
        self._thread.start()
        atexit.register(self.drain)

    def _run(self) -> None:
        while True:
            self._more.wait()
            if self._closing.is_set() and not self._lines:
                self._thread = None
                self._more.clear()
                if not self._lines:
                    atexit.unregister(self.drain)
                    return
            # Waking up once for many lines costs the event loop less than once for each.
            self._hurry.wait(_GATHER)
            self._more.clear()
            with self._lock:
                self._write_all()

    def _write_all(self) -> None:
        self._writing = True
        while self._lines:
            self._write(self._piece())
        untold = self.dropped - self._told
        if untold:
            self._told += untold
            self._write(line("log lines dropped", "warning", {"count": untold}))
        self._writing = False

    def _piece(self) -> str:
        """Lines for one write. Those of other processes come between writes, not into one that the pipe takes whole."""
        lines = self._lines
        piece = [lines.popleft()]
        size = len(piece[0])
        while lines and (size := size + len(lines[0])) <= _WHOLE:
            piece.append(lines.popleft())
        return "".join(piece)

    def _write(self, text: str) -> None:
        # A stream that cannot be written (a closed pipe, a full disk) is nobody's fault here.
        with suppress(Exception):
            self._stream.write(text)
            self._stream.flush()


def dumps(event: MutableMapping[str, Any], **_: object) -> str:
    return msgspec.json.encode(event, enc_hook=str).decode()


def line(event: str, level: str, facts: dict[str, object]) -> str:
    """As `make_log` writes it in JSON. Changes `facts`."""
    facts["event"], facts["level"], facts["timestamp"] = event, level, dt.datetime.now(dt.UTC)
    return dumps(facts) + "\n"


class JsonLog:
    """Writes an event as one line of JSON, with one write, so that those of other processes come between lines."""

    def __init__(self, stream: TextIO | LineWriter, least: int) -> None:
        """`least`: of the levels of `logging`."""
        self._write = stream.write
        self._least = least

    def debug(self, event: str, **facts: object) -> None:
        self._tell(event, "debug", logging.DEBUG, facts)

    def info(self, event: str, **facts: object) -> None:
        self._tell(event, "info", logging.INFO, facts)

    def warning(self, event: str, **facts: object) -> None:
        self._tell(event, "warning", logging.WARNING, facts)

    def error(self, event: str, **facts: object) -> None:
        self._tell(event, "error", logging.ERROR, facts)

    def _tell(self, event: str, level: str, number: int, facts: dict[str, object]) -> None:
        if number >= self._least:
            self._write(line(event, level, facts))


def make_access_log(
    log: Any, *, form: str = "json", level: str = "info", stream: TextIO | LineWriter | None = None
) -> AccessLog:
    """Writes the line of each call as `make_log(...).info("call", ...)` would, and changes what it is told for it."""
    if form != "json" or logging.getLevelNamesMapping()[level.upper()] > logging.INFO:
        return lambda facts: log.info("call", **facts)
    write = (stream or sys.stderr).write

    def told(facts: dict[str, object]) -> None:
        write(line("call", "info", facts))

    return told


def make_log(*, form: str = "json", level: str = "info", stream: TextIO | LineWriter | None = None) -> Any:
    """A logger that writes lines to a stream, standard error by default: `json`, or `text` for people."""
    to = stream or sys.stderr
    least = logging.getLevelNamesMapping()[level.upper()]
    if form == "json":
        return JsonLog(to, least)
    # It loads rich and pygments, a tenth of the time that a server takes to start.
    import structlog

    return structlog.wrap_logger(
        # One write a line: those of other workers do not come between it and its end.
        structlog.WriteLogger(to),  # type: ignore[arg-type]  # it needs no more of a file than a LineWriter has
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.dev.ConsoleRenderer(colors=to.isatty()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        cache_logger_on_first_use=True,
    ).bind()
