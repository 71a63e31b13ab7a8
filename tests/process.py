"""The server as a process of its own: `python -m trunkline_server`, told apart by its exit code and its log."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import yaml
from tests.gateway import Reader, Stub
from tests.upstream import PATIENCE

from trunkline.v1 import completion_service_pb2 as pb
from trunkline.v1.completion_service_pb2_grpc import CompletionServiceStub


class ServerProcess:
    """A running server. Its standard error is read as it comes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.output: list[str] = []
        self._more = asyncio.Condition()
        self._reading = asyncio.get_running_loop().create_task(self._read())

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The log so far."""
        return [json.loads(line) for line in self.output if line.startswith("{")]

    @property
    def text(self) -> str:
        return "\n".join(self.output)

    async def line(self, event: str, count: int = 1, patience: float = PATIENCE) -> dict[str, Any]:
        """The log line of the `count`th such event, when it has come."""
        async with asyncio.timeout(patience), self._more:
            while len(found := [line for line in self.lines if line["event"] == event]) < count:
                if self._reading.done():
                    raise AssertionError(f"the server ended without {event!r}:\n{self.text}")
                await self._more.wait()
        return found[count - 1]

    async def address(self) -> str:
        """Where it listens, as soon as it does: processes start slowly on a busy machine."""
        listen = (await self.line("serving", patience=3 * PATIENCE))["listen"]
        assert isinstance(listen, str)
        return listen

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    async def ended(self) -> int:
        """Its exit code."""
        async with asyncio.timeout(PATIENCE):
            code = await self.process.wait()
            await self._reading
        return code

    async def _read(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            async with self._more:
                self.output.append(line.decode().rstrip("\n"))
                self._more.notify_all()
        async with self._more:
            self._more.notify_all()


def write_config(folder: Path, **more: Any) -> Path:
    """A configuration file: the fake provider, on a free port."""
    path = folder / "trunkline.yaml"
    settings = {
        "listen": "127.0.0.1:0", "providers": {"fake": {}}, "local": {"enabled": False}, "traces": "off",
        "state_dir": "/proc/trunkline", **more
    }  # fmt: skip
    path.write_text(yaml.safe_dump(settings))
    return path


@asynccontextmanager
async def server_process(
    folder: Path, *arguments: str, environ: Mapping[str, str] | None = None, **config: Any
) -> AsyncIterator[ServerProcess]:
    """Starts `serve`; what still runs when the block ends is killed."""
    path = write_config(folder, **config)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "trunkline_server", "serve", "--config", str(path), *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(environ or {})},
        start_new_session=True,
    )
    made = ServerProcess(process)
    try:
        yield made
    finally:
        if process.returncode is None:
            # Its workers too: they are of its session.
            os.killpg(process.pid, signal.SIGKILL)
        await made.ended()


@asynccontextmanager
async def connected(address: str) -> AsyncIterator[Stub]:
    """One connection of its own."""
    async with grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield CompletionServiceStub(channel)


def opened(stub: Stub, request: pb.StreamCompletionRequest, **how: Any) -> Reader:
    return Reader(stub.StreamCompletion(request, **how))
