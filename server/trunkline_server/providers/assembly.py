"""An answer while it arrives.

A dialect's decoder pours what it reads into an `Assembly`, in pieces or all at once; out of it come the events of a
stream (`events`), the whole `Completion` (`completion`), or both. Part indexes, the order of events, joining of
adjacent deltas and the treatment of tool arguments live here, once, for all dialects.

Pieces are collected in lists and joined once: appending to a protobuf string leaks (arenas do not free).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from trunkline.v1 import completion_pb2, completion_service_pb2, message_pb2
from trunkline_server.errors import LLMConnectionError, LLMEmptyResponseError, LLMInvalidResponseError
from trunkline_server.providers.open_part import MAX_PARTS, ContentPart, ContinuedPart, Part, clean
from trunkline_server.spending import total

StreamEvent = completion_service_pb2.StreamCompletionResponse
FinishReason = completion_pb2.FinishReason


class _Choice:
    __slots__ = ("finish", "index", "keyed", "logprobs", "parts", "raw_finish", "stop_sequence")

    def __init__(self, index: int) -> None:
        self.index = index
        self.parts: list[Part] = []
        self.keyed: dict[Hashable, Part] = {}
        self.finish: FinishReason.ValueType | None = None
        self.raw_finish = ""
        self.stop_sequence: str | None = None
        self.logprobs: list[completion_pb2.TokenLogprob] = []


class Assembly:
    """The answer of one attempt.

    `emits`: `events` will be called, so deltas are remembered. `keep`: `completion` will be called, so text is kept.
    """

    def __init__(
        self,
        origin: str,
        model: str,
        *,
        emits: bool = False,
        keep: bool = True,
        reasoning_argument: str = "",
        include_raw: bool = False,
        clock: Callable[[], float] = time.monotonic,
        price: Callable[[completion_pb2.Usage, str, str], None] | None = None,
    ) -> None:
        """`price` sets the cost of a usage, for the model and the service tier that the provider reported."""
        #: Kind of the provider, set as `origin_provider` on what only it can read.
        self.origin = origin
        #: Model as asked for, until the provider reports one.
        self.model = model
        self.response_id = ""
        self.service_tier = ""
        self.system_fingerprint = ""
        self.usage: completion_pb2.Usage | None = None
        self.emits = emits
        self.keep = keep
        self.include_raw = include_raw
        self.reasoning_argument = reasoning_argument
        #: Monotonic time of the first content; None: none came.
        self.first_token_at: float | None = None
        #: Has any content come?
        self.spoke = False
        #: Has a part begun, or a choice ended?
        self.answering = False
        #: What earlier attempts at the same answer spent.
        self.before: completion_pb2.Usage | None = None
        self._continued: Part | None = None
        #: Did the provider say that nothing follows? The end of its stream need not be waited for.
        self.ended = False
        self._clock = clock
        self._price = price
        self._choices: dict[int, _Choice] = {}
        self._pending: list[list[object]] = []
        self._parts = 0

    # -- what decoders call -------------------------------------------------------------------------------------------

    def open(self, choice: int, key: Hashable, part: ContentPart) -> Part:
        """Begins a part that `key` names within its choice. A part that has the key already is ended first."""
        owner = self._choice(choice)
        if self._continued is not None:
            text, self._continued = self._continued, None
            if part.WhichOneof("kind") == "text":
                owner.keyed[key] = text
                self.answering = True
                text.text(part.text.text)
                return text
            text.close()
        before = owner.keyed.get(key)
        if before is not None:
            before.close()
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise LLMInvalidResponseError("the provider sent more parts than any answer has")
        part.origin_provider = self.origin
        new = Part(self, owner, len(owner.parts), part, self.keep)
        owner.parts.append(new)
        owner.keyed[key] = new
        self.answering = True
        if new.kind in ("tool_call", "opaque"):
            self.note_first_token()
        if self.emits:
            self._pending.append(["open", new])
        return new

    def find(self, choice: int, key: Hashable) -> Part | None:
        """The open part with this key."""
        owner = self._choices.get(choice)
        part = owner.keyed.get(key) if owner is not None else None
        return part if part is not None and part.is_open else None

    def open_parts(self, choice: int) -> list[Part]:
        """The parts of a choice that have not ended, in order."""
        owner = self._choices.get(choice)
        return [] if owner is None else [part for part in owner.parts if part.is_open]

    def part(self, choice: int, kind: str) -> Part:
        """The open part of this kind, for wires that do not number their parts: text, reasoning or refusal.

        Another such part that is open is ended first, so that order is kept.
        """
        owner = self._choices.get(choice)
        if owner is not None:
            found = owner.keyed.get(kind)
            if found is not None and found._open:
                return found
            for other in ("text", "reasoning", "refusal"):
                sibling = owner.keyed.get(other)
                if sibling is not None:
                    sibling.close()
        new = ContentPart()
        getattr(new, kind).SetInParent()
        return self.open(choice, kind, new)

    def logprobs(self, choice: int, tokens: Iterable[completion_pb2.TokenLogprob], part: Part | None = None) -> None:
        """Adds log probabilities of output tokens; in a stream they travel with the part's deltas."""
        owner = self._choice(choice)
        found = list(tokens)
        if self.keep:
            owner.logprobs.extend(found)
        if self.emits and found:
            carrier = part or self.part(choice, "text")
            self._pending.append(["logprobs", carrier, *found])

    def finish(
        self, choice: int, reason: FinishReason.ValueType, raw: str = "", stop_sequence: str | None = None
    ) -> None:
        """The choice is complete: its open parts end too. A second call is ignored."""
        owner = self._choice(choice)
        if owner.finish is not None:
            return
        for part in owner.parts:
            part.close()
        owner.finish, owner.raw_finish, owner.stop_sequence = reason, clean(raw), stop_sequence
        self.answering = True
        if self.emits:
            self._pending.append(["finish", owner])

    def touch(self, choice: int) -> None:
        """The provider spoke of this choice: it now needs a finish reason."""
        self._choice(choice)

    def set_usage(self, usage: completion_pb2.Usage) -> None:
        """Running totals; the last ones win."""
        self.usage = usage
        if self.emits:
            self._pending.append(["usage", usage])

    def raw_event(self, name: bytes, data: bytes) -> None:
        """An event as received; passed on only if the caller asked for it."""
        if self.emits and self.include_raw:
            self._pending.append(["raw", name, data])

    # -- another attempt ----------------------------------------------------------------------------------------------

    def said(self) -> str | None:
        """The text so far, where it is all that there is: one choice with one part that is open. Else None."""
        parts = [part for choice in self._choices.values() for part in choice.parts]
        if len(self._choices) != 1 or 0 not in self._choices or len(parts) != 1:
            return None
        [part] = parts
        return part.so_far() if part.kind == "text" and part.is_open else None

    def go_on(
        self,
        origin: str,
        model: str,
        price: Callable[[completion_pb2.Usage, str, str], None] | None,
        *,
        echo: str,
        space: str,
    ) -> None:
        """Another attempt goes on with the text that there is (`said`): the first text that it opens is that one.

        `echo` and `space` as in ContinuedPart.
        """
        self.before = self.summed()
        self.origin, self.model, self._price = origin, model, price
        self.response_id = self.service_tier = self.system_fingerprint = ""
        self.usage = None
        self.answering = self.ended = False
        choice = self._choices[0]
        choice.keyed.clear()
        self._continued = choice.parts[0] = ContinuedPart.of(choice.parts[0], echo=echo, space=space)

    # -- state --------------------------------------------------------------------------------------------------------

    def spent(self) -> completion_pb2.Usage | None:
        """What is known of the usage, with its cost where that is known."""
        if self.usage is not None and self._price is not None:
            self._price(self.usage, self.model, self.service_tier)
        return self.usage

    def summed(self) -> completion_pb2.Usage | None:
        """What this attempt spent and those before it, as far as they reported it."""
        spent = self.spent()
        return spent if self.before is None else total((self.before, spent))

    @property
    def finish_reasons(self) -> Sequence[FinishReason.ValueType]:
        """Why each choice ended, of those that have."""
        return [choice.finish for choice in self._choices.values() if choice.finish is not None]

    @property
    def finished(self) -> bool:
        """Has every choice that was spoken of its finish reason?"""
        return bool(self._choices) and all(choice.finish is not None for choice in self._choices.values())

    def finish_of(self, choice: int) -> FinishReason.ValueType | None:
        owner = self._choices.get(choice)
        return None if owner is None else owner.finish

    def require_finished(self) -> None:
        """Raises LLMConnectionError unless the stream told why each choice ended."""
        if not self.finished:
            raise LLMConnectionError("the provider's stream ended before the answer was complete")

    def require_order(self) -> None:
        """Raises LLMInvalidResponseError unless the choices are numbered from 0 without gaps."""
        if max(self._choices, default=-1) != len(self._choices) - 1:
            raise LLMInvalidResponseError(f"the provider numbered its choices {sorted(self._choices)[:8]}")

    def require_content(self) -> None:
        """Raises LLMEmptyResponseError for a whole answer with no content and no finish reason."""
        if not any(choice.parts or choice.finish is not None for choice in self._choices.values()):
            raise LLMEmptyResponseError("the provider answered with no content and no finish reason")

    def note_first_token(self) -> None:
        if not self.spoke:
            self.spoke = True
            self.first_token_at = self._clock()

    def unfinished(self) -> list[int]:
        """Indexes of the choices that were spoken of and have no finish reason."""
        return [index for index, choice in self._choices.items() if choice.finish is None]

    @property
    def has_parts(self) -> bool:
        """Has any choice any content?"""
        return self._parts > 0

    def has_kind(self, choice: int, kind: str) -> bool:
        """Has the choice a part of this kind?"""
        owner = self._choices.get(choice)
        return owner is not None and any(part.kind == kind for part in owner.parts)

    def has_tool_calls(self, choice: int) -> bool:
        """Did the choice call a tool of the caller's?"""
        owner = self._choices.get(choice)
        return owner is not None and any(
            part.kind == "tool_call" and not part._initial.tool_call.provider_executed for part in owner.parts
        )

    # -- what comes out -----------------------------------------------------------------------------------------------

    def completion(self) -> completion_pb2.Completion:
        """All that the provider said. The engine adds what the gateway knows."""
        answer = completion_pb2.Completion(
            model=self.model,
            provider_response_id=self.response_id,
            service_tier=self.service_tier,
            system_fingerprint=self.system_fingerprint,
        )
        for index in sorted(self._choices):
            source = self._choices[index]
            choice = answer.choices.add(index=index, raw_finish_reason=source.raw_finish)
            choice.finish_reason = source.finish or completion_pb2.FINISH_REASON_UNSPECIFIED
            if source.stop_sequence is not None:
                choice.stop_sequence = source.stop_sequence
            choice.message.role = message_pb2.ROLE_ASSISTANT
            choice.message.parts.extend(part.build() for part in source.parts)
            if source.logprobs:
                choice.logprobs.extend(source.logprobs)
        usage = self.summed()
        if usage is not None:
            answer.usage.CopyFrom(usage)
        return answer

    def events(self) -> list[StreamEvent]:
        """What has happened since the last call, adjacent deltas of one part joined. Not numbered yet."""
        if not self._pending:
            return []
        pending, self._pending = self._pending, []
        made: list[StreamEvent] = []
        for operation in pending:
            _EVENTS[operation[0]](self, operation, made)  # type: ignore[index]  # the first item is the operation's name
        return made

    @property
    def has_events(self) -> bool:
        return bool(self._pending)

    # -- events, one function per operation ----------------------------------------------------------------------------

    def delta(self, part: Part, field: str, piece: str | bytes) -> None:
        """Remembers a delta; joins it to the one before if that is of the same part and field."""
        pending = self._pending
        if pending:
            last = pending[-1]
            if last[0] == field and last[1] is part:
                last.append(piece)
                return
        pending.append([field, part, piece])

    def single(self, part: Part, field: str, value: object) -> None:
        self._pending.append([field, part, value])

    def closed(self, part: Part, finished: completion_service_pb2.PartFinished) -> None:
        self._pending.append(["close", part, finished])

    def _choice(self, index: int) -> _Choice:
        choice = self._choices.get(index)
        if choice is None:
            if not 0 <= index < MAX_PARTS:
                raise LLMInvalidResponseError(f"the provider numbered a choice {index}")
            choice = self._choices[index] = _Choice(index)
        return choice


