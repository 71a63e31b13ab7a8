"""An answer while it arrives: events, joined deltas, half characters, cut-off arguments."""

from __future__ import annotations

from trunkline.collect import Collector
from trunkline.v1 import completion_pb2, message_pb2
from trunkline_server.providers.assembly import Assembly, StreamEvent


def assembled(**options: object) -> Assembly:
    return Assembly("openai", "gpt-5", emits=True, **options)  # type: ignore[arg-type]  # by name


def kinds(events: list[StreamEvent]) -> list[str]:
    return [event.WhichOneof("event") or "" for event in events]


def call() -> message_pb2.ContentPart:
    return message_pb2.ContentPart(tool_call=message_pb2.ToolCall(id="call_1", name="look_up"))


def collected(events: list[StreamEvent]) -> completion_pb2.Completion:
    """What a caller makes of the events."""
    collector = Collector()
    started, attempt, finished = StreamEvent(), StreamEvent(), StreamEvent()
    started.started.SetInParent()
    attempt.attempt_started.SetInParent()
    finished.finished.SetInParent()
    for number, event in enumerate([started, attempt, *events, finished], start=1):
        event.sequence_number = number
        collector.add(event)
    return collector.end()


def test_deltas_that_arrive_together_leave_together() -> None:
    assembly = assembled()
    for word in ("Hello", ", ", "world"):
        assembly.part(0, "text").text(word)

    events = assembly.events()

    assert kinds(events) == ["part_started", "part_delta"]
    assert events[1].part_delta.text == "Hello, world"


def test_deltas_of_two_calls_keep_their_order() -> None:
    assembly = assembled()
    first, second = assembly.open(0, "a", call()), assembly.open(0, "b", call())
    assembly.events()
    for part, text in ((first, "1"), (second, "2"), (second, "3"), (first, "4")):
        part.text(text)

    deltas = [(event.part_delta.part_index, event.part_delta.text) for event in assembly.events()]

    assert deltas == [(0, "1"), (1, "23"), (0, "4")]


def test_a_call_that_begins_and_ends_at_once_begins_with_nothing_of_its_end() -> None:
    assembly = assembled()
    part = assembly.open(0, "a", call())
    part.text('{"city": "Par')
    part.close()

    started, delta, finished = assembly.events()

    assert not started.part_started.part.tool_call.HasField("completed_arguments_json")
    assert delta.part_delta.text == '{"city": "Par'
    assert finished.part_finished.completed_arguments_json == "{}"


def test_the_collected_call_equals_the_assembled_one() -> None:
    assembly = assembled(reasoning_argument="why")
    assembly.open(0, "a", call()).text('{"why": "to know", "city": "Paris"}')
    assembly.finish(0, completion_pb2.FINISH_REASON_TOOL_CALLS, "tool_calls")

    answer = collected(assembly.events())

    assert answer.choices == assembly.completion().choices
    assert answer.choices[0].message.parts[0].tool_call.arguments_json == '{"city":"Paris"}'
    assert answer.choices[0].message.parts[0].tool_call.reasoning == "to know"


def test_half_a_character_waits_for_its_other_half() -> None:
    assembly = assembled()
    part = assembly.part(0, "text")
    part.text("a\ud83d")
    before = assembly.events()
    part.text("\ude00b")

    after = assembly.events()

    assert [event.part_delta.text for event in before if event.HasField("part_delta")] == ["a"]
    assert after[0].part_delta.text == "😀b"
    assert assembly.completion().choices[0].message.parts[0].text.text == "a😀b"


def test_half_a_character_that_stays_alone_is_replaced() -> None:
    assembly = assembled()
    assembly.part(0, "text").text("a\ud83d")
    assembly.finish(0, completion_pb2.FINISH_REASON_STOP, "stop")

    answer = collected(assembly.events())

    assert answer.choices[0].message.parts[0].text.text == "a\ufffd"
    assert answer.choices == assembly.completion().choices


def test_text_after_reasoning_is_a_part_of_its_own() -> None:
    assembly = assembled()
    for kind, text in (("reasoning", "hm"), ("text", "yes"), ("reasoning", "or"), ("text", "no")):
        assembly.part(0, kind).text(text)
    assembly.finish(0, completion_pb2.FINISH_REASON_STOP)

    parts = collected(assembly.events()).choices[0].message.parts

    assert [part.WhichOneof("kind") for part in parts] == ["reasoning", "text", "reasoning", "text"]
    assert all(part.origin_provider == "openai" for part in parts)
