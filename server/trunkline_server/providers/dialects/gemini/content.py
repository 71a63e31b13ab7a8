"""The conversation as Gemini wants it: instructions apart, answers of tools in the user's turns."""

from __future__ import annotations

from typing import Any, ClassVar

from msgspec import Raw

from trunkline.v1 import completion_pb2, message_pb2
from trunkline_server.providers.base import Notes, Target, part_is_foreign
from trunkline_server.providers.dialects.gemini.models import Model
from trunkline_server.providers.dialects.gemini.response import GROUNDING, URL_CONTEXT
from trunkline_server.providers.ids import is_made
from trunkline_server.providers.jsontext import try_loads
from trunkline_server.providers.parts import Block, Part, Parts
from trunkline_server.providers.tools import arguments_object

#: Stands for the signature of a call that no model of the provider's made, which it asks for all the same.
#: See https://ai.google.dev/gemini-api/docs/thought-signatures#faqs
UNSIGNED = "skip_thought_signature_validator"

_ROLES = {
    message_pb2.ROLE_USER: "user",
    message_pb2.ROLE_TOOL: "user",
    message_pb2.ROLE_ASSISTANT: "model",
    message_pb2.ROLE_SYSTEM: "",
    message_pb2.ROLE_DEVELOPER: "",
}
_RESOLUTIONS = {
    message_pb2.MEDIA_DETAIL_LOW: "MEDIA_RESOLUTION_LOW",
    message_pb2.MEDIA_DETAIL_MEDIUM: "MEDIA_RESOLUTION_MEDIUM",
    message_pb2.MEDIA_DETAIL_HIGH: "MEDIA_RESOLUTION_HIGH",
}
#: What an answer says of its sources has no place in a request.
_SOURCES = "Gemini does not take back what it said of its sources"
_READS = {"image": "images", "document": "documents", "audio": "audio", "video": "images"}