def _open_event(assembly: Assembly, operation: list[object], made: list[StreamEvent]) -> None:
    part: Part = operation[1]  # type: ignore[assignment]
    event = StreamEvent()
    started = event.part_started
    started.choice_index, started.part_index = part.position
    started.part.CopyFrom(part._initial)
    made.append(event)


def _text_event(assembly: Assembly, operation: list[object], made: list[StreamEvent]) -> None:
    part: Part = operation[1]  # type: ignore[assignment]
    text: str = operation[2] if len(operation) == 3 else "".join(operation[2:])  # type: ignore[arg-type, assignment]
    if part._held:
        text = part.whole(text)
    event = StreamEvent()
    delta = event.part_delta
    choice, index = part.position
    # Nearly always both are 0, which needs no saying.
    if choice:
        delta.choice_index = choice
    if index:
        delta.part_index = index
    try:
        delta.text = text
    except UnicodeEncodeError:
        # Half a character at the end of a piece: the other half comes with the next one.
        text = part.whole(text)
        if not text:
            return
        delta.text = text
    made.append(event)


def _piece_event(assembly: Assembly, operation: list[object], made: list[StreamEvent]) -> None:
    field: str = operation[0]  # type: ignore[assignment]
    part: Part = operation[1]  # type: ignore[assignment]
    event = StreamEvent()
    delta = event.part_delta
    delta.choice_index, delta.part_index = part.position
    if field == "data":
        delta.data = b"".join(operation[2:])  # type: ignore[arg-type]
    elif field == "citation":
        delta.citation.CopyFrom(operation[2])  # type: ignore[arg-type]
    else:
        setattr(delta, field, clean("".join(operation[2:])))  # type: ignore[arg-type]
    made.append(event)


