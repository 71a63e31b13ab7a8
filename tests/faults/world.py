"""Where scenarios happen: a fault upstream in this process, the server in a process of its own, and callers."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from tests.faults.scripts import in_turn
from tests.faults.seen import Provided, Seen
from tests.faults.table import STREAM, Row
from tests.gateway import Failed, create, stream
from tests.process import ServerProcess, server_process
from tests.upstream import Exchange, Script, upstream

from trunkline.v1.completion_service_pb2_grpc import CompletionServiceStub

#: Limits of a provider that a scenario waits for, in seconds.
TIMEOUTS = {"connect": 2.0, "first_token": 1.0, "idle": 1.0, "total_unary": 30.0, "total_stream": 60.0}
#: A provider may take this long to notice that its caller has gone.
_SETTLES = 2.0


@dataclass
class World:
    """One server and its providers."""

    folder: Path
    workers: int
    rows: Sequence[Row]
    url: str = ""
    server: ServerProcess | None = None
    channel: grpc.aio.Channel | None = None
    _scripts: dict[tuple[str, str], Iterator[Script]] = field(default_factory=dict)
    _requests: dict[str, dict[str, list[Exchange]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )

    @property
    def stub(self) -> Any:
        assert self.channel is not None
        return CompletionServiceStub(self.channel)

    # -- the providers' end -------------------------------------------------------------------------------------------

    async def answer(self, exchange: Exchange) -> None:
        """Every request's path begins with the scenario and its target."""
        _, scenario, target, *_ = f"{exchange.path}//".split("/")
        if (scenario, target) not in self._scripts:
            # A peer looks around by itself.
            await exchange.answer({"error": {"message": "no such path"}}, 404)
            return
        self._requests[scenario][target].append(exchange)
        await next(self._scripts[scenario, target])(exchange)

    def provided(self, scenario: str) -> Provided:
        return Provided(self._requests[scenario])

    def forget(self, scenario: str) -> None:
        """What was asked before is of another try."""
        self._requests.pop(scenario, None)

    async def settled(self, scenario: str) -> None:
        """Returns when the connections of the scenario's last requests have ended, or will not."""
        waiting = [
            asyncio.ensure_future(requests[-1].gone())
            for requests in self._requests[scenario].values()
            if requests and requests[-1].closed_at is None
        ]
        if waiting:
            await asyncio.wait(waiting, timeout=_SETTLES)
        for task in waiting:
            task.cancel()

    # -- the configuration --------------------------------------------------------------------------------------------

    def settings(self) -> dict[str, Any]:
        """One provider for each target of each kind of call of each row, and a route to them by the row's name."""
        providers: dict[str, Any] = {"fake": {}}
        models: dict[str, Any] = {}
        for row in self.rows:
            for kind in row.kinds:
                scenario = f"{row.slug}-{kind}"
                for target, scripts in row.targets.items():
                    if scripts:
                        self._scripts[scenario, target] = in_turn(scripts)
                    providers[f"{scenario}-{target}"] = {
                        "kind": "vllm",
                        "base_url": row.addresses.get(target, f"{self.url}/{scenario}/{target}/v1"),
                        "timeouts": TIMEOUTS,
                        **row.provider,
                    }
                models[scenario] = {
                    "targets": [
                        {"model": f"{scenario}-{target}/m", "priority": index}
                        for index, target in enumerate(row.targets)
                    ],
                    **row.route,
                }
        return {
            "providers": providers,
            "models": models,
            "workers": self.workers,
            "drain": {"grace": 5},
            "log": {"level": "info"},
            "state_dir": str(self.folder / "state"),
        }


@asynccontextmanager
async def world(folder: Path, rows: Sequence[Row], workers: int) -> AsyncIterator[World]:
    """Serves while the block runs."""
    made = World(folder, workers, rows)
    async with upstream(made.answer) as up:
        made.url = up.url
        async with server_process(folder, **made.settings()) as server:
            made.server = server
            async with grpc.aio.insecure_channel(
                await server.address(),
                [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)],
            ) as channel:
                made.channel = channel
                yield made


# -- what callers do --------------------------------------------------------------------------------------------------


async def reads_to_the_end(world: World, row: Row, kind: str) -> Seen:
    """An ordinary caller."""
    if kind == STREAM:
        return await read(stream_call(world, row, kind))
    seen = Seen()
    call = world.stub.CreateCompletion(unary_request(row, kind), timeout=row.deadline)
    try:
        answer = (await call).completion
    except grpc.aio.AioRpcError as error:
        fail(seen, error)
    else:
        seen.ended = time.monotonic()
        seen.complete, seen.code = True, "OK"
        seen.attempts, seen.completion_id = answer.attempts, answer.id
        seen.text = "".join(part.text.text for part in answer.choices[0].message.parts)
        seen.output_tokens = answer.usage.output_tokens
    return seen


def unary_request(row: Row, kind: str) -> Any:
    return create(f"{row.slug}-{kind}", row.prompt, options=dict(row.options))


def stream_call(world: World, row: Row, kind: str) -> Any:
    request = stream(
        f"{row.slug}-{kind}", row.prompt, options=dict(row.options), stream_options=dict(row.stream_options)
    )
    return world.stub.StreamCompletion(request, timeout=row.deadline)


async def read(call: Any, seen: Seen | None = None, *, until: str = "", pause: float = 0.0) -> Seen:
    """Reads a stream, held to the contract's rules: to its end, or up to an event of a kind."""
    seen = seen or Seen()
    try:
        while (event := await call.read()) is not grpc.aio.EOF:
            if pause:
                await asyncio.sleep(pause)
            seen.collector.add(event)
            seen.events += 1
            note(seen, event)
            if until and event.WhichOneof("event") == until:
                return seen
        seen.collector.end()
        seen.ended = time.monotonic()
        seen.complete, seen.code = True, "OK"
    except grpc.aio.AioRpcError as error:
        fail(seen, error)
    return seen


def note(seen: Seen, event: Any) -> None:
    kind = event.WhichOneof("event")
    if kind == "started":
        seen.completion_id = event.started.completion_id
    elif kind == "part_delta":
        seen.text += event.part_delta.text
    elif kind == "part_started":
        seen.text += event.part_started.part.text.text
    elif kind == "restarted":
        seen.restarts += 1
        seen.text = ""
    elif kind == "heartbeat":
        seen.heartbeats += 1
    elif kind == "finished":
        seen.attempts, seen.output_tokens = event.finished.attempts, event.finished.usage.output_tokens


def fail(seen: Seen, error: grpc.aio.AioRpcError) -> None:
    seen.ended = time.monotonic()
    told = Failed.of(error)
    seen.code, seen.reason, seen.message, seen.pushback = told.code.name, told.reason, told.message, told.pushback
    if "RetryInfo" in told.details:
        seen.retry_after = told.details["RetryInfo"].retry_delay.ToTimedelta().total_seconds()
    if "LlmErrorDetail" in told.details:
        seen.attempts, seen.last_sequence = len(told.detail.attempts), told.detail.last_sequence_number
        seen.completion_id = told.detail.completion_id


async def leaves(call: Any, seen: Seen) -> Seen:
    """The caller cancels; its own library then tells it so."""
    seen.ended = time.monotonic()
    call.cancel()
    if not isinstance(call, grpc.aio.UnaryStreamCall):
        with suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
            await call
    seen.code = "CANCELLED"
    return seen
