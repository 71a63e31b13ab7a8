"""A collected stream holds all that a unary completion holds."""

import resource

import pytest
from fake_gateway import numbered
from google.protobuf.message import Message

from trunkline import Collector, collect
from trunkline.v1.completion_pb2 import (
    FINISH_REASON_LENGTH,
    FINISH_REASON_TOOL_CALLS,
    USAGE_SOURCE_REPORTED,
    Choice,
    Completion,
    RateLimit,
    Timing,
    TokenLogprob,
    TopLogprob,
    Usage,
)
from trunkline.v1.completion_pb2 import (
    Warning as CompletionWarning,
)
from trunkline.v1.completion_service_pb2 import (
    AttemptStarted,
    ChoiceFinished,
    CompletionFinished,
    CompletionRestarted,
    CompletionStarted,
    PartDelta,
    PartFinished,
    PartStarted,
    UsageUpdated,
)
from trunkline.v1.message_pb2 import (
    ROLE_ASSISTANT,
    Citation,
    ContentPart,
    Media,
    OpaqueBlock,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
)
from trunkline.v1.message_pb2 import (
    Message as Said,
)

STARTED = CompletionStarted(completion_id="cmpl_1")
STARTED.create_time.FromSeconds(1_700_000_000)
ATTEMPT = AttemptStarted(attempt=2, provider="openai", model="gpt-5.2-2025", provider_response_id="resp_1")
USAGE = Usage(input_tokens=0, output_tokens=7, source=USAGE_SOURCE_REPORTED, cost_nano_usd=5, raw_json='{"a": 1}')
TIMING = Timing()
TIMING.total.FromMilliseconds(1200)

# Part as a whole, and the same as it streams: what starts it and what follows.
PARTS: dict[str, tuple[ContentPart, ContentPart, list[PartDelta | PartFinished]]] = {
    "text": (
        ContentPart(text=Text(text="Hello, wörld"), item_id="msg_1"),
        ContentPart(text=Text(text="Hel"), item_id="msg_1"),
        [PartDelta(text="lo, w"), PartDelta(text="örld")],
    ),
    "text with citations": (
        ContentPart(
            text=Text(text="As said.", citations=[Citation(uri="https://a"), Citation(title="b", end_index=3)])
        ),
        ContentPart(text=Text(citations=[Citation(uri="https://a")])),
        [PartDelta(text="As said."), PartDelta(citation=Citation(title="b", end_index=3))],
    ),
    "reasoning with signature and ciphertext": (
        ContentPart(
            reasoning=Reasoning(text="hm, so", is_summary=True, encrypted="abcd"),
            signature="sig==",
            origin_provider="anthropic",
        ),
        ContentPart(reasoning=Reasoning(is_summary=True), origin_provider="anthropic"),
        [
            PartDelta(text="hm,"),
            PartDelta(text=" so"),
            PartDelta(encrypted="ab"),
            PartDelta(encrypted="cd"),
            PartDelta(signature="sig"),
            PartDelta(signature="=="),
        ],
    ),
    "redacted reasoning": (
        ContentPart(reasoning=Reasoning(redacted=True, encrypted="x")),
        ContentPart(reasoning=Reasoning(redacted=True, encrypted="x")),
        [],
    ),
    "tool call": (
        ContentPart(tool_call=ToolCall(id="call_1", name="f", arguments_json='{"city": "Paris"}'), signature="s"),
        ContentPart(tool_call=ToolCall(id="call_1", name="f"), signature="s"),
        [PartDelta(text='{"city"'), PartDelta(text=": "), PartDelta(text='"Paris"}')],
    ),
    "truncated tool call": (
        ContentPart(
            tool_call=ToolCall(
                id="1", name="f", arguments_json='{"a": 1, "b', completed_arguments_json='{"a": 1}', reasoning="because"
            )
        ),
        ContentPart(tool_call=ToolCall(id="1", name="f")),
        [PartDelta(text='{"a": 1, "b'), PartFinished(completed_arguments_json='{"a": 1}', reasoning="because")],
    ),
    "tool call with empty reasoning": (
        ContentPart(tool_call=ToolCall(id="1", name="f", reasoning="")),
        ContentPart(tool_call=ToolCall(id="1", name="f")),
        [PartFinished(reasoning="")],
    ),
    "refusal": (
        ContentPart(refusal=Refusal(text="I cannot.")),
        ContentPart(refusal=Refusal()),
        [PartDelta(text="I can"), PartDelta(text="not.")],
    ),
    "sound with transcript": (
        ContentPart(audio=Media(data=b"\x00\x01\x02", mime_type="audio/wav", transcript="oh no")),
        ContentPart(audio=Media(data=b"\x00", mime_type="audio/wav")),
        [PartDelta(data=b"\x01"), PartDelta(transcript="oh "), PartDelta(data=b"\x02"), PartDelta(transcript="no")],
    ),
    "opaque block": (
        ContentPart(opaque=OpaqueBlock(type="web_search", json="{}"), origin_provider="anthropic"),
        ContentPart(opaque=OpaqueBlock(type="web_search", json="{}"), origin_provider="anthropic"),
        [],
    ),
    "kind that is not known": (
        ContentPart(item_id="x", signature="ab"),
        ContentPart(item_id="x", signature="a"),
        [PartDelta(signature="b"), PartDelta(text="?")],
    ),
}


def part_events(start: ContentPart, steps: list[PartDelta | PartFinished]) -> list[Message]:
    ended = steps and isinstance(steps[-1], PartFinished)
    return [PartStarted(part=start), *steps, *([] if ended else [PartFinished()])]


