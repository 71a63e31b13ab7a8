"""What is done to a spec before any dialect sees it. Nothing of the caller's is changed: a changed spec is a copy."""

from __future__ import annotations

from trunkline.v1 import completion_pb2, generation_pb2, message_pb2

CompletionSpec = completion_pb2.CompletionSpec

#: Two ways to say how much to think.
_HOW_MUCH = frozenset({"effort", "budget_tokens"})


def prepared(spec: CompletionSpec, defaults: generation_pb2.GenerationParams | None) -> CompletionSpec:
    """The spec with the target's defaults, the request's extra system text, and tool results cut to length."""
    extra = spec.extra_system_text
    cut = spec.HasField("tool_result_max_chars")
    if defaults is None and not extra and not cut:
        return spec
    copy = CompletionSpec()
    copy.CopyFrom(spec)
    if defaults is not None:
        _merge_defaults(copy.params, defaults)
    if extra:
        _add_system_text(copy, extra)
    if cut:
        for message in copy.messages:
            for part in message.parts:
                if part.WhichOneof("kind") == "tool_result":
                    _cut(part.tool_result, spec.tool_result_max_chars)
    return copy


def _merge_defaults(params: generation_pb2.GenerationParams, defaults: generation_pb2.GenerationParams) -> None:
    """Field by field: what the request leaves out comes from the defaults."""
    asked = {field.name for field, _ in params.ListFields()}
    for field, value in defaults.ListFields():
        if field.name in asked and field.name != "reasoning":
            continue
        if field.name == "reasoning":
            _merge_reasoning(params.reasoning, defaults.reasoning)
        elif field.name == "logit_bias":
            params.logit_bias.update(value)
        elif field.name == "stop_sequences":
            params.stop_sequences.extend(value)
        else:
            setattr(params, field.name, value)


def _merge_reasoning(into: generation_pb2.ReasoningConfig, defaults: generation_pb2.ReasoningConfig) -> None:
    asked = {field.name for field, _ in into.ListFields()}
    if asked & _HOW_MUCH:
        # A word and a number say the same twice: the request's own is meant.
        asked |= _HOW_MUCH
    for field, value in defaults.ListFields():
        if field.name not in asked:
            setattr(into, field.name, value)


def _add_system_text(spec: CompletionSpec, text: str) -> None:
    """Ends the last of the leading instructions with the text, or begins the conversation with it."""
    last = -1
    for index, message in enumerate(spec.messages):
        if message.role not in (message_pb2.ROLE_SYSTEM, message_pb2.ROLE_DEVELOPER):
            break
        last = index
    if last >= 0:
        spec.messages[last].parts.add().text.text = text
        return
    messages = list(spec.messages)
    del spec.messages[:]
    first = spec.messages.add(role=message_pb2.ROLE_SYSTEM)
    first.parts.add().text.text = text
    spec.messages.extend(messages)


def _cut(result: message_pb2.ToolResult, limit: int) -> None:
    """Cuts the text of a tool result to `limit` code points over all its parts, and says how many were cut."""
    left, removed = limit, 0
    last: message_pb2.ContentPart | None = None
    for part in result.parts:
        if part.WhichOneof("kind") != "text":
            continue
        text = part.text.text
        if len(text) > left:
            removed += len(text) - left
            part.text.text = text[:left]
        left = max(0, left - len(text))
        last = part
    if removed and last is not None:
        last.text.text += f"\n[{removed} characters of this tool result were cut]"
