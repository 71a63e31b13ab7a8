"""Rows in which the caller leaves, runs out of time, or reads slowly."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import grpc
from tests.faults.scripts import answers, big_answer, pours, silent, silent_after_head, stalls_midway, talks_on
from tests.faults.seen import Seen, asked, asked_at_most, closed, delivered, failed, ok, within
from tests.faults.table import BOTH, STREAM, UNARY, Row
from tests.faults.world import World, fail, leaves, read, stream_call, unary_request

PIECES, PIECE = 2000, 1000


async def leaves_when_asked(world: World, row: Row, kind: str) -> Seen:
    """The caller cancels as soon as the provider has the request."""
    seen = Seen()
    scenario = f"{row.slug}-{kind}"
    if kind == STREAM:
        call = stream_call(world, row, kind)
    else:
        call = world.stub.CreateCompletion(unary_request(row, kind), timeout=row.deadline)
    waiting = asyncio.ensure_future(call.read() if kind == STREAM else call.wait_for_connection())
    while not world.provided(scenario).of("a"):
        await asyncio.sleep(0.005)
    # It has the request; the gateway now waits for what does not come.
    await asyncio.sleep(0.05)
    seen = await leaves(call, seen)
    waiting.cancel()
    return seen


async def leaves_midway(world: World, row: Row, kind: str) -> Seen:
    """The caller cancels after the first words."""
    call = stream_call(world, row, kind)
    seen = await read(call, until="part_delta")
    return await leaves(call, seen)


async def reads_slowly(world: World, row: Row, kind: str) -> Seen:
    return await read(stream_call(world, row, kind), pause=0.002)


async def with_a_large_body(world: World, row: Row, kind: str) -> Seen:
    """More than the server takes; nothing of it reaches a provider."""
    seen = Seen()
    request = unary_request(row, kind)
    request.spec.messages[0].parts[0].text.text = "x" * (33 * 1024 * 1024)
    try:
        await world.stub.CreateCompletion(request, timeout=row.deadline)
    except grpc.aio.AioRpcError as error:
        fail(seen, error)
    seen.ended = time.monotonic()
    return seen


PATIENT = {"timeouts": {"first_token": 30, "idle": 30}}

LEAVING: Sequence[Row] = (
    Row(
        "client cancel before headers",
        {"a": (silent,)},
        (closed(), asked(a=1)),
        provider=PATIENT,
        timed=True,
        drive=leaves_when_asked,
    ),
    Row(
        "client cancel before the first token",
        {"a": (silent_after_head,)},
        (closed(), asked(a=1)),
        kinds=(STREAM,),
        provider=PATIENT,
        timed=True,
        drive=leaves_when_asked,
    ),
    Row(
        "client cancel mid-stream, provider talking",
        {"a": (talks_on,)},
        (closed(), asked(a=1)),
        kinds=(STREAM,),
        provider=PATIENT,
        timed=True,
        drive=leaves_midway,
    ),
    Row(
        "client cancel mid-stream, provider silent",
        {"a": (stalls_midway,)},
        (closed(), asked(a=1)),
        kinds=(STREAM,),
        provider=PATIENT,
        timed=True,
        drive=leaves_midway,
    ),
    Row(
        "client cancel in a whole answer",
        {"a": (stalls_midway,)},
        (closed(), asked(a=1)),
        kinds=(UNARY,),
        provider=PATIENT,
        timed=True,
        drive=leaves_when_asked,
    ),
)

OUT_OF_TIME: Sequence[Row] = tuple(
    Row(
        f"client deadline {when}",
        {"a": (script,)},
        (failed("DEADLINE_EXCEEDED", "GATEWAY_TIMEOUT"), within(3.0), closed(), asked(a=1), *more),
        kinds=kinds,
        deadline=3.0,
        provider=PATIENT,
        timed=True,
    )
    for when, script, kinds, more in (
        ("before headers", silent, BOTH, ()),
        ("before the first token", silent_after_head, (STREAM,), ()),
        ("mid-stream, provider silent", stalls_midway, (STREAM,), (delivered("Hello there"),)),
        ("mid-stream, provider talking", talks_on, (STREAM,), ()),
        ("in a whole answer", stalls_midway, (UNARY,), ()),
    )
)

READING: Sequence[Row] = (
    Row(
        "slow reader",
        {"a": (pours(PIECES, PIECE),)},
        (ok("x" * PIECES * PIECE), asked(a=1)),
        kinds=(STREAM,),
        deadline=60,
        drive=reads_slowly,
    ),
    Row(
        "upstream faster than we read",
        {"a": (pours(10 * PIECES, PIECE),)},
        (ok("x" * 10 * PIECES * PIECE), asked(a=1)),
        kinds=(STREAM,),
        deadline=60,
    ),
    Row(
        "large answer",
        {"a": (big_answer(16 * 1024 * 1024),)},
        (ok("x" * 16 * 1024 * 1024), asked(a=1)),
        kinds=(UNARY,),
        deadline=60,
    ),
    Row(
        "body over the limit",
        {"a": (answers,)},
        (failed("INVALID_ARGUMENT", "REQUEST_TOO_LARGE"), asked_at_most(a=0)),
        kinds=(UNARY,),
        deadline=30,
        drive=with_a_large_body,
        peers=False,
    ),
)

ROWS = (*LEAVING, *OUT_OF_TIME, *READING)
