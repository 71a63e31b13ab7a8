"""The conversation as a list of items: messages, thoughts, calls and results each by itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from msgspec import Raw

from trunkline.v1 import completion_pb2, message_pb2
from trunkline_server.providers.base import Notes, Target, part_is_foreign
from trunkline_server.providers.dialects.openai_responses.items import PIECE
from trunkline_server.providers.dialects.openai_responses.quirks import Quirks
from trunkline_server.providers.jsontext import embed, try_loads
from trunkline_server.providers.media import address_of, text_of
from trunkline_server.providers.parts import Part, Parts
from trunkline_server.providers.results import ELSEWHERE, Held
from trunkline_server.providers.tools import arguments_of

Wire = dict[str, Any]

_ROLES: Mapping[int, str] = {
    message_pb2.ROLE_SYSTEM: "system",
    message_pb2.ROLE_DEVELOPER: "developer",
    message_pb2.ROLE_USER: "user",
}
#: Marks of a cached prefix live for half an hour or half a day.
_TTLS: Mapping[int, str] = {
    message_pb2.CACHE_TTL_5M: "30m",
    message_pb2.CACHE_TTL_1H: "12h",
    message_pb2.CACHE_TTL_24H: "12h",
}


class Conversation(Parts):
    """Turns messages into items. What cannot be said goes to the notes."""

    def __init__(self, spec: completion_pb2.CompletionSpec, target: Target, quirks: Quirks, notes: Notes) -> None:
        super().__init__(spec, target, notes)
        self._quirks = quirks
        self.instructions: str | None = None
        self.items: list[Wire | Raw] = []
        #: Do sealed thoughts go back?
        self.sealed = False
        #: Are the responses kept in which the conversation's items came?
        self._kept = quirks.keeps != "never" and not (spec.HasField("store") and not spec.store)
        #: Names of tools that take free text, and the ids of their calls.
        self._custom = {name for tool in spec.tools if (name := custom_name_of(tool))}
        self._custom_calls: set[str] = set()
        self._calls: set[str] = set()

    def read(self) -> None:
        """Reads the spec's messages."""
        start = self._instruct()
        held = Held(self._notes, text="input_text")
        for index, message in enumerate(self._spec.messages):
            if index < start:
                continue
            path = f"messages[{index}]"
            self.nameless(message, path)
            if message.role == message_pb2.ROLE_TOOL:
                for at, part in enumerate(message.parts):
                    self._result(part.tool_result, f"{path}.parts[{at}].tool_result", held)
                continue
            self.items.extend(held.message())
            if message.role == message_pb2.ROLE_ASSISTANT:
                _Turn(self, path).read(message.parts)
                if not self._is_said_by_model(index + 1):
                    self._open_ended(path)
            else:
                self._message(message, path)
        self.items.extend(held.message())

    def _instruct(self) -> int:
        """Takes the instructions; returns how many messages they are."""
        texts: list[str] = []
        for message in self._spec.messages:
            parts = message.parts
            plain = all(part.WhichOneof("kind") == "text" and not self._is_marked(part) for part in parts)
            if message.role != message_pb2.ROLE_SYSTEM or not plain:
                break
            texts.append("\n".join(part.text.text for part in parts))
        if self._quirks.instructions == "all":
            self.instructions = "\n\n".join(texts)
            return len(texts)
        if texts and len(self._spec.messages[0].parts) == 1:
            self.instructions = texts[0]
            return 1
        return 0

    def _is_said_by_model(self, index: int) -> bool:
        messages = self._spec.messages
        return index < len(messages) and messages[index].role == message_pb2.ROLE_ASSISTANT

    # -- messages -----------------------------------------------------------------------------------------------------

    def _message(self, message: message_pb2.Message, path: str) -> None:
        """A message; items that stand in it by themselves divide it."""
        role = _ROLES.get(message.role, "user")
        content: list[Wire | Raw] = []
        for at, part in enumerate(message.parts):
            where = f"{path}.parts[{at}]"
            if part.WhichOneof("kind") == "opaque" and not part.opaque.type.startswith(PIECE):
                self._add(role, content)
                content = []
                self.opaque(part, where)
            else:
                made = self.part(part, where)
                if made is not None:
                    content.append(made)
        self._add(role, content)

    def _add(self, role: str, content: list[Wire | Raw]) -> None:
        if content:
            self.items.append({"role": role, "content": _plain(content, "input_text") or content})

    def part(self, part: Part, path: str) -> Wire | Raw | None:
        """A piece of a message that the model reads."""
        made: Wire | Raw | None = super().part(part, path)
        if isinstance(made, dict) and self._is_marked(part):
            made["prompt_cache_breakpoint"] = self._mark(part.cache_control)
        return made

    def _is_marked(self, part: Part) -> bool:
        return self._quirks.cache_marks and part.HasField("cache_control")

    def _mark(self, mark: message_pb2.CacheControl) -> Wire:
        ttl = _TTLS.get(mark.ttl)
        return {"mode": "explicit", "ttl": ttl} if ttl else {"mode": "explicit"}

    def _text(self, part: Part, path: str) -> Wire:
        return {"type": "input_text", "text": part.text.text}

    def _refusal(self, part: Part, path: str) -> Wire:
        return {"type": "input_text", "text": part.refusal.text}

    def _image(self, part: Part, path: str) -> Wire | None:
        if not self._target.capabilities.images:
            return self.untaken(path, "no pictures")
        media = part.image
        image: Wire = {"type": "input_image", **self.detail(media, path)}
        url = address_of(media)
        return {**image, "file_id": media.file_id} if url is None else {**image, "image_url": url}

    def _document(self, part: Part, path: str) -> Wire | None:
        media = part.document
        source = media.WhichOneof("source")
        if not self._target.capabilities.documents:
            if source == "data" and media.mime_type.startswith("text/"):
                self._notes.remark(f"{path}.document", "sent as text")
                return {"type": "input_text", "text": text_of(media)}
            return self.untaken(path, "no documents")
        file: Wire = {"type": "input_file"}
        if media.filename:
            file["filename"] = media.filename
        elif source == "data":
            file["filename"] = f"document.{_ending(media.mime_type)}"
        if source == "file_id":
            return {**file, "file_id": media.file_id}
        return {**file, "file_url" if source == "uri" else "file_data": address_of(media)}

    def _piece(self, part: Part, path: str) -> Raw | None:
        """A piece of a message that the contract does not model."""
        if self.noted_foreign(part, path):
            return None
        return embed(part.opaque.json)

    def opaque(self, part: Part, path: str) -> bool:
        """An item that the contract does not model goes back as it came."""
        if self.noted_foreign(part, path):
            return False
        self.items.append(embed(part.opaque.json))
        return True

    encoders: ClassVar = {
        "text": _text,
        "refusal": _refusal,
        "image": _image,
        "audio": Parts.input_audio,
        "document": _document,
        "opaque": _piece,
    }

    # -- tools --------------------------------------------------------------------------------------------------------

    def called(self, part: Part, path: str, marks: Wire, item_id: str) -> bool:
        """A call of an earlier turn."""
        call = part.tool_call
        if self.noted_executed(part, path):
            return False
        self._calls.add(call.id)
        kind = marks.pop("type", None) or ("custom_tool_call" if call.name in self._custom else "function_call")
        made: Wire = {"type": kind, "call_id": call.id, "name": call.name}
        if item_id:
            made["id"] = item_id
        if kind == "custom_tool_call":
            self._custom_calls.add(call.id)
            made["input"] = call.arguments_json
        else:
            made["arguments"] = arguments_of(call, self._spec)
        self.items.append({**made, **marks})
        return True

    def _result(self, result: message_pb2.ToolResult, path: str, held: Held) -> None:
        self.failed_in_words(result, path)
        parts = list(self.parts(result.parts, f"{path}.parts"))
        output: Any = parts
        if not parts:
            output = ""
        elif (text := _plain(parts, "input_text")) is not None:
            output = text
        elif not self._quirks.rich_results:
            output = self._without_media(parts, result.tool_call_id, path, held)
        # A call of an earlier response is not here to tell.
        unseen = result.tool_call_id not in self._calls
        custom = result.tool_call_id in self._custom_calls or (unseen and result.name in self._custom)
        kind = "custom_tool_call_output" if custom else "function_call_output"
        self.items.append({"type": kind, "call_id": result.tool_call_id, "output": output})

    def _without_media(self, parts: list[Wire | Raw], call_id: str, path: str, held: Held) -> str:
        """The texts of a result; what is no text follows in a message of the user's."""
        texts = [part["text"] for part in parts if isinstance(part, dict) and part["type"] == "input_text"]
        media = [part for part in parts if isinstance(part, dict) and part["type"] != "input_text"]
        held.keep(media, call_id, path)
        return "\n".join(texts) if texts else ELSEWHERE

    # -- thoughts -----------------------------------------------------------------------------------------------------

    def thought(self, parts: list[Part], path: str) -> bool:
        """An item of thoughts. It goes back sealed, or by its id where the response is kept, else there is no use."""
        first = parts[0]
        if self.noted_foreign(first, path):
            return False
        sealed = next((part.reasoning.encrypted for part in parts if part.reasoning.HasField("encrypted")), "")
        if not sealed and not self._quirks.plain_thoughts and not (first.item_id and self._kept):
            self.left_out(path, "thoughts go back sealed, or by their id where the response was kept")
            return False
        item: Wire = {"type": "reasoning"}
        if first.item_id:
            item["id"] = first.item_id
        item["summary"] = [
            {"type": "summary_text", "text": part.reasoning.text} for part in parts if part.reasoning.is_summary
        ]
        content = [
            {"type": "reasoning_text", "text": part.reasoning.text}
            for part in parts
            if part.reasoning.text and not part.reasoning.is_summary
        ]
        if content:
            item["content"] = content
        if sealed:
            item["encrypted_content"] = sealed
            self.sealed = True
        for part in parts:
            item.update(marks_of(part))
        self.items.append(item)
        return True

    def _open_ended(self, path: str) -> None:
        """Takes back thoughts at the end of a turn that say nothing: alone they are refused."""
        while self.items and isinstance(self.items[-1], dict) and self.items[-1].get("type") == "reasoning":
            self.items.pop()
            self.left_out(path, "thoughts that nothing of the model's follows are not taken back")


