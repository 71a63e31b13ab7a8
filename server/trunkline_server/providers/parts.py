"""Parts of messages, as the encoders of all dialects look at them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar

from msgspec import Raw

from trunkline.v1 import completion_pb2, message_pb2
from trunkline_server.providers.base import FOREIGN, Notes, Target, part_is_foreign
from trunkline_server.providers.jsontext import try_loads
from trunkline_server.providers.media import address_of, base64_of
from trunkline_server.providers.vocabulary import DETAILS, sound_of

Part = message_pb2.ContentPart
Block = dict[str, Any] | Raw


class Parts:
    """Encodes the parts of a spec's messages for one target. What cannot be said goes to the notes."""

    #: What encodes a part, by its kind; None of it: the part is left out.
    encoders: ClassVar[Mapping[str, Callable[[Any, Part, str], Any]]] = {}

    def __init__(self, spec: completion_pb2.CompletionSpec, target: Target, notes: Notes) -> None:
        self._spec = spec
        self._target = target
        self._notes = notes

    def part(self, part: Part, path: str) -> Any:
        """The part as the API has it; None: it is left out."""
        kind = part.WhichOneof("kind") or ""
        encode = self.encoders.get(kind)
        return self.untaken(path, f"no {kind or 'such part'} here") if encode is None else encode(self, part, path)

    def parts(self, parts: Iterable[Part], path: str) -> Iterator[Any]:
        """The parts that are not left out; `path` is that of their list."""
        for at, part in enumerate(parts):
            made = self.part(part, f"{path}[{at}]")
            if made is not None:
                yield made

    # -- what is noted ------------------------------------------------------------------------------------------------

    def untaken(self, path: str, what: str) -> dict[str, Any] | None:
        """Nothing, with a note that the target takes `what`, such as "no films"."""
        self._notes.dropped(path, f"{self._target.model!r} at {self._target.origin} takes {what}")
        return None

    def left_out(self, path: str, why: str) -> None:
        """Notes what does not go back. Never a reason to refuse: an answer must be able to go into the next request."""
        self._notes.foreign.append((FOREIGN, path, why))

    def noted_foreign(self, part: Part, path: str) -> bool:
        """Notes it if what `path` names was made by another provider, and is left out. Was it?"""
        foreign = part_is_foreign(part, self._target)
        if foreign:
            self._notes.foreign_data(path, part.origin_provider)
        return foreign

    def noted_executed(self, part: Part, path: str) -> bool:
        """Notes it if a provider ran this call itself: those, which have no result of the caller's, are left out."""
        executed = part.tool_call.provider_executed
        if executed:
            self.left_out(path, "a tool call that a provider ran itself is not taken back")
        return executed

    def nameless(self, message: message_pb2.Message, path: str) -> None:
        """Says that the participant's name is not sent."""
        if message.HasField("name") and message.name:
            self._notes.remark(f"{path}.name", f"{self._target.origin} takes no name of a participant")

    def failed_in_words(self, result: message_pb2.ToolResult, path: str) -> None:
        """Says that a tool's failure is not marked as one."""
        if result.is_error:
            self._notes.remark(f"{path}.is_error", "the text alone tells the model that the tool failed")

    def unsealed(self, part: Part, path: str) -> None:
        """Says that a signature or ciphertext of thoughts does not go back."""
        if part.HasField("signature") or part.reasoning.HasField("encrypted"):
            self.left_out(path, f"{self._target.origin} takes no thoughts back as they were sealed")

    def citations(self, part: Part, path: str) -> list[Raw]:
        """Those of a text that go back."""
        given = part.text.citations
        if not given or self.noted_foreign(part, f"{path}.text.citations"):
            return []
        sent = [each.raw_json for each in given if isinstance(try_loads(each.raw_json or "0"), dict)]
        if len(sent) < len(given):
            self._notes.dropped(
                f"{path}.text.citations", "a citation goes back only as the provider made it (raw_json)"
            )
        return [Raw(text.encode()) for text in sent]

    # -- as OpenAI's APIs, and others after them, write them ----------------------------------------------------------

    def detail(self, media: message_pb2.Media, path: str) -> dict[str, Any]:
        """How closely to look at a picture."""
        if media.detail == message_pb2.MEDIA_DETAIL_MEDIUM:
            self._notes.remark(f"{path}.image.detail", "sent as 'auto': there is nothing between low and high")
        word = DETAILS.get(media.detail)
        return {"detail": word} if word else {}

    def image_url(self, part: Part, path: str) -> dict[str, Any] | None:
        url = address_of(part.image)
        if not self._target.capabilities.images:
            return self.untaken(path, "no pictures")
        if url is None:
            return self.untaken(f"{path}.image.file_id", "no handles of pictures; send the bytes or an address")
        return {"type": "image_url", "image_url": {"url": url, **self.detail(part.image, path)}}

    def input_audio(self, part: Part, path: str) -> dict[str, Any] | None:
        media = part.audio
        if not self._target.capabilities.audio:
            return self.untaken(path, "no sound")
        if media.WhichOneof("source") != "data":
            return self.untaken(f"{path}.audio", "sound only as bytes")
        sound = {"data": base64_of(media.data), "format": sound_of(media.mime_type)}
        return {"type": "input_audio", "input_audio": sound}
