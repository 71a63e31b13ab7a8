"""Large messages: media in and out past the clients' own limits, and what is said of those that are too large."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.gateway import create, failing, gateway
from tests.process import connected, server_process
from tests.upstream import Exchange, chat, piece, says, upstream, usage_event

import trunkline
from trunkline.v1 import completion_pb2, message_pb2

MIB = 1024 * 1024
#: Sound in a format that is known by its beginning.
SOUND = b"RIFF" + bytes(range(256)) * (33 * MIB // 256)
PICTURES = [b"\x89PNG" + bytes([n]) * (17 * MIB) for n in range(2)]


def with_pictures() -> completion_pb2.CompletionSpec:
    parts = [
        message_pb2.ContentPart(image=message_pb2.Media(data=picture, mime_type="image/png")) for picture in PICTURES
    ]
    message = message_pb2.Message(role=message_pb2.ROLE_USER, parts=parts)
    return completion_pb2.CompletionSpec(model="up/up-1", messages=[message])


async def test_pictures_of_more_than_32_mib_reach_the_provider() -> None:
    async with (
        upstream(says("two pictures")) as up,
        gateway(up, limits={"max_request_bytes": 48 * MIB}) as gw,
        trunkline.AsyncClient(gw.address) as client,
    ):
        answer = await client.complete(with_pictures())
        asked = (await up.next()).json["messages"][0]["content"]

    sent = [base64.b64decode(part["image_url"]["url"].partition(",")[2]) for part in asked]
    assert sent == PICTURES
    assert answer.choices[0].message.parts[0].text.text == "two pictures"


async def test_the_default_limit_refuses_them_by_name() -> None:
    async with upstream(says()) as up, gateway(up) as gw, trunkline.AsyncClient(gw.address) as client:
        with pytest.raises(trunkline.RequestTooLarge) as caught:
            await client.complete(with_pictures())

    assert caught.value.reason == "REQUEST_TOO_LARGE"
    assert caught.value.metadata["maxBytes"] == str(32 * MIB)
    assert int(caught.value.metadata["bytes"]) > 34 * MIB
    assert up.exchanges == []


@pytest.mark.parametrize("streamed", [False, True], ids=["unary", "stream"])
async def test_sound_of_more_than_32_mib_reaches_the_caller(streamed: bool) -> None:
    said: dict[str, Any] = {"id": "audio_1", "data": base64.b64encode(SOUND).decode(), "transcript": "a noise"}

    async def sings(exchange: Exchange) -> None:
        if not streamed:
            answer = chat("")
            answer["choices"][0]["message"] = {"role": "assistant", "content": None, "audio": said}
            await exchange.answer(answer)
            return
        step = 4 * MIB
        pieces = [{"data": said["data"][start : start + step]} for start in range(0, len(said["data"]), step)]
        events = [piece(audio=one) for one in ({"id": "audio_1", "transcript": "a noise"}, *pieces)]
        await exchange.events([*events, piece(finish="stop"), usage_event(), b"data: [DONE]\n\n"])

    async with upstream(sings) as up, gateway(up) as gw, trunkline.AsyncClient(gw.address) as client:
        answer = (
            await client.stream("Sing", model="up/up-1").collect()
            if streamed
            else await client.complete("Sing", model="up/up-1")
        )

    [part] = answer.choices[0].message.parts
    assert part.audio.data == SOUND
    assert part.audio.transcript == "a noise"


@pytest.mark.alone
async def test_messages_that_are_too_large_are_held_no_longer_than_their_refusal(
    tmp_path: Path, measured: Callable[[str, object], None]
) -> None:
    request = create("fake/echo", "x" * (14 * MIB))
    async with (
        server_process(tmp_path, limits={"max_request_bytes": 8 * MIB}) as server,
        connected(await server.address()) as stub,
    ):
        process = psutil.Process(server.pid)

        async def refused(count: int) -> int:
            for _ in range(count):
                assert (await failing(stub.CreateCompletion(request))).reason == "REQUEST_TOO_LARGE"
            return process.memory_info().rss

        grown = -(await refused(10)) + await refused(30)

    measured("grown MiB", grown // MIB)
    assert grown < 2 * 14 * MIB
