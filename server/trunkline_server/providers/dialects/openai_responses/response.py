"""What an answer says beside its items: who answered, why it ended, what it cost, or what went wrong."""

from __future__ import annotations

from typing import Any

from msgspec import Raw

from trunkline.v1 import completion_pb2
from trunkline_server.errors import LLMError
from trunkline_server.providers.answers import by_content, words
from trunkline_server.providers.assembly import Assembly, clean
from trunkline_server.providers.classify import class_of, error_of
from trunkline_server.providers.dialects.openai_responses import wire
from trunkline_server.providers.dialects.openai_responses.items import CHOICE, Items
from trunkline_server.providers.facts import Facts, facts_of
from trunkline_server.providers.jsontext import loads, present, try_loads, unreadable
from trunkline_server.providers.usage import counted, usage_from

FinishReason = completion_pb2.FinishReason

#: Statuses, and reasons of being incomplete. Anything else is OTHER.
FINISH_REASONS: dict[str, FinishReason.ValueType] = {
    "": completion_pb2.FINISH_REASON_STOP,
    "completed": completion_pb2.FINISH_REASON_STOP,
    "complete": completion_pb2.FINISH_REASON_STOP,
    "done": completion_pb2.FINISH_REASON_STOP,
    "max_output_tokens": completion_pb2.FINISH_REASON_LENGTH,
    "max_tokens": completion_pb2.FINISH_REASON_LENGTH,
    "length": completion_pb2.FINISH_REASON_LENGTH,
    "content_filter": completion_pb2.FINISH_REASON_CONTENT_FILTER,
}

#: The API's parameters, and where they come from in CompletionSpec.
FIELDS = {
    "input": "messages",
    "instructions": "messages",
    "model": "model",
    "tools": "tools",
    "tool_choice": "tool_choice",
    "parallel_tool_calls": "params.parallel_tool_calls",
    "max_tool_calls": "max_tool_calls",
    "text": "response_format",
    "text.format": "response_format",
    "text.verbosity": "params.verbosity",
    "max_output_tokens": "params.max_output_tokens",
    "temperature": "params.temperature",
    "top_p": "params.top_p",
    "top_logprobs": "params.top_logprobs",
    "reasoning": "params.reasoning",
    "reasoning.effort": "params.reasoning.effort",
    "reasoning.summary": "params.reasoning.include",
    "service_tier": "params.service_tier",
    "previous_response_id": "previous_response_id",
    "safety_identifier": "end_user_id",
    "user": "end_user_id",
    "store": "store",
}


def pour(answer: wire.Answer, body: bytes, assembly: Assembly) -> None:
    """A whole answer. Raises LLMError: the one that it holds, or because it is none."""
    head(answer, assembly)
    if present(answer.error) or answer.status == "failed":
        take_usage(answer.usage, assembly, complete=False)
        raise failure(answer.error, body)
    if answer.output is None and not isinstance(answer.status, str):
        raise failure_in(body)[0] if is_error(loads(body)) else unreadable(body)
    items = Items(assembly)
    for raw in answer.output or ():
        item = bytes(raw)
        kind, item_id = head_of(item)
        items.finish(items.place(kind, item_id), item)
    finish(answer, assembly)


def head_of(item: bytes) -> tuple[str | None, str]:
    """Type and id of an item. A message need not say that it is one."""
    read = wire.HEAD.read(item)
    return read.type or ("message" if read.role else None), clean(read.id or "")


def head(answer: wire.Answer, assembly: Assembly) -> None:
    """Facts about the answer. The first id counts; what is said of the rest at the end is right."""
    if not assembly.response_id and answer.id:
        assembly.response_id = clean(str(answer.id))
    assembly.model = words(answer.model) or assembly.model
    assembly.service_tier = words(answer.service_tier) or assembly.service_tier
    assembly.system_fingerprint = words(answer.system_fingerprint) or assembly.system_fingerprint


def finish(answer: wire.Answer, assembly: Assembly) -> None:
    """The answer is complete, or will not become so."""
    take_usage(answer.usage, assembly, complete=True)
    word = _word(answer)
    reason = FINISH_REASONS.get(word.lower(), completion_pb2.FINISH_REASON_OTHER)
    if reason == completion_pb2.FINISH_REASON_STOP:
        reason = by_content(assembly, CHOICE, reason)
    assembly.finish(CHOICE, reason, word)


def _word(answer: wire.Answer) -> str:
    why = answer.incomplete_details
    if why is not None and isinstance(why.reason, str) and why.reason:
        return why.reason
    return answer.status if isinstance(answer.status, str) else ""


def take_usage(raw: Raw, assembly: Assembly, *, complete: bool) -> None:
    """Reads the usage, if there is any. All counts are inclusive as they come."""
    if not bytes(raw).startswith(b"{"):
        return
    read = wire.USAGE.read(bytes(raw))
    given, made = read.input_tokens_details or wire.InputDetails(), read.output_tokens_details or wire.OutputDetails()
    usage = usage_from(
        raw,
        completion_pb2.USAGE_SOURCE_REPORTED if complete else completion_pb2.USAGE_SOURCE_PARTIAL,
        {
            "input_tokens": counted(read.input_tokens),
            "output_tokens": counted(read.output_tokens),
            "total_tokens": counted(read.total_tokens),
            "cache_read_input_tokens": counted(given.cached_tokens),
            "cache_write_input_tokens": counted(given.cache_write_tokens),
            "reasoning_tokens": counted(made.reasoning_tokens),
            "input_audio_tokens": counted(given.audio_tokens),
            "output_audio_tokens": counted(made.audio_tokens),
            "input_image_tokens": counted(given.image_tokens),
        },
    )
    if usage is not None:
        assembly.set_usage(usage)


def decode_count(body: bytes) -> int:
    """See `providers.base.CountingDialect.decode_count`."""
    counted = wire.INPUT_TOKENS.read(body)
    if present(counted.error):
        raise failure(counted.error, body)
    if counted.input_tokens is None or not 0 <= counted.input_tokens < 2**31:
        raise unreadable(body)
    return counted.input_tokens


# -- errors -----------------------------------------------------------------------------------------------------------


def failure(error: Raw, body: bytes) -> LLMError:
    """The error that an answer holds which began well."""
    value: Any = try_loads(bytes(error)) if present(error) else None
    return error_of(facts_of({"error": value}) if value else Facts(), status=200, body=body, fields=FIELDS)


def is_error(value: Any) -> bool:
    """Is this an error, although nothing around it says so?"""
    facts = facts_of(value)
    return bool(facts.message or facts.code)


def failure_in(data: bytes) -> tuple[LLMError, bool]:
    """The error of an event that is one, and whether it says what kind of error it is."""
    value: Any = loads(data)
    if isinstance(value, dict) and value.get("type") == "error" and not isinstance(value.get("error"), dict | str):
        # The type of the event, not of the error.
        value = {"error": {name: member for name, member in value.items() if name != "type"}}
    facts = facts_of(value)
    known = class_of(facts, facts.status or 0) is not class_of(Facts(), 0)
    return error_of(facts, status=200, body=data, fields=FIELDS), known
