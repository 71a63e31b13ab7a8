"""Reads answers, whole or in chunks, into an assembly: a whole message is one large delta."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec import Raw

from trunkline.v1 import completion_pb2, message_pb2
from trunkline_server.providers.answers import by_content, cite, close_flowing, last_open, open_opaque, words
from trunkline_server.providers.assembly import Assembly, Part, clean
from trunkline_server.providers.classify import error_in_answer
from trunkline_server.providers.dialects.openai_chat import wire
from trunkline_server.providers.dialects.openai_chat.usage import usage_of
from trunkline_server.providers.ids import made_call_id
from trunkline_server.providers.jsontext import dumps, present, text_of
from trunkline_server.providers.logprobs import finite, token_logprobs
from trunkline_server.providers.media import bytes_of

ContentPart = message_pb2.ContentPart
FinishReason = completion_pb2.FinishReason

#: The words of all providers of this dialect, in lower case. Anything else is OTHER.
FINISH_REASONS: dict[str, FinishReason.ValueType] = {
    "stop": completion_pb2.FINISH_REASON_STOP,
    "eos": completion_pb2.FINISH_REASON_STOP,
    "end_turn": completion_pb2.FINISH_REASON_STOP,
    "stop_sequence": completion_pb2.FINISH_REASON_STOP,
    "complete": completion_pb2.FINISH_REASON_STOP,
    "completed": completion_pb2.FINISH_REASON_STOP,
    "length": completion_pb2.FINISH_REASON_LENGTH,
    "max_tokens": completion_pb2.FINISH_REASON_LENGTH,
    "max_output_tokens": completion_pb2.FINISH_REASON_LENGTH,
    "model_length": completion_pb2.FINISH_REASON_LENGTH,
    "model_context_window_exceeded": completion_pb2.FINISH_REASON_CONTEXT_WINDOW,
    "tool_calls": completion_pb2.FINISH_REASON_TOOL_CALLS,
    "tool_call": completion_pb2.FINISH_REASON_TOOL_CALLS,
    "tool_use": completion_pb2.FINISH_REASON_TOOL_CALLS,
    "function_call": completion_pb2.FINISH_REASON_TOOL_CALLS,
    "content_filter": completion_pb2.FINISH_REASON_CONTENT_FILTER,
    "content_filtered": completion_pb2.FINISH_REASON_CONTENT_FILTER,
    "safety": completion_pb2.FINISH_REASON_CONTENT_FILTER,
    "sensitive": completion_pb2.FINISH_REASON_CONTENT_FILTER,
    "recitation": completion_pb2.FINISH_REASON_CONTENT_FILTER,
    "guardrail_intervened": completion_pb2.FINISH_REASON_CONTENT_FILTER,
    "refusal": completion_pb2.FINISH_REASON_REFUSAL,
    "pause_turn": completion_pb2.FINISH_REASON_PAUSE,
    "malformed_function_call": completion_pb2.FINISH_REASON_MALFORMED_TOOL_CALL,
}

#: First bytes of encodings of sound, and their media types: an answer does not say which one it is.
_SOUNDS = ((b"RIFF", "audio/wav"), (b"ID3", "audio/mpeg"), (b"\xff\xfb", "audio/mpeg"), (b"\xff\xf3", "audio/mpeg"),
           (b"OggS", "audio/ogg"), (b"fLaC", "audio/flac"))  # fmt: skip


class _Call:
    """A tool call while its pieces arrive. Its part is opened once its name is known."""

    __slots__ = ("arguments", "id", "part")

    def __init__(self, call_id: str) -> None:
        self.id = call_id
        self.arguments = ""
        self.part: Part | None = None


class Reading:
    """Pours one answer into its assembly. Finish reasons are held until `close`: more may follow them."""

    __slots__ = ("_assembly", "_calls", "_detail", "_facts", "_finish", "_made", "_sources", "_touched", "_usage")

    def __init__(self, assembly: Assembly) -> None:
        self._assembly = assembly
        #: By choice: the tool calls by index, and how many there were.
        self._calls: dict[int, dict[object, _Call]] = {}
        self._made: dict[int, int] = {}
        #: By choice: type and index of the reasoning detail that is being read.
        self._detail: dict[int, tuple[object, object]] = {}
        self._finish: dict[int, tuple[str, Any]] = {}
        self._sources: list[Raw] = []
        #: Choices that were spoken of.
        self._touched: set[int] = set()
        self._usage = b""
        self._facts: tuple[object, ...] = ()

    # -- an answer or a chunk ------------------------------------------------------------------------------------------

    def answer(self, answer: wire.Answer, *, whole: bool = False) -> None:
        self._head(answer)
        for choice in answer.choices or ():
            index = choice.index or 0
            message = choice.delta or choice.message
            if whole and choice.message is not None:
                message = choice.message
            if message is not None:
                self._message(index, message, whole)
            if choice.finish_reason is not None:
                self._finish[index] = (choice.finish_reason, choice.stop_reason)
            elif index not in self._touched:
                self._touched.add(index)
                self._assembly.touch(index)
            if present(choice.logprobs):
                self._logprobs(index, choice.logprobs)
        if answer.search_results:
            self._sources = answer.search_results
        if present(answer.usage):
            self._set_usage(answer.usage)
        elif answer.x_groq is not None and present(answer.x_groq.usage):
            self._set_usage(answer.x_groq.usage)

    def _head(self, answer: wire.Answer) -> None:
        """The answer's own facts. The first id counts: some change it on the way."""
        assembly = self._assembly
        if not assembly.response_id and answer.id:
            assembly.response_id = clean(str(answer.id))
        facts = (answer.model, answer.system_fingerprint, answer.service_tier)
        if facts != self._facts:
            # Nearly every chunk repeats them.
            self._facts = facts
            assembly.model = words(answer.model) or assembly.model
            assembly.system_fingerprint = words(answer.system_fingerprint) or assembly.system_fingerprint
            assembly.service_tier = words(answer.service_tier) or assembly.service_tier

    def raise_error(self, answer: wire.Answer, data: bytes) -> None:
        """Raises the error inside an answer that began well, after what it reports of usage was taken."""
        if present(answer.usage):
            self._set_usage(answer.usage)
        raise error_in_answer(data)

    def finish_of(self, choice: int) -> bool:
        return choice in self._finish

    def close(self, *, said_done: bool) -> None:
        """Ends the choices whose finish reason came; all, if the provider said that this was the whole answer."""
        assembly = self._assembly
        for choice in (*self._finish, *(assembly.unfinished() if said_done else ())):
            if assembly.finish_of(choice) is not None:
                continue
            for call in self._calls.get(choice, {}).values():
                if call.part is None:
                    self._open_call(choice, call, "")
            if self._sources:
                self._cite_sources(choice)
            raw, stop_reason = self._finish.get(choice, ("", None))
            reason = self._reason(choice, raw)
            stopped = reason == completion_pb2.FINISH_REASON_STOP and isinstance(stop_reason, str)
            assembly.finish(choice, reason, raw, stop_reason if stopped else None)
        usage = assembly.usage
        if usage is not None and assembly.finished:
            usage.source = completion_pb2.USAGE_SOURCE_REPORTED

    def _reason(self, choice: int, raw: str) -> FinishReason.ValueType:
        reason = FINISH_REASONS.get(raw.lower(), completion_pb2.FINISH_REASON_OTHER)
        if reason == completion_pb2.FINISH_REASON_STOP or not raw:
            # A forced tool ends with "stop", a refusal always does.
            return by_content(self._assembly, choice, reason)
        return reason

    def _set_usage(self, raw: Raw) -> None:
        data = bytes(raw)
        if data == self._usage:
            return
        self._usage = data
        complete = bool(self._finish)
        usage = usage_of(raw, completion_pb2.USAGE_SOURCE_REPORTED if complete else completion_pb2.USAGE_SOURCE_PARTIAL)
        if usage is not None:
            self._assembly.set_usage(usage)

    # -- a message or a delta ------------------------------------------------------------------------------------------

    def _message(self, choice: int, message: wire.Message, whole: bool) -> None:
        assembly = self._assembly
        details = message.reasoning_details
        if not details or not self._details_speak(details):
            # vLLM sends the same thoughts under both names.
            thought = message.reasoning_content or message.reasoning
            if thought and type(thought) is str:
                assembly.part(choice, "reasoning").text(thought)
        if details:
            self._details(choice, details)
        content = message.content
        if content:
            if type(content) is str:
                assembly.part(choice, "text").text(content)
            else:
                self._content(choice, content)
        if message.refusal:
            assembly.part(choice, "refusal").text(message.refusal)
        if message.tool_calls:
            for call in message.tool_calls:
                self._call(choice, call, whole)
        function = message.function_call
        if function is not None and (function.name or function.arguments):
            self._call(choice, wire.ToolCall(index=-1, function=function), whole)
        if message.annotations or message.audio or message.images or message.executed_tools or message.extra_content:
            self._extras(choice, message)

    def _content(self, choice: int, content: Any) -> None:
        """Content that is no string: Mistral's list of parts, or the JSON object itself that a schema asked for."""
        if not isinstance(content, list):
            self._assembly.part(choice, "text").text(dumps(content).decode())
            return
        for part in content:
            if isinstance(part, str):
                self._assembly.part(choice, "text").text(part)
            elif isinstance(part, dict):
                self._content_part(choice, part)

    def _content_part(self, choice: int, part: dict[str, Any]) -> None:
        kind = part.get("type")
        if kind in ("text", "output_text") and isinstance(part.get("text"), str):
            self._assembly.part(choice, "text").text(part["text"])
        elif kind == "refusal" and isinstance(part.get("refusal"), str):
            self._assembly.part(choice, "refusal").text(part["refusal"])
        elif kind == "thinking":
            thinking = part.get("thinking")
            pieces = thinking if isinstance(thinking, list) else [thinking]
            texts = [piece.get("text") if isinstance(piece, dict) else piece for piece in pieces]
            self._assembly.part(choice, "reasoning").text("".join(text for text in texts if isinstance(text, str)))
        else:
            self._opaque(choice, str(kind), dumps(part))

    # -- reasoning details, as OpenRouter passes on the thoughts of its providers --------------------------------------

    @staticmethod
    def _details_speak(details: Any) -> bool:
        return isinstance(details, list) and any(
            isinstance(detail, dict) and (detail.get("text") or detail.get("summary")) for detail in details
        )

    def _details(self, choice: int, details: Any) -> None:
        for detail in details if isinstance(details, list) else ():
            if not isinstance(detail, dict):
                continue
            kind, signature = detail.get("type"), detail.get("signature")
            foreign_signature = signature and not str(detail.get("format") or "anthropic").startswith("anthropic")
            if kind in ("reasoning.text", "reasoning.summary") and not foreign_signature:
                self._detail_text(choice, detail, kind == "reasoning.summary")
            else:
                # Kept whole: what it goes back with (format, id) is part of it.
                close_flowing(self._assembly, choice)
                sealed = ContentPart(reasoning=message_pb2.Reasoning(redacted=True), item_id=words(detail.get("id")))
                part = self._assembly.open(choice, "reasoning", sealed)
                part.text(words(detail.get("text")))
                part.encrypted(dumps(detail).decode())
                part.close()

    def _detail_text(self, choice: int, detail: dict[str, Any], summary: bool) -> None:
        text, signature = words(detail.get("summary" if summary else "text")), words(detail.get("signature"))
        if not text and not signature:
            return
        position = (detail.get("type"), _key(detail.get("index")))
        part = self._assembly.find(choice, "reasoning")
        if part is None or self._detail.get(choice) != position:
            close_flowing(self._assembly, choice)
            reasoning = message_pb2.Reasoning(is_summary=summary)
            new = ContentPart(reasoning=reasoning)
            if detail.get("id"):
                new.item_id = words(detail["id"])
            part = self._assembly.open(choice, "reasoning", new)
            self._detail[choice] = position
        part.text(text)
        part.signature(signature)

    # -- tool calls ----------------------------------------------------------------------------------------------------

    def _call(self, choice: int, piece: wire.ToolCall, whole: bool) -> None:
        name, arguments = "", None
        if piece.function is not None:
            name, arguments = words(piece.function.name), piece.function.arguments
        if not name and isinstance(piece.custom, dict):
            name, arguments = words(piece.custom.get("name")), piece.custom.get("input") or arguments
        calls = self._calls.setdefault(choice, {})
        key = self._call_key(calls, piece, name, whole)
        call = calls.get(key)
        if call is None or (piece.id and call.id and piece.id != call.id and name):
            # Some servers number all calls 0: another id with a name begins the next one.
            call = calls[key] = _Call(words(piece.id))
        if call.part is None and name:
            call.id = call.id or words(piece.id)
            self._open_call(choice, call, name)
        text = arguments if isinstance(arguments, str) else "" if arguments is None else dumps(arguments).decode()
        if call.part is None:
            call.arguments += text
            return
        call.part.text(text)
        signature = _thought_signature(piece.extra_content)
        if signature:
            call.part.signature(signature)

    @staticmethod
    def _call_key(calls: dict[object, _Call], piece: wire.ToolCall, name: str, whole: bool) -> object:
        if whole:
            return len(calls), "whole"
        if piece.index is not None:
            return piece.index
        if piece.id:
            return next((key for key, call in calls.items() if call.id == piece.id), (len(calls), "new"))
        return (len(calls), "new") if name or not calls else next(reversed(calls))

    def _open_call(self, choice: int, call: _Call, name: str) -> None:
        close_flowing(self._assembly, choice)
        number = self._made.get(choice, 0)
        self._made[choice] = number + 1
        if not call.id:
            call.id = made_call_id(self._assembly.response_id, choice, number)
        new = ContentPart(tool_call=message_pb2.ToolCall(id=call.id, name=name))
        call.part = self._assembly.open(choice, ("call", number), new)
        call.part.text(call.arguments)

    # -- what is rare --------------------------------------------------------------------------------------------------

    def _extras(self, choice: int, message: wire.Message) -> None:
        for raw in message.annotations or ():
            self._annotation(choice, raw)
        if isinstance(message.audio, dict):
            self._audio(choice, message.audio)
        if isinstance(message.images, list):
            for image in message.images:
                self._image(choice, image)
        for raw in message.executed_tools or ():
            self._opaque(choice, "executed_tool", bytes(raw))
        signature = _thought_signature(message.extra_content)
        if signature:
            part = self._assembly.find(choice, "text") or self._assembly.find(choice, "reasoning")
            (part or self._assembly.part(choice, "text")).signature(signature)

    def _annotation(self, choice: int, raw: Raw) -> None:
        found = wire.ANNOTATION.read(bytes(raw))
        source = found.url_citation
        if found.type != "url_citation" or source is None:
            self._opaque(choice, f"annotation.{found.type or 'unknown'}", bytes(raw))
            return
        citation = message_pb2.Citation(
            title=words(source.title), cited_text=words(source.content), uri=words(source.url), raw_json=text_of(raw)
        )
        cite(citation, source.start_index, source.end_index)
        self._assembly.part(choice, "text").citation(citation)

    def _cite_sources(self, choice: int) -> None:
        for raw in self._sources:
            source = wire.SEARCH_RESULT.read(bytes(raw))
            citation = message_pb2.Citation(
                title=words(source.title),
                cited_text=words(source.snippet),
                uri=words(source.url),
                raw_json=text_of(raw),
            )
            self._assembly.part(choice, "text").citation(citation)

    def _audio(self, choice: int, audio: dict[str, Any]) -> None:
        data, transcript = bytes_of(audio.get("data")), words(audio.get("transcript"))
        part = self._assembly.find(choice, "audio")
        if part is None:
            if not (data or transcript or audio.get("id")):
                return
            close_flowing(self._assembly, choice)
            new = ContentPart(audio=message_pb2.Media(mime_type=_sound(data)), item_id=words(audio.get("id")))
            part = self._assembly.open(choice, "audio", new)
        if data:
            part.bytes(data)
        part.transcript(transcript)

    def _image(self, choice: int, image: Any) -> None:
        place = image.get("image_url") if isinstance(image, dict) else None
        url = words(place.get("url") if isinstance(place, dict) else place)
        if not url:
            return
        close_flowing(self._assembly, choice)
        head, comma, data = url.partition(",")
        if head.startswith("data:") and comma:
            mime_type = head.removeprefix("data:").partition(";")[0]
            part = self._assembly.open(choice, "image", ContentPart(image=message_pb2.Media(mime_type=mime_type)))
            part.bytes(bytes_of(data))
        else:
            part = self._assembly.open(choice, "image", ContentPart(image=message_pb2.Media(uri=url)))
        part.close()

    def _opaque(self, choice: int, kind: str, json: bytes) -> None:
        close_flowing(self._assembly, choice)
        open_opaque(self._assembly, choice, "opaque", kind, json).close()

    def _logprobs(self, choice: int, raw: Raw) -> None:
        # Some say `"logprobs": 0.0`.
        if not bytes(raw).startswith(b"{"):
            return
        tokens = list(_tokens(wire.LOGPROBS.read(bytes(raw))))
        if tokens:
            self._assembly.logprobs(choice, tokens, last_open(self._assembly, choice))


def _tokens(logprobs: wire.Logprobs) -> Iterable[completion_pb2.TokenLogprob]:
    yield from token_logprobs((*(logprobs.content or ()), *(logprobs.refusal or ())))
    for text, logprob in zip(logprobs.tokens or (), logprobs.token_logprobs or (), strict=False):
        yield completion_pb2.TokenLogprob(token=clean(text or ""), logprob=finite(logprob))


def _key(value: Any) -> object:
    return value if isinstance(value, int | str) else None


def _sound(data: bytes) -> str:
    return next((mime for head, mime in _SOUNDS if data.startswith(head)), "audio/pcm")


def _thought_signature(extra: Any) -> str:
    """Gemini's signature of a thought, as its OpenAI endpoint sends it."""
    google = extra.get("google") if isinstance(extra, dict) else None
    return words(google.get("thought_signature")) if isinstance(google, dict) else ""
