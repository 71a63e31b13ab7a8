"""The conversation as Gemini wants it: instructions apart, answers of tools in the user's turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Raw

from trunkline.v1 import completion_pb2, message_pb2
from trunkline_server.providers.base import FOREIGN, Notes, Target, part_is_foreign
from trunkline_server.providers.dialects.gemini.models import Model
from trunkline_server.providers.dialects.gemini.response import GROUNDING, URL_CONTEXT
from trunkline_server.providers.ids import is_made
from trunkline_server.providers.jsontext import try_loads
from trunkline_server.providers.tools import arguments_object

Part = message_pb2.ContentPart
Wire = dict[str, Any] | Raw

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
_READS = {"image": "images", "document": "documents", "audio": "audio", "video": "images"}


class Conversation:
    """Turns messages into the provider's contents. What cannot be said goes to the notes."""

    def __init__(
        self, spec: completion_pb2.CompletionSpec, target: Target, model: Model, notes: Notes, *, names_files: bool
    ) -> None:
        self._spec = spec
        self._target = target
        self._model = model
        self._notes = notes
        self._names_files = names_files
        self.instructions: list[Wire] = []
        self.contents: list[dict[str, Any]] = []
        #: Name and id on the wire of each call by its id.
        self._calls: dict[str, tuple[str, str]] = {}
        #: Calls that were left out; their results are left out as well.
        self._gone: set[str] = set()
        #: The first message of the turn that is going on: what the user said last, and after it.
        self._turn = max(
            (index for index, message in enumerate(spec.messages) if message.role == message_pb2.ROLE_USER), default=-1
        )
        #: Pictures and files in the answers of tools, which stand beside them at models that want them there.
        self._beside: list[Wire] = []

    def read(self) -> None:
        """Reads the spec's messages."""
        before = message_pb2.ROLE_UNSPECIFIED
        for index, message in enumerate(self._spec.messages):
            path = f"messages[{index}]"
            if message.HasField("name"):
                self._notes.dropped(f"{path}.name", "Gemini's messages have no names of participants")
            role = _ROLES.get(message.role, "user")
            parts = self._parts(message, index, path)
            if not role:
                self._instruct(parts, path)
            elif parts:
                # The answers to the calls of one turn belong into one turn.
                if message.role == before == message_pb2.ROLE_TOOL:
                    self.contents[-1]["parts"].extend(parts)
                else:
                    self.contents.append({"role": role, "parts": parts})
                before = message.role

    def _instruct(self, parts: list[Wire], path: str) -> None:
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

    def _parts(self, message: message_pb2.Message, index: int, path: str) -> list[Wire]:
        made: list[Wire] = []
        unsigned = self._model.signed_calls and index > self._turn
        for place, part in enumerate(message.parts):
            at = f"{path}.parts[{place}]"
            kind = part.WhichOneof("kind")
            wire = _PARTS[kind](self, part, at) if kind else None
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
        if not part.signature:
            return
        if part_is_foreign(part, self._target):
            self._notes.foreign_data(f"{path}.signature", part.origin_provider)
        else:
            wire["thoughtSignature"] = part.signature

    def _text(self, part: Part, path: str) -> Wire | None:
        if part.text.citations:
            self._stays(f"{path}.text.citations")
        return {"text": part.text.text}

    def _refusal(self, part: Part, path: str) -> Wire | None:
        return {"text": part.refusal.text}

    def _reasoning(self, part: Part, path: str) -> Wire | None:
        if part_is_foreign(part, self._target):
            self._notes.foreign_data(path, part.origin_provider)
            return None
        if part.reasoning.HasField("encrypted"):
            self._notes.foreign.append((FOREIGN, path, "Gemini has no encrypted reasoning"))
            return None
        # A signature may be all that there is.
        said = {"text": part.reasoning.text} if part.reasoning.text or not part.signature else {}
        return {**said, "thought": True}

    def _media(self, part: Part, path: str) -> Wire | None:
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

    def _tool_call(self, part: Part, path: str) -> Wire | None:
        call = part.tool_call
        if call.provider_executed:
            self._gone.add(call.id)
            self._notes.foreign_data(path, part.origin_provider or "another provider")
            return None
        # An id that the gateway made, or another provider, is none that the model has seen.
        known = "" if is_made(call.id) or part_is_foreign(part, self._target) else call.id
        self._calls[call.id] = (call.name, known)
        wire: dict[str, Any] = {"name": call.name, "args": arguments_object(call, self._spec, path, self._notes)}
        if known:
            wire["id"] = known
        return {"functionCall": wire}

    def _tool_result(self, part: Part, path: str) -> Wire | None:
        result = part.tool_result
        if result.tool_call_id in self._gone:
            return None
        name, known = self._calls.get(result.tool_call_id, (result.name, ""))
        texts: list[str] = []
        media: list[Wire] = []
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

    def _opaque(self, part: Part, path: str) -> Wire | None:
        if part_is_foreign(part, self._target):
            self._notes.foreign_data(path, part.origin_provider)
            return None
        if part.opaque.type in (GROUNDING, URL_CONTEXT):
            self._stays(path)
            return None
        return Raw(part.opaque.json.encode())

    def _stays(self, path: str) -> None:
        """What an answer says of its sources has no place in a request: never a reason to refuse."""
        self._notes.foreign.append((FOREIGN, path, "Gemini does not take back what it said of its sources"))


_PARTS: Mapping[str, Callable[[Conversation, Part, str], Wire | None]] = {
    "text": Conversation._text,
    "image": Conversation._media,
    "audio": Conversation._media,
    "video": Conversation._media,
    "document": Conversation._media,
    "tool_call": Conversation._tool_call,
    "tool_result": Conversation._tool_result,
    "reasoning": Conversation._reasoning,
    "refusal": Conversation._refusal,
    "opaque": Conversation._opaque,
}


def _response(texts: list[str], *, is_error: bool) -> Any:
    """What a tool answered as the object that the provider wants: one that it is already stays byte for byte."""
    value: Any = texts
    if len(texts) == 1:
        value = Raw(texts[0].encode()) if isinstance(try_loads(texts[0]), dict) else texts[0]
    if is_error:
        return {"error": value}
    return value if isinstance(value, Raw) else {"output": value} if texts else {}


def _without_blanks(parts: list[Wire]) -> list[Wire]:
    """Leaves out empty texts wherever something else is said too."""
    said = [part for part in parts if not (isinstance(part, dict) and part == {"text": ""})]
    return said or parts
