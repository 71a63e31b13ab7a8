"""One part of an answer, open for more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trunkline.v1 import completion_service_pb2, message_pb2
from trunkline_server.errors import LLMInvalidResponseError
from trunkline_server.providers.arguments import completed, without_argument

if TYPE_CHECKING:
    from trunkline_server.providers.assembly import Assembly, _Choice

ContentPart = message_pb2.ContentPart

#: Most parts, choices or citations that one answer may have: a provider that sends more is broken.
MAX_PARTS = 20_000

_KINDS_WITH_TEXT = frozenset({"text", "reasoning", "refusal", "tool_call"})


class Part:
    """One part of the answer, open for more. Made by `Assembly.open`."""

    __slots__ = (
        "_assembly",
        "_choice",
        "_encrypted",
        "_finished",
        "_held",
        "_initial",
        "_open",
        "_signature",
        "_texts",
        "_transcript",
        "buffered",
        "citations",
        "data",
        "index",
        "kind",
        "logprobs",
    )

    def __init__(self, assembly: Assembly, choice: _Choice, index: int, initial: ContentPart, keep: bool) -> None:
        self._assembly = assembly
        self._choice = choice
        self.index = index
        self.kind: str = initial.WhichOneof("kind") or ""
        self._initial = initial
        self._open = True
        self._held = ""
        #: What was found out when a tool call ended.
        self._finished: completion_service_pb2.PartFinished | None = None
        # Tool arguments are always kept: they are looked at when the part ends.
        self._texts: list[str] | None = [] if keep or self.kind == "tool_call" else None
        self._signature: list[str] = []
        self._encrypted: list[str] = []
        self._transcript: list[str] = []
        self.citations: list[message_pb2.Citation] = []
        self.data: list[bytes] = []
        #: Deltas are held back until the part ends, because they will change.
        self.buffered = self.kind == "tool_call" and bool(assembly.reasoning_argument)

    def text(self, text: str) -> None:
        """Appends to the text of the part, or to the arguments of a tool call."""
        if not text:
            return
        assembly = self._assembly
        if not assembly.spoke:
            assembly.note_first_token()
        if self._texts is not None:
            self._texts.append(text)
        if assembly.emits and not self.buffered:
            assembly.delta(self, "text", text)

    def signature(self, text: str) -> None:
        """Appends to the part's signature."""
        self._piece(self._signature, "signature", text)

    def encrypted(self, text: str) -> None:
        """Appends to the ciphertext of a reasoning part."""
        self._piece(self._encrypted, "encrypted", text)

    def transcript(self, text: str) -> None:
        """Appends to the transcript of a sound."""
        self._piece(self._transcript, "transcript", text)

    def _piece(self, pieces: list[str], field: str, text: str) -> None:
        if text:
            pieces.append(text)
            if self._assembly.emits:
                self._assembly.delta(self, field, text)

    def bytes(self, data: bytes) -> None:
        """Appends to the bytes of a media part."""
        self._assembly.note_first_token()
        self.data.append(data)
        if self._assembly.emits:
            self._assembly.delta(self, "data", data)

    def citation(self, citation: message_pb2.Citation) -> None:
        """Adds a citation to a text part."""
        if len(self.citations) >= MAX_PARTS:
            raise LLMInvalidResponseError("the provider sent more citations than any answer has")
        self.citations.append(citation)
        if self._assembly.emits:
            self._assembly.single(self, "citation", citation)

    def close(self) -> None:
        """Ends the part. Ending it twice is no error."""
        if not self._open:
            return
        self._open = False
        finished = completion_service_pb2.PartFinished(choice_index=self._choice.index, part_index=self.index)
        if self.kind == "tool_call":
            self._close_call(finished)
        if self._assembly.emits:
            self._assembly.closed(self, finished)

    def _close_call(self, finished: completion_service_pb2.PartFinished) -> None:
        arguments = clean("".join(self._texts or ()))
        name = self._assembly.reasoning_argument
        if name and not self._initial.tool_call.provider_executed:
            arguments, reasoning = without_argument(arguments, name)
            self._texts = [arguments]
            if reasoning is not None:
                finished.reasoning = reasoning
            if self._assembly.emits and arguments:
                self._assembly.delta(self, "text", arguments)
        copy = completed(arguments)
        if copy is not None:
            finished.completed_arguments_json = copy
        # Kept apart from what the part began with: that may not have been sent yet.
        self._finished = finished

    def build(self) -> ContentPart:
        """The part as far as it has come."""
        part = ContentPart()
        part.CopyFrom(self._initial)
        if self._texts:
            text = clean("".join(self._texts))
            if self.kind == "tool_call":
                part.tool_call.arguments_json = text
                self._add_finished(part.tool_call)
            elif self.kind in _KINDS_WITH_TEXT:
                getattr(part, self.kind).text = text
        if self._signature:
            part.signature = clean("".join(self._signature))
        if self._encrypted:
            part.reasoning.encrypted = clean("".join(self._encrypted))
        if self.citations:
            part.text.citations.extend(self.citations)
        if self.data or self._transcript:
            media = getattr(part, self.kind)
            media.data = b"".join(self.data)
            if self._transcript:
                media.transcript = clean("".join(self._transcript))
        return part

    def _add_finished(self, call: message_pb2.ToolCall) -> None:
        finished = self._finished
        if finished is None:
            return
        if finished.HasField("completed_arguments_json"):
            call.completed_arguments_json = finished.completed_arguments_json
        if finished.HasField("reasoning"):
            call.reasoning = finished.reasoning

    def so_far(self) -> str:
        """The text that was passed on; only of a part that keeps it."""
        text = clean("".join(self._texts or ()))
        return text[:-1] if self._held else text

    def whole(self, text: str) -> str:
        """Prefixes what was held back of the text before, and holds back half a character at its end."""
        text = self._held + text
        self._held = ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            self._held = text[-1]
            text = text[:-1]
        return clean(text)

    @property
    def position(self) -> tuple[int, int]:
        """Indexes of the choice and of the part."""
        return self._choice.index, self.index

    @property
    def is_open(self) -> bool:
        return self._open

    @property
    def held(self) -> str:
        return self._held


