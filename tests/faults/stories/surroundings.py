"""What the server leans on is not there, or not right: certificates, the clock, stores of records, Redis."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import trustme
from tests.faults.scripts import answers
from tests.faults.stories.serving import begun, broken, ends, paced, provider, served, whole
from tests.faults.table import Story
from tests.faults.world import World, read
from tests.upstream import says, upstream

CLOCK = Path(__file__).parent.parent / "clock"


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
    Story("TLS failure", tls_failure),
    Story("clock jump", clock_jump),
)
