"""`make faults-peers`: the rows of the table that a gateway with OpenAI's HTTP can express, at LiteLLM and Portkey.

Both are set up for each row as their documents say: retries, time limits, and the second target as a fallback. What is
asked of them is less than of trunkline: the outcome, the text, the requests and sockets at the provider. Which error
was told is not judged, only that there was one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
from tests.faults import callers, providers
from tests.faults.seen import Seen
from tests.faults.table import STREAM, UNARY, Row
from tests.faults.world import TIMEOUTS, World
from tests.upstream import upstream

from bench.peers import Peer, start_litellm, start_portkey
from bench.processes import CannotRun

ROWS: Sequence[Row] = tuple(row for row in (*providers.ROWS, *callers.ROWS) if row.peers)
#: What the peers are told of retries, to be as trunkline is.
RETRIES = providers.TRIES - 1
#: More tries of a row about moments; one that holds is enough.
AGAIN = 2


def _base(world: World, row: Row, kind: str, target: str) -> str:
    return row.addresses.get(target, f"{world.url}/{row.slug}-{kind}/{target}/v1")


def litellm(world: World, folder: Path) -> Peer:
    models: list[dict[str, Any]] = []
    fallbacks: list[dict[str, list[str]]] = []
    for row in ROWS:
        limits = {**TIMEOUTS, **dict(row.provider.get("timeouts", {}))}
        for kind in row.kinds:
            names = [f"{row.slug}-{kind}-{target}" for target in row.targets]
            for name, target in zip(names, row.targets, strict=True):
                to = {"api_base": _base(world, row, kind, target), "api_key": "sk-none"}
                to |= {"timeout": limits["idle"], "stream_timeout": limits["idle"]}
                models.append({"model_name": name, "litellm_params": {"model": "openai/m", **to}})
            if len(names) > 1:
                fallbacks.append({names[0]: names[1:]})
    return start_litellm(folder, models, {"num_retries": RETRIES, "fallbacks": fallbacks, "disable_cooldowns": True})


def portkey(_: World, folder: Path) -> Peer:
    return start_portkey(folder, ())


PEERS: Mapping[str, Callable[[World, Path], Peer]] = {"LiteLLM": litellm, "Portkey": portkey}


def _headers(peer: Peer, world: World, row: Row, kind: str) -> dict[str, str]:
    """LiteLLM knows its targets from its file; Portkey is told them with each request."""
    if peer.headers:
        return dict(peer.headers)
    limits = {**TIMEOUTS, **dict(row.provider.get("timeouts", {}))}
    config = {
        "strategy": {"mode": "fallback"},
        "request_timeout": int(limits["idle"] * 1000),
        "targets": [
            {
                "provider": "openai",
                "api_key": "sk-none",
                "custom_host": _base(world, row, kind, target),
                "retry": {"attempts": RETRIES, "on_status_codes": [429, 500, 502, 503, 504, 529]},
            }
            for target in row.targets
        ],
    }
    return {"x-portkey-config": json.dumps(config)}


async def call(session: aiohttp.ClientSession, peer: Peer, world: World, row: Row, kind: str) -> Seen:
    """What the caller of a peer sees. A stream is complete if it has a finish reason and its [DONE]."""
    seen = Seen()
    model = f"{row.slug}-{kind}-{next(iter(row.targets))}" if peer.headers else "m"
    body = {"model": model, "messages": [{"role": "user", "content": row.prompt}], "stream": kind == STREAM}
    scenario = f"{row.slug}-{kind}"
    leaving = row.drive in {callers.leaves_when_asked, callers.leaves_midway}
    try:
        async with asyncio.timeout(row.deadline):
            request = session.post(
                f"http://{peer.address}/v1/chat/completions", json=body, headers=_headers(peer, world, row, kind)
            )
            if leaving:
                await _leave(request, world, scenario, midway=row.drive is callers.leaves_midway)
                seen.ended, seen.code = time.monotonic(), "CANCELLED"
                return seen
            async with request as response:
                seen.code = "OK" if response.status == 200 else str(response.status)
                if kind == UNARY:
                    seen.text = (await response.json())["choices"][0]["message"]["content"] if response.ok else ""
                    seen.complete = response.ok
                elif response.ok:
                    await _read(response, seen)
    except (TimeoutError, aiohttp.ClientError, ValueError, KeyError, TypeError) as error:
        seen.code, seen.complete = type(error).__name__, False
    seen.ended = time.monotonic()
    return seen


async def _leave(request: Any, world: World, scenario: str, *, midway: bool) -> None:
    """The caller closes its connection once the provider has the request, or after the first words."""

    async def begin() -> None:
        async with request as response:
            async for _ in response.content:
                if midway:
                    return
            await asyncio.sleep(60)

    task = asyncio.ensure_future(begin())
    while not world.provided(scenario).of("a"):
        await asyncio.sleep(0.005)
    if midway:
        await asyncio.wait({task}, timeout=5)
    else:
        await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _read(response: aiohttp.ClientResponse, seen: Seen) -> None:
    finished = done = False
    async for line in response.content:
        if line.startswith(b"data: [DONE]"):
            done = True
        elif line.startswith(b"data: "):
            event = json.loads(line[6:])
            if "error" in event:
                seen.code = "error event"
            for choice in event.get("choices", ()):
                seen.text += (choice.get("delta") or {}).get("content") or ""
                finished = finished or bool(choice.get("finish_reason"))
    seen.complete = finished and done and seen.code == "OK"


async def _try(session: aiohttp.ClientSession, peer: Peer, world: World, row: Row, kind: str) -> list[str]:
    """What does not hold."""
    scenario = f"{row.slug}-{kind}"
    world.forget(scenario)
    try:
        seen = await call(session, peer, world, row, kind)
    except Exception as error:  # noqa: BLE001  # a row that breaks is one that does not hold
        return [f"{type(error).__name__}: {error}"]
    await world.settled(scenario)
    provided = world.provided(scenario)
    return [found for statement in row.holds if statement.peers and (found := statement.peers(seen, provided))]


async def _answers(session: aiohttp.ClientSession, peer: Peer, patience: float = 60.0) -> None:
    """Its port is open before it is ready."""
    until = time.monotonic() + patience
    while True:
        try:
            async with session.get(f"http://{peer.address}/v1/models", headers=dict(peer.headers)) as response:
                await response.read()
                return
        except aiohttp.ClientError as error:
            if time.monotonic() > until:
                raise CannotRun(f"{peer.name} does not answer: {error!r}") from None
            await asyncio.sleep(0.2)


async def judge(name: str, folder: Path, only: str) -> tuple[int, int]:
    """Rows that hold, of how many."""
    rows = [row for row in ROWS if only.lower() in row.name.lower()]
    world = World(folder, 1, rows)
    held = 0
    async with upstream(world.answer) as up, aiohttp.ClientSession(read_bufsize=2**22) as session:
        world.url = up.url
        world.settings()  # hands the scripts out
        peer = await asyncio.to_thread(PEERS[name], world, folder)
        try:
            await _answers(session, peer)
            for row in rows:
                broken: list[str] = []
                for kind in row.kinds:
                    found = await _try(session, peer, world, row, kind)
                    for _ in range(AGAIN if row.timed else 0):
                        found = found and await _try(session, peer, world, row, kind)
                    broken += [f"{kind}: {text}" for text in found]
                held += not broken
                _say(f"{'holds ' if not broken else 'BROKEN'}  {name}: {row.name}")
                for line in broken:
                    _say(f"          {line}")
        finally:
            await asyncio.to_thread(peer.stop)
            for error in up.failures:
                # What a script could not do with a peer's request says nothing about trunkline.
                _say(f"upstream: {error!r}")
            up.failures.clear()
    return held, len(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="scenarios whose name holds this")
    parser.add_argument("--peer", choices=PEERS, help="only this one")
    options = parser.parse_args(arguments)
    lines = []
    for name in [options.peer] if options.peer else [*PEERS]:
        with tempfile.TemporaryDirectory(prefix="trunkline-peers-") as scratch:
            try:
                held, of = asyncio.run(judge(name, Path(scratch), options.only))
            except CannotRun as error:
                lines.append(f"skipped: {name} ({error})")
                continue
        lines.append(f"{name}: {held} of {of} hold")
    for line in lines:
        _say(line)
    return 0


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