def _logprobs_event(assembly: Assembly, operation: list[object], made: list[StreamEvent]) -> None:
    part: Part = operation[1]  # type: ignore[assignment]
    position = part.position
    if made and made[-1].WhichOneof("event") == "part_delta":
        before = made[-1].part_delta
        if (before.choice_index, before.part_index) == position and before.WhichOneof("delta") == "text":
            before.logprobs.extend(operation[2:])  # type: ignore[arg-type]
            return
    event = StreamEvent()
    event.part_delta.choice_index, event.part_delta.part_index = position
    event.part_delta.logprobs.extend(operation[2:])  # type: ignore[arg-type]
    made.append(event)


def _close_event(assembly: Assembly, operation: list[object], made: list[StreamEvent]) -> None:
    part: Part = operation[1]  # type: ignore[assignment]
    if part._held:
        event = StreamEvent()
        event.part_delta.choice_index, event.part_delta.part_index = part.position
        event.part_delta.text = "�"
        part._held = ""
        made.append(event)
    event = StreamEvent()
    event.part_finished.CopyFrom(operation[2])  # type: ignore[arg-type]
    made.append(event)


def _finish_event(assembly: Assembly, operation: list[object], made: list[StreamEvent]) -> None:
    choice: _Choice = operation[1]  # type: ignore[assignment]
    event = StreamEvent()
    finished = event.choice_finished
    finished.choice_index = choice.index
    finished.finish_reason = choice.finish or completion_pb2.FINISH_REASON_UNSPECIFIED
    finished.raw_finish_reason = choice.raw_finish
    if choice.stop_sequence is not None:
        finished.stop_sequence = choice.stop_sequence
    made.append(event)


