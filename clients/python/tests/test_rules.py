"""The rules of a stream, one row each: events in, the rule that they break out."""

from typing import Any

import grpc
import pytest
from fake_gateway import hello, hello_events, numbered
from google.protobuf.message import Message

from trunkline import Collector, StreamIncomplete, StreamRuleBroken, StreamRules, collect, text_of
from trunkline.rules import _CHECKS, DELTA_FITS
from trunkline.v1.completion_pb2 import FINISH_REASON_STOP, Usage
from trunkline.v1.completion_service_pb2 import (
    AttemptStarted,
    ChoiceFinished,
    CompletionFinished,
    CompletionRestarted,
    CompletionStarted,
    Heartbeat,
    PartDelta,
    PartFinished,
    PartStarted,
    RawEvent,
    StreamCompletionResponse,
    UsageUpdated,
)
from trunkline.v1.message_pb2 import Citation, ContentPart, Media, OpaqueBlock, Reasoning, Refusal, Text, ToolCall

STARTED = CompletionStarted(completion_id="cmpl_1")
ATTEMPT = AttemptStarted(attempt=1)
TEXT = PartStarted(part=ContentPart(text=Text()))
CALL = PartStarted(part=ContentPart(tool_call=ToolCall(id="1")))
DELTA = PartDelta(text="a")
END = PartFinished()
CHOICE = ChoiceFinished(finish_reason=FINISH_REASON_STOP)
FINISHED = CompletionFinished()
WHOLE = [STARTED, ATTEMPT, TEXT, DELTA, END, CHOICE, FINISHED]

ALLOWED: dict[str, list[Message]] = {
    "the usual": WHOLE,
    "no parts": [STARTED, ATTEMPT, CHOICE, FINISHED],
    "no choices": [STARTED, ATTEMPT, FINISHED],
    "no deltas": [STARTED, ATTEMPT, TEXT, END, CHOICE, FINISHED],
    "a delta that says nothing": [STARTED, ATTEMPT, TEXT, PartDelta(), END, CHOICE, FINISHED],
    "two parts at once": [
        *[STARTED, ATTEMPT, TEXT, PartStarted(part_index=1, part=CALL.part)],
        *[PartDelta(part_index=1, text="{}"), DELTA, END, PartFinished(part_index=1), CHOICE, FINISHED],
    ],
    "two choices at once": [
        *[
            STARTED,
            ATTEMPT,
            PartStarted(choice_index=1, part=TEXT.part),
            TEXT,
            PartDelta(choice_index=1, text="b"),
            DELTA,
        ],
        *[END, CHOICE, PartFinished(choice_index=1), ChoiceFinished(choice_index=1), FINISHED],
    ],
    "heartbeats, usage and raw events anywhere": [
        *[STARTED, Heartbeat(), RawEvent(), ATTEMPT, UsageUpdated(), TEXT, Heartbeat(), DELTA, UsageUpdated(), END],
        *[RawEvent(), CHOICE, Heartbeat(), FINISHED],
    ],
    "begun again": [STARTED, ATTEMPT, TEXT, DELTA, CompletionRestarted(attempt=2), *WHOLE[1:]],
    "begun again after a choice": [*WHOLE[:-1], CompletionRestarted(attempt=2), *WHOLE[1:]],
    "tool call with the truncated copy": [
        *[STARTED, ATTEMPT, CALL, PartFinished(completed_arguments_json="{}", reasoning="why"), CHOICE, FINISHED],
    ],
    "a part of a kind that is not known": [
        *[STARTED, ATTEMPT, PartStarted(part=ContentPart()), DELTA, PartDelta(encrypted="x")],
        *[PartFinished(reasoning="why"), CHOICE, FINISHED],
    ],
}

