"""From the journals of one slot through its outbox to every backend."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from math import isfinite
from typing import Any

from trunkline_server.redact import Redactor
from trunkline_server.traces.assemble import Assembler, bare
from trunkline_server.traces.base import Backend
from trunkline_server.traces.deleted import Deleted
from trunkline_server.traces.journals import Ended, Journals
from trunkline_server.traces.outbox import Outbox
from trunkline_server.traces.plan import Plan
from trunkline_server.traces.sender import Sender
from trunkline_server.traces.slots import Slot
from trunkline_server.traces.status import Status, write
from trunkline_server.traces.tail import Feeder

#: Calls assembled between two looks at what else there is to do.
AT_ONCE = 64
#: Seconds between two looks at the journals while calls end, and while none does.
BUSY, IDLE = 0.05, 0.2
#: Seconds between two looks at processes, files and figures.
HOUSEKEEPING = 0.5


class Pipeline:
    """Made and run in the delivery process."""

    def __init__(
        self,
        slot: Slot,
        plan: Plan,
        backends: Sequence[tuple[str, Backend]],
        assembler: Assembler,
        redactor: Redactor,
        log: Any,
        feeder: Feeder | None = None,
    ) -> None:
        """`backends` by URL. Raises OSError."""
        self._slot = slot
        self._assembler = assembler
        self._log = log
        self._feeder = feeder
        self._outbox = Outbox(slot.outbox, plan.spool_bytes)
        self._outbox.open()
        self._journals = Journals(slot.journal, done=self._outbox.marks)
        self._deleted = Deleted(slot.deleted)
        self._senders = [
            Sender(
                backend.name,
                url,
                backend.sink(),
                self._outbox,
                slot.cursors,
                log,
                redactor,
                deleted=self._deleted,
                reader=backend.reader(),
                keep=plan.keep,
                keep_bytes=plan.keep_bytes,
            )
            for url, backend in backends
        ]
        self._forget_cursors()
        self._status = Status(pid=os.getpid())
        #: Made, and not in the outbox yet: the disk takes nothing.
        self._made: list[tuple[str, bytes]] = []
        self._full = False
        self._dropped = 0
        self._housekeeping_at = 0.0

    async def run(self, stop: asyncio.Event, flush: float) -> bool:
        """Until `stop` is set; then until all is delivered, for `flush` seconds at most. True if all was."""
        tasks = [asyncio.create_task(sender.run()) for sender in self._senders]
        until: float | None = None
        try:
            while True:
                busy = self._pass()
                if busy:
                    await asyncio.sleep(0)
                    if until is None or time.monotonic() < until:
                        continue
                if stop.is_set():
                    if until is None:
                        until = time.monotonic() + flush
                        for sender in self._senders if isfinite(flush) else ():
                            sender.hurry()
                    if self.done or time.monotonic() >= until:
                        return self.done and self._delivered == self._outbox.next
                with suppress(TimeoutError):
                    async with asyncio.timeout(BUSY if stop.is_set() or self._journals.open else IDLE):
                        await (asyncio.sleep(BUSY) if stop.is_set() else stop.wait())
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.gather(*(sender.aclose() for sender in self._senders))
            self._keep_house(last=True)
            self._journals.close()
            self._outbox.close()

    @property
    def done(self) -> bool:
        """All that there was is delivered as far as it can be, and nothing more comes."""
        return (
            not self._made
            and self._journals.idle
            and all(sender.delivered == self._outbox.next or sender.hopeless for sender in self._senders)
        )

    @property
    def _delivered(self) -> int:
        return min((sender.delivered for sender in self._senders), default=self._outbox.next)

    def _pass(self) -> bool:
        """False if there was nothing to do."""
        if not self._made or self._store():
            ended = self._journals.read(AT_ONCE)
            if not ended and time.monotonic() - self._housekeeping_at > HOUSEKEEPING:
                self._housekeeping_at = time.monotonic()
                ended = self._journals.interrupted()
                if not ended:
                    self._deleted.forget(min(self._outbox.first, self._delivered), self._outbox.next)
                self._keep_house()
            if ended:
                self._made = [self._assembled(one) for one in ended]
                return self._store()
        return False

    def _assembled(self, ended: Ended) -> tuple[str, bytes]:
        try:
            return ended.id, self._assembler.payload(ended)
        except Exception as error:  # noqa: BLE001  # a call that cannot be understood is still a call
            self._log.error("trace cannot be made", trace=ended.id, error=type(error).__name__)
            return ended.id, bare(ended).SerializeToString()

    def _store(self) -> bool:
        """False if the disk takes nothing now."""
        try:
            self._outbox.append(self._made, self._journals.marks(), self._journals.lost)
        except OSError as error:
            if not self._full:
                self._full = True
                self._log.error("traces cannot be stored for delivery", error=error.strerror or str(error))
            self._drop()
            return False
        if self._full:
            self._full = False
            self._log.info("traces are stored again")
        if self._feeder is not None and self._feeder.wanted:
            for _, payload in self._made:
                self._feeder.send(payload)
        self._status.made += len(self._made)
        self._made = []
        for sender in self._senders:
            sender.wake()
        return True

    def _keep_house(self, *, last: bool = False) -> None:
        if not self._made:
            with suppress(OSError):
                self._journals.tidy()
        self._drop(last=last)
        self._measure()

    def _drop(self, *, last: bool = False) -> None:
        with suppress(OSError):
            dropped = self._outbox.drop(self._delivered, self._journals.size, last=last)
            if dropped:
                self._dropped += dropped
                self._log.error("traces dropped: no backend took them, and the disk's bound is reached", count=dropped)

    def _measure(self) -> None:
        status = self._status
        status.at = time.time()
        status.spool_bytes = self._outbox.size + self._journals.size
        status.open, status.lost = self._journals.open, self._journals.lost
        status.backends = [sender.measure() for sender in self._senders]
        with suppress(OSError):
            write(self._slot.status, status)

    def _forget_cursors(self) -> None:
        """Of backends that are no longer configured."""
        known = {sender.cursor_file for sender in self._senders}
        for path in self._slot.cursors.iterdir():
            if path not in known:
                path.unlink(missing_ok=True)
