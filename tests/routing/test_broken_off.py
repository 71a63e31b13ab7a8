"""An answer that breaks off after its first part: it fails, begins again, or is gone on with, as the call asks."""

from __future__ import annotations

import itertools
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.gateway import Reader, stream
from tests.providers import bedrock_wire
from tests.routing.places import ANTHROPIC, FAST, OPENAI, WIRES, Places, Wire, cut_after, fails, in_turn, places, says
from tests.upstream import Exchange, Script, chat_events, piece, sse

from trunkline.v1 import completion_pb2, message_pb2
from trunkline_server import providers
from trunkline_server.providers.assembly import Assembly, Part
from trunkline_server.providers.framing import FRAMINGS

RESTART = completion_pb2.AFTER_FIRST_TOKEN_RESTART
CONTINUE = completion_pb2.AFTER_FIRST_TOKEN_CONTINUE


async def asked(at: Places, late: Any, model: str = FAST, **more: Any) -> Reader:
    options = {"after_first_token": late, **more.pop("options", {})}
    return await at.gw.stream(stream(model, options=options, **more), timeout=20).rest()


def breaks(fault: str, *texts: str, wire: Wire = OPENAI) -> Script:
    """Says the texts, and then something goes wrong."""

    async def script(exchange: Exchange) -> None:
        await exchange.head()
        for event in wire.events(*texts)[: -wire.after]:
            await exchange.chunk(event)
        if fault == "silence":
            await exchange.silence()
        elif fault == "reset":
            exchange.reset()
        elif fault == "error":
            error = {"type": "overloaded_error", "message": "Overloaded"}
            await exchange.chunk(sse({"type": "error", "error": error}, "error"))
            await exchange.end()
        elif fault == "end":
            await exchange.end()
        else:
            exchange.cut()

    return script


# -- begin again ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("fault", ["cut", "reset", "error", "end", "silence"])
async def test_an_answer_begins_again_at_another_target(fault: str, wire: str) -> None:
    spoken = WIRES[wire]
    broken = breaks(fault, "Once upon", " a", wire=spoken)
    provider = {"timeouts": {"idle": 0.2}}
    async with places(broken, says("Hello", wire=spoken), wires=[spoken] * 2, provider=provider) as at:
        reader = await asked(at, RESTART, stream_options={"include_completion": True})

    assert reader.failed is None
    kinds = [kind for kind in reader.kinds if kind not in ("usage_updated", "part_delta")]
    assert kinds[:5] == ["started", "attempt_started", "part_started", "restarted", "attempt_started"]
    restarted = next(event.restarted for event in reader.events if event.HasField("restarted"))
    assert restarted.attempt == 2
    assert restarted.reason in {"LLM_CONNECTION", "LLM_OVERLOADED", "LLM_TIMEOUT"}
    # The collector has forgotten what was to be forgotten.
    [choice] = reader.completion.choices
    assert [part.text.text for part in choice.message.parts] == ["Hello"]
    finished = reader.events[-1].finished
    assert (finished.completion.choices[0].message, finished.attempts) == (choice.message, 2)
    assert finished.completion.provider == "p1"


async def test_an_answer_begins_again_at_the_same_target_if_there_is_no_other() -> None:
    async with places(in_turn(cut_after("Once"), cut_after("Twice"), says("Hello"))) as at:
        reader = await asked(at, RESTART)

    assert reader.failed is None
    assert reader.kinds.count("restarted") == 2
    assert reader.completion.choices[0].message.parts[0].text.text == "Hello"
    assert reader.completion.attempts == 3


async def test_what_was_delivered_stands_if_nobody_begins_again() -> None:
    async with places(cut_after("Once"), fails(401), retry={"max_attempts": 2}) as at:
        reader = await asked(at, RESTART)

    assert reader.failed is not None
    assert (reader.failed.code, reader.failed.reason) == (grpc.StatusCode.UNAVAILABLE, "LLM_CONNECTION")
    assert reader.failed.message.endswith("(it was not begun again: another attempt ended with LLM_AUTHENTICATION)")
    assert "restarted" not in reader.kinds
    assert reader.text == "Once"
    assert [attempt.reason for attempt in reader.failed.detail.attempts] == ["LLM_CONNECTION", "LLM_AUTHENTICATION"]


async def test_attempts_are_counted_over_the_whole_call() -> None:
    async with places(cut_after("Once"), retry={"max_attempts": 2}) as at:
        reader = await asked(at, RESTART)

    assert reader.failed is not None
    assert at.asked == [2]


