"""The embedded engine, reached over a socket: one process holds it, started by the sink, for sink and readers.

chDB lets one process at a time open a folder, takes 300 MB, and would take the delivery to all other backends with it
if it crashed.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from trunkline_server.traces.base import BackendUnavailable
from trunkline_server.traces.clickhouse.address import Place
from trunkline_server.traces.clickhouse.engine import refused

#: Bytes of the length before every message.
HEAD = 4

#: Most seconds until the engine answers for the first time, and until it has ended.
_STARTS, _ENDS = 60.0, 10.0


class Holder:
    """Starts the process that holds the engine, unless another one of the same folder answers already."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._process: asyncio.subprocess.Process | None = None

    async def ensure(self) -> None:
        """Returns when it answers. Raises BackendUnavailable."""
        if await self._answers():
            return
        await self.end()
        place = self._place
        place.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # The pipe tells it when we are gone, however we went; a session of its own keeps Ctrl-C away from it.
        with place.log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "trunkline_server.traces.clickhouse.holder", place.folder, place.socket,
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=log, start_new_session=True,
            )  # fmt: skip
        loop = asyncio.get_running_loop()
        until = loop.time() + _STARTS
        while not await self._answers():
            if self._process.returncode is not None:
                raise refused(None, f"the engine does not start: {self._last_words()}")
            if loop.time() > until:
                await self.end()
                raise refused(None, "the engine does not start in time")
            await asyncio.sleep(0.05)

    async def end(self) -> None:
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(_ENDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    def _last_words(self) -> str:
        return self._place.log.read_text(errors="replace").strip().rpartition("\n")[2]

    async def _answers(self) -> bool:
        try:
            await ask(self._place, {"ask": "hello"}, seconds=5.0)
        except BackendUnavailable:
            return False
        return True


class EmbeddedEngine:
    """A connection for each statement. Used by many tasks side by side."""

    def __init__(self, place: Place, holder: Holder | None = None) -> None:
        """`holder`: of the one that writes."""
        self._place = place
        self._holder = holder

    async def open(self) -> None:
        if self._holder is not None:
            await self._holder.ensure()

    async def query(
        self, statement: str, parameters: Mapping[str, Any], *, seconds: float, raw: Sequence[str] = ()
    ) -> Sequence[Sequence[Any]]:
        message = {"ask": "query", "statement": statement, "parameters": dict(parameters), "raw": list(raw)}
        rows: Sequence[Sequence[Any]] = await ask(self._place, {**message, "seconds": seconds}, seconds)
        return rows

    async def command(self, statement: str, parameters: Mapping[str, Any], *, seconds: float) -> None:
        message = {"ask": "command", "statement": statement, "parameters": dict(parameters)}
        await ask(self._place, {**message, "seconds": seconds}, seconds)

    async def insert(
        self, table: str, columns: Mapping[str, str], rows: Sequence[Sequence[Any]], *, seconds: float
    ) -> None:
        where = {"table": table, "database": self._place.options.database, "columns": dict(columns)}
        await ask(self._place, {"ask": "insert", **where, "rows": rows, "seconds": seconds}, seconds)

    async def aclose(self) -> None:
        if self._holder is not None:
            await self._holder.end()


async def ask(place: Place, message: Mapping[str, Any], seconds: float) -> Any:
    """What the process that holds the engine answers. Raises BackendUnavailable."""
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_unix_connection(os.fspath(place.socket))
            try:
                writer.write(framed(message))
                await writer.drain()
                answer = await received(reader)
            finally:
                writer.close()
    except TimeoutError:
        raise refused(None, "no answer in time") from None
    except (OSError, EOFError):
        raise refused(None, "the process that holds the engine does not run") from None
    if "error" in answer:
        raise refused(answer.get("code"), answer["error"])
    return answer["rows"]


def framed(message: Mapping[str, Any]) -> bytes:
    data = msgspec.msgpack.encode(message)
    return len(data).to_bytes(HEAD) + data


async def received(reader: asyncio.StreamReader) -> dict[str, Any]:
    """Raises EOFError at the end."""
    length = int.from_bytes(await reader.readexactly(HEAD))
    message: dict[str, Any] = msgspec.msgpack.decode(await reader.readexactly(length))
    return message
