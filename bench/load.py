"""The callers: a process of their own, told what to do line by line on its standard input, in JSON.

It answers each line with one of its own: what was done, or `error`. Connections are kept from line to line, so that
only the first of them pays for connecting.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import uvloop

Job = dict[str, Any]
Done = dict[str, Any]


class Grpc:
    """Calls over a few connections, bytes in and bytes out."""

    def __init__(self, address: str, connections: int) -> None:
        # Without a pool of its own, a channel shares the connection of the others.
        options = [("grpc.use_local_subchannel_pool", 1)]
        self._channels = [grpc.aio.insecure_channel(address, options=options) for _ in range(connections)]

    async def unary(self, at: int, job: Job) -> None:
        await self._channels[at % len(self._channels)].unary_unary(job["method"])(
            job["body"], metadata=job["metadata"], timeout=60
        )

    async def stream(self, at: int, job: Job) -> int:
        """Messages received."""
        count = 0
        async for _ in self.open(at, job):
            count += 1
        return count

    def open(self, at: int, job: Job) -> Any:
        channel = self._channels[at % len(self._channels)]
        return channel.unary_stream(job["method"])(job["body"], metadata=job["metadata"], timeout=120)


class Http:
    """POSTs over kept connections, one for each caller."""

    def __init__(self, address: str, _: int) -> None:
        self._host, _colon, self._port = address.rpartition(":")
        self._open: dict[int, tuple[asyncio.StreamReader, asyncio.StreamWriter]] = {}

    async def unary(self, at: int, job: Job) -> None:
        await self._post(at, job)

    async def stream(self, at: int, job: Job) -> int:
        """Events received."""
        return (await self._post(at, job)).count(b"data: {")

    async def _post(self, at: int, job: Job) -> bytes:
        if at not in self._open or self._open[at][0].at_eof():  # closed meanwhile: it was idle for long
            self._open[at] = await asyncio.open_connection(self._host, int(self._port), limit=2**24)
        reader, writer = self._open[at]
        lines = [f"POST {job['method']} HTTP/1.1", f"host: {self._host}:{self._port}", *map(": ".join, job["metadata"])]
        lines += ["content-type: application/json", f"content-length: {len(job['body'])}", "", ""]
        writer.write("\r\n".join(lines).encode() + job["body"])
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        _, sized, length = head.partition(b"content-length:")
        if sized:
            body = await reader.readexactly(int(length.partition(b"\r\n")[0]))
        else:
            body = await _chunks(reader)
        if head.split(b" ", 2)[1] != b"200":
            raise OSError(f"HTTP {head[9:12].decode()}: {body[:300]!r}")
        return body


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = []
    while True:
        size = int(await reader.readuntil(b"\r\n"), 16)
        body.append((await reader.readexactly(size + 2))[:size])
        if not size:
            return b"".join(body)


class Load:
    """Runs jobs."""

    def __init__(self) -> None:
        self._callers: dict[tuple[str, str, int], Grpc | Http] = {}
        self._held: list[tuple[Any, asyncio.Task[None]]] = []

    async def run(self, job: Job) -> Done:
        job["body"] = base64.b64decode(job.get("body", ""))
        job["metadata"] = [(name, value) for name, value in job.get("metadata", ())]
        do: Callable[[Job], Awaitable[Done]] = getattr(self, f"_{job['do']}")
        return await do(job)

    def _to(self, job: Job) -> Any:
        key = (job["protocol"], job["address"], job["connections"])
        if key not in self._callers:
            self._callers[key] = (Grpc if key[0] == "grpc" else Http)(*key[1:])
        return self._callers[key]

    async def _unary(self, job: Job) -> Done:
        """`callers` side by side, each making `calls` one after the other."""
        to, calls = self._to(job), job["calls"]

        async def caller(at: int) -> None:
            for _ in range(calls):
                await to.unary(at, job)

        await asyncio.gather(*map(caller, range(job["callers"])))
        return {"calls": job["callers"] * calls}

    async def _stream(self, job: Job) -> Done:
        to, calls = self._to(job), job["calls"]

        async def caller(at: int) -> int:
            return sum([await to.stream(at, job) for _ in range(calls)])

        counts = await asyncio.gather(*map(caller, range(job["callers"])))
        return {"calls": job["callers"] * calls, "messages": sum(counts)}

    async def _alone(self, job: Job) -> Done:
        """One call at a time; how long each took, in seconds."""
        to, seconds = self._to(job), []
        for _ in range(job["calls"]):
            began = time.perf_counter()
            await to.unary(0, job)
            seconds.append(time.perf_counter() - began)
        return {"seconds": seconds}

    async def _hold(self, job: Job) -> Done:
        """Opens streams and returns when each has received its `text`; they stay open until `release`."""
        to = self._to(job)
        ready: list[asyncio.Event] = []

        async def read(call: Any, got: asyncio.Event) -> None:
            received = 0
            async for message in call:
                received += message.count(job["text"].encode())
                if received >= job["count"]:
                    got.set()

        for at in range(job["callers"]):
            call, got = to.open(at, job), asyncio.Event()
            self._held.append((call, asyncio.get_running_loop().create_task(read(call, got))))
            ready.append(got)
        waiting = asyncio.ensure_future(asyncio.gather(*(got.wait() for got in ready)))
        ended: list[asyncio.Future[Any]] = [task for _, task in self._held]
        done, _ = await asyncio.wait([waiting, *ended], return_when=asyncio.FIRST_COMPLETED)
        if waiting not in done:
            waiting.cancel()
            await done.pop()
            raise OSError("a stream that was to be held has ended")
        return {"calls": len(ready)}

    async def _release(self, _: Job) -> Done:
        for call, _task in self._held:
            call.cancel()
        await asyncio.gather(*(task for _, task in self._held), return_exceptions=True)
        self._held.clear()
        return {}


async def main() -> None:
    loop, load = asyncio.get_running_loop(), Load()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        try:
            answer = await load.run(json.loads(line))
        except (OSError, EOFError, ValueError, grpc.RpcError) as error:
            story = error.details() if isinstance(error, grpc.aio.AioRpcError) else str(error)
            answer = {"error": f"{type(error).__name__}: {story}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    uvloop.run(main())
