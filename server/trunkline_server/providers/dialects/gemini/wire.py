"""What Gemini answers look like on the wire.

Parts stay verbatim until they are looked at: what the contract does not model is passed on as it came.
See https://ai.google.dev/api/generate-content and https://cloud.google.com/vertex-ai/generative-ai/docs/reference/rest
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw

from trunkline_server.providers.jsontext import Reader
from trunkline_server.providers.usage import Count


class PartialArg(msgspec.Struct, rename="camel", gc=False):
    """A piece of a call's arguments while they are streamed: a value, or a piece of a string, and where it belongs."""

    json_path: str = ""
    string_value: str | None = None
    number_value: Raw = Raw(b"")
    bool_value: bool | None = None
    will_continue: bool | None = None


class FunctionCall(msgspec.Struct, rename="camel", gc=False):
    id: Any = None
    name: str | None = None
    args: Raw = Raw(b"")
    partial_args: list[PartialArg] | None = None
    will_continue: bool | None = None


class Blob(msgspec.Struct, rename="camel", gc=False):
    mime_type: str | None = None
    data: str | None = None


class FileData(msgspec.Struct, rename="camel", gc=False):
    mime_type: str | None = None
    file_uri: str | None = None


class Part(msgspec.Struct, rename="camel", gc=False):
    text: str | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    function_call: FunctionCall | None = None
    inline_data: Blob | None = None
    file_data: FileData | None = None


class Content(msgspec.Struct, rename="camel", gc=False):
    parts: list[Raw] | None = None


class Candidate(msgspec.Struct, rename="camel", gc=False):
    index: int | None = None
    content: Content | None = None
    #: A word; a number where enums are not written as words.
    finish_reason: str | int | None = None
    citation_metadata: Raw = Raw(b"")
    grounding_metadata: Raw = Raw(b"")
    url_context_metadata: Raw = Raw(b"")
    logprobs_result: Raw = Raw(b"")


class SafetyRating(msgspec.Struct, rename="camel", gc=False):
    category: Any = None
    probability: Any = None
    blocked: bool | None = None


class PromptFeedback(msgspec.Struct, rename="camel", gc=False):
    block_reason: Any = None
    block_reason_message: Any = None
    safety_ratings: list[SafetyRating] | None = None


class Answer(msgspec.Struct, rename="camel", gc=False):
    """A whole answer or one chunk of a stream: they have the same type."""

    candidates: list[Candidate] | None = None
    prompt_feedback: PromptFeedback | None = None
    usage_metadata: Raw = Raw(b"")
    model_version: Any = None
    response_id: Any = None
    error: Raw = Raw(b"")


class ModalityCount(msgspec.Struct, rename="camel", gc=False):
    modality: Any = None
    token_count: Count = None


class UsageCounts(msgspec.Struct, rename="camel", gc=False):
    prompt_token_count: Count = None
    candidates_token_count: Count = None
    thoughts_token_count: Count = None
    tool_use_prompt_token_count: Count = None
    cached_content_token_count: Count = None
    total_token_count: Count = None
    prompt_tokens_details: list[ModalityCount] | None = None
    candidates_tokens_details: list[ModalityCount] | None = None
    service_tier: str | None = None


class Token(msgspec.Struct, rename="camel", gc=False):
    token: str | None = None
    token_id: int | None = None
    log_probability: float | None = None


class TopTokens(msgspec.Struct, rename="camel", gc=False):
    candidates: list[Token] | None = None


class Logprobs(msgspec.Struct, rename="camel", gc=False):
    chosen_candidates: list[Token] | None = None
    top_candidates: list[TopTokens] | None = None


class Segment(msgspec.Struct, rename="camel", gc=False):
    """A passage of the answer, in bytes of its UTF-8."""

    part_index: int | None = None
    start_index: int | None = None
    end_index: int | None = None
    text: str | None = None


class Support(msgspec.Struct, rename="camel", gc=False):
    segment: Segment | None = None
    grounding_chunk_indices: list[int] | None = None


class Source(msgspec.Struct, rename="camel", gc=False):
    uri: str | None = None
    title: str | None = None
    text: str | None = None


class Chunk(msgspec.Struct, rename="camel", gc=False):
    """A source, under the name of what found it."""

    web: Source | None = None
    retrieved_context: Source | None = None
    maps: Source | None = None


class Grounding(msgspec.Struct, rename="camel", gc=False):
    grounding_chunks: list[Raw] | None = None
    grounding_supports: list[Raw] | None = None


class Citation(msgspec.Struct, rename="camel", gc=False):
    start_index: int | None = None
    end_index: int | None = None
    uri: str | None = None
    title: str | None = None


class Citations(msgspec.Struct, rename="camel", gc=False):
    #: The name at Vertex, and that at Gemini's own API.
    citations: list[Raw] | None = None
    citation_sources: list[Raw] | None = None


ANSWER = Reader(Answer)
ANSWERS = Reader(list[Answer])
PART = Reader(Part)
USAGE = Reader(UsageCounts)
LOGPROBS = Reader(Logprobs)
GROUNDING = Reader(Grounding)
SUPPORT = Reader(Support)
CHUNK = Reader(Chunk)
CITATIONS = Reader(Citations)
CITATION = Reader(Citation)
