"""Reads answers, whole or event by event, into an assembly."""

from __future__ import annotations

from typing import Any

from msgspec import Raw

from trunkline.v1 import completion_pb2, message_pb2
from trunkline_server.errors import LLMEmptyResponseError
from trunkline_server.providers.answers import open_opaque
from trunkline_server.providers.assembly import Assembly, Part, clean
from trunkline_server.providers.classify import error_of
from trunkline_server.providers.dialects.cohere_chat import wire
from trunkline_server.providers.dialects.cohere_chat.citations import citations_of, is_about_text
from trunkline_server.providers.facts import Facts, facts_of
from trunkline_server.providers.ids import made_call_id
from trunkline_server.providers.jsontext import dumps, loads, present
from trunkline_server.providers.logprobs import finite
from trunkline_server.providers.usage import counted, first, usage_from

ContentPart = message_pb2.ContentPart
FinishReason = completion_pb2.FinishReason

#: `item_id` of a reasoning part that is the plan for the tool calls after it, and goes back as such.
PLAN = "tool_plan"
#: Type of the opaque blocks that are citations of something else than text.
CITATION = "citation"

_FINISH_REASONS: dict[str, FinishReason.ValueType] = {
    "": completion_pb2.FINISH_REASON_UNSPECIFIED,
    "COMPLETE": completion_pb2.FINISH_REASON_STOP,
    "STOP_SEQUENCE": completion_pb2.FINISH_REASON_STOP,
    "MAX_TOKENS": completion_pb2.FINISH_REASON_LENGTH,
    "TOOL_CALL": completion_pb2.FINISH_REASON_TOOL_CALLS,
}
#: Finish reasons that are failures, and what is said of them if Cohere says nothing.
_FAILURES = {
    "ERROR": "the provider's generation failed",
    "TIMEOUT": "the provider's generation took too long",
}
_NO_COUNTS = wire.Counts()


