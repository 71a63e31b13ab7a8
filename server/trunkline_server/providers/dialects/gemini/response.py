"""Reads answers, whole or in chunks, into an assembly: a chunk has the type of an answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec import Raw

from trunkline.v1 import completion_pb2, message_pb2
from trunkline_server.errors import LLMInvalidResponseError
from trunkline_server.providers.answers import by_content, last_open, open_opaque
from trunkline_server.providers.assembly import Assembly, Part, clean
from trunkline_server.providers.dialects.gemini import citations, wire
from trunkline_server.providers.dialects.gemini.errors import blocked, error_in_answer
from trunkline_server.providers.dialects.gemini.partial import ArgumentsWriter
from trunkline_server.providers.dialects.gemini.usage import usage_of
from trunkline_server.providers.ids import made_call_id
from trunkline_server.providers.jsontext import Reader, dumps, present, text_of
from trunkline_server.providers.logprobs import finite
from trunkline_server.providers.media import bytes_of

ContentPart = message_pb2.ContentPart
FinishReason = completion_pb2.FinishReason

_FILTERED = completion_pb2.FINISH_REASON_CONTENT_FILTER

#: The provider's words, and their numbers where enums are not written as words. Anything else is OTHER.
FINISH_REASONS: Mapping[str | int, FinishReason.ValueType] = {
    "STOP": completion_pb2.FINISH_REASON_STOP,
    "MAX_TOKENS": completion_pb2.FINISH_REASON_LENGTH,
    "SAFETY": _FILTERED,
    "RECITATION": _FILTERED,
    "BLOCKLIST": _FILTERED,
    "PROHIBITED_CONTENT": _FILTERED,
    "SPII": _FILTERED,
    "IMAGE_SAFETY": _FILTERED,
    "IMAGE_PROHIBITED_CONTENT": _FILTERED,
    "IMAGE_RECITATION": _FILTERED,
    "MODEL_ARMOR": _FILTERED,
    "ESCALATION": _FILTERED,
    "MALFORMED_FUNCTION_CALL": completion_pb2.FINISH_REASON_MALFORMED_TOOL_CALL,
    1: completion_pb2.FINISH_REASON_STOP,
    2: completion_pb2.FINISH_REASON_LENGTH,
    3: _FILTERED,
    4: _FILTERED,
}

#: What an answer says of itself beside its content. It is no part, and so never sent back.
GROUNDING, URL_CONTEXT = "groundingMetadata", "urlContextMetadata"

#: Members of a part that say something about its content.
_ABOUT = frozenset({"thought", "thoughtSignature", "partMetadata", "mediaResolution", "videoMetadata"})
#: Kinds of media by the beginning of their type.
_MEDIA = {"image": "image", "audio": "audio", "video": "video"}

_members: Reader[dict[str, Raw]] = Reader(dict[str, Raw])


#: Chunks from one reading of the usage to the next.
_USAGE_EVERY = 20


class _Choice:
    """What is known of one candidate."""

    __slots__ = ("arguments", "call", "calls", "grounding", "reason", "recited", "texts", "urls")

    def __init__(self) -> None:
        self.reason: str | int | None = None
        self.calls = 0
        #: The call whose arguments arrive in pieces.
        self.call: Part | None = None
        self.arguments = ArgumentsWriter()
        #: Text parts with what they said, to cite from.
        self.texts: list[tuple[Part, list[str]]] = []
        self.grounding: list[Raw] = []
        self.urls: list[Raw] = []
        self.recited: list[Raw] = []


class Reading:
    """Pours one answer into its assembly. Finish reasons are held until `finish`: more may follow them."""

    __slots__ = ("_assembly", "_choices", "_counted", "_flowing", "_model", "_usage")

    def __init__(self, assembly: Assembly) -> None:
        self._assembly = assembly
        self._choices: dict[int, _Choice] = {}
        #: The text or reasoning that goes on, by candidate.
        self._flowing: dict[int, Part] = {}
        self._model: object = None
        #: Usage that was told and not read yet, and how often it was told.
        self._usage = Raw()
        self._counted = 0

    def answer(self, answer: wire.Answer, body: bytes, *, whole: bool) -> None:
        """An answer or a chunk. Raises LLMError: it holds an error, or the prompt was refused."""
        if text_of(answer.error):
            self._read_usage()
            raise error_in_answer(body)
        assembly = self._assembly
        if answer.model_version is not self._model:
            self._model = answer.model_version
            if isinstance(self._model, str) and self._model:
                assembly.model = clean(self._model)
        if not assembly.response_id and isinstance(answer.response_id, str):
            assembly.response_id = clean(answer.response_id)
        for position, candidate in enumerate(answer.candidates or ()):
            self._candidate(position if candidate.index is None else candidate.index, candidate, whole)
        if len(answer.usage_metadata) > 4:
            # Every chunk tells it anew. What counts is the first word, for a stream that is cut, and the last.
            self._usage = answer.usage_metadata
            if self._counted % _USAGE_EVERY == 0 or whole:
                self._read_usage()
            self._counted += 1
        feedback = answer.prompt_feedback
        if feedback is not None and (feedback.block_reason or feedback.block_reason_message) and not answer.candidates:
            self._read_usage()
            raise blocked(feedback, body)

    def finish(self, *, whole: bool) -> None:
        """Ends every candidate that told why; those of a `whole` answer that says anything end in any case."""
        self._read_usage()
        for index, choice in self._choices.items():
            if choice.reason is None and not (whole and self._assembly.has_parts):
                continue
            self._cite(index, choice)
            self._assembly.finish(index, *self._reason(index, choice))

    # -- candidates ---------------------------------------------------------------------------------------------------

    def _candidate(self, index: int, candidate: wire.Candidate, whole: bool) -> None:
        choice = self._choices.get(index)
        if choice is None:
            self._assembly.touch(index)
            choice = self._choices[index] = _Choice()
        if candidate.content is not None:
            for raw in candidate.content.parts or ():
                self._part(index, choice, raw, whole)
        if candidate.finish_reason is not None:
            choice.reason = candidate.finish_reason
        if len(candidate.grounding_metadata) > 4:
            choice.grounding.append(candidate.grounding_metadata)
        if len(candidate.url_context_metadata) > 4:
            choice.urls.append(candidate.url_context_metadata)
        if len(candidate.citation_metadata) > 4:
            choice.recited.append(candidate.citation_metadata)
        if len(candidate.logprobs_result) > 4:
            self._logprobs(index, candidate.logprobs_result)

    def _reason(self, index: int, choice: _Choice) -> tuple[FinishReason.ValueType, str]:
        said = choice.reason
        if said is None:
            return completion_pb2.FINISH_REASON_UNSPECIFIED, ""
        reason = FINISH_REASONS.get(said, completion_pb2.FINISH_REASON_OTHER)
        if reason == completion_pb2.FINISH_REASON_STOP:
            reason = by_content(self._assembly, index, reason)
        return reason, str(said)

    # -- parts --------------------------------------------------------------------------------------------------------

    def _part(self, index: int, choice: _Choice, raw: Raw, whole: bool) -> None:
        part = wire.PART.read(bytes(raw))
        if part.text is not None:
            self._text(index, choice, part, whole)
        elif part.function_call is not None:
            self._call(index, choice, part.function_call, part.thought_signature or "", raw)
        elif part.inline_data is not None and not part.thought:
            self._inline(index, part.inline_data, part.thought_signature)
        elif part.file_data is not None and part.file_data.file_uri and not part.thought:
            media = message_pb2.Media(uri=clean(part.file_data.file_uri), mime_type=_mime(part.file_data.mime_type))
            self._media(index, media, part.thought_signature).close()
        else:
            self._other(index, choice, raw, part, whole)

    def _text(self, index: int, choice: _Choice, part: wire.Part, whole: bool) -> None:
        """Chunks of a stream go on with the part before them; parts of a whole answer stand by themselves."""
        kind = "reasoning" if part.thought else "text"
        text, signature = part.text or "", part.thought_signature or ""
        flowing = self._flowing.get(index)
        if flowing is None or flowing.kind != kind or (whole and text):
            if not text and not signature:
                return
            flowing = self._begin(index, choice, kind)
        if text:
            flowing.text(text)
            if kind == "text":
                choice.texts[-1][1].append(text)
        if signature:
            flowing.signature(clean(signature))
            # A part has one signature, and what it signs is complete.
            self._stop_flowing(index)

    def _begin(self, index: int, choice: _Choice, kind: str) -> Part:
        self._stop_flowing(index)
        new = ContentPart()
        if kind == "reasoning":
            new.reasoning.is_summary = True
        else:
            new.text.SetInParent()
        part = self._assembly.open(index, (kind, len(choice.texts), choice.calls), new)
        if kind == "text":
            choice.texts.append((part, []))
        self._flowing[index] = part
        return part

    def _stop_flowing(self, index: int) -> None:
        """What comes next is another part. Text stays open until the end: citations come last."""
        part = self._flowing.pop(index, None)
        if part is not None and part.kind != "text":
            part.close()

    def _call(self, index: int, choice: _Choice, call: wire.FunctionCall, signature: str, raw: Raw) -> None:
        if call.name:
            self._end_call(choice)
            self._stop_flowing(index)
            new = ContentPart()
            given = clean(call.id) if isinstance(call.id, str) else ""
            seed = self._assembly.response_id or text_of(raw)
            new.tool_call.id = given or made_call_id(seed, index, choice.calls)
            new.tool_call.name = clean(call.name)
            choice.call = self._assembly.open(index, ("call", choice.calls), new)
            choice.calls += 1
        part = choice.call
        if part is None:
            if call.partial_args or present(call.args):
                raise LLMInvalidResponseError("the provider sent arguments of a tool call that has no name")
            return
        if signature:
            part.signature(clean(signature))
        for piece in call.partial_args or ():
            part.text(choice.arguments.add(piece))
        if present(call.args) and call.name:
            part.text(text_of(call.args))
            part.close()
            choice.call = None
        elif not call.will_continue:
            self._end_call(choice)

    def _end_call(self, choice: _Choice) -> None:
        """Ends the arguments that arrived in pieces."""
        if choice.call is not None:
            choice.call.text(choice.arguments.end())
            choice.call.close()
            choice.call = None
        choice.arguments = ArgumentsWriter()

    def _inline(self, index: int, blob: wire.Blob, signature: str | None) -> None:
        part = self._media(index, message_pb2.Media(mime_type=_mime(blob.mime_type)), signature)
        part.bytes(bytes_of(blob.data))
        part.close()

    def _media(self, index: int, media: message_pb2.Media, signature: str | None) -> Part:
        self._stop_flowing(index)
        kind = _MEDIA.get(media.mime_type.partition("/")[0], "document")
        new = ContentPart()
        getattr(new, kind).CopyFrom(media)
        part = self._assembly.open(index, kind, new)
        if signature:
            part.signature(clean(signature))
        return part

    def _other(self, index: int, choice: _Choice, raw: Raw, part: wire.Part, whole: bool) -> None:
        """A part that the contract does not model, such as code that the provider ran; an image among the thoughts."""
        kind = next((name for name in _members.read(bytes(raw)) if name not in _ABOUT), "")
        if kind:
            self._opaque(index, kind, raw)
        elif part.thought_signature:
            part.text = ""
            self._text(index, choice, part, whole)

    def _opaque(self, index: int, kind: str, raw: Raw) -> None:
        self._stop_flowing(index)
        open_opaque(self._assembly, index, "opaque", kind, bytes(raw)).close()

    # -- beside the content -------------------------------------------------------------------------------------------

    def _cite(self, index: int, choice: _Choice) -> None:
        if not (choice.grounding or choice.recited or choice.urls):
            return
        grounding = _merged(choice.grounding)
        if choice.texts:
            passages = citations.Passages([(part, clean("".join(said))) for part, said in choice.texts])
            if grounding is not None:
                for part, citation in citations.grounded(grounding, passages):
                    part.citation(citation)
            for part, citation in citations.recited(choice.recited, passages):
                part.citation(citation)
        if grounding is not None:
            self._opaque(index, GROUNDING, grounding)
        urls = _merged(choice.urls)
        if urls is not None:
            self._opaque(index, URL_CONTEXT, urls)

    def _read_usage(self) -> None:
        raw, self._usage = self._usage, Raw()
        if not raw:
            return
        complete = bool(self._choices) and all(choice.reason is not None for choice in self._choices.values())
        source = completion_pb2.USAGE_SOURCE_REPORTED if complete else completion_pb2.USAGE_SOURCE_PARTIAL
        usage, tier = usage_of(raw, source)
        if usage is not None:
            self._assembly.set_usage(usage)
        if tier:
            self._assembly.service_tier = clean(tier)

    def _logprobs(self, index: int, raw: Raw) -> None:
        tokens = list(_tokens(wire.LOGPROBS.read(bytes(raw))))
        if tokens:
            part = self._flowing.get(index) or last_open(self._assembly, index)
            part = part or self._begin(index, self._choices[index], "text")
            self._assembly.logprobs(index, tokens, part)


def _tokens(logprobs: wire.Logprobs) -> Iterable[completion_pb2.TokenLogprob]:
    tops = logprobs.top_candidates or []
    for place, token in enumerate(logprobs.chosen_candidates or ()):
        made = completion_pb2.TokenLogprob(token=clean(token.token or ""), logprob=finite(token.log_probability))
        if token.token_id is not None and 0 <= token.token_id < 2**31:
            made.token_id = token.token_id
        for other in (tops[place].candidates or ()) if place < len(tops) else ():
            top = made.top.add(token=clean(other.token or ""), logprob=finite(other.log_probability))
            if other.token_id is not None and 0 <= other.token_id < 2**31:
                top.token_id = other.token_id
        yield made


def _merged(raws: Sequence[Raw]) -> Raw | None:
    """One object of those that chunks told: verbatim if there is one, else with the last word on each member."""
    if len(raws) < 2:
        return raws[0] if raws else None
    members: dict[str, Any] = {}
    for raw in raws:
        members.update(_members.read(bytes(raw)))
    return Raw(dumps(members))


def _mime(text: str | None) -> str:
    return clean(text or "application/octet-stream")
