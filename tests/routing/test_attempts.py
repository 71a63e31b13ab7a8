"""The gateway is the one owner of retries: what is tried again, where, when, and what the caller is told."""

from __future__ import annotations

import time
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from tests.gateway import stream
from tests.routing.places import (
    ANTHROPIC,
    FAST,
    OPENAI,
    WIRES,
    cut_after,
    fails,
    in_turn,
    places,
    resets,
    says,
)
from tests.upstream import Exchange, Script

from trunkline.v1 import completion_pb2, generation_pb2
from trunkline.v1 import completion_service_pb2 as pb
from trunkline.v1 import embedding_service_pb2 as embedding

KINDS = ("unary", "stream")
ALL = [(kind, wire) for kind in KINDS for wire in WIRES]

#: What a provider does that another attempt may mend.
TRANSIENT: dict[str, tuple[Script, set[str]]] = {
    "500": (fails(500), {"LLM_SERVER_ERROR"}),
    "503": (fails(503), {"LLM_OVERLOADED"}),
    "529": (fails(529, {"type": "overloaded_error"}), {"LLM_OVERLOADED"}),
    "429": (fails(429, retry_after_ms="20"), {"LLM_RATE_LIMITED"}),
    "reset": (resets, {"LLM_CONNECTION"}),
    # As a stream it is one that ends too early.
    "html": (lambda exchange: exchange.answer(b"<html>busy</html>"), {"LLM_INVALID_RESPONSE", "LLM_CONNECTION"}),
}
#: What is wrong with the request, or with what was agreed with the provider: (status, error, next target).
LASTING: dict[str, tuple[int, dict[str, Any], bool]] = {
    "400": (400, {"type": "invalid_request_error"}, False),
    "422": (422, {}, False),
    "413": (413, {"type": "request_too_large"}, False),
    "409": (409, {}, False),
    "filter": (400, {"code": "content_filter"}, False),
    "context": (400, {"code": "context_length_exceeded"}, False),
    "401": (401, {"type": "authentication_error"}, True),
    "403": (403, {"type": "permission_error"}, True),
    "404": (404, {"type": "not_found_error"}, True),
    "402": (402, {}, True),
}


@pytest.mark.parametrize(("kind", "wire"), ALL)
@pytest.mark.parametrize("fault", TRANSIENT)
async def test_what_passes_is_tried_again_at_the_only_target(kind: str, wire: str, fault: str) -> None:
    script, reasons = TRANSIENT[fault]
    said = in_turn(script, says("Hello", wire=WIRES[wire]))
    async with places(said, wires=[WIRES[wire]]) as at:
        answer = await at.ask(kind)
        [line] = at.gw.calls()

    assert (answer.text, answer.attempts, at.asked) == ("Hello", 2, [2])
    assert (line["code"], line["attempts"]) == ("OK", 2)
    assert sum(at.gw.metric("trunkline_attempts_total", provider="p0", reason=reason) for reason in reasons) == 1


@pytest.mark.parametrize(("kind", "wire"), ALL)
@pytest.mark.parametrize("fault", TRANSIENT)
async def test_what_passes_is_tried_at_the_next_target_at_once(kind: str, wire: str, fault: str) -> None:
    script, _ = TRANSIENT[fault]
    async with places(script, says("Hello", wire=WIRES[wire]), wires=[WIRES[wire]] * 2) as at:
        answer = await at.ask(kind)

    assert (answer.text, answer.provider, answer.attempts, at.asked) == ("Hello", "p1", 2, [1, 1])


@pytest.mark.parametrize(("kind", "wire"), ALL)
@pytest.mark.parametrize("fault", LASTING)
async def test_what_lasts_is_never_tried_again_at_the_same_target(kind: str, wire: str, fault: str) -> None:
    status, error, _ = LASTING[fault]
    async with places(fails(status, error), wires=[WIRES[wire]]) as at:
        failed = await at.refused(kind)

    assert at.asked == [1]
    assert len(failed.detail.attempts) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", LASTING)
async def test_the_callers_fault_reaches_no_other_target_and_the_operators_does(kind: str, fault: str) -> None:
    status, error, next_target = LASTING[fault]
    async with places(fails(status, error), says("Hello")) as at:
        if next_target:
            assert (await at.ask(kind)).provider == "p1"
        else:
            await at.refused(kind)

    assert at.asked == [1, int(next_target)]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_full_context_goes_on_to_a_target_with_a_larger_one(kind: str) -> None:
    full = fails(400, {"code": "context_length_exceeded", "message": "maximum context length"})
    models = {
        "small-first": {"targets": ["openai/gpt-4", "anthropic/claude-sonnet-4-5"]},
        "large-first": {"targets": ["anthropic/claude-sonnet-4-5", "openai/gpt-4"]},
    }
    async with places(full) as at:
        up = {"base_url": f"{at.ups[0].url}/v1"}
        async with places(says("x"), models=models, more_providers={"openai": up, "anthropic": up}) as other:
            await other.refused(kind, "small-first")
            await other.refused(kind, "large-first")

    paths = [exchange.path for exchange in at.ups[0].exchanges]
    assert paths == ["/v1/chat/completions", "/v1/messages", "/v1/messages"]