async def test_a_caller_who_leaves_between_two_attempts_ends_the_call() -> None:
    async with places(cut_after("Once"), lambda exchange: exchange.silence()) as at:
        reader = at.gw.stream(stream(FAST, options={"after_first_token": RESTART}))
        await reader.until("part_delta")
        second = await at.ups[1].next()
        reader.call.cancel()
        await second.gone()
        await at.gw.idle()


# -- go on ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", WIRES)
@pytest.mark.parametrize("second", WIRES)
@pytest.mark.parametrize("fault", ["cut", "error", "silence"])
async def test_an_answer_is_gone_on_with_as_if_nothing_had_happened(fault: str, first: str, second: str) -> None:
    wires = [WIRES[first], WIRES[second]]
    broken = breaks(fault, "Once upon", " a ", wire=wires[0])
    targets = ["p0/claude-sonnet-4-5", "p1/claude-sonnet-4-5"]
    provider = {"timeouts": {"idle": 0.2}}
    # Not told of the white space at the end, the model says it again.
    async with places(
        broken, says(" time, there", " was.", wire=wires[1]), wires=wires, route={"targets": targets}, provider=provider
    ) as at:
        reader = await asked(at, CONTINUE, stream_options={"include_completion": True})
        body = at.ups[1].exchanges[0].json

    assert reader.failed is None, reader.failed
    assert reader.text == "Once upon a time, there was."
    kinds = [kind for kind in reader.kinds if kind not in ("usage_updated", "part_delta")]
    assert kinds == ["started", "attempt_started", "part_started", "part_finished", "choice_finished", "finished"]
    completion = reader.events[-1].finished.completion
    assert [part.text.text for part in completion.choices[0].message.parts] == ["Once upon a time, there was."]
    assert (completion.provider, completion.attempts) == ("p1", 2)
    last = body["messages"][-1]
    assert last["role"] == "assistant"
    if second == "anthropic":
        assert last["content"] in ("Once upon a", [{"type": "text", "text": "Once upon a"}])
    else:
        assert last["content"] == "Once upon a"
        assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)


async def test_a_text_may_break_off_more_than_once() -> None:
    async with places(in_turn(cut_after("one "), cut_after("two "), says("three"))) as at:
        reader = await asked(at, CONTINUE)
        sent = [exchange.json["messages"][-1]["content"] for exchange in at.ups[0].exchanges]

    assert (reader.failed, reader.text) == (None, "one two three")
    assert sent[1:] == ["one", "one two"]


async def test_what_both_attempts_spent_is_told() -> None:
    wires = [ANTHROPIC, ANTHROPIC]
    targets = ["p0/claude-sonnet-4-5", "p1/claude-sonnet-4-5"]
    async with places(
        cut_after("Once", wire=ANTHROPIC), says(" upon", wire=ANTHROPIC), wires=wires, route={"targets": targets}
    ) as at:
        reader = await asked(at, CONTINUE)

    usage = reader.completion.usage
    # The first one told its input and its first token.
    assert (usage.input_tokens, usage.output_tokens) == (14, 4)
    assert usage.source == completion_pb2.USAGE_SOURCE_PARTIAL


async def test_an_answer_of_white_space_begins_anew() -> None:
    async with places(in_turn(cut_after("\n"), says("\n\nHello"))) as at:
        reader = await asked(at, CONTINUE)
        roles = [[message["role"] for message in exchange.json["messages"]] for exchange in at.ups[0].exchanges]

    assert (reader.failed, reader.text) == (None, "\n\nHello")
    assert roles == [["user"], ["user"]]


async def test_the_limit_of_tokens_is_for_the_whole_answer() -> None:
    async with places(in_turn(cut_after("x" * 40), says("y"))) as at:
        await asked(at, CONTINUE, params={"max_output_tokens": 25})
        limits = [exchange.json["max_completion_tokens"] for exchange in at.ups[0].exchanges]

    assert limits == [25, 15]


async def test_what_the_caller_had_begun_is_gone_on_with_too() -> None:
    begun = message_pb2.Message(role=message_pb2.ROLE_ASSISTANT)
    begun.parts.add().text.text = "Well, "
    async with places(in_turn(cut_after("once "), says("upon"))) as at:
        request = stream(FAST, options={"after_first_token": CONTINUE})
        request.spec.messages.append(begun)
        reader = await at.gw.stream(request).rest()
        sent = at.ups[0].exchanges[1].json["messages"]

    assert reader.text == "once upon"
    assert [message["role"] for message in sent] == ["user", "assistant"]
    assert sent[-1]["content"] == "Well, once"


