"""How many tokens a text has where nobody counted them: a quarter of its UTF-8 bytes, rounded up.

Within a third for most languages and vocabularies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from trunkline.v1 import completion_pb2, message_pb2

#: Fields with text by kind of part.
_TEXTS: Mapping[str, tuple[str, ...]] = {
    "text": ("text",),
    "reasoning": ("text",),
    "refusal": ("text",),
    "tool_call": ("name", "arguments_json"),
    "opaque": ("json",),
}


def prompt_tokens(spec: completion_pb2.CompletionSpec) -> int:
    """Of all text that the model is sent."""
    size = _bytes(part for message in spec.messages for part in message.parts)
    size += len(spec.extra_system_text.encode())
    for tool in spec.tools:
        size += len(tool.function.name) + len(tool.function.description.encode())
        size += len(tool.function.parameters_json_schema.encode()) + len(tool.provider.config_json.encode())
    return tokens(size)


def answer_tokens(answer: completion_pb2.Completion) -> int:
    """Of all text that the model said."""
    return tokens(_bytes(part for choice in answer.choices for part in choice.message.parts))


def tokens(text_bytes: int) -> int:
    return -(-text_bytes // 4)


def _bytes(parts: Iterable[message_pb2.ContentPart]) -> int:
    """Of the text in some parts."""
    size = 0
    for part in parts:
        kind = part.WhichOneof("kind")
        if kind == "tool_result":
            size += _bytes(part.tool_result.parts)
        elif kind is not None:
            value = getattr(part, kind)
            size += sum(len(getattr(value, name).encode()) for name in _TEXTS.get(kind, ()))
    return size
