"""Output items into parts of the answer: the same for an answer that comes whole and one that comes in pieces.

What is modelled are messages, thoughts and calls of the caller's tools. Every other item (a tool that the provider ran,
one that the caller runs in the provider's own protocol, anything to come) is an opaque block, verbatim.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Raw

from trunkline.v1 import message_pb2
from trunkline_server.providers.answers import cite, words
from trunkline_server.providers.assembly import Assembly, Part, clean
from trunkline_server.providers.dialects.openai_responses import wire
from trunkline_server.providers.ids import made_call_id
from trunkline_server.providers.jsontext import dumps, present
from trunkline_server.providers.logprobs import Token, token_logprobs

ContentPart = message_pb2.ContentPart

#: The answer is one choice.
CHOICE = 0

#: Items that call a tool of the caller's, with the member that holds what it is called with.
CALLS: Mapping[str | None, str] = {"function_call": "arguments", "custom_tool_call": "input"}

#: Kind of `OpaqueBlock.type` of a piece of a message, not a whole item.
PIECE = "content."

#: Types of content, and the kind of part that they are. The text of each is in the member of the same name but for
#: refusals.
_CONTENTS: Mapping[str | None, str] = {
    "output_text": "text",
    "text": "text",
    "refusal": "refusal",
    "reasoning_text": "reasoning",
    "summary_text": "summary",
}


class Piece:
    """One part of an item, and what of it was said already."""

    __slots__ = ("cited", "part", "said", "scored")

    def __init__(self, part: Part) -> None:
        self.part = part
        self.said: list[str] = []
        self.cited = 0
        self.scored = False

    def add(self, text: str) -> None:
        self.said.append(text)
        self.part.text(text)

    def fill(self, whole: Any) -> None:
        """Adds what is missing of the whole text; where that says something else, what was said stands."""
        if not isinstance(whole, str):
            if whole is None:
                return
            whole = dumps(whole).decode("utf-8", "surrogatepass")
        said = "".join(self.said)
        if len(said) == len(whole):
            return
        said = clean(said)
        if whole.startswith(said):
            self.add(whole[len(said) :])


class Place:
    """An output item while it is read."""

    __slots__ = ("done", "early", "id", "number", "pieces", "type")

    def __init__(self, number: int, kind: str | None, item_id: str) -> None:
        self.number = number
        self.type = kind
        self.id = item_id
        #: Its parts by kind and index.
        self.pieces: dict[tuple[str, int], Piece] = {}
        #: Arguments that came before the name of what is called.
        self.early: list[str] = []
        self.done = False


class Items:
    """Pours items into an assembly."""

    __slots__ = ("_assembly", "_made")

    def __init__(self, assembly: Assembly) -> None:
        self._assembly = assembly
        self._made = 0

    def place(self, kind: str | None, item_id: str) -> Place:
        """A new item."""
        self._made += 1
        return Place(self._made, kind, item_id)

    def begin(self, place: Place, item: bytes) -> None:
        """Opens what can be opened before the item is complete: a call whose name is known."""
        if place.type in CALLS:
            call = wire.CALL.read(item)
            if call.name:
                self._open_call(place, call)

    def piece(self, place: Place, kind: str, index: int) -> Piece:
        """The part of this kind and index, opened if need be. Kinds: text, refusal, reasoning, summary."""
        found = place.pieces.get((kind, index))
        return found if found is not None else self._open(place, kind, index)

    def announced(self, place: Place, index: int, content: bytes) -> None:
        """Opens a part that begins."""
        kind = _CONTENTS.get(wire.CONTENT.read(content).type)
        if kind is not None:
            self.piece(place, kind, index)

    def completed(self, place: Place, index: int, content: bytes) -> None:
        """A piece of content is complete."""
        read = wire.CONTENT.read(content)
        kind = _CONTENTS.get(read.type)
        if kind is not None:
            self._complete(self.piece(place, kind, index), kind, read)

    def argue(self, place: Place, text: str) -> None:
        """Takes a piece of what a tool is called with."""
        piece = place.pieces.get(("tool_call", 0))
        if piece is None:
            place.early.append(text)
        else:
            piece.add(text)

    def finish(self, place: Place, item: bytes) -> None:
        """The item is complete: what did not come in pieces comes now, and its parts end."""
        if place.done:
            return
        place.done = True
        if place.type == "message":
            self._finish_message(place, item)
        elif place.type == "reasoning":
            self._finish_reasoning(place, item)
        elif place.type in CALLS:
            self._finish_call(place, item)
        else:
            self._opaque(place, clean(place.type or ""), item)
        for piece in place.pieces.values():
            piece.part.close()

    def cite(self, piece: Piece, annotation: Raw, index: int | None = None) -> None:
        """Adds the annotation with this index, unless it is there already."""
        if piece.part.kind == "text" and (index is None or index >= piece.cited):
            piece.cited += 1
            piece.part.citation(_citation(annotation))

    def score(self, piece: Piece, tokens: Iterable[Token]) -> None:
        """Adds log probabilities."""
        piece.scored = True
        self._assembly.logprobs(CHOICE, token_logprobs(tokens), piece.part)

    # -- parts --------------------------------------------------------------------------------------------------------

    def _open(self, place: Place, kind: str, index: int) -> Piece:
        new = ContentPart()
        if kind == "summary":
            new.reasoning.is_summary = True
        else:
            getattr(new, kind).SetInParent()
        return self._opened(place, kind, index, new)

    def _opened(self, place: Place, kind: str, index: int, new: ContentPart) -> Piece:
        if place.id:
            new.item_id = place.id
        piece = Piece(self._assembly.open(CHOICE, (place.number, kind, index), new))
        place.pieces[kind, index] = piece
        return piece

    def _complete(self, piece: Piece, kind: str, content: wire.Content) -> None:
        piece.fill(content.refusal if kind == "refusal" else content.text)
        for index, annotation in enumerate(content.annotations or ()):
            self.cite(piece, annotation, index)
        if content.logprobs and not piece.scored:
            self.score(piece, content.logprobs)

    def _contents(self, place: Place, contents: Iterable[tuple[wire.Content, Raw | None]]) -> None:
        """Completes pieces of content: the n-th of a kind is the n-th part of that kind, whatever its number was."""
        before = {kind: [piece for key, piece in place.pieces.items() if key[0] == kind] for kind, _ in place.pieces}
        for index, (content, raw) in enumerate(contents):
            kind = _CONTENTS.get(content.type)
            if kind is None:
                if raw is not None:
                    self._opaque(place, PIECE + clean(content.type or ""), bytes(raw), index)
                continue
            known = before.get(kind)
            self._complete(known.pop(0) if known else self._new(place, kind, index), kind, content)

    def _new(self, place: Place, kind: str, index: int) -> Piece:
        while (kind, index) in place.pieces:
            index += 1
        return self._open(place, kind, index)

    # -- items --------------------------------------------------------------------------------------------------------

    def _finish_message(self, place: Place, item: bytes) -> None:
        message = wire.MESSAGE.read(item)
        self._contents(place, ((wire.CONTENT.read(bytes(raw)), raw) for raw in message.content or ()))
        self._mark(place, {"phase": message.phase})

    def _finish_reasoning(self, place: Place, item: bytes) -> None:
        read = wire.REASONING.read(item)
        for content in read.summary or ():
            content.type = "summary_text"
        for content in read.content or ():
            content.type = "reasoning_text"
        self._contents(place, ((content, None) for content in (*(read.summary or ()), *(read.content or ()))))
        if not place.pieces and (place.id or read.encrypted_content):
            # It goes back with the next request, even if nothing of it is shown.
            withheld = message_pb2.Reasoning(redacted=bool(read.encrypted_content))
            self._opened(place, "reasoning", 0, ContentPart(reasoning=withheld))
        if read.encrypted_content:
            # Only the final ciphertext is good, so it is the last thing to be said of an item.
            _last(place).part.encrypted(read.encrypted_content)
        self._mark(place, {"format": read.format, "signature": read.signature})

    def _finish_call(self, place: Place, item: bytes) -> None:
        call = wire.CALL.read(item)
        piece = place.pieces.get(("tool_call", 0)) or self._open_call(place, call)
        member = CALLS[place.type]
        piece.fill(call.input if member == "input" else call.arguments)
        marks: dict[str, Any] = {"namespace": call.namespace, "caller": call.caller}
        if place.type != "function_call":
            marks = {"type": Raw(dumps(place.type)), **marks}
        self._mark(place, marks)

    def _open_call(self, place: Place, call: wire.Call) -> Piece:
        call_id = clean(call.call_id or place.id) or made_call_id(self._assembly.response_id, CHOICE, place.number)
        made = message_pb2.ToolCall(id=call_id, name=clean(call.name or ""))
        piece = self._opened(place, "tool_call", 0, ContentPart(tool_call=made))
        for text in place.early:
            piece.add(text)
        return piece

    def _opaque(self, place: Place, kind: str, item: bytes, index: int = 0) -> None:
        block = message_pb2.OpaqueBlock(type=kind, json=item.decode("utf-8", "replace"))
        self._opened(place, "opaque", index, ContentPart(opaque=block))

    def _mark(self, place: Place, members: Mapping[str, Raw]) -> None:
        """Keeps members that the provider wants back with the item as the signature of its last part."""
        marks = {name: value for name, value in members.items() if present(value)}
        if marks and place.pieces:
            _last(place).part.signature(dumps(marks).decode("utf-8", "replace"))


def _last(place: Place) -> Piece:
    return next(reversed(place.pieces.values()))


def _citation(raw: Raw) -> message_pb2.Citation:
    read = wire.ANNOTATION.read(bytes(raw))
    citation = message_pb2.Citation(title=words(read.title), raw_json=bytes(raw).decode("utf-8", "replace"))
    if isinstance(read.url, str) and read.url:
        citation.uri = clean(read.url)
    elif isinstance(read.file_id, str) and read.file_id:
        citation.file_id = clean(read.file_id)
        citation.title = citation.title or words(read.filename)
    cite(citation, read.start_index, read.end_index)
    return citation
