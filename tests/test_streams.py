"""What a stream is made of, and when it leaves: every path here is held to the rules of a stream by its reader."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from tests.gateway import Reader, create, gateway, script, stream
from tests.upstream import DONE, USAGE, Exchange, chat, chat_events, piece, says, silent, sse, upstream, usage_event

from trunkline.v1 import completion_pb2, message_pb2
from trunkline.v1 import completion_service_pb2 as pb


def seconds(value: float) -> Duration:
    return Duration(seconds=int(value), nanos=int(value % 1 * 1e9))


async def test_the_events_of_a_stream_come_in_their_order() -> None:
    async with upstream(says("Hello", " there.")) as up, gateway(up) as gw:
        reader = await gw.stream(stream()).rest()

    assert [kind for kind in reader.kinds if kind != "usage_updated"] == [
        "started",
        "attempt_started",
        "part_started",
        *["part_delta"] * reader.kinds.count("part_delta"),
        "part_finished",
        "choice_finished",
        "finished",
    ]
    assert [event.sequence_number for event in reader.events] == list(range(1, len(reader.events) + 1))
    attempt = reader.events[1].attempt_started
    assert (attempt.attempt, attempt.provider, attempt.model) == (1, "up", "up-1")
    assert attempt.provider_response_id == "chatcmpl-1"
    finished = reader.events[-1].finished
    assert (finished.usage.input_tokens, finished.usage.output_tokens) == (7, 3)
    assert finished.attempts == 1
    assert not finished.HasField("completion")


# -- equal to a unary call --------------------------------------------------------------------------------------------

CALL = {"id": "call_9", "type": "function", "function": {"name": "look", "arguments": '{"at": "the sea"}'}}


async def everything(exchange: Exchange) -> None:
    """Reasoning, text and two tool calls, whole or in pieces."""
    other = {**CALL, "id": "call_10"}
    headers = {"x-request-id": "req-5", "x-ratelimit-limit-requests": "100", "x-ratelimit-remaining-requests": "99"}
    if not exchange.json.get("stream"):
        body = chat("Look at this.", service_tier="flex", system_fingerprint="fp_1")
        body["choices"][0]["message"].update(reasoning_content="Hm, well.", tool_calls=[CALL, other])
        body["choices"][0]["finish_reason"] = "tool_calls"
        await exchange.answer(body, 200, headers)
        return
    more = {"service_tier": "flex", "system_fingerprint": "fp_1"}

    def event(delta: dict[str, object], finish: str | None = None) -> bytes:
        choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
        return sse({"id": "chatcmpl-1", "model": "up-1", "created": 1, "choices": choices, **more})

    await exchange.head(200, headers)
    pieces = [event({"role": "assistant", "content": ""})]
    pieces += [event({"reasoning_content": text}) for text in ("Hm,", " well.")]
    pieces += [event({"content": text}) for text in ("Look", " at", " this.")]
    for index, call in enumerate((CALL, other)):
        function = {"name": "look", "arguments": ""}
        pieces.append(event({"tool_calls": [{"index": index, **call, "function": function}]}))
        pieces += [
            event({"tool_calls": [{"index": index, "function": {"arguments": text}}]})
            for text in ('{"at": ', '"the sea"}')
        ]
    pieces += [event({}, "tool_calls"), sse({"id": "chatcmpl-1", "choices": [], "usage": USAGE, **more}), DONE]
    for data in pieces:
        await exchange.chunk(data)
    await exchange.end()


def tools() -> list[completion_pb2.Tool]:
    function = completion_pb2.FunctionTool(name="look", parameters_json_schema='{"type":"object"}')
    return [completion_pb2.Tool(function=function)]


def comparable(answer: completion_pb2.Completion) -> completion_pb2.Completion:
    """Without what differs between two calls."""
    made = completion_pb2.Completion()
    made.CopyFrom(answer)
    for field in ("id", "create_time", "timing"):
        made.ClearField(field)
    made.usage.ClearField("raw_json")
    return made


async def test_a_collected_stream_equals_the_unary_answer() -> None:
    asked: dict[str, Any] = {"tools": tools()}
    included = pb.StreamOptions(include_completion=True)
    async with upstream(everything) as up, gateway(up) as gw:
        whole = await gw.complete(create(**asked))
        reader = await gw.stream(stream(**asked, stream_options=included)).rest()

    collected, enclosed = reader.completion, reader.events[-1].finished.completion
    assert comparable(collected) == comparable(whole)
    assert comparable(enclosed) == comparable(whole)
    assert enclosed.id == reader.id == collected.id
    assert enclosed.HasField("timing")
    parts = whole.choices[0].message.parts
    assert [part.WhichOneof("kind") for part in parts] == ["reasoning", "text", "tool_call", "tool_call"]
    assert parts[3].tool_call.arguments_json == '{"at": "the sea"}'
    assert (whole.provider_request_id, whole.service_tier, whole.system_fingerprint) == ("req-5", "flex", "fp_1")
    assert whole.rate_limits


@pytest.mark.parametrize("model", ["echo", "tool", "json"])
async def test_the_fake_provider_streams_what_it_answers(model: str) -> None:
    async with gateway() as gw:
        whole = await gw.complete(create(f"fake/{model}", "a longer text to say", tools=tools()))
        reader = await gw.stream(stream(f"fake/{model}", "a longer text to say", tools=tools())).rest()

    collected = comparable(reader.completion)
    expected = comparable(whole)
    for answer in (collected, expected):
        answer.ClearField("provider_response_id")
        answer.ClearField("provider_request_id")
    assert collected == expected


async def test_raw_events_are_what_the_provider_sent() -> None:
    options = completion_pb2.CallOptions(include_raw=True)
    async with upstream(says("a", "b")) as up, gateway(up) as gw:
        reader = await gw.stream(stream(options=options)).rest()
        whole = await gw.complete(create(options=options))

    sent = [event.raw.body for event in reader.events if event.WhichOneof("event") == "raw"]
    assert b"".join(b"data: " + data + b"\n\n" for data in sent) in {
        b"".join(chat_events("a", "b")),
        b"".join(chat_events("a", "b")[:-1]),
    }
    assert whole.raw.body.startswith(b'{"id": "chatcmpl-1"')


async def test_raw_is_refused_where_the_operator_allows_none() -> None:
    options = completion_pb2.CallOptions(include_raw=True)
    async with gateway(allow_raw=False) as gw:
        reader = await gw.stream(stream("fake/echo", options=options)).rest()

    assert reader.failed is not None
    assert "options.include_raw" in reader.failed.fields


# -- together and apart -----------------------------------------------------------------------------------------------


async def test_what_arrives_together_leaves_together() -> None:
    seen = asyncio.Semaphore(0)

    async def bursts(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.chunk(piece("", role="assistant"))
        for burst in range(3):
            await exchange.chunk(b"".join(piece(f"{burst}.{n} ") for n in range(16)))
            await seen.acquire()
        await exchange.chunk(piece(finish="stop") + usage_event() + DONE)
        await exchange.end()

    async with upstream(bursts) as up, gateway(up) as gw:
        reader = gw.stream(stream())
        for _ in range(3):
            await reader.until("part_delta")
            seen.release()
        await reader.rest()

    deltas = [event.part_delta.text for event in reader.events if event.WhichOneof("event") == "part_delta"]
    assert deltas == ["".join(f"{burst}.{n} " for n in range(16)) for burst in range(3)]


@pytest.mark.alone
async def test_a_paced_stream_is_not_held_back() -> None:
    sent: list[float] = []

    async def paced(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.chunk(piece("", role="assistant"))
        for number in range(20):
            await asyncio.sleep(0.02)  # the pace of a provider
            sent.append(time.monotonic())
            await exchange.chunk(piece(f"{number} "))
        await exchange.chunk(piece(finish="stop") + usage_event() + DONE)
        await exchange.end()

    async with upstream(paced) as up, gateway(up) as gw:
        reader = await gw.stream(stream()).rest()

    came = [at for event, at in zip(reader.events, reader.times, strict=True) if event.HasField("part_delta")]
    assert len(came) == 20
    late = sorted(at - left for at, left in zip(came, sent, strict=True))
    assert late[15] < 0.02


@pytest.mark.alone
async def test_a_window_gathers_what_comes_within_it() -> None:
    async def paced(exchange: Exchange) -> None:
        await exchange.head()
        for event in chat_events(*(f"{number} " for number in range(20))):
            await exchange.chunk(event)
            await asyncio.sleep(0.01)  # the pace of a provider
        await exchange.end()

    options = pb.StreamOptions(coalesce_window=seconds(0.1))
    async with upstream(paced) as up, gateway(up) as gw:
        reader = await gw.stream(stream(stream_options=options)).rest()

    assert reader.text == "".join(f"{number} " for number in range(20))
    assert 1 < reader.kinds.count("part_delta") <= 8


async def test_events_of_any_cut_are_the_same_stream() -> None:
    data = b"".join(chat_events("H\u00e9llo ", "\U0001f30d world", " \u4e16\u754c"))

    def cut(size: int) -> object:
        async def pieces(exchange: Exchange) -> None:
            await exchange.head()
            for start in range(0, len(data), size):
                await exchange.chunk(data[start : start + size])
            await exchange.end()

        return pieces

    for size in (1, 2, 3, 7, 64, len(data)):
        async with upstream(cut(size)) as up, gateway(up) as gw:  # type: ignore[arg-type]  # it is a script
            reader = await gw.stream(stream()).rest()
        assert reader.text == "H\u00e9llo \U0001f30d world \u4e16\u754c"
        assert reader.completion.usage.total_tokens == 10


# -- heartbeat --------------------------------------------------------------------------------------------------------


async def test_a_heartbeat_comes_before_the_first_token_and_between_tokens() -> None:
    may = asyncio.Event()

    async def slow(exchange: Exchange) -> None:
        await may.wait()
        await exchange.head()
        await exchange.chunk(piece("", role="assistant") + piece("one"))
        may.clear()
        await may.wait()
        await exchange.chunk(piece(" two") + piece(finish="stop") + usage_event() + DONE)
        await exchange.end()

    async with upstream(slow) as up, gateway(up, stream={"heartbeat": 0.05}) as gw:
        reader = gw.stream(stream())
        await reader.until("heartbeat")
        assert reader.kinds == ["started", "heartbeat"]
        may.set()
        await reader.until("part_delta")
        await reader.until("heartbeat")
        await reader.until("heartbeat")
        may.set()
        await reader.rest()

    assert reader.failed is None
    assert reader.text == "one two"


async def test_a_stream_may_ask_for_its_own_heartbeat() -> None:
    options = pb.StreamOptions(heartbeat_interval=seconds(1))
    async with upstream(silent) as up, gateway(up) as gw:
        began = time.monotonic()
        reader = gw.stream(stream(stream_options=options))
        await reader.until("heartbeat")
        waited = time.monotonic() - began
        reader.call.cancel()

    # The server's own comes after 15 s.
    assert 0.95 <= waited < 10


async def test_a_heartbeat_interval_of_zero_is_none() -> None:
    options = pb.StreamOptions(heartbeat_interval=seconds(0))
    slow = script(text="a b c", word_delay=0.2)
    async with gateway(stream={"heartbeat": 0.02}) as gw:
        quiet = await gw.stream(stream("fake/script", provider_options_json=slow, stream_options=options)).rest()
        beating = await gw.stream(stream("fake/script", provider_options_json=slow)).rest()

    assert "heartbeat" not in quiet.kinds
    assert beating.kinds.count("heartbeat") >= 3


@pytest.mark.alone
async def test_a_stream_that_talks_needs_no_heartbeat() -> None:
    slow = script(text="word " * 16, word_delay=0.05)
    async with gateway(stream={"heartbeat": 0.5}) as gw:
        reader = await gw.stream(stream("fake/script", provider_options_json=slow)).rest()

    assert "heartbeat" not in reader.kinds


async def test_heartbeats_and_words_do_not_get_in_each_others_way() -> None:
    """Beats that are due exactly when words arrive."""
    slow = script(text="word " * 40, word_delay=0.01)
    async with gateway(stream={"heartbeat": 0.01}) as gw:
        readers = [gw.stream(stream("fake/script", provider_options_json=slow)) for _ in range(20)]
        await asyncio.gather(*(reader.rest() for reader in readers))

    for reader in readers:
        assert reader.failed is None
        assert reader.text == "word " * 40


async def test_an_interval_below_the_least_is_refused() -> None:
    options = pb.StreamOptions(heartbeat_interval=seconds(0.5), coalesce_window=seconds(1.5))
    async with gateway() as gw:
        reader = await gw.stream(stream("fake/echo", stream_options=options)).rest()

    assert reader.failed is not None
    assert set(reader.failed.fields) == {"stream_options.heartbeat_interval", "stream_options.coalesce_window"}


# -- many at once -----------------------------------------------------------------------------------------------------


async def test_streams_side_by_side_do_not_mix() -> None:
    async def by_model(exchange: Exchange) -> None:
        await exchange.events(chat_events(*(f"{exchange.json['model']}.{n} " for n in range(10))))

    async with upstream(by_model) as up, gateway(up) as gw:
        readers: list[Reader] = [gw.stream(stream(f"up/m{number}")) for number in range(100)]
        await asyncio.gather(*(reader.rest() for reader in readers))

    for number, reader in enumerate(readers):
        assert reader.text == "".join(f"m{number}.{n} " for n in range(10))
    assert len({reader.id for reader in readers}) == 100


async def test_several_choices_are_numbered_and_each_ends() -> None:
    def event(index: int, delta: dict[str, object], finish: str | None = None) -> bytes:
        choices = [{"index": index, "delta": delta, "finish_reason": finish}]
        return sse({"id": "chatcmpl-1", "model": "up-1", "choices": choices})

    events = [
        *(event(index, {"content": f"{index}"}) for index in (0, 1, 2, 1, 0)),
        *(event(index, {}, "stop") for index in (2, 0, 1)),
        usage_event(),
        DONE,
    ]
    async with upstream(lambda exchange: exchange.events(events)) as up, gateway(up) as gw:
        reader = await gw.stream(stream()).rest()

    assert [c.message.parts[0].text.text for c in reader.completion.choices] == ["00", "11", "2"]


async def test_a_message_with_everything_goes_up_and_an_empty_part_comes_down() -> None:
    async with upstream(says("")) as up, gateway(up) as gw:
        reader = await gw.stream(stream()).rest()

    assert reader.failed is None
    assert reader.completion.choices[0].finish_reason == completion_pb2.FINISH_REASON_STOP
    assert reader.completion.choices[0].message.role == message_pb2.ROLE_ASSISTANT