class _Turn:
    """A turn of the assistant: its parts, those of one item together."""

    def __init__(self, conversation: Conversation, path: str) -> None:
        self._conversation = conversation
        self._target = conversation._target
        self._path = path
        #: May items be named by their ids? Not after thoughts were left out: the provider misses what belongs to them.
        self._named = True
        #: What is gathered: the kind of item, its id, its parts.
        self._kind = ""
        self._id = ""
        self._parts: list[tuple[Part, str]] = []

    def read(self, parts: Iterable[Part]) -> None:
        for at, part in enumerate(parts):
            path = f"{self._path}.parts[{at}]"
            kind = part.WhichOneof("kind") or ""
            gathered = "reasoning" if kind == "reasoning" else "message" if _is_said(part, kind) else ""
            item_id = "" if part_is_foreign(part, self._target) else part.item_id
            if gathered and (gathered, item_id) == (self._kind, self._id) and not self._is_sealed():
                self._parts.append((part, path))
                continue
            self._flush()
            if gathered:
                self._kind, self._id, self._parts = gathered, item_id, [(part, path)]
            else:
                self._alone(part, kind, path)
        self._flush()

    def _is_sealed(self) -> bool:
        """Thoughts without an id end with their seal."""
        last = self._parts[-1][0] if self._parts else None
        return last is not None and not self._id and last.reasoning.HasField("encrypted")

    def _flush(self) -> None:
        parts, self._parts = self._parts, []
        if not parts:
            return
        if self._kind == "reasoning":
            self._named &= self._conversation.thought([part for part, _ in parts], parts[0][1])
        else:
            self._message(parts)
        self._kind = ""

    def _alone(self, part: Part, kind: str, path: str) -> None:
        if kind == "tool_call":
            marks = self._marks(part, path)
            named = self._named and not part_is_foreign(part, self._target)
            self._conversation.called(part, path, marks, part.item_id if named else "")
        elif kind == "opaque":
            self._conversation.opaque(part, path)
        else:
            self._conversation.untaken(path, "no media in a turn of the assistant")

    def _marks(self, part: Part, path: str) -> Wire:
        foreign = part.HasField("signature") and self._conversation.noted_foreign(part, f"{path}.signature")
        return {} if foreign else marks_of(part)

    def _message(self, parts: list[tuple[Part, str]]) -> None:
        content: list[Wire | Raw] = []
        marks: Wire = {}
        for part, path in parts:
            marks.update(self._marks(part, path))
            made = self._said(part, path)
            if made is not None:
                content.append(made)
        if not content:
            return
        item_id = self._id if self._named else ""
        if item_id:
            message: Wire = {"type": "message", "role": "assistant", "id": item_id, "status": "completed"}
            for piece in content:
                if isinstance(piece, dict) and piece["type"] == "output_text":
                    piece.setdefault("annotations", [])
            message["content"] = content
        else:
            text = _plain(content, "output_text")
            message = {"role": "assistant", "content": content if text is None else text}
        self._conversation.items.append({**message, **marks})

    def _said(self, part: Part, path: str) -> Wire | Raw | None:
        kind = part.WhichOneof("kind")
        if kind == "refusal":
            return {"type": "refusal", "refusal": part.refusal.text}
        if kind == "opaque":
            return self._conversation.part(part, path)
        if kind == "audio":
            return {"type": "output_text", "text": part.audio.transcript}
        made: Wire = {"type": "output_text", "text": part.text.text}
        if sent := self._conversation.citations(part, path):
            made["annotations"] = sent
        return made