BROKEN: dict[str, tuple[list[Message], str]] = {
    "nothing before started": ([ATTEMPT], "attempt_started before started"),
    "no heartbeat before started": ([Heartbeat()], "heartbeat before started"),
    "started twice": ([STARTED, STARTED], "started twice"),
    "attempt during another": ([STARTED, ATTEMPT, ATTEMPT], "attempt 1 started during another"),
    "part before an attempt": ([STARTED, TEXT], "part 0 of choice 0 started before attempt_started"),
    "choice before an attempt": ([STARTED, CHOICE], "choice 0 finished before attempt_started"),
    "end before an attempt": ([STARTED, FINISHED], "finished before attempt_started"),
    "first part is not 0": (
        [STARTED, ATTEMPT, PartStarted(part_index=1, part=TEXT.part)],
        "part 1 of choice 0 started where part 0 was due",
    ),
    "part number left out": (
        [STARTED, ATTEMPT, TEXT, PartStarted(part_index=2, part=TEXT.part)],
        "part 2 of choice 0 started where part 1 was due",
    ),
    "part started twice": ([STARTED, ATTEMPT, TEXT, TEXT], "part 0 of choice 0 started where part 1 was due"),
    "part in a finished choice": (
        [STARTED, ATTEMPT, CHOICE, TEXT],
        "part 0 started in choice 0, which is finished",
    ),
    "delta of no part": ([STARTED, ATTEMPT, DELTA], "delta of part 0 of choice 0, which was not started"),
    "delta of another choice": (
        [STARTED, ATTEMPT, TEXT, PartDelta(choice_index=1, text="a")],
        "delta of part 0 of choice 1, which was not started",
    ),
    "delta of a finished part": (
        [STARTED, ATTEMPT, TEXT, END, DELTA],
        "delta of part 0 of choice 0, which is finished",
    ),
    "end of no part": ([STARTED, ATTEMPT, END], "end of part 0 of choice 0, which was not started"),
    "end of a part twice": ([STARTED, ATTEMPT, TEXT, END, END], "end of part 0 of choice 0, which is finished"),
    "arguments of a text": (
        [STARTED, ATTEMPT, TEXT, PartFinished(completed_arguments_json="{}")],
        "completed_arguments_json for a part of kind text",
    ),
    "reasoning of a text": (
        [STARTED, ATTEMPT, TEXT, PartFinished(reasoning="")],
        "reasoning for a part of kind text",
    ),
    "choice with an open part": (
        [STARTED, ATTEMPT, TEXT, CHOICE],
        r"choice 0 finished while parts \[0\] are open",
    ),
    "choice finished twice": ([STARTED, ATTEMPT, CHOICE, CHOICE], "choice 0 finished twice"),
    "end with an open choice": (
        [STARTED, ATTEMPT, TEXT, END, FINISHED],
        r"finished while choices \[0\] are not",
    ),
    "choice number left out": (
        [STARTED, ATTEMPT, ChoiceFinished(choice_index=1), FINISHED],
        r"choices \[1\] are not numbered from 0 without gaps",
    ),
    "anything after the end": ([*WHOLE, Heartbeat()], r"event 8 \(heartbeat\) after finished"),
    "restarted with no attempt": ([STARTED, CompletionRestarted(attempt=2)], "restarted .* before an attempt started"),
    "part after restarted": (
        [STARTED, ATTEMPT, CompletionRestarted(), TEXT],
        "part 0 of choice 0 started before attempt_started",
    ),
    "end after restarted": ([*WHOLE[:-1], CompletionRestarted(), FINISHED], "finished before attempt_started"),
}

PARTS = {
    "text": ContentPart(text=Text()),
    "image": ContentPart(image=Media()),
    "audio": ContentPart(audio=Media()),
    "tool_call": ContentPart(tool_call=ToolCall()),
    "reasoning": ContentPart(reasoning=Reasoning()),
    "refusal": ContentPart(refusal=Refusal()),
    "opaque": ContentPart(opaque=OpaqueBlock()),
}
DELTAS: dict[str, Any] = {
    "text": "a",
    "data": b"a",
    "signature": "a",
    "citation": Citation(),
    "encrypted": "a",
    "transcript": "a",
}


