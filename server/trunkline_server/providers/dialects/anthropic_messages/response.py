"""Anthropic's answers: whole messages, and the blocks that streams are made of too.

Blocks that the contract models become parts. All others (tools that the provider ran, their results, compactions, types
that nobody has heard of yet) become opaque blocks, verbatim, so that they can be sent back.
See https://platform.claude.com/docs/en/api/messages
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Hashable, Mapping
from typing import Any

from msgspec import Raw, Struct

from trunkline.v1 import completion_pb2, message_pb2
from trunkline_server.errors import LLMInvalidResponseError
from trunkline_server.providers.answers import finish_untold, open_opaque, words
from trunkline_server.providers.assembly import Assembly, Part
from trunkline_server.providers.base import ListedModel
from trunkline_server.providers.dialects.anthropic_messages.errors import error_in_answer
from trunkline_server.providers.jsontext import Reader, dumps, loads, text_of, unreadable
from trunkline_server.providers.listing import abilities
from trunkline_server.providers.usage import Count, added, counted, usage_from

ContentPart = message_pb2.ContentPart

#: The provider's words for why an answer ended. "stop" and "length" are those of servers that imitate it.
FINISH: Mapping[str, completion_pb2.FinishReason.ValueType] = {
    "end_turn": completion_pb2.FINISH_REASON_STOP,
    "stop_sequence": completion_pb2.FINISH_REASON_STOP,
    "stop": completion_pb2.FINISH_REASON_STOP,
    "max_tokens": completion_pb2.FINISH_REASON_LENGTH,
    "length": completion_pb2.FINISH_REASON_LENGTH,
    "tool_use": completion_pb2.FINISH_REASON_TOOL_CALLS,
    "tool_calls": completion_pb2.FINISH_REASON_TOOL_CALLS,
    "pause_turn": completion_pb2.FINISH_REASON_PAUSE,
    "refusal": completion_pb2.FINISH_REASON_REFUSAL,
    "model_context_window_exceeded": completion_pb2.FINISH_REASON_CONTEXT_WINDOW,
    "content_filter": completion_pb2.FINISH_REASON_CONTENT_FILTER,
    "content_filtered": completion_pb2.FINISH_REASON_CONTENT_FILTER,
    "guardrail_intervened": completion_pb2.FINISH_REASON_CONTENT_FILTER,
}

_MOST = 2**31 - 1


class Message(Struct):
    id: str | None = None
    model: str | None = None
    content: list[Raw] | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None
    usage: Raw = Raw()
    error: Raw = Raw()


class _Head(Struct):
    type: str | None = None


class _Text(Struct):
    text: str | None = None
    citations: list[Raw] | None = None


class _Thinking(Struct):
    thinking: str | None = None
    signature: str | None = None


class _Redacted(Struct):
    data: str | None = None


class _ToolUse(Struct):
    id: str | None = None
    name: str | None = None
    input: Raw = Raw()
    caller: Raw = Raw()
    toolset_name: Raw = Raw()


class _OutputDetails(Struct):
    thinking_tokens: Count = None


class _Usage(Struct):
    input_tokens: Count = None
    output_tokens: Count = None
    cache_read_input_tokens: Count = None
    cache_creation_input_tokens: Count = None
    cache_creation: dict[str, Count] | None = None
    output_tokens_details: _OutputDetails | None = None
    service_tier: str | None = None


class _Citation(Struct):
    cited_text: str | None = None
    title: str | None = None
    document_title: str | None = None
    document_index: int | None = None
    url: str | None = None
    source: str | None = None
    file_id: str | None = None


class _Count(Struct):
    input_tokens: int


class _Model(Struct):
    id: str
    display_name: str | None = None
    created_at: str | None = None
    max_input_tokens: int | None = None
    max_tokens: int | None = None
    capabilities: Any = None


class _Models(Struct):
    data: list[_Model]


_message = Reader(Message)
_head = Reader(_Head)
_text = Reader(_Text)
_thinking = Reader(_Thinking)
_redacted = Reader(_Redacted)
_tool_use = Reader(_ToolUse)
_usage = Reader(_Usage)
_citation = Reader(_Citation)
_count = Reader(_Count)
_models = Reader(_Models)
_members = Reader(dict[str, Raw])


def decode(body: bytes, assembly: Assembly) -> None:
    """Raises LLMError: an error in a 200, or an answer that cannot be read."""
    message = _message.read(body)
    if text_of(message.error):
        raise error_in_answer(body)
    if message.content is None and message.stop_reason is None:
        raise unreadable(body)
    begin(message, assembly)
    pour_all(message.content or (), assembly)
    usage = usage_of(message.usage)
    if usage is not None:
        assembly.set_usage(usage[0])
        assembly.service_tier = usage[1] or assembly.service_tier
    finish(assembly, message.stop_reason, message.stop_sequence)


def begin(message: Message, assembly: Assembly) -> None:
    """Takes what a message says of itself before its content."""
    assembly.touch(0)
    assembly.response_id = words(message.id) or assembly.response_id
    assembly.model = words(message.model) or assembly.model


def pour_all(blocks: list[Raw] | tuple[()], assembly: Assembly) -> None:
    """Pours whole blocks."""
    for index, block in enumerate(blocks):
        raw = bytes(block)
        part, arguments = pour(raw, type_of(raw), assembly, ("block", index))
        if arguments:
            part.text(arguments)
        part.close()


def finish(assembly: Assembly, reason: str | None, stop_sequence: str | None) -> None:
    """Ends the answer for the provider's reason; without one, its content tells. Raises LLMEmptyResponseError."""
    if reason is not None:
        known = FINISH.get(reason, completion_pb2.FINISH_REASON_OTHER)
        assembly.finish(0, known, reason, None if stop_sequence is None else words(stop_sequence))
        return
    finish_untold(assembly)


