"""Writes records to a sidecar over one connection that lasts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from trunkline_server.traces.base import BackendUnavailable, Record
from trunkline_server.traces.unix import lines

#: Seconds in which a sidecar that does not want this version says so.
GRACE = 0.2
#: Seconds in which it takes a batch, and confirms it.
PATIENCE = 30.0
#: Longest line of a sidecar's.
_LONGEST = 1024 * 1024


class UnixSink:
    """A connection that is lost is made anew with the next batch, which is then sent from its beginning: a sidecar that
    confirms gets every record at least once, and tells repeats apart by their ids.
    """

    def __init__(self, path: Path, *, acks: bool, max_bytes: int) -> None:
        self._path = path
        self._acks = acks
        self._max_bytes = max_bytes
        self._connection: _Connection | None = None

    async def open(self) -> None:
        if self._connection is None or self._connection.over:
            self._disconnect()
            await self._connect()

    async def write(self, records: Sequence[Record]) -> None:
        await self.open()
        connection = self._connection
        try:
            if connection is not None:
                async with asyncio.timeout(PATIENCE):
                    await self._send(connection, records)
        except BaseException as error:
            # What was sent may be half a line.
            self._disconnect()
            if isinstance(error, TimeoutError):
                raise self._unavailable("did not take or confirm a batch in time") from error
            if isinstance(error, OSError):
                raise self._unavailable("hung up") from error
            raise

    async def prune(self, before: float, most_bytes: int | None) -> int:
        return 0

    async def aclose(self) -> None:
        if self._connection is not None:
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._connection.writer.drain()
        self._disconnect()

    async def _connect(self) -> None:
        try:
            reader, writer = await asyncio.open_unix_connection(self._path, limit=_LONGEST)
        except OSError as error:
            raise BackendUnavailable(f"unix: no sidecar answers at {self._path}: {error.strerror or error}") from error
        connection = self._connection = _Connection(reader, writer)
        writer.write(lines.hello(acks=self._acks))
        with suppress(TimeoutError):
            async with asyncio.timeout(GRACE):
                await connection.answered.wait()
        try:
            self._check(connection)
        except BackendUnavailable:
            self._disconnect()
            raise

    async def _send(self, connection: _Connection, records: Sequence[Record]) -> None:
        if self._acks:
            connection.unconfirmed = {record.id for record in records}
        for record in records:
            self._check(connection)
            connection.writer.write(lines.record_line(record, self._max_bytes))
            await connection.writer.drain()
        while connection.unconfirmed:
            connection.confirmed.clear()
            await connection.confirmed.wait()
            self._check(connection)
        self._check(connection)

    def _check(self, connection: _Connection) -> None:
        """Raises BackendUnavailable for a connection that is over."""
        told = connection.refusal
        if told is not None:
            takes = f"; it takes {', '.join(map(str, told.versions))}" if told.versions else ""
            raise self._unavailable(
                f"refuses version {lines.VERSION} of the protocol: {(told.refuse or 'no reason given')[:500]}{takes}"
            )
        if connection.over:
            raise self._unavailable("hung up")

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _unavailable(self, what: str) -> BackendUnavailable:
        return BackendUnavailable(f"unix: the sidecar at {self._path} {what}")


class _Connection:
    """One connection, and what the sidecar has said on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        #: It has said anything, or is over.
        self.answered = asyncio.Event()
        self.refusal: lines.Said | None = None
        self.unconfirmed: set[str] = set()
        #: Some of them were, or the connection is over.
        self.confirmed = asyncio.Event()
        self._listening = asyncio.get_running_loop().create_task(self._listen(reader))

    @property
    def over(self) -> bool:
        return self.writer.is_closing()

    def close(self) -> None:
        self.writer.close()
        self._listening.cancel()

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        """What the sidecar says, until it hangs up."""
        try:
            while line := await reader.readline():
                told = lines.said(line)
                if told is None:
                    continue
                if told.refuse is not None:
                    self.refusal = told
                self.unconfirmed.difference_update(told.acked)
                self.answered.set()
                self.confirmed.set()
        except (OSError, ValueError):
            return
        finally:
            self.writer.close()
            self.answered.set()
            self.confirmed.set()
