"""A model that thinks in silence: the caller pings, and nobody cuts the other off for it."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration
from tests.gateway import script, stream
from tests.process import server_process
from tests.scale import FULL
from tests.services import ROOT
from tests.upstream import Exchange, chat_events, piece, upstream

from trunkline.v1 import completion_service_pb2 as pb

pytestmark = pytest.mark.slow

#: Seconds between pings, and of silence. A server with gRPC's defaults ends the connection at the third ping.
PINGS, SILENCE = (30, 130) if FULL else (10, 3)

HERE = Path(__file__).parent / "pings"
CALLERS: Mapping[str, Sequence[str | Path]] = {
    "python": (sys.executable, HERE / "caller.py"),
    "go": ("go", "run", HERE / "main.go"),
    "node": ("node", HERE / "caller.cjs"),
}
#: Where each finds its packages.
FOLDERS = {"go": ROOT / "clients" / "go"}


async def called(name: str, address: str, request: bytes) -> str:
    process = await asyncio.create_subprocess_exec(
        *CALLERS[name], address, str(PINGS), request.hex(),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=FOLDERS.get(name, ROOT),
        env={**os.environ, "NODE_PATH": str(ROOT / "clients" / "typescript" / "node_modules")},
    )  # fmt: skip
    output, _ = await process.communicate()
    return output.decode().strip()


@pytest.mark.timeout(300)
async def test_callers_of_all_languages_may_ping_a_silent_stream(
    tmp_path: Path, measured: Callable[[str, object], None]
) -> None:
    here = [name for name, command in CALLERS.items() if shutil.which(command[0])]
    # No heartbeat either: the stream is silent in every way.
    quiet = pb.StreamOptions(heartbeat_interval=Duration())
    thinks = script(text="At last.", delay=SILENCE)
    request = stream("fake/script", provider_options_json=thinks, stream_options=quiet).SerializeToString()

    async with server_process(tmp_path) as server:
        address = await server.address()
        began = time.monotonic()
        said = await asyncio.gather(*(called(name, address, request) for name in here))
        took = time.monotonic() - began

    measured("seconds of silence", SILENCE)
    measured("callers", ", ".join(here))
    assert dict(zip(here, said, strict=True)) == dict.fromkeys(here, "OK")
    assert took >= SILENCE


@pytest.mark.timeout(900)
@pytest.mark.skipif(not FULL, reason="ten minutes of silence take ten minutes; set FULL=1")
async def test_ten_minutes_of_silence_are_borne_with_the_default_settings(tmp_path: Path) -> None:
    async def thinks(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.chunk(piece("", role="assistant"))
        await asyncio.sleep(601)
        for event in chat_events("At last."):
            await exchange.chunk(event)
        await exchange.end()

    async with (
        upstream(thinks) as up,
        server_process(tmp_path, providers={"up": {"kind": "vllm", "base_url": f"{up.url}/v1"}}) as server,
    ):
        assert await called("python", await server.address(), stream().SerializeToString()) == "OK"
