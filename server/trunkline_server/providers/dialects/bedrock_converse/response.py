"""Converse's answers: whole messages, and the blocks that streams are made of too.

Blocks that the contract models become parts. All others (tools that the provider ran, their results, types that nobody
has heard of yet) become opaque blocks, verbatim, so that they can be sent back.
See https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

from msgspec import Raw, Struct

from trunkline.v1 import completion_pb2, message_pb2
from trunkline_server.errors import LLMInvalidResponseError
from trunkline_server.providers.answers import finish_untold, open_opaque, words
from trunkline_server.providers.assembly import Assembly, Part
from trunkline_server.providers.base import ListedModel
from trunkline_server.providers.dialects.bedrock_converse.errors import error_in_answer, is_error
from trunkline_server.providers.jsontext import Reader, loads, text_of, unreadable
from trunkline_server.providers.listing import abilities
from trunkline_server.providers.media import bytes_of
from trunkline_server.providers.usage import Count, added, counted, first, usage_from

ContentPart = message_pb2.ContentPart

#: The provider's words for why an answer ended.
FINISH: Mapping[str, completion_pb2.FinishReason.ValueType] = {
    "end_turn": completion_pb2.FINISH_REASON_STOP,
    "stop_sequence": completion_pb2.FINISH_REASON_STOP,
    "max_tokens": completion_pb2.FINISH_REASON_LENGTH,
    "tool_use": completion_pb2.FINISH_REASON_TOOL_CALLS,
    "guardrail_intervened": completion_pb2.FINISH_REASON_CONTENT_FILTER,
    "content_filtered": completion_pb2.FINISH_REASON_CONTENT_FILTER,
    "malformed_tool_use": completion_pb2.FINISH_REASON_MALFORMED_TOOL_CALL,
    "malformed_model_output": completion_pb2.FINISH_REASON_OTHER,
    "model_context_window_exceeded": completion_pb2.FINISH_REASON_CONTEXT_WINDOW,
    # Words of Claude's that are passed through.
    "refusal": completion_pb2.FINISH_REASON_REFUSAL,
    "pause_turn": completion_pb2.FINISH_REASON_PAUSE,
}
_MOST = 2**31 - 1


class _Message(Struct, rename="camel"):
    content: list[Raw] | None = None


class _Output(Struct, rename="camel"):
    message: _Message | None = None


class Tier(Struct, rename="camel"):
    type: str | None = None


class _Answer(Struct, rename="camel"):
    output: _Output | None = None
    stop_reason: str | None = None
    usage: Raw = Raw()
    service_tier: Tier | None = None
    additional_model_response_fields: Raw = Raw()


class ToolUse(Struct, rename="camel"):
    tool_use_id: str | None = None
    name: str | None = None
    type: str | None = None
    input: Raw = Raw()


class _Thought(Struct, rename="camel"):
    text: str | None = None
    signature: str | None = None


class _Reasoning(Struct, rename="camel"):
    reasoning_text: _Thought | None = None
    redacted_content: str | None = None


class _Said(Struct, rename="camel"):
    text: str | None = None


class _Cited(Struct, rename="camel"):
    content: list[_Said] | None = None
    citations: list[Raw] | None = None


class Source(Struct, rename="camel"):
    bytes: str | None = None


class Media(Struct, rename="camel"):
    format: str | None = None
    source: Source | None = None


class _Block(Struct, rename="camel"):
    text: str | None = None
    tool_use: ToolUse | None = None
    reasoning_content: _Reasoning | None = None
    citations_content: _Cited | None = None
    image: Media | None = None


class _Place(Struct, rename="camel"):
    document_index: int | None = None
    url: str | None = None


class _Citation(Struct, rename="camel"):
    title: str | None = None
    source: str | None = None
    source_content: list[_Said] | None = None
    location: dict[str, _Place] | None = None


class _Usage(Struct, rename="camel"):
    input_tokens: Count = None
    output_tokens: Count = None
    total_tokens: Count = None
    cache_read_input_tokens: Count = None
    cache_read_input_token_count: Count = None
    cache_write_input_tokens: Count = None
    cache_write_input_token_count: Count = None


class _Count(Struct, rename="camel"):
    input_tokens: int


_answer = Reader(_Answer)
_block = Reader(_Block)
_citation = Reader(_Citation)
_usage = Reader(_Usage)
_count = Reader(_Count)


def decode(body: bytes, assembly: Assembly) -> None:
    """Raises LLMError: an error in a 200, or an answer that cannot be read."""
    answer = _answer.read(body)
    if answer.output is None and answer.stop_reason is None:
        raise error_in_answer(body) if is_error(loads(body)) else unreadable(body)
    assembly.touch(0)
    message = answer.output.message if answer.output is not None else None
    for index, block in enumerate((message.content if message is not None else None) or ()):
        _pour(bytes(block), assembly, index)
    take_usage(answer.usage, answer.service_tier, assembly)
    finish(assembly, answer.stop_reason, answer.additional_model_response_fields)


def finish(assembly: Assembly, reason: str | None, more: Raw) -> None:
    """Ends the answer for the provider's reason; without one, its content tells. Raises LLMEmptyResponseError."""
    if reason is not None:
        known = FINISH.get(reason, completion_pb2.FINISH_REASON_OTHER)
        assembly.finish(0, known, reason, _stop_sequence(more))
        return
    finish_untold(assembly)