def at(choice: int, part: int, event: Message) -> Message:
    """A copy of the event for another place."""
    moved = type(event)()
    moved.CopyFrom(event)
    moved.choice_index, moved.part_index = choice, part  # type: ignore[attr-defined]  # events of parts have both
    return moved


@pytest.mark.parametrize(("whole", "start", "steps"), PARTS.values(), ids=PARTS.keys())
def test_a_part_is_what_its_pieces_make(
    whole: ContentPart, start: ContentPart, steps: list[PartDelta | PartFinished]
) -> None:
    events = [STARTED, ATTEMPT, *part_events(start, steps), ChoiceFinished(), CompletionFinished()]

    assert list(collect(numbered(*events)).choices[0].message.parts) == [whole]


def test_a_collected_stream_holds_every_field_of_a_completion() -> None:
    logprobs = [TokenLogprob(token=token, logprob=-0.5, top=[TopLogprob(token="x", logprob=-1)]) for token in "abc"]
    warning = CompletionWarning(reason="PARAMETER_DROPPED", field="params.top_k", message="no top_k here")
    limit = RateLimit(metric="requests", limit=10, remaining=9)
    finished = CompletionFinished(
        usage=USAGE,
        timing=TIMING,
        warnings=[warning],
        attempts=2,
        provider_request_id="req_1",
        service_tier="flex",
        system_fingerprint="fp_1",
        rate_limits=[limit],
    )
    events: list[Message] = [STARTED, ATTEMPT, UsageUpdated(usage=Usage(output_tokens=1))]
    for index, (_, start, steps) in enumerate(PARTS.values()):
        events.extend(at(0, index, event) for event in part_events(start, steps))
    events += [
        PartStarted(choice_index=1, part=ContentPart(text=Text())),
        PartDelta(choice_index=1, text="a", logprobs=logprobs[:1]),
        PartDelta(choice_index=1, logprobs=logprobs[1:]),
        PartFinished(choice_index=1),
        ChoiceFinished(choice_index=1, finish_reason=FINISH_REASON_LENGTH, raw_finish_reason="max_tokens"),
        ChoiceFinished(finish_reason=FINISH_REASON_TOOL_CALLS, raw_finish_reason="tool_use", stop_sequence=""),
        finished,
    ]

    expected = Completion(
        id="cmpl_1",
        create_time=STARTED.create_time,
        provider="openai",
        model="gpt-5.2-2025",
        provider_response_id="resp_1",
        provider_request_id="req_1",
        choices=[
            Choice(
                message=Said(role=ROLE_ASSISTANT, parts=[whole for whole, _, _ in PARTS.values()]),
                finish_reason=FINISH_REASON_TOOL_CALLS,
                raw_finish_reason="tool_use",
                stop_sequence="",
            ),
            Choice(
                index=1,
                message=Said(role=ROLE_ASSISTANT, parts=[ContentPart(text=Text(text="a"))]),
                finish_reason=FINISH_REASON_LENGTH,
                raw_finish_reason="max_tokens",
                logprobs=logprobs,
            ),
        ],
        usage=USAGE,
        timing=TIMING,
        attempts=2,
        service_tier="flex",
        system_fingerprint="fp_1",
        warnings=[warning],
        rate_limits=[limit],
    )
    # All fields of a completion but `raw`, which streams as raw events.
    assert {field.name for field, _ in expected.ListFields()} == set(Completion.DESCRIPTOR.fields_by_name) - {"raw"}
    assert collect(numbered(*events)) == expected


def test_absent_usage_stays_absent() -> None:
    completion = collect(numbered(STARTED, ATTEMPT, ChoiceFinished(), CompletionFinished()))

    assert not completion.HasField("usage")
    assert not completion.choices[0].HasField("stop_sequence")


def test_what_came_before_a_restart_is_forgotten() -> None:
    text = PartStarted(part=ContentPart(text=Text(text="wrong")))
    first = [STARTED, ATTEMPT, text, PartDelta(logprobs=[TokenLogprob()]), UsageUpdated(usage=USAGE)]
    second = AttemptStarted(attempt=3, provider="groq", model="m")
    right = PartStarted(part=ContentPart(text=Text(text="right")))
    rest = [second, right, PartFinished(), ChoiceFinished(), CompletionFinished(attempts=3)]

    completion = collect(numbered(*first, CompletionRestarted(attempt=3), *rest))

    assert (completion.provider, completion.provider_response_id, completion.attempts) == ("groq", "", 3)
    assert [part.text.text for part in completion.choices[0].message.parts] == ["right"]
    assert not completion.HasField("usage")
    assert not completion.choices[0].logprobs


def test_the_events_are_left_as_they_were() -> None:
    _, start, steps = PARTS["text with citations"]
    events = numbered(STARTED, ATTEMPT, *part_events(start, steps), ChoiceFinished(), CompletionFinished())
    before = [event.SerializeToString() for event in events]

    assert collect(events) == collect(events)
    assert [event.SerializeToString() for event in events] == before


def test_a_long_answer_takes_memory_in_proportion() -> None:
    collector = Collector()
    for event in numbered(STARTED, ATTEMPT, PartStarted(part=ContentPart(text=Text()))):
        collector.add(event)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(4, 50_004):
        collector.add(numbered(PartDelta(text="word "), first=number)[0])
    completion = collector.completion()
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before

    assert len(completion.choices[0].message.parts[0].text.text) == 250_000
    assert grown_kib < 100_000  # a string that grew in place would hold 6 GB
