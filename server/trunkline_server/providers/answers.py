"""What the decoders of several dialects do alike with an answer."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from trunkline.v1 import completion_pb2, message_pb2
from trunkline_server.providers.assembly import Assembly, Part, clean

FinishReason = completion_pb2.FinishReason


def words(value: Any) -> str:
    """What a member says that should be a text; "" if it is none."""
    return clean(value) if isinstance(value, str) else ""


def open_opaque(assembly: Assembly, choice: int, key: Hashable, kind: str, json: bytes) -> Part:
    """A block that the contract does not model, which must be whole."""
    block = message_pb2.OpaqueBlock(type=clean(kind), json=json.decode("utf-8", "replace"))
    return assembly.open(choice, key, message_pb2.ContentPart(opaque=block))


def close_flowing(assembly: Assembly, choice: int) -> None:
    """Ends the texts and thoughts that would go on, for wires that do not number their parts."""
    for kind in ("text", "reasoning", "refusal"):
        part = assembly.find(choice, kind)
        if part is not None:
            part.close()


def last_open(assembly: Assembly, choice: int) -> Part | None:
    """The part that was opened last, if it has not ended."""
    parts = assembly.open_parts(choice)
    return parts[-1] if parts else None


def cite(citation: message_pb2.Citation, start: Any, end: Any) -> None:
    """Says which passage of the text a citation is about, if that is one."""
    if start.__class__ is int and end.__class__ is int and 0 <= start < end < 2**31:
        citation.start_index, citation.end_index = start, end


# -- why it ended -----------------------------------------------------------------------------------------------------


def by_content(assembly: Assembly, choice: int, otherwise: FinishReason.ValueType) -> FinishReason.ValueType:
    """Why a choice ended, where the provider has no own word for calls and refusals."""
    if assembly.has_tool_calls(choice):
        return completion_pb2.FINISH_REASON_TOOL_CALLS
    if assembly.has_kind(choice, "refusal"):
        return completion_pb2.FINISH_REASON_REFUSAL
    return otherwise


def finish_untold(assembly: Assembly) -> None:
    """Ends an answer of one choice that does not say why it ended. Raises LLMEmptyResponseError."""
    assembly.require_content()
    assembly.finish(0, by_content(assembly, 0, completion_pb2.FINISH_REASON_STOP))