def _stop_sequence(more: Raw) -> str | None:
    """The stop sequence that matched, which those get who ask for it."""
    found = loads(bytes(more)) if text_of(more) else None
    matched = found.get("stop_sequence") if isinstance(found, dict) else None
    return words(matched) if isinstance(matched, str) else None


# -- blocks -----------------------------------------------------------------------------------------------------------


def _pour(raw: bytes, assembly: Assembly, key: Hashable) -> None:
    try:
        block = _block.read(raw)
    except LLMInvalidResponseError:
        if not isinstance(loads(raw), dict):
            raise
        # A known name with something unknown in it.
        block = _Block()
    for name, pour in _BLOCKS.items():
        value = getattr(block, name)
        if value is not None and not (name == "tool_use" and is_providers(value)):
            pour(value, assembly, key)
            return
    pour_opaque(raw, assembly, key)


def _pour_text(text: str, assembly: Assembly, key: Hashable) -> None:
    part = open_part("text", assembly, key)
    part.text(text)
    part.close()


def _pour_call(call: ToolUse, assembly: Assembly, key: Hashable) -> None:
    part = open_call(call, assembly, key)
    part.text(text_of(call.input))
    part.close()


def _pour_reasoning(block: _Reasoning, assembly: Assembly, key: Hashable) -> None:
    part = open_reasoning(assembly, key, redacted=bool(block.redacted_content))
    if block.redacted_content:
        part.encrypted(block.redacted_content)
    elif block.reasoning_text is not None:
        part.text(block.reasoning_text.text or "")
        part.signature(block.reasoning_text.signature or "")
    part.close()


def _pour_cited(block: _Cited, assembly: Assembly, key: Hashable) -> None:
    part = open_part("text", assembly, key)
    for said in block.content or ():
        part.text(said.text or "")
    for citation in block.citations or ():
        part.citation(citation_of(bytes(citation)))
    part.close()


def _pour_image(image: Media, assembly: Assembly, key: Hashable) -> None:
    part = open_image(image.format, assembly, key)
    if image.source is not None:
        part.bytes(bytes_of(image.source.bytes))
    part.close()


_BLOCKS: Mapping[str, Callable[[Any, Assembly, Hashable], None]] = {
    "text": _pour_text,
    "tool_use": _pour_call,
    "reasoning_content": _pour_reasoning,
    "citations_content": _pour_cited,
    "image": _pour_image,
}


def is_providers(call: ToolUse) -> bool:
    """Did the provider run this tool itself?"""
    return call.type == "server_tool_use"


def open_part(kind: str, assembly: Assembly, key: Hashable) -> Part:
    """Begins a part of text or reasoning."""
    part = ContentPart()
    getattr(part, kind).SetInParent()
    return assembly.open(0, key, part)


def open_reasoning(assembly: Assembly, key: Hashable, *, redacted: bool = False) -> Part:
    part = ContentPart()
    part.reasoning.redacted = redacted
    return assembly.open(0, key, part)


def open_call(call: ToolUse, assembly: Assembly, key: Hashable) -> Part:
    part = ContentPart()
    part.tool_call.id = words(call.tool_use_id)
    part.tool_call.name = words(call.name)
    return assembly.open(0, key, part)


def open_image(form: str | None, assembly: Assembly, key: Hashable) -> Part:
    part = ContentPart()
    part.image.mime_type = f"image/{words(form) or 'png'}"
    return assembly.open(0, key, part)


