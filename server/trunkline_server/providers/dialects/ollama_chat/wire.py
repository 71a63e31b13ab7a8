"""What Ollama's answers look like on the wire. A whole answer is a stream of one line."""

from __future__ import annotations

import msgspec
from msgspec import Raw

from trunkline_server.providers.jsontext import Reader
from trunkline_server.providers.logprobs import Token
from trunkline_server.providers.usage import Count


class Function(msgspec.Struct, gc=False):
    name: str | None = None
    #: An object; its text is what the model wrote.
    arguments: Raw = Raw(b"")


class Call(msgspec.Struct, gc=False):
    #: Newer servers give one.
    id: str | None = None
    function: Function | None = None


class Message(msgspec.Struct, gc=False):
    content: str | None = None
    thinking: str | None = None
    tool_calls: list[Call] | None = None


class Answer(msgspec.Struct, gc=False):
    """A whole answer or one line of a stream."""

    model: str | None = None
    created_at: str | None = None
    message: Message | None = None
    done: bool | None = None
    done_reason: str | None = None
    #: Absent where all of the prompt was still in memory.
    prompt_eval_count: Count = None
    eval_count: Count = None
    logprobs: list[Token] | None = None
    error: Raw = Raw(b"")


class Vectors(msgspec.Struct, gc=False):
    model: str | None = None
    embeddings: list[list[float]] | None = None
    #: Of the older endpoint, which takes one text.
    embedding: list[float] | None = None
    prompt_eval_count: Count = None
    error: Raw = Raw(b"")


ANSWER = Reader(Answer)
VECTORS = Reader(Vectors)