async def thinks(exchange: Exchange) -> None:
    await exchange.head()
    await exchange.chunk(piece(reasoning_content="Hm."))
    await exchange.chunk(piece("Hello"))
    exchange.cut()


async def calls_a_tool(exchange: Exchange) -> None:
    await exchange.head()
    call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":'}}
    await exchange.chunk(piece(tool_calls=[call]))
    exchange.cut()


OBSTACLES: dict[str, tuple[Script, dict[str, Any], str]] = {
    "reasoning": (thinks, {}, "reasoning or other parts"),
    "tools": (calls_a_tool, {}, "there are tool calls"),
    "several": (cut_after("Hello"), {"params": {"n": 2}}, "several answers"),
    "asked to reason": (cut_after("Hello"), {"params": {"reasoning": {"effort": 2}}}, "asked to reason"),
    "shape": (cut_after("{"), {"response_format": {"json_object": {}}}, "prescribed shape"),
}


@pytest.mark.parametrize("obstacle", OBSTACLES)
async def test_what_cannot_be_gone_on_with_fails_and_says_why(obstacle: str) -> None:
    script, how, why = OBSTACLES[obstacle]
    async with places(script, says("x")) as at:
        reader = await asked(at, CONTINUE, **how)

    assert reader.failed is not None
    assert (reader.failed.code, reader.failed.reason) == (grpc.StatusCode.UNAVAILABLE, "LLM_CONNECTION")
    assert why in reader.failed.message
    assert why in reader.failed.details["ErrorInfo"].metadata["afterFirstToken"]
    assert at.asked == [1, 0]


async def test_a_target_that_cannot_go_on_is_not_asked() -> None:
    targets = ["p0/m", "p1/claude-opus-4-8", "p1/claude-opus-4-5"]
    wires = [OPENAI, ANTHROPIC]
    async with places(
        cut_after("Hello"), says(" there", wire=ANTHROPIC), wires=wires, route={"targets": targets}
    ) as at:
        reader = await asked(at, CONTINUE)
        models = [exchange.json["model"] for exchange in at.ups[1].exchanges]

    assert (reader.failed, reader.text) == (None, "Hello there")
    assert models == ["claude-opus-4-5"]


async def test_a_target_that_refuses_to_go_on_is_not_the_last_word() -> None:
    refusal = fails(400, {"message": "This model does not support assistant message prefill."})
    async with places(cut_after("Hello"), refusal, says(" there")) as at:
        reader = await asked(at, CONTINUE)

    assert (reader.failed, reader.text, at.asked) == (None, "Hello there", [1, 1, 1])


async def test_a_refusal_to_go_on_is_told_beside_what_went_wrong() -> None:
    refusal = fails(400, {"message": "This model does not support assistant message prefill."})
    async with places(
        cut_after("Hello"), refusal, route={"targets": ["p0/m", "p1/m"]}, retry={"max_attempts": 2}
    ) as at:
        reader = await asked(at, CONTINUE)

    assert reader.failed is not None
    assert reader.failed.reason == "LLM_CONNECTION"
    assert "(it was not gone on with: another attempt ended with LLM_BAD_REQUEST)" in reader.failed.message
    assert reader.text == "Hello"


# -- seams ------------------------------------------------------------------------------------------------------------


class Answer:
    """A text in two attempts, as an assembly has it and as a caller gets it."""

    def __init__(self, *first: str) -> None:
        self.assembly = Assembly("a", "m", emits=True)
        self.got: list[str] = []
        self.part = self.assembly.part(0, "text")
        self.says(*first)

    def says(self, *pieces: str) -> None:
        for text in pieces:
            self.part.text(text)
            self.receive()

    def receive(self) -> None:
        self.got += [event.part_delta.text for event in self.assembly.events() if event.HasField("part_delta")]

    def goes_on(self, *pieces: str, echo: str = "", space: str = "") -> None:
        self.assembly.go_on("b", "n", None, echo=echo, space=space)
        self.part = self.assembly.part(0, "text")
        self.says(*pieces)
        self.assembly.finish(0, completion_pb2.FINISH_REASON_STOP)
        self.receive()

    @property
    def text(self) -> str:
        [part] = self.assembly.completion().choices[0].message.parts
        assert part.text.text == "".join(self.got)
        return part.text.text