def pour_opaque(block: bytes, assembly: Assembly, key: Hashable) -> None:
    """A block that the contract does not model, which must be whole."""
    open_opaque(assembly, 0, key, _type_of(loads(block)), block).close()


def _type_of(block: Any) -> str:
    """The type that a block has inside, else the name of its member."""
    if not isinstance(block, dict) or not block:
        return ""
    name, value = next(iter(block.items()))
    kind = value.get("type") if isinstance(value, dict) else None
    return words(kind if isinstance(kind, str) and kind else name)


def citation_of(raw: bytes) -> message_pb2.Citation:
    """A citation of any location. Its own object rides along verbatim."""
    citation = message_pb2.Citation(raw_json=raw.decode("utf-8", "replace"))
    try:
        read = _citation.read(raw)
    except LLMInvalidResponseError:
        # Of a kind that is not known yet: it can still be sent back.
        return citation
    citation.title = words(read.title)
    citation.cited_text = words("".join(said.text or "" for said in read.source_content or ()))
    place = next(iter((read.location or {}).values()), _Place())
    if place.document_index is not None and 0 <= place.document_index <= _MOST:
        citation.document_index = place.document_index
    elif place.url or read.source:
        citation.uri = words(place.url or read.source)
    return citation


# -- usage ------------------------------------------------------------------------------------------------------------


def take_usage(raw: Raw, tier: Tier | None, assembly: Assembly) -> None:
    usage = usage_of(raw)
    if usage is not None:
        assembly.set_usage(usage)
    if tier is not None:
        assembly.service_tier = words(tier.type) or assembly.service_tier


def usage_of(raw: Raw) -> completion_pb2.Usage | None:
    """The usage; None if there is none. Counts are made inclusive."""
    if not bytes(raw).startswith(b"{"):
        return None
    try:
        read = _usage.read(bytes(raw))
    except LLMInvalidResponseError:
        return None
    cached = first(read.cache_read_input_tokens, read.cache_read_input_token_count)
    written = first(read.cache_write_input_tokens, read.cache_write_input_token_count)
    fresh = counted(read.input_tokens)
    return usage_from(
        raw,
        completion_pb2.USAGE_SOURCE_REPORTED,
        {
            "input_tokens": None if fresh is None else added(added(fresh, cached or 0), written or 0),
            "output_tokens": counted(read.output_tokens),
            "total_tokens": counted(read.total_tokens),
            "cache_read_input_tokens": cached,
            "cache_write_input_tokens": written,
        },
    )


# -- the smaller answers ----------------------------------------------------------------------------------------------


def decode_count(body: bytes) -> int:
    """Input tokens. Raises LLMError."""
    value = loads(body)
    if is_error(value) and "inputTokens" not in value:
        raise error_in_answer(body)
    return _count.read(body).input_tokens


#: Lists of models by the member that holds them, and the names of the members with a model's id and its name.
_LISTS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("modelSummaries", ("modelId",), "modelName"),
    ("inferenceProfileSummaries", ("inferenceProfileId", "inferenceProfileArn"), "inferenceProfileName"),
    ("models", ("modelId", "modelArn"), "modelName"),
    ("data", ("id",), "name"),
)


def decode_models(body: bytes) -> list[ListedModel]:
    """The models in the provider's order. Raises LLMError."""
    value = loads(body)
    if not isinstance(value, dict):
        raise unreadable(body)
    for member, ids, title in _LISTS:
        rows = value.get(member)
        if isinstance(rows, list):
            callable_ = (row for row in rows if isinstance(row, dict) and _can_be_called(row))
            return [listed for row in callable_ if (listed := _listed(row, ids, title)).id]
    raise error_in_answer(body) if is_error(value) else unreadable(body)


def _can_be_called(row: dict[str, Any]) -> bool:
    """By this id, and for text or vectors? The newer models are called by inference profiles only."""
    ways, makes = row.get("inferenceTypesSupported"), row.get("outputModalities")
    return (not isinstance(ways, list) or "ON_DEMAND" in ways) and (
        not isinstance(makes, list) or "TEXT" in makes or "EMBEDDING" in makes
    )


def _listed(row: dict[str, Any], ids: tuple[str, ...], title: str) -> ListedModel:
    found = next((row[name] for name in ids if isinstance(row.get(name), str)), "")
    name = row.get(title)
    return ListedModel(id=words(found), display_name=words(name if isinstance(name, str) else ""), **abilities(row))
