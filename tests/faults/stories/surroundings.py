"""What the server leans on is not there, or not right: certificates, the clock, stores of records, Redis."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import trustme
from tests.faults.scripts import answers
from tests.faults.stories.serving import begun, broken, ends, paced, provider, records, served, whole
from tests.faults.table import Story
from tests.faults.world import World, read
from tests.services import free_port
from tests.upstream import says, upstream

from trunkline.v1alpha import trace_service_pb2
from trunkline_server.traces import open_backend
from trunkline_server.traces.base import BackendError

CLOCK = Path(__file__).parent.parent / "clock"
#: Most seconds until a store of records that was down has what waited for it.
LATER = 60.0


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


async def record_store_down(world: World) -> Sequence[str]:
    """Of three backends two are not there: calls do not notice, and the third has every record. One comes later, and
    gets them all.
    """
    blocked = world.folder / "late"
    blocked.write_text("not a folder yet")
    down = f"postgresql://127.0.0.1:{free_port()}/traces"
    backends = {"backends": ["sqlite:", f"sqlite:{blocked}/traces.db", down]}
    async with served(world, answers, traces=backends) as (_, server, stub):
        for count in (1, 2):
            await server.line("trace backend is down", count)
        seen = await asyncio.gather(*(whole(stub) for _ in range(100)), *(read(begun(stub)) for _ in range(100)))
        made = {one.completion_id for one in seen}
        async with grpc.aio.insecure_channel(await server.address()) as channel:
            kept = {trace.name.removeprefix("traces/") for trace in await records(channel, len(seen))}
        blocked.unlink()
        late = await _stored(f"sqlite:{blocked}/traces.db", world.folder, len(seen))
    slow = sorted(one.seconds for one in seen)[len(seen) * 9 // 10]
    return broken(
        ("200 whole answers", all(one.complete for one in seen), Counter((one.code, one.reason) for one in seen)),
        ("nine of ten within 2 s", slow < 2, slow),
        ("each is recorded by the one that is there", kept == made, (len(kept), len(made))),
        ("and by the one that came later", late == made, (len(late), len(made))),
    )


async def _stored(url: str, folder: Path, count: int) -> set[str]:
    """Ids in a backend, as soon as there are so many, or when they stay fewer."""
    found: set[str] = set()
    until = time.monotonic() + LATER
    while time.monotonic() < until and len(found) < count:
        await asyncio.sleep(0.2)
        reader = open_backend(url, folder).reader()
        assert reader is not None
        try:
            page = await reader.list(
                trace_service_pb2.TraceFilter(), after=None, size=1000, oldest_first=True, full=False
            )
        except BackendError:
            continue
        finally:
            await reader.aclose()
        found = {trace.name.removeprefix("traces/") for trace in page.traces}
    return found


STORIES: Sequence[Story] = (
    Story("TLS failure", tls_failure),
    Story("record store down, and there later", record_store_down),
    Story("clock jump", clock_jump),
)