@given(said=st.text(min_size=1), rest=st.text(), cuts=st.lists(st.integers(0, 60), max_size=5))
def test_an_echo_is_left_out_wherever_it_is_cut(said: str, rest: str, cuts: list[int]) -> None:
    words = said.rstrip()
    whole = said + rest
    places_ = sorted({0, *(cut for cut in cuts if cut < len(whole)), len(whole)})
    pieces = [whole[a:b] for a, b in itertools.pairwise(places_)]
    answer = Answer(said)
    answer.goes_on(*pieces, echo=words, space=said[len(words) :])

    assert answer.text == said + rest


@given(said=st.text("ab", min_size=2), rest=st.text("ab"))
def test_what_only_looks_like_an_echo_is_not_lost(said: str, rest: str) -> None:
    answer = Answer(said)
    answer.goes_on(*rest, echo=said)

    assert answer.text in {said + rest, rest if rest.startswith(said) else said + rest}


@given(
    words=st.text("ab", min_size=1),
    space=st.text(" \n", max_size=4),
    again=st.text(" \n", max_size=4),
    rest=st.text("ab", min_size=1),
)
def test_white_space_is_said_once(words: str, space: str, again: str, rest: str) -> None:
    answer = Answer(words + space)
    answer.goes_on(*again, rest, space=space)

    same = 0
    while same < min(len(space), len(again)) and space[same] == again[same]:
        same += 1
    assert answer.text == words + space + again[same:] + rest


def test_half_a_character_is_not_gone_on_with() -> None:
    answer = Answer("a", "\ud83d")
    assert answer.assembly.said() == "a"
    answer.goes_on("b")

    assert answer.text == "ab"


def test_an_answer_that_goes_on_with_another_kind_ends_the_text() -> None:
    answer = Answer("Hello")
    answer.assembly.go_on("b", "n", None, echo="", space="")
    call = message_pb2.ContentPart()
    call.tool_call.name = "f"
    part: Part = answer.assembly.open(0, "call", call)
    part.text("{}")
    answer.assembly.finish(0, completion_pb2.FINISH_REASON_TOOL_CALLS)
    kinds = [event.WhichOneof("event") for event in answer.assembly.events()]

    assert kinds == ["part_finished", "part_started", "part_delta", "part_finished", "choice_finished"]


#: A text that broke off and its rest, in every wire whose models can be given the beginning of an answer.
SEAMS: dict[str, tuple[bytes, bytes]] = {
    "openai_chat": (b"".join(chat_events("Once ", "upon")[:3]), b"".join(chat_events(" a", " time"))),
    "anthropic_messages": (
        b"".join(ANTHROPIC.events("Once ", "upon")[:4]),
        b"".join(ANTHROPIC.events(" a", " time")),
    ),
    "bedrock_converse": (
        b"".join(
            bedrock_wire.event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": text}})
            for text in ("Once ", "upon")
        ),
        bedrock_wire.streamed(
            {
                "output": {"message": {"role": "assistant", "content": [{"text": " a time"}]}},
                "stopReason": "end_turn",
                "usage": {"inputTokens": 9, "outputTokens": 3, "totalTokens": 12},
            }
        ),
    ),
}


def test_every_wire_of_a_model_that_goes_on_is_here() -> None:
    names = {
        row.tongue_of(model).dialect
        for row in providers.KINDS.values()
        for model in ("some-model", "anthropic.claude-sonnet-4-5")
        if row.capabilities_of(model).prefill is not None
    }
    # Those are Anthropic's own wire, in another envelope.
    assert names - {"vertex_anthropic", "bedrock_invoke_anthropic"} == set(SEAMS)


@pytest.mark.parametrize("name", SEAMS)
def test_the_rest_of_a_text_is_one_part_with_its_beginning(name: str) -> None:
    dialect = providers.DIALECTS[name]()
    assembly = Assembly("a", "m", emits=True)
    made: list[Any] = []
    for stream_ in SEAMS[name]:
        framer, decoder = FRAMINGS[dialect.framing](), dialect.decoder(assembly)
        for event in framer.feed(stream_):
            decoder.event(event)
            made += assembly.events()
        if stream_ is SEAMS[name][0]:
            assert assembly.said() == "Once upon"
            assembly.go_on("b", "n", None, echo="", space="")
        else:
            decoder.end()
            made += assembly.events()

    [choice] = assembly.completion().choices
    assert [part.text.text for part in choice.message.parts] == ["Once upon a time"]
    assert "".join(event.part_delta.text for event in made) == "Once upon a time"
    assert sum(event.HasField("part_started") for event in made) == 1
