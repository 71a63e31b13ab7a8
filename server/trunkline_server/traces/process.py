"""The delivery process: `python -m trunkline_server.traces.process`, started by the server and told its plan on stdin,
again when the server has read its configuration again.

It ends when stdin does, which is also how it learns that the server is gone: first it delivers what is there. Signals
that reach every process of a server do not end it. Exit codes: 0 all was delivered, 2 a backend cannot be used, 3 some
waits on disk.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trunkline_server.child import heed
from trunkline_server.redact import Redactor
from trunkline_server.telemetry.logs import make_log
from trunkline_server.traces import open_backend
from trunkline_server.traces.assemble import Assembler
from trunkline_server.traces.base import Backend, BackendError
from trunkline_server.traces.masking import Masker
from trunkline_server.traces.pipeline import Pipeline
from trunkline_server.traces.plan import Plan, decode
from trunkline_server.traces.slots import Lock, Slot, left, lock
from trunkline_server.traces.tail import Feeder

#: Seconds between two looks for what servers that are gone have left.
ADOPTING = 60.0
#: Exit code where something waits on disk.
LEFT = 3


def main() -> int:
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    line = sys.stdin.buffer.readline()
    if not line:
        return 0
    return asyncio.run(_run(decode(line)))


async def _run(plan: Plan) -> int:
    redactor = Redactor(plan.secrets)
    log = make_log(form=plan.log_format, level=plan.log_level)
    try:
        backends = [(url, open_backend(url, Path(plan.state_dir))) for url in plan.backends]
    except BackendError as error:
        told = redactor(str(error))
        log.error("trace backend cannot be used", error=told)  # noqa: TRY400  # the text says all
        return 2
    made = _Made(plan, backends, redactor, log)
    stop = heed(lambda line: made.become(decode(line)))
    slot = Slot(Path(plan.slot))
    held = await _delivering(slot, stop)
    if held is None:
        return 0
    feeder = Feeder(slot.tail)
    try:
        await feeder.open()
    except OSError as error:
        log.warning("traces cannot be followed", error=error.strerror)
    adopting = asyncio.create_task(_adopt(made, Path(plan.state_dir)))
    try:
        all_delivered = await made.pipeline(slot, feeder).run(stop, plan.flush)
    finally:
        adopting.cancel()
        await asyncio.gather(adopting, return_exceptions=True)
        await feeder.aclose()
        held.release()
    return 0 if all_delivered else LEFT


class _Made:
    """What every pipeline of this process is made from."""

    def __init__(self, plan: Plan, backends: Sequence[tuple[str, Backend]], redactor: Redactor, log: Any) -> None:
        self.plan = plan
        self._backends = backends
        self._redactor = redactor
        self._log = log
        self._assembler = Assembler(Masker(redactor, plan.redact), plan.kinds, 4 * plan.body_bytes)

    def become(self, plan: Plan) -> None:
        """Masks what the server has come to know as a secret, and prices by what its providers are now."""
        self._redactor.learn(plan.secrets)
        self.plan.kinds.update(plan.kinds)

    def pipeline(self, slot: Slot, feeder: Feeder | None = None) -> Pipeline:
        return Pipeline(slot, self.plan, self._backends, self._assembler, self._redactor, self._log, feeder)


async def _delivering(slot: Slot, stop: asyncio.Event) -> Lock | None:
    """The right to deliver from a slot, when the process before us is done with it; None if we are to stop first."""
    while (held := lock(slot.path / "delivery.lock")) is None and not stop.is_set():  # noqa: ASYNC110  # another process
        await asyncio.sleep(0.05)
    return held


async def _adopt(made: _Made, state_dir: Path) -> None:
    """Delivers what servers that are gone have left, one after the other."""
    while True:
        for slot in left(state_dir):
            server = lock(slot.path / "server.lock")
            if server is None:
                continue
            delivery = lock(slot.path / "delivery.lock")
            try:
                if delivery is not None:
                    stop = asyncio.Event()
                    stop.set()
                    await made.pipeline(slot).run(stop, float("inf"))
                    shutil.rmtree(slot.path, ignore_errors=True)
            finally:
                if delivery is not None:
                    delivery.release()
                server.release()
        await asyncio.sleep(ADOPTING)


if __name__ == "__main__":
    sys.exit(main())