# -- blocks -----------------------------------------------------------------------------------------------------------


def type_of(block: bytes) -> str:
    return words(_head.read(block).type)


def pour(block: bytes, kind: str, assembly: Assembly, key: Hashable) -> tuple[Part, str]:
    """Opens the part for a block, whole or as a stream begins it.

    Returns it with the arguments that the block holds: in a stream they count only if no deltas follow.
    """
    return _BLOCKS.get(kind, pour_opaque)(block, assembly, key)


def pour_opaque(block: bytes, assembly: Assembly, key: Hashable) -> tuple[Part, str]:
    """A block that the contract does not model, which must be whole."""
    return open_opaque(assembly, 0, key, type_of(block), block), ""


def _pour_text(block: bytes, assembly: Assembly, key: Hashable) -> tuple[Part, str]:
    read = _text.read(block)
    part = ContentPart()
    part.text.SetInParent()
    opened = assembly.open(0, key, part)
    opened.text(read.text or "")
    for raw in read.citations or ():
        opened.citation(citation_of(bytes(raw)))
    return opened, ""


def _pour_thinking(block: bytes, assembly: Assembly, key: Hashable) -> tuple[Part, str]:
    read = _thinking.read(block)
    part = ContentPart()
    part.reasoning.SetInParent()
    opened = assembly.open(0, key, part)
    opened.text(read.thinking or "")
    opened.signature(read.signature or "")
    return opened, ""


def _pour_redacted(block: bytes, assembly: Assembly, key: Hashable) -> tuple[Part, str]:
    part = ContentPart()
    part.reasoning.redacted = True
    opened = assembly.open(0, key, part)
    opened.encrypted(_redacted.read(block).data or "")
    return opened, ""


def _pour_tool_use(block: bytes, assembly: Assembly, key: Hashable) -> tuple[Part, str]:
    read = _tool_use.read(block)
    part = ContentPart()
    part.tool_call.id = words(read.id)
    part.tool_call.name = words(read.name)
    opened = assembly.open(0, key, part)
    opened.signature(_marks(read))
    return opened, text_of(read.input)


_BLOCKS: Mapping[str, Callable[[bytes, Assembly, Hashable], tuple[Part, str]]] = {
    "text": _pour_text,
    "thinking": _pour_thinking,
    "redacted_thinking": _pour_redacted,
    "tool_use": _pour_tool_use,
}

#: Blocks that a stream opens before they are whole.
MODELLED = frozenset(_BLOCKS)