def _usage_event(assembly: Assembly, operation: list[object], made: list[StreamEvent]) -> None:
    event = StreamEvent()
    if operation[1] is assembly.usage:
        assembly.spent()
    usage: completion_pb2.Usage = operation[1]  # type: ignore[assignment]
    summed = usage if assembly.before is None else total((assembly.before, usage))
    event.usage_updated.usage.CopyFrom(summed or usage)
    made.append(event)


def _raw_event(assembly: Assembly, operation: list[object], made: list[StreamEvent]) -> None:
    event = StreamEvent()
    event.raw.event_type = operation[1].decode("utf-8", "replace")  # type: ignore[attr-defined]
    event.raw.body = operation[2]  # type: ignore[assignment]
    made.append(event)


_EVENTS: dict[str, Callable[[Assembly, list[object], list[StreamEvent]], None]] = {
    "open": _open_event,
    "text": _text_event,
    "signature": _piece_event,
    "encrypted": _piece_event,
    "transcript": _piece_event,
    "data": _piece_event,
    "citation": _piece_event,
    "logprobs": _logprobs_event,
    "close": _close_event,
    "finish": _finish_event,
    "usage": _usage_event,
    "raw": _raw_event,
}


def timestamp(seconds: float) -> Timestamp:
    """A protobuf timestamp of Unix time."""
    whole = int(seconds)
    return Timestamp(seconds=whole, nanos=int((seconds - whole) * 1e9))


__all__ = ["Assembly", "Part", "StreamEvent", "clean", "timestamp"]