class ContinuedPart(Part):
    """A text that another attempt goes on with: what that attempt only says again is left out."""

    __slots__ = ("_echo", "_seen", "_space")

    _echo: str
    _seen: str
    _space: str

    @classmethod
    def of(cls, part: Part, *, echo: str, space: str) -> ContinuedPart:
        """Takes the part's place. `echo`: what the answer begins with, if it does; `space`: white space that it was not
        told of, and may begin with.
        """
        made = cls.__new__(cls)
        for name in Part.__slots__:
            if hasattr(part, name):
                setattr(made, name, getattr(part, name))
        # Half a character that waits for its other half waits in vain.
        made._texts, made._held = [part.so_far()], ""
        made._echo, made._space, made._seen = echo, space, ""
        return made

    def text(self, text: str) -> None:
        if self._echo or self._space:
            text = self._news(text)
        Part.text(self, text)

    def close(self) -> None:
        if self._seen and self._open:
            # It ended too soon to be an echo.
            seen, self._seen, self._echo = self._seen, "", ""
            Part.text(self, seen)
        Part.close(self)

    def _news(self, text: str) -> str:
        """What of it was not said before."""
        if self._echo:
            text = self._seen + text
            if len(text) < len(self._echo) and self._echo.startswith(text):
                self._seen = text
                return ""
            text = text.removeprefix(self._echo)
            self._echo = self._seen = ""
        same = 0
        while same < min(len(text), len(self._space)) and text[same] == self._space[same]:
            same += 1
        self._space = self._space[same:] if same == len(text) else ""
        return text[same:]


def clean(text: str) -> str:
    """Joins halves of characters that arrived apart; a half without its other becomes U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
