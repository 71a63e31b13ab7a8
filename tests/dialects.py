"""The wire of each dialect, as far as an answer that has begun goes: where it is configured, and what it says first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.providers import bedrock_wire
from tests.upstream import piece, sse


@dataclass(frozen=True)
class Spoken:
    """A dialect that is spoken by an upstream of the tests."""

    kind: str
    model: str
    #: The beginning of a streamed answer, up to its first words, and one more word.
    opening: bytes
    word: bytes
    content_type: str = "text/event-stream"
    #: What follows the address.
    path: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)

    def provider(self, url: str, **more: Any) -> dict[str, Any]:
        """Its entry in `providers`."""
        made: dict[str, Any] = {"kind": self.kind, "base_url": url + self.path, "api_key_env": "SOME_KEY", **more}
        return {**made, "settings": dict(self.settings)} if self.settings else made


def _anthropic(*payloads: dict[str, Any]) -> bytes:
    return b"".join(sse(payload, payload["type"]) for payload in payloads)


def _lines(*payloads: bytes) -> bytes:
    return b"".join(payload + b"\n" for payload in payloads)


_MESSAGE: dict[str, Any] = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "content": [], "stop_reason": None,
    "stop_sequence": None, "usage": {"input_tokens": 7, "output_tokens": 1},
}  # fmt: skip
_CLAUDE_OPENING: tuple[dict[str, Any], ...] = (
    {"type": "message_start", "message": _MESSAGE},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}},
)
_CLAUDE_WORD = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": " word"}}
_RESPONSE = {
    "id": "resp_1", "object": "response", "created_at": 1, "model": "gpt", "status": "in_progress", "output": [],
}  # fmt: skip
_ITEM = {"id": "msg_1", "type": "message", "status": "in_progress", "role": "assistant", "content": []}
_PART = {"type": "output_text", "text": "", "annotations": []}


def _responses(kind: str, number: int, **more: Any) -> bytes:
    return sse({"type": kind, "sequence_number": number, **more}, kind)


def _said(text: str, number: int) -> bytes:
    return _responses(
        "response.output_text.delta", number, item_id="msg_1", output_index=0, content_index=0, delta=text
    )


def _gemini(text: str) -> bytes:
    return sse({"candidates": [{"content": {"role": "model", "parts": [{"text": text}]}}], "modelVersion": "gemini"})


def _cohere(text: str) -> bytes:
    said = {"message": {"content": {"text": text}}}
    return sse({"type": "content-delta", "index": 0, "delta": said}, "content-delta")


DIALECTS: Mapping[str, Spoken] = {
    "openai_chat": Spoken("vllm", "up-1", piece("", role="assistant") + piece("Hello"), piece(" word"), path="/v1"),
    "openai_responses": Spoken(
        "openai-responses",
        "gpt-5.2",
        _responses("response.created", 0, response=_RESPONSE)
        + _responses("response.output_item.added", 1, output_index=0, item=_ITEM)
        + _responses("response.content_part.added", 2, item_id="msg_1", output_index=0, content_index=0, part=_PART)
        + _said("Hello", 3),
        _said(" word", 4),
        path="/v1",
    ),
    "anthropic_messages": Spoken(
        "anthropic", "claude-sonnet-4-5", _anthropic(*_CLAUDE_OPENING), _anthropic(_CLAUDE_WORD)
    ),
    "gemini": Spoken("gemini", "gemini-2.5-flash", _gemini("Hello"), _gemini(" word")),
    "cohere_chat": Spoken(
        "cohere",
        "command-a-03-2025",
        sse({"type": "message-start", "id": "1", "delta": {"message": {"role": "assistant"}}}, "message-start")
        + sse(
            {"type": "content-start", "index": 0, "delta": {"message": {"content": {"type": "text", "text": ""}}}},
            "content-start",
        )
        + _cohere("Hello"),
        _cohere(" word"),
    ),
    "ollama_chat": Spoken(
        "ollama-native",
        "llama3",
        _lines(b'{"model":"llama3","message":{"role":"assistant","content":"Hello"},"done":false}'),
        _lines(b'{"model":"llama3","message":{"role":"assistant","content":" word"},"done":false}'),
        "application/x-ndjson",
    ),
    "bedrock_converse": Spoken(
        "bedrock",
        "us.amazon.nova-pro-v1:0",
        bedrock_wire.event("messageStart", {"role": "assistant"})
        + bedrock_wire.event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "Hello"}}),
        bedrock_wire.event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": " word"}}),
        "application/vnd.amazon.eventstream",
        settings={"region": "us-east-1"},
    ),
    "bedrock_invoke_anthropic": Spoken(
        "bedrock-invoke",
        "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
        b"".join(map(bedrock_wire.chunk, _CLAUDE_OPENING)),
        bedrock_wire.chunk(_CLAUDE_WORD),
        "application/vnd.amazon.eventstream",
        settings={"region": "us-east-1"},
    ),
}
