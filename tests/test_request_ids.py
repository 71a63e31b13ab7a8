"""A request id makes repeating a call safe: the repetition joins the call that runs, or gets the answer it had."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1 import health_pb2
from tests.gateway import TEAM_A, TEAM_B, Failed, Reader, create, failing, gateway, stream, until
from tests.upstream import Exchange, chat, chat_events, piece, says, silent, silent_midway, upstream

from trunkline.v1 import completion_pb2
from trunkline.v1 import embedding_service_pb2 as embedding
from trunkline_server.replay import Bounds, Ending, Keeper, Request


class Held:
    """Answers when it is told to, each time with another number."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.asked = 0

    async def __call__(self, exchange: Exchange) -> None:
        self.asked += 1
        number = self.asked
        if not exchange.json.get("stream"):
            await self.go.wait()
            await exchange.answer(chat(f"answer {number}"))
            return
        first, *rest = chat_events("stream ", str(number))
        await exchange.head()
        await exchange.chunk(first + rest[0])
        await self.go.wait()
        for event in rest[1:]:
            await exchange.chunk(event)
        await exchange.end()


def text(answer: completion_pb2.Completion) -> str:
    return answer.choices[0].message.parts[0].text.text


def same(first: Reader, second: Reader) -> bool:
    return [e.SerializeToString() for e in first.events] == [e.SerializeToString() for e in second.events]


# -- after the first has ended ----------------------------------------------------------------------------------------


async def test_a_repeated_call_gets_the_first_answer() -> None:
    held = Held()
    held.go.set()
    async with upstream(held) as up, gateway(up) as gw:
        first = await gw.complete(create(request_id="one"))
        second = await gw.complete(create(request_id="one"))
        other = await gw.complete(create(request_id="two"))
        unnamed = [await gw.complete(create()) for _ in range(2)]

    assert first == second
    assert [text(answer) for answer in (first, other, *unnamed)] == ["answer 1", "answer 2", "answer 3", "answer 4"]
    assert [line.get("completion") for line in gw.calls()] == [None, first.id, None, None, None]
    # What was spent is told once, by the call that spent it.
    assert gw.metric("trunkline_tokens_total", direction="input") == 4 * 7


async def test_a_repeated_stream_gets_the_first_events() -> None:
    held = Held()
    held.go.set()
    async with upstream(held) as up, gateway(up) as gw:
        first = await gw.stream(stream(request_id="one")).rest()
        second = await gw.stream(stream(request_id="one")).rest()

    assert held.asked == 1
    assert first.text == "stream 1"
    assert same(first, second)
    assert not first.events[0].started.resumable


async def test_repeated_embeddings_are_made_once() -> None:
    async def embeds(exchange: Exchange) -> None:
        vector = {"index": 0, "embedding": [len(up.exchanges) / 2]}
        await exchange.answer({"object": "list", "data": [vector], "model": "up-1"})

    request = embedding.CreateEmbeddingsRequest(
        spec=embedding.EmbeddingSpec(model="up/up-1", inputs=[embedding.EmbeddingInput(text="a")]), request_id="one"
    )
    async with upstream(embeds) as up, gateway(up) as gw:
        first, second = [await gw.embeddings.CreateEmbeddings(request) for _ in range(2)]

    assert first == second
    assert len(up.exchanges) == 1


@pytest.mark.alone
async def test_an_answer_is_kept_for_a_window() -> None:
    held = Held()
    held.go.set()
    async with upstream(held) as up, gateway(up, replay={"window": 0.3}) as gw:
        first = await gw.complete(create(request_id="one"))
        assert await gw.complete(create(request_id="one")) == first
        await asyncio.sleep(0.35)
        later = await gw.complete(create(request_id="one"))

    assert text(later) == "answer 2"


@pytest.mark.parametrize("status", [400, 429, 500])
async def test_a_failure_is_not_kept(status: int) -> None:
    async def fails_first(exchange: Exchange) -> None:
        if len(up.exchanges) == 1:
            await exchange.answer({"error": {"message": "no"}}, status)
        else:
            await exchange.answer(chat("yes"))

    async with upstream(fails_first) as up, gateway(up) as gw:
        failed = await failing(gw.completions.CreateCompletion(create(request_id="one")))
        answer = await gw.complete(create(request_id="one"))

    assert failed.reason.startswith("LLM_")
    assert text(answer) == "yes"


