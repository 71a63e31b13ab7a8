"""Delivers to one backend what lies in the outbox, in order and in batches, as long as it takes."""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from trunkline_server.traces.base import BackendError, BackendUnavailable, Reader, Record, Sink
from trunkline_server.traces.deleted import Deleted
from trunkline_server.traces.outbox import Cursor, Outbox, Stored
from trunkline_server.traces.status import BackendStatus

#: Traces and bytes of a batch, and seconds that it waits for more.
MOST, MOST_BYTES, LINGER = 500, 4 * 1024 * 1024, 0.25
#: Seconds before the next try after a failure: at first, and at most; half of it is chance.
FIRST_DELAY, LONGEST_DELAY = 0.1, 30.0
#: Seconds that a backend has to open, and to take a batch.
OPENING, WRITING = 30.0, 60.0
#: Seconds between two looks for what is too old.
PRUNING = 300.0
#: How often a trace that is refused alone is tried.
TRIES = 3


class Sender:
    """One task for one backend. What it does touches no other's."""

    def __init__(
        self,
        name: str,
        url: str,
        sink: Sink,
        outbox: Outbox,
        cursors: Path,
        log: Any,
        redact: Callable[[str], str],
        *,
        deleted: Deleted,
        reader: Reader | None = None,
        keep: float | None = None,
        keep_bytes: int | None = None,
    ) -> None:
        """`reader`: of the same backend, which can take a record out again. `keep`: seconds that it keeps traces."""
        self.status = BackendStatus(name)
        self._sink = sink
        self._outbox = outbox
        # The same backend, also if its password was changed.
        where = url.rpartition("@")[2] if "@" in url else url
        self._path = cursors / f"{name}-{hashlib.sha256(where.encode()).hexdigest()[:12]}"
        self._cursor = Cursor(min(self._read_cursor(), outbox.next))
        self._log = log
        self._redact = redact
        self._deleted = deleted
        self._reader = reader
        self._keep = keep
        self._keep_bytes = keep_bytes
        self._pruned_at = time.monotonic() - PRUNING + 10.0
        self._more = asyncio.Event()
        self._hurry = asyncio.Event()
        self._failures_before = 0
        self._opened = False
        self._batch: Sequence[Stored] = ()
        #: One trace at a time: the backend has refused all of a batch.
        self._alone = False
        self._tried, self._tries = "", 0
        #: How often taking records out again has failed, one time after the other.
        self._untaken = 0

    @property
    def cursor_file(self) -> Path:
        return self._path

    @property
    def delivered(self) -> int:
        """Number of the first trace that the backend has not taken."""
        return self._batch[0].number if self._batch else self._cursor.next

    def wake(self) -> None:
        """There is more in the outbox."""
        self._more.set()

    def hurry(self) -> None:
        """From now on nothing waits for more."""
        self._failures_before = self.status.failures
        self._hurry.set()
        self._more.set()

    @property
    def hopeless(self) -> bool:
        """It was in a hurry, and fails again and again."""
        return self._hurry.is_set() and not self.status.up and self.status.failures - self._failures_before >= TRIES

    def measure(self) -> BackendStatus:
        """How it goes now."""
        status = self.status
        first = max(self.delivered, self._outbox.first)
        status.waiting = self._outbox.next - first
        batch = self._batch
        if status.waiting and not batch and not self._opened:
            with suppress(OSError):
                batch = self._outbox.read(Cursor(first), 1, 1)
        status.oldest = max(0.0, time.time() - batch[0].at) if batch else 0.0
        return status

    async def run(self) -> None:
        """Until it is cancelled."""
        delay = FIRST_DELAY
        while True:
            try:
                await self._step()
                delay = FIRST_DELAY
            except Exception as error:  # noqa: BLE001  # whatever a backend does, it is tried again
                self._failed(error)
                await self._pause(delay * (0.5 + random.random() / 2))  # noqa: S311  # no secret
                delay = min(LONGEST_DELAY, delay * 2)

    async def aclose(self) -> None:
        with suppress(Exception):
            async with asyncio.timeout(2.0):
                await self._sink.aclose()
                if self._reader is not None:
                    await self._reader.aclose()

    async def _step(self) -> None:
        """One batch, when there is one."""
        if not self._opened:
            async with asyncio.timeout(OPENING):
                await self._sink.open()
            self._opened = True
        if not self._batch:
            await self._prune()
            if not await self._take():
                return
        count = 1 if self._alone else len(self._batch)
        ids = [stored.id for stored in self._batch[:count]]
        left_out = frozenset(self._deleted.among(ids))
        if len(left_out) < count:
            batch = [stored for stored in self._batch[:count] if stored.id not in left_out]
            await self._write([Record(stored.id, stored.payload) for stored in batch])
        # Also what was deleted while it was written, or written before and not noted: we died.
        await self._take_out(self._deleted.among(ids))
        self._alone, self._batch = False, self._batch[count:]
        self._write_cursor()
        if not self.status.up:
            self.status.up = True
            self._log.info("trace backend is back", backend=self.status.name)

    async def _take(self) -> bool:
        """Waits for the next batch."""
        self._more.clear()
        if self._cursor.next >= self._outbox.next:
            with suppress(TimeoutError):
                async with asyncio.timeout(PRUNING if self._keep or self._keep_bytes else None):
                    await self._more.wait()
        if self._outbox.next - self._cursor.next < MOST:
            with suppress(TimeoutError):
                async with asyncio.timeout(LINGER):
                    await self._hurry.wait()
        before = self._cursor.next
        self._batch = self._outbox.read(self._cursor, MOST, MOST_BYTES)
        begins = self._batch[0].number if self._batch else self._cursor.next
        self.status.dropped += max(0, begins - before)
        return bool(self._batch)

    async def _write(self, records: Sequence[Record]) -> None:
        """All but those that the backend refuses for themselves. Raises what it raises if it takes none."""
        refused = await self._parts(records)
        if refused and len(refused) == len(records):
            # It may be the backend's fault. If not, the next ones are taken.
            self._alone = True
            first = records[0].id
            self._tries = self._tries + 1 if self._tried == first else 1
            self._tried = first
            if len(records) > 1 or self._tries < TRIES:
                raise next(iter(refused.values()))
        for trace_id, error in refused.items():
            self.status.rejected += 1
            self._log.error(
                "trace refused", backend=self.status.name, trace=trace_id, error=self._redact(f"{error!r}")[:1000]
            )
        self.status.delivered += len(records) - len(refused)

    async def _take_out(self, ids: Sequence[str]) -> None:
        """Deletes them where they were written all the same. Raises what the backend raises, but not for ever."""
        if self._reader is None:
            return
        for trace_id in ids:
            try:
                async with asyncio.timeout(WRITING):
                    await self._reader.delete(trace_id)
            except Exception as error:
                self._untaken += 1
                if self._untaken < TRIES:
                    raise
                # It takes what is written: the next ones shall not wait for this.
                self._log.error(
                    "a deleted trace may be there again: delete it again",
                    backend=self.status.name, trace=trace_id, error=self._redact(f"{error!r}")[:1000],
                )  # fmt: skip
            self._untaken = 0

    async def _parts(self, records: Sequence[Record]) -> dict[str, Exception]:
        """Writes all, in halves where that fails. Returns those that are refused alone."""
        try:
            async with asyncio.timeout(WRITING):
                await self._sink.write(records)
        except (BackendUnavailable, BackendError, OSError, TimeoutError):
            raise
        except Exception as error:  # noqa: BLE001  # of a driver: it may be one record's fault
            if len(records) == 1:
                return {records[0].id: error}
            middle = len(records) // 2
            return {**await self._parts(records[:middle]), **await self._parts(records[middle:])}
        return {}

    async def _prune(self) -> None:
        if (self._keep is None and self._keep_bytes is None) or time.monotonic() - self._pruned_at < PRUNING:
            return
        self._pruned_at = time.monotonic()
        before = 0.0 if self._keep is None else time.time() - self._keep
        async with asyncio.timeout(OPENING):
            count = await self._sink.prune(before, self._keep_bytes)
        if count:
            self.status.pruned += count
            self._log.info("old traces deleted", backend=self.status.name, count=count)

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurry.wait()
        if self._hurry.is_set():
            # The server goes down: it is tried a little faster than that.
            await asyncio.sleep(min(seconds, 0.2))

    def _failed(self, error: Exception) -> None:
        self._opened = False
        self.status.failures += 1
        if self.status.up:
            self.status.up = False
            why = "it does not answer in time" if isinstance(error, TimeoutError) else str(error) or repr(error)
            self._log.warning("trace backend is down", backend=self.status.name, error=self._redact(why)[:1000])

    def _read_cursor(self) -> int:
        try:
            return int(self._path.read_text())
        except (OSError, ValueError):
            return 0

    def _write_cursor(self) -> None:
        with suppress(OSError):  # it costs nothing but that traces are delivered again
            written = self._path.with_suffix(".new")
            written.write_text(str(self.delivered))
            written.replace(self._path)
