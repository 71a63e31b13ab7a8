"""Scenarios about the server itself: it is told to stop, killed, crowded, or loses what it leans on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import psutil
import trustme
from tests.faults.providers import ROUTE
from tests.faults.scripts import WORDS, answers, in_turn, resets, slow, status, talks_on
from tests.faults.seen import Seen
from tests.faults.table import Story
from tests.faults.world import World, fail, read
from tests.gateway import create, stream
from tests.process import ServerProcess, server_process
from tests.upstream import DONE, Exchange, Script, Upstream, chat_events, piece, says, upstream, usage_event

from trunkline.v1.completion_service_pb2_grpc import CompletionServiceStub

CLOCK = Path(__file__).parent / "clock"
#: A worker's death is told to its callers this soon, in seconds.
AT_ONCE = 1.0


def provider(url: str, **more: Any) -> dict[str, Any]:
    return {"kind": "vllm", "base_url": f"{url}/v1", "timeouts": {"connect": 2, "first_token": 30, "idle": 30}, **more}


@asynccontextmanager
async def served(
    world: World, script: Script, *, environ: dict[str, str] | None = None, **config: Any
) -> AsyncIterator[tuple[Upstream, ServerProcess, Any]]:
    """A provider `up`, a server before it, and a stub."""
    async with upstream(script) as up:
        settings = {
            "providers": {"fake": {}, "up": provider(up.url)},
            "workers": world.workers,
            "drain": {"grace": 5},
            "state_dir": str(world.folder / "state"),
            **config,
        }
        async with (
            server_process(world.folder, environ=environ, **settings) as server,
            grpc.aio.insecure_channel(await server.address(), [("grpc.use_local_subchannel_pool", 1)]) as channel,
        ):
            yield up, server, CompletionServiceStub(channel)


async def whole(stub: Any, model: str = "up/m", **how: Any) -> Seen:
    """A unary call."""
    seen = Seen()
    try:
        answer = (await stub.CreateCompletion(create(model), **{"timeout": 20, **how})).completion
    except grpc.aio.AioRpcError as error:
        fail(seen, error)
    else:
        seen.ended = time.monotonic()
        seen.complete, seen.code, seen.completion_id = True, "OK", answer.id
        seen.text = answer.choices[0].message.parts[0].text.text
        seen.attempts, seen.output_tokens = answer.attempts, answer.usage.output_tokens
    return seen


def begun(stub: Any, model: str = "up/m", **how: Any) -> Any:
    return stub.StreamCompletion(stream(model), **{"timeout": 60, **how})


def ends(seen: Seen, code: str, reason: str) -> tuple[str, bool, object]:
    """The statement that a call ended so."""
    found = (seen.code, seen.reason)
    return f"{code} {reason}", found == (code, reason), found


def broken(*statements: tuple[str, bool, object]) -> list[str]:
    """What of (statement, does it hold, what was found) does not hold."""
    return [f"{text}; found {found!r}" for text, holds, found in statements if not holds]


def paced(words: int, pause: float) -> Script:
    """A stream that lasts."""

    async def script(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.chunk(piece("", role="assistant"))
        for _ in range(words):
            await exchange.chunk(piece("w"))
            await asyncio.sleep(pause)
        for event in (piece(finish="stop"), usage_event(), DONE):
            await exchange.chunk(event)
        await exchange.end()

    return script


# -- going down -------------------------------------------------------------------------------------------------------


async def sigterm_within_the_grace(world: World) -> Sequence[str]:
    async with served(world, paced(20, 0.1)) as (_, server, stub):
        call = begun(stub)
        seen = await read(call, until="part_delta")
        server.signal(signal.SIGTERM)
        seen = await read(call, seen)
        code = await server.ended()
    return broken(
        ("the stream finishes", seen.complete and seen.text == "w" * 20, (seen.code, seen.reason, seen.text)),
        ("exit code 0", code == 0, code),
    )


async def sigterm_beyond_the_grace(world: World) -> Sequence[str]:
    async with served(world, talks_on, drain={"grace": 1}) as (up, server, stub):
        call = begun(stub)
        seen = await read(call, until="part_delta")
        server.signal(signal.SIGTERM)
        seen = await read(call, seen)
        gone = await up.exchanges[0].gone()
        await server.ended()
    return broken(
        (
            "UNAVAILABLE SHUTTING_DOWN",
            (seen.code, seen.reason) == ("UNAVAILABLE", "SHUTTING_DOWN"),
            (seen.code, seen.reason),
        ),
        ("told how far it went", seen.last_sequence == seen.events, (seen.last_sequence, seen.events)),
        ("the provider is stopped", gone - seen.ended <= 0.1, gone - seen.ended),
    )


async def kill_of_a_worker(world: World) -> Sequence[str]:
    """Its callers are told at once, the others go on, and it is replaced."""
    async with served(world, paced(60, 0.1), workers=2) as (_, server, _stub):
        address = await server.address()
        await server.line("serving", 2)
        async with contextlib.AsyncExitStack() as channels:
            # Connections spread over the workers.
            stubs = [
                CompletionServiceStub(
                    await channels.enter_async_context(
                        grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])
                    )
                )
                for _ in range(16)
            ]
            calls = [begun(stub) for stub in stubs]
            seen = [await read(call, until="part_delta") for call in calls]
            victim = max(
                (process for process in psutil.Process(server.pid).children() if _serves(process, address)),
                key=lambda process: len(process.net_connections()),
            )
            killed = time.monotonic()
            victim.kill()
            after = await asyncio.gather(*(read(call, one) for call, one in zip(calls, seen, strict=True)))
            later = await asyncio.gather(*(_until_ok(stub) for stub in stubs))
        replaced = await server.line("serving", 3)
    lost = [one for one in after if not one.complete]
    told = Counter(one.code for one in lost)
    return broken(
        ("some streams were the worker's, not all", 0 < len(lost) < len(after), len(lost)),
        ("UNAVAILABLE", set(told) == {"UNAVAILABLE"}, told),
        ("at once", all(one.ended - killed <= AT_ONCE for one in lost), [one.ended - killed for one in lost]),
        ("new calls go well", all(one.complete for one in later), [one.code for one in later]),
        ("it is replaced", bool(replaced), replaced),
    )


def _serves(process: psutil.Process, address: str) -> bool:
    port = int(address.rpartition(":")[2])
    return any(one.laddr.port == port for one in process.net_connections(kind="tcp"))


async def _until_ok(stub: Any) -> Seen:
    """As a client does whose library repeats UNAVAILABLE."""
    seen = await whole(stub, "fake/echo")
    for _ in range(20):
        if seen.code != "UNAVAILABLE":
            break
        await asyncio.sleep(0.1)
        seen = await whole(stub, "fake/echo")
    return seen


async def kill_of_the_server(world: World) -> Sequence[str]:
    async with served(world, talks_on) as (up, server, stub):
        call = begun(stub)
        seen = await read(call, until="part_delta")
        killed = time.monotonic()
        os.killpg(server.pid, signal.SIGKILL)
        seen = await read(call, seen)
        gone = await up.exchanges[0].gone()
    return broken(
        ("UNAVAILABLE, never OK", (seen.code, seen.complete) == ("UNAVAILABLE", False), seen.code),
        ("at once", seen.ended - killed <= AT_ONCE, seen.ended - killed),
        ("the provider is stopped", gone - killed <= AT_ONCE, gone - killed),
    )


# -- crowds -----------------------------------------------------------------------------------------------------------


async def a_thousand_streams(world: World) -> Sequence[str]:
    async with served(world, paced(20, 0.25)) as (up, _, stub):
        began = time.monotonic()
        seen = await asyncio.gather(*(read(begun(stub)) for _ in range(1000)))
        took = time.monotonic() - began
    codes = Counter((one.code, one.reason) for one in seen)
    return broken(
        ("1,000 whole answers", all(one.complete and one.text == "w" * 20 for one in seen), codes),
        ("1,000 requests", len(up.exchanges) == 1000, len(up.exchanges)),
        ("side by side", took < 60, took),
    )


async def more_calls_than_the_server_takes(world: World) -> Sequence[str]:
    async with served(world, slow(1.0), limits={"max_calls": 8}, workers=1) as (up, _, stub):
        seen = await asyncio.gather(*(whole(stub) for _ in range(200)))
    refused = [one for one in seen if not one.complete]
    return broken(
        ("some are refused, some answered", 0 < len(refused) < 200, len(refused)),
        (
            "UNAVAILABLE GATEWAY_OVERLOADED",
            {(one.code, one.reason) for one in refused} == {("UNAVAILABLE", "GATEWAY_OVERLOADED")},
            Counter((one.code, one.reason) for one in refused),
        ),
        (
            "told when to come back",
            all((one.pushback or 0) >= 100 for one in refused),
            {one.pushback for one in refused},
        ),
        ("refused at once", max(one.seconds for one in refused) < 1.0, max(one.seconds for one in refused)),
        ("the provider saw the others only", len(up.exchanges) == 200 - len(refused), len(up.exchanges)),
    )


# -- routes under load ------------------------------------------------------------------------------------------------


async def _through_two(
    world: World, first: Script, calls: int, at_a_time: int = 20
) -> tuple[list[Seen], Upstream, Upstream]:
    """Calls by a route whose first target does as it is told, and whose second is well."""
    async with upstream(first) as a, upstream(answers) as b:
        config: dict[str, Any] = {
            "providers": {"a": provider(a.url), "b": provider(b.url)},
            "models": {"both": {"targets": [{"model": "a/m"}, {"model": "b/m", "priority": 1}], **ROUTE}},
        }
        async with served(world, says(), **config) as (_, _server, stub):
            gate = asyncio.Semaphore(at_a_time)

            async def one(number: int) -> Seen:
                async with gate:
                    return await (whole(stub, "both") if number % 2 else read(begun(stub, "both")))

            seen = await asyncio.gather(*(one(number) for number in range(calls)))
        return list(seen), a, b


async def flapping_target(world: World) -> Sequence[str]:
    """Every other request fails."""
    turns = in_turn([status(500), answers] * 1000)

    async def flaps(exchange: Exchange) -> None:
        await next(turns)(exchange)

    seen, a, b = await _through_two(world, flaps, 400)
    asked = len(a.exchanges) + len(b.exchanges)
    return broken(
        ("every call is answered", all(one.complete for one in seen), Counter(one.reason for one in seen)),
        ("requests at most 1.6 times the calls", asked <= 400 * 1.6, asked),
    )


async def outage_of_one_of_two(world: World) -> Sequence[str]:
    """Promised: availability of 99.9 %, and no more than 1.2 times the requests."""
    seen, a, b = await _through_two(world, resets, 1000)
    asked = len(a.exchanges) + len(b.exchanges)
    lost = [one for one in seen if not one.complete]
    return broken(
        ("999 of 1,000 are answered", len(lost) <= 1, Counter(one.reason for one in lost)),
        ("requests at most 1.2 times the calls", asked <= 1200, (len(a.exchanges), len(b.exchanges))),
    )


# -- what the server leans on -----------------------------------------------------------------------------------------


async def tls_failure(world: World) -> Sequence[str]:
    """A provider whose certificate nobody trusts gets neither request nor key."""
    strange = trustme.CA()
    files = strange.issue_cert("localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    files.configure_cert(context)
    async with upstream(answers, tls=context) as secure:
        config: dict[str, Any] = {"providers": {"up": provider(secure.url)}}
        async with served(world, says(), **config) as (_, _server, stub):
            seen = [await whole(stub), await read(begun(stub))]
        arrived = len(secure.exchanges)
    return broken(
        *(ends(one, "UNAVAILABLE", "LLM_CONNECTION") for one in seen),
        ("the provider saw nothing", arrived == 0, arrived),
    )


async def clock_jump(world: World) -> Sequence[str]:
    """The wall clock steps by an hour, forth and back, in the middle of calls: no call notices."""
    offset = world.folder / "offset"
    offset.write_text("0")
    environ = {"PYTHONPATH": str(CLOCK), "TRUNKLINE_FAULTS_CLOCK": str(offset)}
    found: list[tuple[str, bool, object]] = []
    async with served(world, paced(10, 0.1), environ=environ) as (_, _server, stub):
        for step in ("3600", "-3600"):
            call = begun(stub, timeout=20)
            seen = await read(call, until="part_delta")
            offset.write_text(step)
            seen = await read(call, seen)
            after = await whole(stub, "fake/echo")
            found += [
                (f"the stream survives {step} s", seen.complete and seen.text == "w" * 10, (seen.code, seen.reason)),
                (f"a call after {step} s goes well", after.complete, (after.code, after.reason)),
            ]
            offset.write_text("0")
    return broken(*found)


STORIES: Sequence[Story] = (
    Story("SIGTERM mid-stream, within the grace", sigterm_within_the_grace),
    Story("SIGTERM mid-stream, beyond the grace", sigterm_beyond_the_grace),
    Story("kill -9 of a worker", kill_of_a_worker),
    Story("kill -9 of the server", kill_of_the_server),
    Story("1,000 concurrent streams", a_thousand_streams),
    Story("more calls than the server takes", more_calls_than_the_server_takes),
    Story("flapping target", flapping_target),
    Story("outage of one of two targets", outage_of_one_of_two),
    Story("TLS failure", tls_failure),
    Story("clock jump", clock_jump),
)

__all__ = ["STORIES", "WORDS", "chat_events"]
