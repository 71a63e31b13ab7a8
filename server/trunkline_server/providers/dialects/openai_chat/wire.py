"""What Chat Completions answers look like on the wire.

Types are as loose as the providers that speak this dialect: `Any` where they deviate, `Raw` where the text is wanted as
it came. One `Message` serves as a whole message and as a delta, one `Choice` for both kinds of answers.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw

from trunkline_server.providers.jsontext import Reader
from trunkline_server.providers.logprobs import Token
from trunkline_server.providers.usage import Count


class Function(msgspec.Struct, gc=False):
    name: str | None = None
    #: Text; some servers send the object itself.
    arguments: Any = None


class ToolCall(msgspec.Struct, gc=False):
    index: int | None = None
    id: str | None = None
    type: str | None = None
    function: Function | None = None
    #: Free-form tools: {name, input}.
    custom: Any = None
    extra_content: Any = None


class Message(msgspec.Struct, gc=False):
    #: Text, a list of parts (Mistral), or an object (Cloudflare with a schema).
    content: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    reasoning_details: Any = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    #: As tools were called before 2024; some wrappers still do.
    function_call: Function | None = None
    audio: Any = None
    images: Any = None
    annotations: list[Raw] | None = None
    #: Tools that Groq ran itself.
    executed_tools: list[Raw] | None = None
    extra_content: Any = None


class Choice(msgspec.Struct, gc=False):
    index: int | None = None
    delta: Message | None = None
    message: Message | None = None
    finish_reason: str | None = None
    #: The stop sequence that matched (vLLM).
    stop_reason: Any = None
    logprobs: Raw = Raw(b"")


class XGroq(msgspec.Struct, gc=False):
    usage: Raw = Raw(b"")


class Answer(msgspec.Struct, gc=False):
    """A whole answer or one chunk of a stream."""

    id: Any = None
    model: Any = None
    choices: list[Choice] | None = None
    usage: Raw = Raw(b"")
    error: Raw = Raw(b"")
    service_tier: Any = None
    system_fingerprint: Any = None
    x_groq: XGroq | None = None
    #: Sources of the answer (Perplexity).
    search_results: list[Raw] | None = None
    citations: Any = None
    #: Members of errors that do not say "error".
    object: str | None = None
    message: Any = None
    detail: Any = None
    #: MiniMax's, in every answer: {status_code, status_msg}; a code that is not 0 is an error.
    base_resp: Any = None


class Details(msgspec.Struct, gc=False):
    """Details of the tokens of a prompt or an answer."""

    cached_tokens: Count = None
    cache_write_tokens: Count = None
    reasoning_tokens: Count = None
    audio_tokens: Count = None
    image_tokens: Count = None


class UsageCounts(msgspec.Struct, gc=False):
    prompt_tokens: Count = None
    completion_tokens: Count = None
    total_tokens: Count = None
    prompt_tokens_details: Details | None = None
    completion_tokens_details: Details | None = None
    reasoning_tokens: Count = None
    #: Cache hits as Moonshot and Together, Mistral, DeepSeek, and servers in front of Anthropic name them.
    cached_tokens: Count = None
    num_cached_tokens: Count = None
    prompt_cache_hit_tokens: Count = None
    cache_read_input_tokens: Count = None
    cache_creation_input_tokens: Count = None


class Logprobs(msgspec.Struct, gc=False):
    content: list[Token] | None = None
    refusal: list[Token] | None = None
    #: The older form: parallel lists.
    tokens: list[str | None] | None = None
    token_logprobs: list[float | None] | None = None


class UrlCitation(msgspec.Struct, gc=False):
    url: str | None = None
    title: str | None = None
    content: str | None = None
    start_index: int | None = None
    end_index: int | None = None


class Annotation(msgspec.Struct, gc=False):
    type: str | None = None
    url_citation: UrlCitation | None = None


class SearchResult(msgspec.Struct, gc=False):
    url: str | None = None
    title: str | None = None
    snippet: str | None = None


class Vector(msgspec.Struct, gc=False):
    index: int | None = None
    #: Numbers, or base64 of little-endian float32.
    embedding: list[float] | str = ""


class Vectors(msgspec.Struct, gc=False):
    data: list[Vector] | None = None
    model: str | None = None
    usage: Raw = Raw(b"")
    error: Raw = Raw(b"")


ANSWER = Reader(Answer)
USAGE = Reader(UsageCounts)
LOGPROBS = Reader(Logprobs)
ANNOTATION = Reader(Annotation)
SEARCH_RESULT = Reader(SearchResult)
VECTORS = Reader(Vectors)
