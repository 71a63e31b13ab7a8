"""What Cohere's answers look like on the wire.

A whole answer and the events of a stream share their types: where an answer has a list, an event has one item of it.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw

from trunkline_server.providers.jsontext import Reader
from trunkline_server.providers.usage import Count


class Content(msgspec.Struct, gc=False):
    type: str | None = None
    text: str | None = None
    thinking: str | None = None


class Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class Call(msgspec.Struct, gc=False):
    id: str | None = None
    function: Function | None = None


class Logprobs(msgspec.Struct, gc=False):
    #: Of one piece of text, which may be several tokens.
    text: str | None = None
    token_ids: list[int] | None = None
    logprobs: list[float] | None = None


class Message(msgspec.Struct, gc=False):
    content: Content | list[Content] | str | None = None
    tool_plan: str | None = None
    tool_calls: Call | list[Call] | None = None
    #: One citation or a list of them, verbatim.
    citations: Raw = Raw(b"")


class Delta(msgspec.Struct, gc=False):
    message: Message | None = None
    finish_reason: str | None = None
    usage: Raw = Raw(b"")
    error: str | None = None


class Event(msgspec.Struct, gc=False):
    type: str | None = None
    id: str | None = None
    index: int | None = None
    delta: Delta | None = None
    logprobs: Logprobs | None = None
    #: What went wrong, in an event that is an error.
    message: Any = None


class Answer(msgspec.Struct, gc=False):
    id: str | None = None
    #: What went wrong, where it is text.
    message: Message | str | None = None
    finish_reason: str | None = None
    usage: Raw = Raw(b"")
    logprobs: list[Logprobs] | None = None
    error: Any = None


class Citation(msgspec.Struct, gc=False):
    start: int | None = None
    end: int | None = None
    sources: list[Any] | None = None
    #: Which of the contents it is about, and what that is.
    content_index: int | None = None
    type: str | None = None


class Counts(msgspec.Struct, gc=False):
    input_tokens: Count = None
    output_tokens: Count = None
    reasoning_tokens: Count = None
    image_tokens: Count = None


class Usage(msgspec.Struct, gc=False):
    tokens: Counts | None = None
    #: What is paid for: fewer, without Cohere's own part of the prompt.
    billed_units: Counts | None = None
    cached_tokens: Count = None


class Meta(msgspec.Struct, gc=False):
    billed_units: Raw = Raw(b"")


class Vectors(msgspec.Struct, gc=False):
    #: Lists of vectors by type; of the first version of the API, one list.
    embeddings: dict[str, Any] | list[list[float]] | None = None
    meta: Meta | None = None
    message: str | None = None


EVENT = Reader(Event)
ANSWER = Reader(Answer)
CITATION = Reader(Citation)
CITATIONS = Reader(list[Raw])
USAGE = Reader(Usage)
COUNTS = Reader(Counts)
VECTORS = Reader(Vectors)