def check(events: list[StreamCompletionResponse]) -> StreamRules:
    rules = StreamRules()
    for event in events:
        rules.check(event)
    return rules


@pytest.mark.parametrize("events", ALLOWED.values(), ids=ALLOWED.keys())
def test_a_stream_may_hold(events: list[Message]) -> None:
    check(numbered(*events)).end()


@pytest.mark.parametrize(("events", "rule"), BROKEN.values(), ids=BROKEN.keys())
def test_a_stream_must_not_hold(events: list[Message], rule: str) -> None:
    with pytest.raises(StreamRuleBroken, match=rule) as caught:
        check(numbered(*events))

    assert caught.value.code is grpc.StatusCode.INTERNAL
    # The event before the last broke nothing.
    check(numbered(*events[:-1]))


@pytest.mark.parametrize(("numbers", "rule"), [([2], "2 after 0"), ([1, 3], "3 after 1"), ([1, 1], "1 after 1")])
def test_numbers_run_from_one_without_gaps(numbers: list[int], rule: str) -> None:
    events = numbered(STARTED, ATTEMPT)[: len(numbers)]
    for event, number in zip(events, numbers, strict=True):
        event.sequence_number = number

    with pytest.raises(StreamRuleBroken, match=f"event number {rule}"):
        check(events)


def test_an_event_that_is_not_known_is_counted_and_let_through() -> None:
    unknown = StreamCompletionResponse(sequence_number=3)
    check([*numbered(STARTED, ATTEMPT), unknown, *numbered(*WHOLE[2:], first=4)]).end()


@pytest.mark.parametrize("kind", PARTS)
@pytest.mark.parametrize("delta", DELTAS)
def test_a_delta_fits_the_kind_of_its_part(kind: str, delta: str) -> None:
    events = numbered(STARTED, ATTEMPT, PartStarted(part=PARTS[kind]), PartDelta(**{delta: DELTAS[delta]}))
    fits = DELTA_FITS[delta]

    if fits is None or kind in fits:
        check(events)
    else:
        with pytest.raises(StreamRuleBroken, match=f"{delta} delta for a part of kind {kind}"):
            check(events)


def test_every_kind_of_delta_has_its_rule() -> None:
    assert set(DELTA_FITS) == {field.name for field in PartDelta.DESCRIPTOR.oneofs_by_name["delta"].fields}


def test_every_event_has_its_rule_or_may_stand_anywhere() -> None:
    events = {field.name for field in StreamCompletionResponse.DESCRIPTOR.oneofs_by_name["event"].fields}

    assert events - set(_CHECKS) == {"usage_updated", "heartbeat", "raw"}


@pytest.mark.parametrize("length", range(len(WHOLE)))
def test_a_stream_without_finished_is_incomplete(length: int) -> None:
    with pytest.raises(StreamIncomplete, match=f"after event {length} without finished") as caught:
        check(numbered(*WHOLE[:length])).end()

    assert caught.value.retryable


def test_what_came_before_a_broken_rule_is_kept() -> None:
    collector = Collector()
    for event in hello_events()[:4]:
        collector.add(event)

    with pytest.raises(StreamRuleBroken) as caught:
        collector.add(numbered(STARTED, first=5)[0])

    assert caught.value.completion is not None
    assert text_of(caught.value.completion) == "Hello"


def test_usage_of_a_broken_stream_is_the_last_that_was_told() -> None:
    updates = [UsageUpdated(usage=Usage(output_tokens=count)) for count in (1, 2)]

    with pytest.raises(StreamIncomplete) as caught:
        collect(numbered(STARTED, ATTEMPT, *updates))

    assert caught.value.completion is not None
    assert caught.value.completion.usage.output_tokens == 2


def test_collecting_a_list_of_events_gives_the_completion() -> None:
    assert collect(hello_events()) == hello()