async def test_a_stream_that_broke_is_not_kept() -> None:
    async def breaks_first(exchange: Exchange) -> None:
        await exchange.head()
        for event in chat_events("Hello")[: 2 if len(up.exchanges) == 1 else None]:
            await exchange.chunk(event)
        if len(up.exchanges) == 1:
            exchange.reset()
        else:
            await exchange.end()

    async with upstream(breaks_first) as up, gateway(up) as gw:
        broken = await gw.stream(stream(request_id="one")).rest()
        whole = await gw.stream(stream(request_id="one")).rest()

    assert broken.failed is not None
    assert (broken.failed.reason, broken.failed.detail.last_sequence_number) == ("LLM_CONNECTION", len(broken.events))
    assert whole.failed is None
    assert whole.text == "Hello"


# -- while the first runs ---------------------------------------------------------------------------------------------


async def test_repeated_calls_join_the_one_that_runs() -> None:
    held = Held()
    async with upstream(held) as up, gateway(up) as gw:
        calls = [asyncio.ensure_future(gw.complete(create(request_id="one"))) for _ in range(5)]
        await until(lambda: gw.metric("trunkline_calls_in_flight") == 5)
        held.go.set()
        answers = await asyncio.gather(*calls)

    assert held.asked == 1
    assert all(answer == answers[0] for answer in answers)
    assert len({line["id"] for line in gw.calls()}) == 5


async def test_a_joined_stream_has_all_events_from_the_first() -> None:
    held = Held()
    async with upstream(held) as up, gateway(up) as gw:
        first = gw.stream(stream(request_id="one"))
        await first.until("part_delta")
        second = gw.stream(stream(request_id="one"))
        await second.until("part_delta")
        held.go.set()
        await asyncio.gather(first.rest(), second.rest())

    assert held.asked == 1
    assert first.text == "stream 1"
    assert same(first, second)


@pytest.mark.parametrize("streamed", [False, True])
async def test_those_who_joined_get_the_same_error(streamed: bool) -> None:
    go = asyncio.Event()

    async def fails(exchange: Exchange) -> None:
        await go.wait()
        await exchange.answer({"error": {"message": "no luck"}}, 503, {"retry-after": "3"})

    async def one() -> Failed:
        if not streamed:
            return await failing(gw.completions.CreateCompletion(create(request_id="one")))
        reader = await gw.stream(stream(request_id="one")).rest()
        assert reader.failed is not None
        return reader.failed

    async with upstream(fails) as up, gateway(up) as gw:
        calls = [asyncio.ensure_future(one()) for _ in range(3)]
        await until(lambda: gw.metric("trunkline_calls_in_flight") == 3)
        go.set()
        first, *others = await asyncio.gather(*calls)

    assert (first.code, first.reason, first.pushback) == (grpc.StatusCode.UNAVAILABLE, "LLM_OVERLOADED", 3000)
    assert others == [first, first]
    assert len(up.exchanges) == 1
    assert first.detail.attempts[0].upstream_status == 503


@pytest.mark.alone
@pytest.mark.parametrize("streamed", [False, True])
async def test_the_completion_goes_on_while_anybody_waits_for_it(
    streamed: bool, measured: Callable[[str, object], None]
) -> None:
    async with upstream(silent_midway if streamed else silent) as up, gateway(up) as gw:

        def begin() -> Any:
            if streamed:
                return gw.completions.StreamCompletion(stream(request_id="one"))
            return gw.completions.CreateCompletion(create(request_id="one"))

        calls = [begin()]
        exchange = await up.next()
        calls += [begin(), begin()]
        await until(lambda: gw.metric("trunkline_calls_in_flight") == 3)
        for call in calls[:2]:
            call.cancel()
        # The record of the first stays open with the completion.
        await until(lambda: len(gw.calls()) == 1)
        assert exchange.closed_at is None
        left = time.monotonic()
        calls[2].cancel()
        took = await exchange.gone() - left
        await gw.idle()

    measured("ms", round(took * 1000, 2))
    assert took <= 0.5
    assert len(up.exchanges) == 1
    assert [line["code"] for line in gw.calls()] == ["CANCELLED"] * 3


