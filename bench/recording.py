"""What it costs to record calls: servers that record to a backend against one that does not, in turns, call by call.

CPU of the serving process, and of all processes of the server together, which includes the delivery until every trace
is in the backend. A database's own is not counted.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tests.telemetry.receiver import Receiver, receiver

from bench.gateway import Trunkline
from bench.processes import CannotRun, Load
from bench.report import Figure
from bench.workload import CALLERS, CONNECTIONS, LARGER, PACED, PACED_STREAMS, Call
from tests import services
from trunkline_server.traces import status

#: What the issue of the project holds it to: microseconds more.
MOST_UNARY, MOST_EVENT, MOST_TOGETHER = 80.0, 3.0, 300.0

#: What the server is called that exports spans.
SPANS = "spans"

#: Seconds for a backend to take what was recorded.
PATIENCE = 60.0


@dataclass(frozen=True)
class Workload:
    """Calls of one kind, side by side."""

    what: str
    call: Call
    callers: int
    most: float
    #: Most for all processes together; none: not held to one.
    most_together: float | None = None

    def job(self, calls: int) -> dict[str, Any]:
        do = "stream" if self.call.events else "unary"
        return {
            "do": do,
            "callers": self.callers,
            "calls": 1 if self.call.events else calls,
            "connections": CONNECTIONS,
        }

    def units(self, calls: int) -> int:
        return self.callers * (self.call.events or calls)


WORKLOADS = (
    Workload("unary call with 2 KB", LARGER, CALLERS, MOST_UNARY, MOST_TOGETHER),
    Workload("event at a pace of 2 ms", PACED, PACED_STREAMS, MOST_EVENT),
)


class Recording:
    """A server that records, or does not, and its figures."""

    def __init__(self, server: Trunkline, state: Path | None) -> None:
        self.server = server
        self._status = state / "spool" / "0" / "status.json" if state is not None else None
        if self._status is not None:
            self._wait(lambda: status.read(self._status) is not None)
        server.adopt_children()

    def measure(self, load: Load, workload: Workload, calls: int) -> tuple[float, float]:
        """Microseconds of CPU for each call or event: of the serving process, and of all."""
        alone, together, made = self.server.cpu_alone(), self.server.cpu(), self._made()
        load.run(**workload.job(calls), **self.server.job(workload.call))
        alone = self.server.cpu_alone() - alone
        count = workload.callers * (1 if workload.call.events else calls)
        if self._status is not None:
            self._wait(lambda: self._made() >= made + count and not self._waiting())
        units = workload.units(calls) / 1e6
        return alone / units, (self.server.cpu() - together) / units

    def _made(self) -> int:
        found = status.read(self._status) if self._status is not None else None
        return 0 if found is None else found.made

    def _waiting(self) -> int:
        found = status.read(self._status) if self._status is not None else None
        return 0 if found is None else sum(backend.waiting for backend in found.backends)

    def _wait(self, condition: Any) -> None:
        until = time.monotonic() + PATIENCE
        while not condition():
            self.server.require_running()
            if time.monotonic() > until:
                raise CannotRun(f"what was recorded is not delivered after {PATIENCE:g} s: {self.server.last_words()}")
            time.sleep(0.05)


class Exporting(Recording):
    """A server that records nothing and exports spans over OTLP: one for the call, one for its attempt."""

    def __init__(self, server: Trunkline, to: Receiver) -> None:
        super().__init__(server, None)
        self._to = to

    def measure(self, load: Load, workload: Workload, calls: int) -> tuple[float, float]:
        """The serving process exports by itself: it is measured when all spans have arrived."""
        alone, before = self.server.cpu_alone(), len(self._to.spans)
        load.run(**workload.job(calls), **self.server.job(workload.call))
        count = workload.callers * (1 if workload.call.events else calls)
        self._wait(lambda: len(self._to.spans) >= before + 2 * count)
        alone = (self.server.cpu_alone() - alone) / (workload.units(calls) / 1e6)
        return alone, alone


@contextmanager
def recordings(upstream: str, folder: Path) -> Iterator[Mapping[str, Recording]]:
    """Servers by what they record to; "" records nothing."""
    with ExitStack() as stack:
        backends: dict[str, Any] = {"": "off", "SQLite": ["sqlite:"]}
        try:
            database = stack.enter_context(services.postgresql(durable=True))
            backends["PostgreSQL"] = [{"url_env": "BENCH_TRACES"}]
        except services.Missing:
            database = None
        made = {}
        for name, traces in backends.items():
            state = folder / f"recording-{name or 'off'}"
            state.mkdir()
            env = {"BENCH_TRACES": database.database()} if name == "PostgreSQL" and database is not None else {}
            server = stack.enter_context(Trunkline(upstream, state, env=env, traces=traces, state_dir=str(state)))
            for workload in WORKLOADS:
                server.probe(workload.call)
            made[name] = Recording(server, state if name else None)
        # What it costs to export spans is told beside it, and held to nothing.
        to = stack.enter_context(receiver())
        state = folder / "exporting"
        state.mkdir()
        server = stack.enter_context(Trunkline(upstream, state, otel={"endpoint": to.url}))
        made[SPANS] = Exporting(server, to)
        yield made


def measure(rounds: int, calls: int, upstream: str, folder: Path, load: Load, say: Any) -> Sequence[Figure]:
    """What a call and an event cost more. Raises CannotRun."""
    found: dict[tuple[str, str], tuple[list[float], list[float], list[float]]] = {}
    with recordings(upstream, folder) as servers:
        for number in range(-1, rounds):
            say(f"recording, round {number + 1} of {rounds}" if number >= 0 else "recording, warming up")
            for workload in WORKLOADS:
                alone, together = servers[""].measure(load, workload, calls)
                for name, server in servers.items():
                    if name:
                        more = server.measure(load, workload, calls)
                        if number >= 0:
                            values = found.setdefault((workload.what, name), ([], [], []))
                            values[0].append(more[0] - alone)
                            values[1].append(more[1] - together)
                            values[2].append(more[1] - more[0])
    figures = []
    for workload in WORKLOADS:
        for name in servers:
            if name == SPANS:
                spans, *_ = found[workload.what, name]
                figures.append(Figure(f"more for a {workload.what}, with spans", median(spans), "us", rounds=spans))
            elif name:
                alone_more, together_more, delivery = found[workload.what, name]
                what = f"more for a {workload.what}, recorded to {name}"
                figures.append(Figure(what, median(alone_more), "us", most=workload.most, rounds=alone_more))
                if workload.most_together is not None:
                    figures.append(
                        Figure(
                            f"... by all processes together, {name}",
                            median(together_more),
                            "us",
                            most=workload.most_together,
                            rounds=together_more,
                        )
                    )
                    # No difference of two servers: it says more than the lines above where the machine is busy.
                    figures.append(
                        Figure(f"... of that the delivery's, {name}", median(delivery), "us", rounds=delivery)
                    )
    return figures
