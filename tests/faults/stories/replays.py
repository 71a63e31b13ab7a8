"""Calls that are repeated or read on: nothing is paid twice, nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
from tests.faults.scripts import answers, slow
from tests.faults.seen import Seen
from tests.faults.stories.serving import begun, broken, ends, paced, served, whole
from tests.faults.table import Story
from tests.faults.world import World, fail, read
from tests.gateway import create, resume, stream
from tests.services import redis

from trunkline.v1.completion_service_pb2_grpc import CompletionServiceStub

SEED = 20_26
#: Streams that are cut, words of each, and seconds between two.
CUTS, WORDS, PAUSE = 200, 20, 0.05


async def request_id_repeated(world: World) -> Sequence[str]:
    """Repetitions join the call that runs, or get its answer; what asks for something else is refused."""
    async with served(world, slow(0.5), workers=1) as (up, _, stub):
        joined = await asyncio.gather(*(_named(stub, "one") for _ in range(10)))
        again = await _named(stub, "one")
        streams = await asyncio.gather(*(read(_begun_named(stub, "two")) for _ in range(10)))
        streamed_again = await read(_begun_named(stub, "two"))
        other = await _named(stub, "one", "Something else")
        asked = len(up.exchanges)
    unary, streamed = [*joined, again], [*streams, streamed_again]
    return broken(
        ("all are answered", all(one.complete for one in unary + streamed), Counter(one.code for one in unary)),
        ("by one completion", len({one.completion_id for one in unary}) == 1, len(unary)),
        ("and one stream", len({one.completion_id for one in streamed}) == 1, len(streamed)),
        ends(other, "ALREADY_EXISTS", "REQUEST_ID_REUSED"),
        ("the provider is asked once for each", asked == 2, asked),
    )


async def _named(stub: Any, request_id: str, prompt: str = "Hi") -> Seen:
    seen = Seen()
    try:
        answer = (await stub.CreateCompletion(create("up/m", prompt, request_id=request_id), timeout=20)).completion
    except grpc.aio.AioRpcError as error:
        fail(seen, error)
    else:
        seen.complete, seen.code, seen.completion_id = True, "OK", answer.id
    return seen


def _begun_named(stub: Any, request_id: str) -> Any:
    return stub.StreamCompletion(stream("up/m", request_id=request_id), timeout=20)


class _Relay:
    """TCP between a caller and the server, that breaks when it is told to."""

    def __init__(self, address: str) -> None:
        self._host, _, self._port = address.rpartition(":")
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.address = ""

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[_Relay]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            self.kill()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def kill(self) -> None:
        """Every connection is gone at once, in both directions."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(self._host, int(self._port))
        self._writers += [writer, there_writer]
        for one, other in ((reader, there_writer), (there_reader, writer)):
            task = asyncio.create_task(_pump(one, other))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def resume_after_the_connection_is_killed(world: World) -> Sequence[str]:
    """Streams whose caller's connection breaks at any moment are read on without a gap or a repetition."""
    return await _cut_and_judged(world, workers=1)


async def resume_at_another_worker(world: World) -> Sequence[str]:
    """The same where one of two workers reads all streams on, whichever of them began a stream."""
    with redis() as shared:
        return await _cut_and_judged(world, workers=2, redis=shared.settings())


async def _cut_and_judged(world: World, **config: Any) -> Sequence[str]:
    chance = random.Random(SEED)
    async with served(world, paced(WORDS, PAUSE), **config) as (up, server, stub):
        await server.line("serving", config["workers"], patience=60)
        address = await server.address()
        moments = [chance.uniform(0.05, WORDS * PAUSE) for _ in range(CUTS)]
        seen = await asyncio.gather(*(_cut_and_resumed(address, stub, moment) for moment in moments))
        asked = len(up.exchanges)
    whole_text = "w" * WORDS
    return broken(
        (
            f"{CUTS} whole texts",
            all(one.complete and one.text == whole_text for one, _ in seen),
            Counter((one.code, one.reason, one.text) for one, _ in seen).most_common(3),
        ),
        ("most were cut", sum(cut for _, cut in seen) > CUTS / 2, sum(cut for _, cut in seen)),
        ("the provider is asked once for each", asked == CUTS, asked),
    )


async def _cut_and_resumed(address: str, stub: Any, moment: float) -> tuple[Seen, bool]:
    """What was read in all, and was the connection cut before the end?"""
    async with _Relay(address).running() as relay:
        async with grpc.aio.insecure_channel(relay.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            request = stream("up/m", stream_options={"resumable": True})
            call = CompletionServiceStub(channel).StreamCompletion(request, timeout=60)
            seen = await read(call, until="started")
            asyncio.get_running_loop().call_later(moment, relay.kill)
            seen = await read(call, seen)
        if seen.complete:
            return seen, False
        seen.code = ""
        return await read(stub.StreamCompletion(resume(seen.completion_id, seen.events), timeout=60), seen), True


async def redis_down(world: World) -> Sequence[str]:
    """Calls go on while it is away; a worker then knows of its own request ids and streams alone."""
    with redis() as shared:
        async with served(world, answers, workers=1, redis=shared.settings()) as (up, server, stub):
            before = await _named(stub, "before")
            shared.kill()
            plain = await asyncio.gather(*(whole(stub) for _ in range(50)), *(read(begun(stub)) for _ in range(50)))
            named = [await _named(stub, "while away") for _ in range(2)]
            request = stream("up/m", stream_options={"resumable": True})
            streamed = await read(stub.StreamCompletion(request, timeout=20))
            again = await read(stub.StreamCompletion(resume(streamed.completion_id, 0), timeout=20))
            shared.start()
            await server.line("redis back")
            after = await _named(stub, "after")
            asked = len(up.exchanges)
    seen = [before, *plain, *named, streamed, again, after]
    return broken(
        ("every call is answered", all(one.complete for one in seen), Counter((one.code, one.reason) for one in seen)),
        ("nobody is held up", max(one.seconds for one in plain) < 3, max(one.seconds for one in plain)),
        ("a request id is paid for once", named[0].completion_id == named[1].completion_id, asked),
        ("a stream can be read again", again.text == streamed.text, again.text),
        ("the provider is asked once for each", asked == 104, asked),
    )


STORIES: Sequence[Story] = (
    Story("request id repeated", request_id_repeated),
    Story("resume after the connection is killed", resume_after_the_connection_is_killed),
    Story("resume at another worker", resume_at_another_worker),
    Story("Redis down", redis_down),
)