async def test_the_record_of_a_completion_tells_how_it_ended_after_its_first_caller_left() -> None:
    held = Held()
    async with upstream(held) as up, gateway(up) as gw:
        first = gw.stream(stream(request_id="one"))
        await first.until("part_delta")
        second = gw.stream(stream(request_id="one"))
        await second.until("part_delta")
        first.call.cancel()
        # What comes after it on the same connection says that it has come.
        for _ in range(3):
            await gw.health.Check(health_pb2.HealthCheckRequest())
        held.go.set()
        await second.rest()
        await gw.idle()

    assert second.text == "stream 1"
    begun, joined = sorted(gw.calls(), key=lambda line: "completion" in line)
    assert (begun["code"], begun["output_tokens"], begun["id"]) == ("OK", 3, first.id)
    assert (joined["code"], joined["completion"], "output_tokens" in joined) == ("OK", first.id, False)


async def test_who_comes_after_all_have_left_begins_anew() -> None:
    async with upstream(silent) as up, gateway(up) as gw:
        for _ in range(20):
            call = gw.completions.CreateCompletion(create(request_id="one"))
            exchange = await up.next()
            call.cancel()
            # It may arrive before, while and after the first one ends.
            again = gw.completions.CreateCompletion(create(request_id="one"))
            await exchange.gone()
            second = await up.next()
            again.cancel()
            await second.gone()
        await gw.idle()

    assert {line["code"] for line in gw.calls()} == {"CANCELLED"}


@pytest.mark.alone
async def test_the_deadline_of_the_first_ends_the_completion_for_all() -> None:
    async with upstream(silent) as up, gateway(up) as gw:
        first = asyncio.ensure_future(failing(gw.completions.CreateCompletion(create(request_id="one"), timeout=1)))
        exchange = await up.next()
        second = asyncio.ensure_future(failing(gw.completions.CreateCompletion(create(request_id="one"), timeout=60)))
        both = await asyncio.gather(first, second)
        await exchange.gone()

    for failed in both:
        assert (failed.code, failed.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "GATEWAY_TIMEOUT")
        assert [attempt.attempt for attempt in failed.detail.attempts] == [1]


@pytest.mark.alone
async def test_the_deadline_of_one_who_joined_is_its_own() -> None:
    held = Held()
    async with upstream(held) as up, gateway(up) as gw:
        first = asyncio.ensure_future(gw.complete(create(request_id="one")))
        await up.next()
        failed = await failing(gw.completions.CreateCompletion(create(request_id="one"), timeout=0.4))
        held.go.set()
        answer = await first

    assert failed.reason == "GATEWAY_TIMEOUT"
    assert failed.detail.completion_id == answer.id
    assert held.asked == 1


