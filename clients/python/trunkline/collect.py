"""Puts the events of a stream together into the Completion that a unary call would have returned."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from trunkline.errors import TrunklineError
from trunkline.rules import StreamRules
from trunkline.v1.completion_pb2 import Choice, Completion, Usage
from trunkline.v1.completion_service_pb2 import (
    AttemptStarted,
    ChoiceFinished,
    CompletionFinished,
    CompletionRestarted,
    CompletionStarted,
    PartDelta,
    PartFinished,
    PartStarted,
    StreamCompletionResponse,
    UsageUpdated,
)
from trunkline.v1.message_pb2 import ROLE_ASSISTANT, ContentPart

# The field of each kind of part that a text delta appends to.
_TEXT_FIELD = {"text": "text", "reasoning": "text", "refusal": "text", "tool_call": "arguments_json"}


class _Part:
    """A part on its way. Its pieces stay in lists until the end: a protobuf string that grows keeps its old values."""

    def __init__(self, started: ContentPart) -> None:
        self.started = ContentPart()
        self.started.CopyFrom(started)
        self.pieces: dict[str, list[str]] = defaultdict(list)
        self.data: list[bytes] = []

    def add(self, delta: PartDelta) -> None:
        name = delta.WhichOneof("delta")
        if name == "data":
            self.data.append(delta.data)
        elif name == "citation":
            self.started.text.citations.append(delta.citation)
        elif name:
            self.pieces[name].append(getattr(delta, name))

    def finish(self, event: PartFinished) -> None:
        for field in ("completed_arguments_json", "reasoning"):
            if event.HasField(field):
                setattr(self.started.tool_call, field, getattr(event, field))

    def build(self) -> ContentPart:
        part = ContentPart()
        part.CopyFrom(self.started)
        if "signature" in self.pieces:
            part.signature = "".join([part.signature, *self.pieces["signature"]])
        kind = part.WhichOneof("kind")
        if not kind:  # of a newer server: what its deltas append to is not known here
            return part
        body = getattr(part, kind)
        for name in self.pieces.keys() - {"signature"}:
            field = _TEXT_FIELD[kind] if name == "text" else name
            setattr(body, field, "".join([getattr(body, field), *self.pieces[name]]))
        if self.data:
            body.data = b"".join([body.data, *self.data])
        return part


class _Choice:
    """A choice on its way."""

    def __init__(self, index: int) -> None:
        self.facts = Choice(index=index)
        self.parts: list[_Part] = []

    def build(self) -> Choice:
        choice = Choice()
        choice.CopyFrom(self.facts)
        choice.message.role = ROLE_ASSISTANT
        choice.message.parts.extend(part.build() for part in self.parts)
        return choice


class Collector:
    """Takes the events of one stream in order; raises what StreamRules raises, with `completion` as far as it got."""

    def __init__(self) -> None:
        self.rules = StreamRules()
        self._facts = Completion()
        self._choices: dict[int, _Choice] = {}
        # The last totals, by reference: copying each over the one before would keep them all.
        self._usage: Usage | None = None

    def add(self, event: StreamCompletionResponse) -> None:
        """Takes the next event."""
        try:
            self.rules.check(event)
        except TrunklineError as error:
            error.completion = self.completion()
            raise
        name = event.WhichOneof("event") or ""
        take = _TAKES.get(name)
        if take:
            take(self, getattr(event, name))

    def end(self) -> Completion:
        """The whole completion, once the stream has ended with OK."""
        try:
            self.rules.end()
        except TrunklineError as error:
            error.completion = self.completion()
            raise
        return self.completion()

    def text(self, event: StreamCompletionResponse, choice: int) -> str:
        """What an event that was added says in a text part of one choice; empty for all other events."""
        delta, started = event.part_delta, event.part_started
        if event.HasField("part_delta") and delta.choice_index == choice and delta.WhichOneof("delta") == "text":
            return delta.text if self.rules.kind(choice, delta.part_index) == "text" else ""
        if event.HasField("part_started") and started.choice_index == choice:
            return started.part.text.text
        return ""

    def completion(self) -> Completion:
        """A new Completion of what has come so far: the whole answer only after `finished`."""
        completion = Completion()
        completion.CopyFrom(self._facts)
        if self._usage is not None:
            completion.usage.CopyFrom(self._usage)
        completion.choices.extend(self._choices[index].build() for index in sorted(self._choices))
        return completion

    def _choice(self, index: int) -> _Choice:
        if index not in self._choices:
            self._choices[index] = _Choice(index)
        return self._choices[index]

    def _part(self, event: PartDelta | PartFinished) -> _Part:
        return self._choices[event.choice_index].parts[event.part_index]

    def _on_started(self, event: CompletionStarted) -> None:
        self._facts.id = event.completion_id
        if event.HasField("create_time"):
            self._facts.create_time.CopyFrom(event.create_time)

    def _on_attempt_started(self, event: AttemptStarted) -> None:
        self._facts.attempts = event.attempt
        self._facts.provider = event.provider
        self._facts.model = event.model
        self._facts.provider_response_id = event.provider_response_id

    def _on_restarted(self, _: CompletionRestarted) -> None:
        self._choices.clear()
        self._usage = None

    def _on_part_started(self, event: PartStarted) -> None:
        self._choice(event.choice_index).parts.append(_Part(event.part))

    def _on_part_delta(self, event: PartDelta) -> None:
        self._part(event).add(event)
        if event.logprobs:
            self._choice(event.choice_index).facts.logprobs.extend(event.logprobs)

    def _on_part_finished(self, event: PartFinished) -> None:
        self._part(event).finish(event)

    def _on_choice_finished(self, event: ChoiceFinished) -> None:
        facts = self._choice(event.choice_index).facts
        facts.finish_reason = event.finish_reason
        facts.raw_finish_reason = event.raw_finish_reason
        if event.HasField("stop_sequence"):
            facts.stop_sequence = event.stop_sequence

    def _on_usage_updated(self, event: UsageUpdated) -> None:
        self._usage = event.usage

    def _on_finished(self, event: CompletionFinished) -> None:
        if event.HasField("usage"):
            self._usage = event.usage
        if event.HasField("timing"):
            self._facts.timing.CopyFrom(event.timing)
        for field in ("attempts", "provider_request_id", "service_tier", "system_fingerprint"):
            setattr(self._facts, field, getattr(event, field))
        self._facts.warnings.extend(event.warnings)
        self._facts.rate_limits.extend(event.rate_limits)


_TAKES: dict[str, Callable[[Collector, Any], None]] = {
    "started": Collector._on_started,
    "attempt_started": Collector._on_attempt_started,
    "restarted": Collector._on_restarted,
    "part_started": Collector._on_part_started,
    "part_delta": Collector._on_part_delta,
    "part_finished": Collector._on_part_finished,
    "choice_finished": Collector._on_choice_finished,
    "usage_updated": Collector._on_usage_updated,
    "finished": Collector._on_finished,
}


def collect(events: Iterable[StreamCompletionResponse]) -> Completion:
    """The completion that the events of a whole stream make; raises at the first rule they break."""
    collector = Collector()
    for event in events:
        collector.add(event)
    return collector.end()