def _marks(block: _ToolUse) -> str:
    """What the provider wants back with a call beyond the contract's fields: a JSON object, "" for nothing.

    A call made by a program that the provider runs names it as its caller; a call of a tool set names the set.
    """
    marks = {
        name: raw for name, raw in (("caller", block.caller), ("toolset_name", block.toolset_name)) if text_of(raw)
    }
    if "caller" in marks and loads(bytes(marks["caller"])) == {"type": "direct"}:
        del marks["caller"]
    return dumps(marks).decode("utf-8", "replace") if marks else ""


def citation_of(raw: bytes) -> message_pb2.Citation:
    """A citation of any location type. Its own object rides along verbatim."""
    citation = message_pb2.Citation(raw_json=raw.decode("utf-8", "replace"))
    try:
        read = _citation.read(raw)
    except LLMInvalidResponseError:
        # Of a kind that is not known yet: it can still be sent back.
        return citation
    citation.title = words(read.title or read.document_title)
    citation.cited_text = words(read.cited_text)
    if read.document_index is not None and 0 <= read.document_index <= _MOST:
        citation.document_index = read.document_index
    elif read.url or read.source:
        citation.uri = words(read.url or read.source)
    elif read.file_id:
        citation.file_id = words(read.file_id)
    return citation


# -- usage ------------------------------------------------------------------------------------------------------------


def usage_of(
    raw: Raw | bytes, source: completion_pb2.UsageSource.ValueType = completion_pb2.USAGE_SOURCE_REPORTED
) -> tuple[completion_pb2.Usage, str] | None:
    """The usage and the service tier that it names; None if there is none. Counts are made inclusive."""
    data = bytes(raw)
    if not data.startswith(b"{"):
        return None
    try:
        read = _usage.read(data)
    except LLMInvalidResponseError:
        read = _Usage()
    written = counted(read.cache_creation_input_tokens)
    if written is None and read.cache_creation:
        written = counted(sum(count or 0 for count in read.cache_creation.values()))
    cached, fresh = counted(read.cache_read_input_tokens), counted(read.input_tokens)
    counts = {
        "input_tokens": added(added(fresh, cached or 0), written or 0),
        "output_tokens": counted(read.output_tokens),
        "total_tokens": None,
        "cache_read_input_tokens": cached,
        "cache_write_input_tokens": written,
        "reasoning_tokens": counted(read.output_tokens_details.thinking_tokens if read.output_tokens_details else None),
    }
    usage = usage_from(Raw(data), source, counts)
    return usage or completion_pb2.Usage(source=source, raw_json=text_of(Raw(data))), words(read.service_tier)


def merged_usage(first: bytes, later: bytes) -> bytes:
    """Totals of a stream: what a later event says overrides what the first one said."""
    if not first.startswith(b"{"):
        return later
    if not later.startswith(b"{"):
        return first
    known = _members.read(first)
    news = {name: value for name, value in _members.read(later).items() if text_of(value)}
    return written({**known, **news})


# -- the smaller answers ----------------------------------------------------------------------------------------------


def decode_count(body: bytes) -> int:
    """Input tokens. Raises LLMError."""
    if text_of(_message.read(body).error):
        raise error_in_answer(body)
    return _count.read(body).input_tokens


def decode_models(body: bytes) -> list[ListedModel]:
    """The models in the provider's order. Raises LLMError."""
    if text_of(_message.read(body).error):
        raise error_in_answer(body)
    return [
        ListedModel(
            id=words(model.id),
            display_name=words(model.display_name),
            created=_unix(model.created_at),
            context_window_tokens=counted(model.max_input_tokens),
            max_output_tokens=counted(model.max_tokens),
            **abilities({"capabilities": model.capabilities}),
        )
        for model in _models.read(body).data
    ]


def _unix(text: str | None) -> float | None:
    try:
        moment = dt.datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp()


def members(block: bytes) -> dict[str, Any]:
    """The members of a block in order, each verbatim."""
    return dict(_members.read(block))


def written(members: Mapping[str, Any]) -> bytes:
    """An object of these members."""
    try:
        return dumps(members)
    except UnicodeEncodeError:
        return dumps({words(name): value for name, value in members.items()})