def custom_name_of(tool: completion_pb2.Tool) -> str:
    """Name of a tool of the caller's that takes free text; "" for any other."""
    if tool.WhichOneof("kind") != "provider" or tool.provider.type != "custom":
        return ""
    config = try_loads(tool.provider.config_json or "{}")
    name = config.get("name") if isinstance(config, dict) else None
    return name if isinstance(name, str) else ""


def marks_of(part: Part) -> Wire:
    """Members of the item that the provider wants back with it, as `Items` kept them."""
    marks = try_loads(part.signature) if part.signature else None
    return dict(marks) if isinstance(marks, dict) else {}


def _is_said(part: Part, kind: str) -> bool:
    """Is the part a piece of a message?"""
    if kind == "opaque":
        return part.opaque.type.startswith(PIECE)
    return kind in ("text", "refusal") or (kind == "audio" and bool(part.audio.transcript))


def _plain(parts: list[Wire | Raw], kind: str) -> str | None:
    """The text, if there is nothing else than one."""
    if len(parts) == 1 and isinstance(parts[0], dict) and parts[0].keys() == {"type", "text"}:
        text: str = parts[0]["text"]
        return text if parts[0]["type"] == kind else None
    return None


def _ending(mime_type: str) -> str:
    """An ending for the name of a file, which has to have a name."""
    plain = mime_type.partition(";")[0].rpartition("/")[2].rpartition(".")[2].rpartition("+")[2]
    return {"plain": "txt", "markdown": "md", "sheet": "xlsx", "presentation": "pptx"}.get(plain, plain) or "bin"