class Conversation(Parts):
    """Turns messages into the provider's contents. What cannot be said goes to the notes."""

    def __init__(
        self, spec: completion_pb2.CompletionSpec, target: Target, model: Model, notes: Notes, *, names_files: bool
    ) -> None:
        super().__init__(spec, target, notes)
        self._model = model
        self._names_files = names_files
        self.instructions: list[Block] = []
        self.contents: list[dict[str, Any]] = []
        #: Name and id on the wire of each call by its id.
        self._calls: dict[str, tuple[str, str]] = {}
        #: The first message of the turn that is going on: what the user said last, and after it.
        self._turn = max(
            (index for index, message in enumerate(spec.messages) if message.role == message_pb2.ROLE_USER), default=-1
        )
        #: Pictures and files in the answers of tools, which stand beside them at models that want them there.
        self._beside: list[Block] = []

    def read(self) -> None:
        """Reads the spec's messages."""
        before = message_pb2.ROLE_UNSPECIFIED
        for index, message in enumerate(self._spec.messages):
            path = f"messages[{index}]"
            if message.HasField("name"):
                self._notes.dropped(f"{path}.name", "Gemini's messages have no names of participants")
            role = _ROLES.get(message.role, "user")
            parts = self._said(message, index, path)
            if not role:
                self._instruct(parts, path)
            elif parts:
                # The answers to the calls of one turn belong into one turn.
                if message.role == before == message_pb2.ROLE_TOOL:
                    self.contents[-1]["parts"].extend(parts)
                else:
                    self.contents.append({"role": role, "parts": parts})
                before = message.role

    def _instruct(self, parts: list[Block], path: str) -> None:
        if not parts:
            return
        if self._model.instructions:
            if self.contents:
                self._notes.altered(
                    path, "Gemini takes instructions only before the conversation; these are moved there"
                )
            self.instructions.extend(parts)
        else:
            self.contents.append({"role": "user", "parts": parts})

    # -- parts --------------------------------------------------------------------------------------------------------

    def _said(self, message: message_pb2.Message, index: int, path: str) -> list[Block]:
        made: list[Block] = []
        unsigned = self._model.signed_calls and index > self._turn
        for place, part in enumerate(message.parts):
            at = f"{path}.parts[{place}]"
            kind = part.WhichOneof("kind")
            wire: Block | None = self.part(part, at)
            if wire is None:
                continue
            if isinstance(wire, dict):
                self._sign(wire, part, at)
                if kind == "tool_call":
                    # Of calls side by side the first has the signature of all.
                    if unsigned and "thoughtSignature" not in wire:
                        wire["thoughtSignature"] = UNSIGNED
                    unsigned = False
            made.append(wire)
        made.extend(self._beside)
        self._beside.clear()
        return _without_blanks(made)

    def _sign(self, wire: dict[str, Any], part: Part, path: str) -> None:
        if part.signature and not self.noted_foreign(part, f"{path}.signature"):
            wire["thoughtSignature"] = part.signature

    def _text(self, part: Part, path: str) -> Block | None:
        if part.text.citations:
            self.left_out(f"{path}.text.citations", _SOURCES)
        return {"text": part.text.text}

    def _refusal(self, part: Part, path: str) -> Block | None:
        return {"text": part.refusal.text}

    def _reasoning(self, part: Part, path: str) -> Block | None:
        if self.noted_foreign(part, path):
            return None
        if part.reasoning.HasField("encrypted"):
            self.left_out(path, "Gemini has no encrypted reasoning")
            return None
        # A signature may be all that there is.
        said = {"text": part.reasoning.text} if part.reasoning.text or not part.signature else {}
        return {**said, "thought": True}

    def _media(self, part: Part, path: str) -> Block | None:
        kind = part.WhichOneof("kind") or ""
        media = getattr(part, kind)
        if not getattr(self._target.capabilities, _READS[kind]):
            self._notes.dropped(path, f"{self._target.model} takes no {kind}")
            return None
        wire = self._blob(media)
        if media.detail:
            if self._model.part_resolution:
                wire["mediaResolution"] = {"level": _RESOLUTIONS[media.detail]}
            else:
                self._notes.dropped(
                    f"{path}.{kind}.detail", f"{self._target.model} decides by itself how closely to look"
                )
        return wire

    def _blob(self, media: message_pb2.Media) -> dict[str, Any]:
        # msgspec writes bytes as base64.
        if media.WhichOneof("source") == "data":
            name, blob = "inlineData", {"mimeType": media.mime_type, "data": media.data}
        else:
            name, blob = "fileData", {"fileUri": media.uri or media.file_id}
            if media.mime_type:
                blob["mimeType"] = media.mime_type
        if media.filename and self._names_files:
            blob["displayName"] = media.filename
        return {name: blob}

    def _tool_call(self, part: Part, path: str) -> Block | None:
        call = part.tool_call
        if self.noted_executed(part, path):
            return None
        # An id that the gateway made, or another provider, is none that the model has seen.
        known = "" if is_made(call.id) or part_is_foreign(part, self._target) else call.id
        self._calls[call.id] = (call.name, known)
        wire: dict[str, Any] = {"name": call.name, "args": arguments_object(call, self._spec, path, self._notes)}
        if known:
            wire["id"] = known
        return {"functionCall": wire}

    def _tool_result(self, part: Part, path: str) -> Block | None:
        result = part.tool_result
        name, known = self._calls.get(result.tool_call_id, (result.name, ""))
        texts: list[str] = []
        media: list[Block] = []
        for index, inner in enumerate(result.parts):
            kind = inner.WhichOneof("kind")
            at = f"{path}.tool_result.parts[{index}]"
            if kind == "text":
                texts.append(inner.text.text)
            elif kind in _READS:
                found = self._media(inner, at)
                media.extend([] if found is None else [found])
            else:
                self._notes.dropped(at, f"a tool cannot answer Gemini with {kind}")
        wire: dict[str, Any] = {
            "name": name or result.name or result.tool_call_id,
            "response": _response(texts, is_error=result.is_error),
        }
        if known:
            wire["id"] = known
        if media and self._model.media_results:
            wire["parts"] = media
        else:
            self._beside.extend(media)
        return {"functionResponse": wire}

    def _opaque(self, part: Part, path: str) -> Block | None:
        if self.noted_foreign(part, path):
            return None
        if part.opaque.type in (GROUNDING, URL_CONTEXT):
            self.left_out(path, _SOURCES)
            return None
        return Raw(part.opaque.json.encode())

    encoders: ClassVar = {
        "text": _text,
        "image": _media,
        "audio": _media,
        "video": _media,
        "document": _media,
        "tool_call": _tool_call,
        "tool_result": _tool_result,
        "reasoning": _reasoning,
        "refusal": _refusal,
        "opaque": _opaque,
    }


def _response(texts: list[str], *, is_error: bool) -> Any:
    """What a tool answered as the object that the provider wants: one that it is already stays byte for byte."""
    value: Any = texts
    if len(texts) == 1:
        value = Raw(texts[0].encode()) if isinstance(try_loads(texts[0]), dict) else texts[0]
    if is_error:
        return {"error": value}
    return value if isinstance(value, Raw) else {"output": value} if texts else {}


def _without_blanks(parts: list[Block]) -> list[Block]:
    """Leaves out empty texts wherever something else is said too."""
    said = [part for part in parts if not (isinstance(part, dict) and part == {"text": ""})]
    return said or parts
