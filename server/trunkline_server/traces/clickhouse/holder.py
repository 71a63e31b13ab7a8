"""The process that holds the embedded engine: `python -m trunkline_server.traces.clickhouse.holder FOLDER SOCKET`.

Ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

#: Statements at once; more wait.
_THREADS = 4


class Engine:
    """Runs statements in threads, each with a client of its own on the one engine."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._threads = ThreadPoolExecutor(_THREADS, "statement")
        self._local = threading.local()
        self._clients: list[Any] = []

    async def run(self, message: Mapping[str, Any]) -> Any:
        if message["ask"] == "hello":
            return None
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._run, message)

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)
        for client in self._clients:
            client.close()

    def check(self) -> None:
        """Raises what opening the folder does."""
        self._client()
        self._clients.pop().close()
        del self._local.client

    def _run(self, message: Mapping[str, Any]) -> Any:
        client, limit = self._client(), {"max_execution_time": message["seconds"]}
        if message["ask"] == "query":
            found = client.query(
                message["statement"],
                parameters=message["parameters"],
                column_formats=dict.fromkeys(message["raw"], "bytes"),
                settings=limit,
            )
            return found.result_rows
        if message["ask"] == "command":
            client.command(message["statement"], parameters=message["parameters"], settings=limit)
        else:
            columns = message["columns"]
            client.insert(
                message["table"],
                message["rows"],
                column_names=list(columns),
                column_type_names=list(columns.values()),
                database=message["database"],
                settings={"max_partitions_per_insert_block": 0},
            )
        return None

    def _client(self) -> Any:
        client = getattr(self._local, "client", None)
        if client is None:
            import clickhouse_connect

            client = self._local.client = clickhouse_connect.get_client(
                interface="chdb", path=self._folder, show_clickhouse_errors="scrub"
            )
            self._clients.append(client)
        return client


async def serve(folder: str, socket: str) -> None:
    """Returns when standard input ends."""
    from trunkline_server.traces.clickhouse.embedded import framed, received

    engine = Engine(folder)
    engine.check()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, EOFError):
            message = await received(reader)
            try:
                reply = {"rows": await engine.run(message)}
            except Exception as error:  # noqa: BLE001  # it goes to whoever asked
                reply = {"error": str(error) or type(error).__name__, "code": _code(error)}
            writer.write(framed(reply))
            await writer.drain()
        writer.close()

    # Whoever held the folder before us is gone, or the check would have failed.
    with suppress(FileNotFoundError):
        os.unlink(socket)  # noqa: PTH108  # nobody waits for this loop yet
    # Nobody else may connect, not even between making the socket and closing it to others.
    old = os.umask(0o177)
    try:
        server = await asyncio.start_unix_server(answer, socket)
    finally:
        os.umask(old)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)
    server.close()
    with suppress(FileNotFoundError):
        os.unlink(socket)  # noqa: PTH108  # nobody waits for this loop any more
    engine.close()


def _code(error: Exception) -> int | None:
    from clickhouse_connect.driver.exceptions import DataError

    # What the driver cannot write it tells as the engine would.
    return 53 if isinstance(error, DataError) else getattr(error, "code", None)


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    try:
        import chdb  # noqa: F401  # what cannot be loaded is told now, and not at the first statement

        asyncio.run(serve(*sys.argv[1:]))
    except Exception as error:  # noqa: BLE001  # whoever started us reads the last line
        sys.exit(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


if __name__ == "__main__":
    main()