class Reading:
    """Pours one answer into its assembly.

    Texts stay open until the answer ends, because citations of them may come at any time; thoughts and plans end with
    what follows them.
    """

    __slots__ = ("_assembly", "_blocks", "_calls", "_flowing", "_last")

    def __init__(self, assembly: Assembly) -> None:
        self._assembly = assembly
        self._calls = 0
        #: Places of the content blocks that were taken whole.
        self._blocks: set[int | None] = set()
        #: The thought or plan that is being read.
        self._flowing: Part | None = None
        #: The content that is being read.
        self._last: Part | None = None

    def begin(self, answer_id: str | None) -> None:
        if answer_id:
            self._assembly.response_id = clean(answer_id)

    # -- content ------------------------------------------------------------------------------------------------------

    def content(self, index: int | None, content: wire.Content, *, begins: bool) -> None:
        """A content block or a piece of one. `index` is its place among the contents."""
        if index in self._blocks:
            return
        part = self._last if index is None else self._assembly.find(0, ("content", index))
        if part is None or begins or not part.is_open:
            thinks = content.type == "thinking" or (content.type is None and content.thinking is not None)
            part = self._open("reasoning" if thinks else "text", ("content", index or 0), ContentPart())
        part.text(content.thinking or content.text or "")

    def block(self, index: int | None, block: Any) -> None:
        """A content block of a kind that the contract does not model: all that its beginning says."""
        self._end_flowing()
        self._blocks.add(index)
        kind = block.get("type") if isinstance(block, dict) else None
        self._opaque(("content", index or 0), kind if isinstance(kind, str) else "", dumps(block))

    def plan(self, text: str) -> None:
        """A piece of the plan for the tool calls."""
        part = self._assembly.find(0, PLAN)
        if part is None:
            part = self._open("reasoning", PLAN, ContentPart(item_id=PLAN))
        part.text(text)

    def end_content(self, index: int | None) -> None:
        """A content block is complete."""
        part = self._last if index is None else self._assembly.find(0, ("content", index))
        if part is not None and part is self._flowing:
            self._end_flowing()

    def logprobs(self, logprobs: wire.Logprobs) -> None:
        """Log probabilities of a piece of the content that is being read."""
        ids, numbers = logprobs.token_ids or [], logprobs.logprobs or []
        whole = clean(logprobs.text or "") if len(numbers) == 1 else ""
        known = [token_id if -(2**31) <= token_id < 2**31 else None for token_id in ids]
        known.extend([None] * (len(numbers) - len(known)))
        tokens = [
            completion_pb2.TokenLogprob(token=whole, logprob=finite(number), token_id=token_id)
            for number, token_id in zip(numbers, known, strict=False)
        ]
        part = self._last if self._last is not None and self._last.is_open else None
        self._assembly.logprobs(0, tokens, part)

    def _open(self, kind: str, key: object, part: ContentPart) -> Part:
        self._end_flowing()
        getattr(part, kind).SetInParent()
        self._last = self._assembly.open(0, key, part)
        if kind == "reasoning":
            self._flowing = self._last
        return self._last

    def _end_flowing(self) -> None:
        if self._flowing is not None:
            self._flowing.close()
            self._flowing = None

    def _opaque(self, key: object, kind: str, json: bytes) -> None:
        open_opaque(self._assembly, 0, key, kind, json).close()

    # -- tool calls ---------------------------------------------------------------------------------------------------

    def call(self, index: int | None, call: wire.Call, *, begins: bool) -> None:
        """A tool call or a piece of its arguments."""
        function = call.function or wire.Function()
        number = index if index is not None else self._calls if begins else self._calls - 1
        part = self._assembly.find(0, ("call", number))
        if part is None or begins:
            self._end_flowing()
            call_id = clean(call.id or "") or made_call_id(self._assembly.response_id, 0, self._calls)
            self._calls += 1
            made = message_pb2.ToolCall(id=call_id, name=clean(function.name or ""))
            part = self._assembly.open(0, ("call", number), ContentPart(tool_call=made))
        part.text(function.arguments or "")

    def end_call(self, index: int | None) -> None:
        """A tool call is complete."""
        part = self._assembly.find(0, ("call", index or 0))
        if part is not None:
            part.close()

    # -- citations ----------------------------------------------------------------------------------------------------

    def citations(self, raw: Raw) -> None:
        """One citation or a list of them."""
        data = bytes(raw)
        for one in wire.CITATIONS.read(data) if data.lstrip().startswith(b"[") else (raw,):
            citation = wire.CITATION.read(bytes(one))
            part = self._cited(citation)
            if part is None:
                self._opaque(None, CITATION, bytes(one))
            else:
                for made in citations_of(citation, bytes(one).decode("utf-8", "replace")):
                    part.citation(made)

    def _cited(self, citation: wire.Citation) -> Part | None:
        """The text that it is a citation of; None if there is none to attach it to."""
        if not is_about_text(citation):
            return None
        texts = [part for part in self._assembly.open_parts(0) if part.kind == "text"]
        if citation.content_index is not None:
            found = self._assembly.find(0, ("content", citation.content_index))
            if found in texts:
                return found
        return texts[-1] if texts else None

    # -- the end ------------------------------------------------------------------------------------------------------

    def end(self, finish_reason: str | None, usage: Raw, error: str | None, body: bytes) -> None:
        """The answer is complete. Raises LLMError where Cohere says that it failed."""
        counted_usage = usage_of(usage)
        if counted_usage is not None:
            self._assembly.set_usage(counted_usage)
        word = finish_reason or ""
        if error or (word in _FAILURES and not self._assembly.has_parts):
            facts = facts_of({"message": error}) if error else Facts(message=_FAILURES[word])
            facts.code = facts.code or word
            raise error_of(facts, status=200, body=body)
        if not word and not self._assembly.has_parts:
            raise LLMEmptyResponseError("the provider answered with no content and no finish reason", body=body)
        self._assembly.finish(0, _FINISH_REASONS.get(word, completion_pb2.FINISH_REASON_OTHER), word)

    def whole(self, answer: wire.Answer, body: bytes) -> None:
        """A whole answer."""
        self.begin(answer.id)
        message = answer.message
        if isinstance(message, wire.Message):
            self._message(message, body)
        for logprobs in answer.logprobs or ():
            self.logprobs(logprobs)
        self.end(answer.finish_reason, answer.usage, None, body)

    def _message(self, message: wire.Message, body: bytes) -> None:
        if message.tool_plan:
            self.plan(message.tool_plan)
        for index, content in enumerate(contents_of(message)):
            if content.type in MODELLED:
                self.content(index, content, begins=True)
            else:
                self.block(index, loads(body)["message"]["content"][index])
        calls = message.tool_calls
        for index, call in enumerate(calls if isinstance(calls, list) else () if calls is None else (calls,)):
            self.call(index, call, begins=True)
        if present(message.citations):
            self.citations(message.citations)


#: Kinds of content that the contract has parts for.
MODELLED = frozenset({"text", "thinking", None})


def contents_of(message: wire.Message) -> list[wire.Content]:
    """The contents of a message, however they are written."""
    content = message.content
    if isinstance(content, list):
        return content
    if isinstance(content, str):
        return [wire.Content("text", content)]
    return [] if content is None else [content]


def usage_of(raw: Raw) -> completion_pb2.Usage | None:
    """Tokens as the model saw them; what is billed where that is all there is. None if nothing was counted."""
    if not present(raw):
        return None
    usage = wire.USAGE.read(bytes(raw))
    tokens, billed = usage.tokens or _NO_COUNTS, usage.billed_units or _NO_COUNTS
    return usage_from(
        raw,
        completion_pb2.USAGE_SOURCE_REPORTED,
        {
            "input_tokens": first(tokens.input_tokens, billed.input_tokens),
            "output_tokens": first(tokens.output_tokens, billed.output_tokens),
            "total_tokens": None,
            "cache_read_input_tokens": counted(usage.cached_tokens),
            "reasoning_tokens": counted(tokens.reasoning_tokens),
            "input_image_tokens": first(tokens.image_tokens, billed.image_tokens),
        },
    )
