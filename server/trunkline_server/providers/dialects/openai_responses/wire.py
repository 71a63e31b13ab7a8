"""What answers of the Responses API look like on the wire.

`Raw` where the text is wanted as it came, `Any` where those who offer this API deviate. Whole answers and the objects
inside the events of a stream have the same types.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw

from trunkline_server.providers.jsontext import Reader
from trunkline_server.providers.logprobs import Token
from trunkline_server.providers.usage import Count


class Why(msgspec.Struct, gc=False):
    """Why an answer is incomplete."""

    reason: Any = None


class Answer(msgspec.Struct, gc=False):
    """A whole answer, or the state of one in an event."""

    id: Any = None
    model: Any = None
    status: Any = None
    output: list[Raw] | None = None
    usage: Raw = Raw(b"")
    error: Raw = Raw(b"")
    incomplete_details: Why | None = None
    service_tier: Any = None
    system_fingerprint: Any = None


class Event(msgspec.Struct, gc=False):
    """One event of a stream. `item`, `part`, `annotation` and `response` are looked into only where they are wanted."""

    type: str | None = None
    output_index: int | None = None
    content_index: int | None = None
    summary_index: int | None = None
    annotation_index: int | None = None
    item_id: str | None = None
    delta: Any = None
    #: What a "done" event repeats whole, by its type.
    text: Any = None
    refusal: Any = None
    arguments: Any = None
    input: Any = None
    logprobs: list[Token] | None = None
    item: Raw = Raw(b"")
    part: Raw = Raw(b"")
    annotation: Raw = Raw(b"")
    response: Raw = Raw(b"")
    error: Raw = Raw(b"")


class Head(msgspec.Struct, gc=False):
    """What all output items have."""

    type: str | None = None
    id: str | None = None
    role: Any = None


class Content(msgspec.Struct, gc=False):
    """Part of a message, of a reasoning item's content or of its summary."""

    type: str | None = None
    text: Any = None
    refusal: Any = None
    annotations: list[Raw] | None = None
    logprobs: list[Token] | None = None


class Message(msgspec.Struct, gc=False):
    content: list[Raw] | None = None
    phase: Raw = Raw(b"")


class Reasoning(msgspec.Struct, gc=False):
    summary: list[Content] | None = None
    content: list[Content] | None = None
    encrypted_content: str | None = None
    #: Who sealed it, at OpenRouter.
    format: Raw = Raw(b"")
    signature: Raw = Raw(b"")


class Call(msgspec.Struct, gc=False):
    """A call of a function, or of a tool that takes free text (`input`)."""

    call_id: str | None = None
    name: str | None = None
    arguments: Any = None
    input: Any = None
    namespace: Raw = Raw(b"")
    caller: Raw = Raw(b"")


class Annotation(msgspec.Struct, gc=False):
    type: str | None = None
    url: Any = None
    title: Any = None
    file_id: Any = None
    filename: Any = None
    start_index: Any = None
    end_index: Any = None


class InputDetails(msgspec.Struct, gc=False):
    cached_tokens: Count = None
    cache_write_tokens: Count = None
    audio_tokens: Count = None
    image_tokens: Count = None


class OutputDetails(msgspec.Struct, gc=False):
    reasoning_tokens: Count = None
    audio_tokens: Count = None


class UsageCounts(msgspec.Struct, gc=False):
    input_tokens: Count = None
    output_tokens: Count = None
    total_tokens: Count = None
    input_tokens_details: InputDetails | None = None
    output_tokens_details: OutputDetails | None = None


class InputTokens(msgspec.Struct, gc=False):
    input_tokens: int | None = None
    error: Raw = Raw(b"")


ANSWER = Reader(Answer)
EVENT = Reader(Event)
HEAD = Reader(Head)
CONTENT = Reader(Content)
MESSAGE = Reader(Message)
REASONING = Reader(Reasoning)
CALL = Reader(Call)
ANNOTATION = Reader(Annotation)
USAGE = Reader(UsageCounts)
INPUT_TOKENS = Reader(InputTokens)
