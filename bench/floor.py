"""The least that a call can cost: empty grpc.aio handlers on uvloop, of the same shapes as trunkline's.

Prints its port and serves until it is ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import uvloop

from bench.workload import BURSTY, PACED, Call

SERVICE = "bench.Floor"
UNARY = f"/{SERVICE}/Unary"
STREAM = {PACED.model: f"/{SERVICE}/Paced", BURSTY.model: f"/{SERVICE}/BackToBack"}


async def _unary(_: bytes, __: Any) -> bytes:
    return b""


def _paced(call: Call) -> Callable[[bytes, Any], Awaitable[None]]:
    async def stream(_: bytes, context: Any) -> None:
        for _number in range(call.events):
            await context.write(b"")
            await asyncio.sleep(call.pause)

    return stream


async def _back_to_back(_: bytes, context: Any) -> None:
    for _number in range(BURSTY.events):
        await context.write(b"")


async def main() -> None:
    server = grpc.aio.server()
    handlers: dict[str, Any] = {
        "Unary": grpc.unary_unary_rpc_method_handler(_unary),
        "Paced": grpc.unary_stream_rpc_method_handler(_paced(PACED)),
        "BackToBack": grpc.unary_stream_rpc_method_handler(_back_to_back),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(main())
