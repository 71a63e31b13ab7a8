"""The rules of a stream of events, in one place: `StreamRules().check(event)` for each, `.end()` after the last.

Numbers run from 1 without gaps; `started` first; a part is started before its deltas and finished after them; a choice
is finished after its parts; `finished` last. Heartbeats, usage and raw events may stand anywhere after `started`. An
event that these stubs do not know is counted and otherwise let through.
"""

from collections.abc import Callable
from typing import Any

import grpc

from trunkline.errors import StreamIncomplete, StreamRuleBroken
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
)

_MEDIA = frozenset({"image", "audio", "video", "document"})
# Kinds of parts that a kind of delta can append to; None stands for all of them.
DELTA_FITS: dict[str, frozenset[str] | None] = {
    "text": frozenset({"text", "reasoning", "refusal", "tool_call"}),
    "data": _MEDIA,
    "signature": None,
    "citation": frozenset({"text"}),
    "encrypted": frozenset({"reasoning"}),
    "transcript": _MEDIA,
}


class StreamRules:
    """The state of one stream, as far as the rules need it."""

    def __init__(self) -> None:
        self.last_number = 0
        self.finished = False
        self._started = False
        self._answering = False
        # Kind of every part that was started ("" if these stubs do not know it), parts still open, the part due next
        # in each choice, the choices finished.
        self._kinds: dict[tuple[int, int], str] = {}
        self._open: set[tuple[int, int]] = set()
        self._next_part: dict[int, int] = {}
        self._done: set[int] = set()

    def kind(self, choice_index: int, part_index: int) -> str:
        """Name of the part's kind in ContentPart; empty if there is no such part or it is of an unknown kind."""
        return self._kinds.get((choice_index, part_index), "")

    def check(self, event: StreamCompletionResponse) -> None:
        """Takes the next event; raises StreamRuleBroken with the rule that it breaks."""
        number, name = event.sequence_number, event.WhichOneof("event")
        if self.finished:
            raise _broken(f"event {number} ({name}) after finished")
        if number != self.last_number + 1:
            raise _broken(f"event number {number} after {self.last_number}")
        self.last_number = number
        if name is None:
            return
        if not self._started and name != "started":
            raise _broken(f"{name} before started")
        check = _CHECKS.get(name)
        if check:
            check(self, getattr(event, name))

    def end(self) -> None:
        """To be called when the stream has ended with OK; raises StreamIncomplete if `finished` has not come."""
        if not self.finished:
            raise StreamIncomplete(
                f"the stream ended after event {self.last_number} without finished: what came is not the whole",
                code=grpc.StatusCode.UNAVAILABLE,
                retryable=True,
            )

    def _on_started(self, _: CompletionStarted) -> None:
        if self._started:
            raise _broken("started twice")
        self._started = True

    def _on_attempt_started(self, event: AttemptStarted) -> None:
        if self._answering:
            raise _broken(f"attempt {event.attempt} started during another, without restarted")
        self._answering = True

    def _on_restarted(self, event: CompletionRestarted) -> None:
        if not self._answering:
            raise _broken(f"restarted (attempt {event.attempt}) before an attempt started")
        self._answering = False
        for state in (self._kinds, self._open, self._next_part, self._done):
            state.clear()

    def _on_part_started(self, event: PartStarted) -> None:
        choice, part = event.choice_index, event.part_index
        if not self._answering:
            raise _broken(f"part {part} of choice {choice} started before attempt_started")
        if choice in self._done:
            raise _broken(f"part {part} started in choice {choice}, which is finished")
        expected = self._next_part.get(choice, 0)
        if part != expected:
            raise _broken(f"part {part} of choice {choice} started where part {expected} was due")
        self._next_part[choice] = part + 1
        self._kinds[choice, part] = event.part.WhichOneof("kind") or ""
        self._open.add((choice, part))

    def _on_part_delta(self, event: PartDelta) -> None:
        kind, delta = self._open_part("delta", event), event.WhichOneof("delta")
        fits = DELTA_FITS.get(delta) if delta else None
        if kind and fits and kind not in fits:
            raise _broken(f"{delta} delta for a part of kind {kind}")

    def _on_part_finished(self, event: PartFinished) -> None:
        kind = self._open_part("end", event)
        for field in ("completed_arguments_json", "reasoning"):
            if event.HasField(field) and kind not in {"tool_call", ""}:
                raise _broken(f"{field} for a part of kind {kind}")
        self._open.remove((event.choice_index, event.part_index))

    def _open_part(self, what: str, event: PartDelta | PartFinished) -> str:
        """Kind of the part, which must be open."""
        key = event.choice_index, event.part_index
        if key not in self._open:
            state = "is finished" if key in self._kinds else "was not started"
            raise _broken(f"{what} of part {key[1]} of choice {key[0]}, which {state}")
        return self._kinds[key]

    def _on_choice_finished(self, event: ChoiceFinished) -> None:
        choice = event.choice_index
        if not self._answering:
            raise _broken(f"choice {choice} finished before attempt_started")
        if choice in self._done:
            raise _broken(f"choice {choice} finished twice")
        parts = sorted(part for of, part in self._open if of == choice)
        if parts:
            raise _broken(f"choice {choice} finished while parts {parts} are open")
        self._done.add(choice)

    def _on_finished(self, event: CompletionFinished) -> None:
        if not self._answering:
            raise _broken("finished before attempt_started")
        unfinished = sorted(set(self._next_part) - self._done)
        if unfinished:
            raise _broken(f"finished while choices {unfinished} are not")
        if self._done != set(range(len(self._done))):
            raise _broken(f"choices {sorted(self._done)} are not numbered from 0 without gaps")
        self.finished = True


def _broken(rule: str) -> StreamRuleBroken:
    return StreamRuleBroken(f"the server broke the rules of a stream: {rule}", code=grpc.StatusCode.INTERNAL)


_CHECKS: dict[str, Callable[[StreamRules, Any], None]] = {
    "started": StreamRules._on_started,
    "attempt_started": StreamRules._on_attempt_started,
    "restarted": StreamRules._on_restarted,
    "part_started": StreamRules._on_part_started,
    "part_delta": StreamRules._on_part_delta,
    "part_finished": StreamRules._on_part_finished,
    "choice_finished": StreamRules._on_choice_finished,
    "finished": StreamRules._on_finished,
}