# -- whose id it is ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "other",
    [
        create("up/up-1", "Bye", request_id="one"),
        create("fake/echo", request_id="one"),
        create(request_id="one", options=completion_pb2.CallOptions(capture=completion_pb2.CAPTURE_OFF)),
        create(request_id="one", labels={"a": "b"}),
    ],
    ids=["messages", "model", "options", "labels"],
)
async def test_an_id_that_was_used_for_something_else_is_refused(other: Any) -> None:
    async with upstream(says()) as up, gateway(up) as gw:
        await gw.complete(create(request_id="one"))
        failed = await failing(gw.completions.CreateCompletion(other))
        streamed = await gw.stream(stream(request_id="one")).rest()

    assert (failed.code, failed.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
    assert "'one'" in failed.message
    # A stream is another request than a call, too.
    assert streamed.failed is not None
    assert streamed.failed.reason == "REQUEST_ID_REUSED"
    assert len(up.exchanges) == 1


async def test_a_repetition_may_have_less_time() -> None:
    async with upstream(says()) as up, gateway(up) as gw:
        for seconds in (30, 20):
            options = completion_pb2.CallOptions(timeout=Duration(seconds=seconds))
            await gw.complete(create(request_id="one", options=options), timeout=seconds)

    assert len(up.exchanges) == 1


async def test_the_order_of_a_map_is_no_difference() -> None:
    labels = {f"key{n}": "value" for n in range(20)}
    async with upstream(says()) as up, gateway(up) as gw:
        await gw.complete(create(request_id="one", labels=labels))
        await gw.complete(create(request_id="one", labels=dict(reversed(labels.items()))))

    assert len(up.exchanges) == 1


async def test_callers_have_ids_of_their_own(callers: list[dict[str, str]]) -> None:
    held = Held()
    held.go.set()
    async with upstream(held) as up, gateway(up, callers=callers) as gw:
        mine = await gw.complete(create(request_id="one"), metadata=TEAM_A)
        theirs = await gw.complete(create(request_id="one"), metadata=TEAM_B)

    assert (text(mine), text(theirs)) == ("answer 1", "answer 2")


# -- bounds -----------------------------------------------------------------------------------------------------------


async def test_a_large_request_is_known_again() -> None:
    words = "x" * (3 * 1024 * 1024)
    async with upstream(says()) as up, gateway(up) as gw:
        first = await gw.complete(create("up/up-1", words, request_id="one"))
        assert await gw.complete(create("up/up-1", words, request_id="one")) == first
        failed = await failing(gw.completions.CreateCompletion(create("up/up-1", words + "y", request_id="one")))

    assert failed.reason == "REQUEST_ID_REUSED"


async def test_an_answer_that_is_too_large_is_not_kept() -> None:
    async def large(exchange: Exchange) -> None:
        await exchange.answer(chat("x" * 100_000))

    async with upstream(large) as up, gateway(up, replay={"max_completion_bytes": 64 * 1024}) as gw:
        answers = [await gw.complete(create(request_id="one")) for _ in range(2)]

    assert [len(text(answer)) for answer in answers] == [100_000] * 2
    assert len(up.exchanges) == 2


async def test_a_stream_that_grew_too_long_cannot_be_joined_and_is_not_kept() -> None:
    go = asyncio.Event()

    async def long(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.chunk(piece("", role="assistant"))
        for _ in range(100):
            await exchange.chunk(piece("x" * 1000))
        await go.wait()
        await exchange.chunk(piece(finish="stop"))
        await exchange.end()

    async with upstream(long) as up, gateway(up, replay={"max_completion_bytes": 64 * 1024}) as gw:
        first = gw.stream(stream(request_id="one"))
        while len(first.text) < 100_000:
            await first.next()
        joined = await gw.stream(stream(request_id="one")).rest()
        go.set()
        await first.rest()
        again = await gw.stream(stream(request_id="one")).rest()

    assert joined.failed is not None
    assert (joined.failed.reason, joined.failed.code) == ("GATEWAY_OVERLOADED", grpc.StatusCode.UNAVAILABLE)
    assert (first.failed, again.failed) == (None, None)
    assert len(up.exchanges) == 2


async def test_the_oldest_answers_go_when_there_is_no_room() -> None:
    async def large(exchange: Exchange) -> None:
        await exchange.answer(chat("x" * 30_000))

    bounds = {"max_completion_bytes": 64 * 1024, "max_bytes": 100_000}
    async with upstream(large) as up, gateway(up, replay=bounds) as gw:
        for name in ("a", "b", "c", "d"):
            await gw.complete(create(request_id=name))
        await gw.complete(create(request_id="d"))
        assert len(up.exchanges) == 4
        await gw.complete(create(request_id="a"))

    assert len(up.exchanges) == 5


async def test_nothing_is_kept_where_the_window_is_zero() -> None:
    async with upstream(says()) as up, gateway(up, replay={"window": 0}) as gw:
        for _ in range(2):
            await gw.complete(create(request_id="one"))

    assert len(up.exchanges) == 2


async def test_a_header_that_names_a_call_makes_it_no_repetition() -> None:
    async with upstream(says()) as up, gateway(up) as gw:
        for _ in range(2):
            await gw.complete(create(), metadata=(("x-request-id", "one"),))

    assert len(up.exchanges) == 2


async def test_what_is_kept_has_a_bound_whatever_is_asked() -> None:
    """At the keeper itself: many answers of many sizes."""
    keeper = Keeper(Bounds(60.0, 10_000, 50_000))
    for number in range(2000):
        opened = await keeper.open(f"c{number}", "me", request=Request(str(number), b"x"))
        assert opened.tape is not None
        await opened.tape.put(b"x" * (number * 37 % 12_000))
        await keeper.end(opened.tape, Ending(b"failed" if number % 5 == 0 else b""))
        assert keeper.size <= 50_000

    assert 0 < len(keeper) < 60