@pytest.mark.parametrize("wire", WIRES)
async def test_a_stream_that_fails_before_its_first_part_is_tried_again(wire: str) -> None:
    """What came before it, here the head of the answer and of the message, was not sent to the caller."""
    spoken = WIRES[wire]

    async def begun(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.chunk(spoken.events("x")[0])
        exchange.cut()

    async with places(begun, says("Hello", wire=spoken), wires=[spoken] * 2) as at:
        answer = await at.ask("stream")

    assert answer.reader is not None
    assert answer.reader.kinds[:2] == ["started", "attempt_started"]
    assert answer.reader.kinds.count("attempt_started") == 1
    started = answer.reader.events[1].attempt_started
    assert (started.attempt, started.provider) == (2, "p1")
    assert answer.text == "Hello"


async def test_a_stream_that_fails_after_its_first_part_is_not_tried_again() -> None:
    async with places(cut_after("Hello"), says("Hello")) as at:
        reader = await at.gw.stream(stream(FAST)).rest()

    assert reader.failed is not None
    assert (reader.failed.code, reader.failed.reason) == (grpc.StatusCode.UNAVAILABLE, "LLM_CONNECTION")
    assert (reader.text, at.asked) == ("Hello", [1, 0])
    assert reader.failed.pushback == -1


@pytest.mark.parametrize("kind", KINDS)
async def test_every_attempt_and_its_reason_are_told(kind: str) -> None:
    async with places(in_turn(fails(500), fails(503)), retry={"max_attempts": 2}) as at:
        failed = await at.refused(kind)

    assert [(a.attempt, a.provider, a.reason, a.upstream_status) for a in failed.detail.attempts] == [
        (1, "p0", "LLM_SERVER_ERROR", 500),
        (2, "p0", "LLM_OVERLOADED", 503),
    ]
    assert failed.reason == "LLM_OVERLOADED"
    # The gateway's attempts are spent: a client's own would multiply them.
    assert failed.pushback == -1


async def test_without_attempts_of_its_own_the_gateway_leaves_them_to_the_client() -> None:
    async with places(fails(500), retry={"max_attempts": 1}) as at:
        failed = await at.refused("unary")

    assert (failed.pushback, at.asked) == (None, [1])


async def test_there_are_three_attempts_unless_a_route_has_more_targets() -> None:
    async with places(fails(500)) as one, places(*[fails(500)] * 4) as four:
        await one.refused("unary", "p0/m")
        await one.refused("unary")
        await four.refused("unary")

    assert one.asked == [6]
    assert four.asked == [1, 1, 1, 1]


# -- waits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_a_retry_after_is_waited_for(kind: str) -> None:
    async with places(in_turn(fails(429, retry_after_ms="300"), says("Hello"))) as at:
        answer = await at.ask(kind, timeout=10)
        first, second = at.ups[0].exchanges

    assert answer.attempts == 2
    assert 0.3 <= second.arrived - first.arrived < 1


@pytest.mark.parametrize("kind", KINDS)
async def test_a_retry_after_beyond_the_deadline_is_not_waited_for(kind: str) -> None:
    async with places(fails(429, retry_after="30")) as at:
        began = time.monotonic()
        failed = await at.refused(kind, timeout=10)
        took = time.monotonic() - began

    assert (failed.reason, failed.pushback, at.asked) == ("LLM_RATE_LIMITED", -1, [1])
    assert failed.details["RetryInfo"].retry_delay.seconds == 30
    assert took < 2


async def test_a_retry_after_is_not_waited_for_where_there_is_another_target() -> None:
    async with places(fails(429, retry_after="30"), says("Hello")) as at:
        began = time.monotonic()
        answer = await at.ask("unary", timeout=10)
        again = await at.ask("unary", timeout=10)
        took = time.monotonic() - began

    assert (answer.attempts, again.attempts, at.asked) == (2, 1, [1, 2])
    assert took < 2


@pytest.mark.alone
async def test_attempts_end_with_the_deadline() -> None:
    slow = {"max_attempts": 32, "initial_backoff": "100ms", "max_backoff": "100ms"}
    async with places(fails(500), route={"retry": slow}) as at:
        began = time.monotonic()
        failed = await at.refused("unary", options=completion_pb2.CallOptions(timeout=Duration(nanos=400_000_000)))
        took = time.monotonic() - began

    assert failed.reason in {"LLM_SERVER_ERROR", "GATEWAY_TIMEOUT"}
    assert took < 0.6


@pytest.mark.parametrize(
    ("timeouts", "kind"), [({"first_token": 1}, "stream"), ({"idle": 1}, "unary"), ({"total_unary": 1}, "unary")]
)
async def test_each_attempt_has_its_own_time(timeouts: dict[str, float], kind: str) -> None:
    async def silent(exchange: Exchange) -> None:
        if exchange.json.get("stream"):
            await exchange.head()
            # A sign of life is no first part of an answer.
            await exchange.chunk(b": still here\n\n")
        await exchange.silence()

    async with places(silent, says("Hello"), provider={"timeouts": timeouts}) as at:
        answer = await at.ask(kind, timeout=10)
        await at.ups[0].exchanges[0].gone()

    assert (answer.provider, answer.attempts) == ("p1", 2)


async def test_a_target_that_was_silent_is_not_asked_the_same_again() -> None:
    """It has probably done the work, and has it paid for."""
    async with places(lambda exchange: exchange.silence(), provider={"timeouts": {"idle": 0.1}}) as at:
        failed = await at.refused("unary", timeout=10)

    assert (failed.reason, at.asked) == ("LLM_TIMEOUT", [1])


# -- who can do it ----------------------------------------------------------------------------------------------------


async def test_a_target_that_cannot_do_what_is_asked_is_passed_over() -> None:
    params = generation_pb2.GenerationParams(seed=1)
    async with places(says("x", wire=ANTHROPIC), says("Hello"), wires=[ANTHROPIC, OPENAI]) as at:
        answer = await at.ask("unary", params=params)

    assert (answer.provider, answer.attempts, at.asked) == ("p1", 1, [0, 1])


async def test_what_no_target_can_do_is_refused() -> None:
    params = generation_pb2.GenerationParams(seed=1)
    async with places(says("x", wire=ANTHROPIC), wires=[ANTHROPIC]) as at:
        failed = await at.refused("unary", params=params)

    assert (failed.reason, at.asked) == ("UNSUPPORTED_PARAMETER", [0])


async def test_what_the_others_cannot_do_hides_no_failure() -> None:
    params = generation_pb2.GenerationParams(seed=1)
    async with places(fails(401), says("x", wire=ANTHROPIC), wires=[OPENAI, ANTHROPIC]) as at:
        failed = await at.refused("unary", params=params)

    assert (failed.reason, at.asked) == ("LLM_AUTHENTICATION", [1, 0])


# -- embeddings and counts --------------------------------------------------------------------------------------------


async def test_only_the_batches_that_are_missing_are_embedded_again() -> None:
    failures = iter([True])

    async def script(exchange: Exchange) -> None:
        inputs = exchange.json["input"]
        if inputs == ["c"] and next(failures, False):
            await fails(500)(exchange)
            return
        data = [{"index": at, "embedding": [float(ord(text))]} for at, text in enumerate(inputs)]
        await exchange.answer({"data": data, "usage": {"prompt_tokens": 1, "total_tokens": 1}})

    async with places(script) as at:
        at.gw.app.engine.providers["p0"].embedding_batch = 2
        inputs = [embedding.EmbeddingInput(text=text) for text in "abc"]
        request = embedding.CreateEmbeddingsRequest(spec=embedding.EmbeddingSpec(model=FAST, inputs=inputs))
        answer = await at.gw.embeddings.CreateEmbeddings(request)
        sent = [exchange.json["input"] for exchange in at.ups[0].exchanges]

    assert [list(vector.values) for vector in answer.embeddings] == [[97.0], [98.0], [99.0]]
    assert sent.count(["c"]) == 2
    assert 1 <= sent.count(["a", "b"]) <= 2


async def test_all_vectors_of_an_answer_are_made_by_one_target() -> None:
    async def half(exchange: Exchange) -> None:
        inputs = exchange.json["input"]
        if inputs == ["b"]:
            await fails(500)(exchange)
        else:
            await exchange.answer({"data": [{"index": 0, "embedding": [0.0]}]})

    def one(exchange: Exchange) -> Any:
        return exchange.answer({"data": [{"index": 0, "embedding": [1.0]}]})

    async with places(half, one) as at:
        for name in ("p0", "p1"):
            at.gw.app.engine.providers[name].embedding_batch = 1
        inputs = [embedding.EmbeddingInput(text=text) for text in "ab"]
        request = embedding.CreateEmbeddingsRequest(spec=embedding.EmbeddingSpec(model=FAST, inputs=inputs))
        answer = await at.gw.embeddings.CreateEmbeddings(request)

    assert [list(vector.values) for vector in answer.embeddings] == [[1.0], [1.0]]
    assert answer.provider == "p1"


async def test_counting_goes_on_to_the_next_target() -> None:
    def counts(exchange: Exchange) -> Any:
        return exchange.answer({"input_tokens": 11})

    async with places(fails(401), counts, wires=[ANTHROPIC] * 2) as at:
        answer = await at.gw.completions.CountTokens(pb.CountTokensRequest(spec=stream(FAST).spec))

    assert (answer.input_tokens, answer.provider) == (11, "p1")
