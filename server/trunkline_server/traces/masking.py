"""Takes secrets out of a trace, and cuts it to size."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any, TypeAlias

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from trunkline.v1alpha import trace_pb2
from trunkline_server.redact import MASK, Redactor

#: Characters at the end of what was cut that may be half a secret.
_TAIL = 512
#: What is shorter is not cut.
_SHORT = 1024

_STRING, _BYTES, _MESSAGE = FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_MESSAGE


#: Where a text is, the name or index that it has there, and what it says.
_Text: TypeAlias = tuple[Any, Any, str]


class Masker:
    """Masks what the redactor knows and what the operator's patterns match, in every text and every body."""

    def __init__(self, redactor: Redactor, patterns: Iterable[str] = ()) -> None:
        self._redactor = redactor
        self._patterns = [re.compile(pattern) for pattern in patterns]

    def __call__(self, trace: trace_pb2.Trace, payload: bytes) -> bool:
        """`payload`: the trace, serialized. False if nothing was changed."""
        if not self._patterns and not trace.truncated and not self._redactor.suspects(payload):
            return False
        texts: list[_Text] = []
        _collect(trace, texts)
        # Most of them hold nothing: all are looked through at once.
        if self._suspects("\n".join([text for _, _, text in texts]).encode("utf-8", "surrogatepass")):
            for holder, name, text in texts:
                masked = self._masked(text)
                if masked == text:
                    continue
                if isinstance(holder, Message):
                    setattr(holder, name, masked)
                else:
                    holder[name] = masked
        payloads = [payload for attempt in trace.attempts for payload in (attempt.request, attempt.response)]
        for body in (*payloads, trace.completion.raw) if trace.HasField("completion") else payloads:
            if body.body and (body.truncated or self._suspects(body.body)):
                body.body = self._body(body.body, body.truncated)
        return True

    def _suspects(self, data: bytes) -> bool:
        return bool(self._patterns) or self._redactor.suspects(data)

    def _body(self, body: bytes, truncated: bool) -> bytes:
        masked = self._masked(body.decode("utf-8", "surrogateescape"))
        return (masked[:-_TAIL] if truncated else masked).encode("utf-8", "surrogateescape")

    def _masked(self, text: str) -> str:
        text = self._redactor(text)
        for pattern in self._patterns:
            text = pattern.sub(MASK, text)
        return text


def _collect(message: Message, found: list[_Text]) -> None:
    """Every text in a message, and in those in it. Bytes are media and vectors, or bodies, which are masked apart."""
    for field, value in message.ListFields():
        kind = field.type
        if kind == _STRING:
            if field.is_repeated:
                found += [(value, index, text) for index, text in enumerate(value)]
            else:
                found.append((message, field.name, value))
        elif kind == _MESSAGE:
            if not field.is_repeated:
                _collect(value, found)
            elif _is_map(field):
                found += [(value, key, text) for key, text in value.items() if isinstance(text, str)]
            else:
                for one in value:
                    _collect(one, found)


@cache
def _is_map(field: FieldDescriptor) -> bool:
    entry = field.message_type
    return entry is not None and bool(entry.GetOptions().map_entry)


def cut(trace: trace_pb2.Trace, most: int) -> None:
    """Cuts what is longest until the trace has at most `most` bytes, and marks it; then what is in the middle."""
    excess = trace.ByteSize() - most
    trace.truncated = True
    for holder, name, size in sorted(_long(trace), key=lambda one: one[2], reverse=True):
        if excess <= 0:
            break
        kept = max(_SHORT, size - excess)
        value = getattr(holder, name)
        if isinstance(value, str):
            setattr(holder, name, value.encode()[:kept].decode("utf-8", "ignore"))
        else:
            setattr(holder, name, value[:kept])
            if isinstance(holder, _Payload):
                holder.truncated = True
        excess -= size - kept
    for repeated in _lists(trace):
        while trace.ByteSize() > most and len(repeated) > 2:
            del repeated[1 : 1 + len(repeated) // 2]


_Payload = type(trace_pb2.Attempt().request)


def _long(message: Message) -> Iterator[tuple[Message, str, int]]:
    """Texts and bytes that can be cut."""
    for field, value in message.ListFields():
        if field.type in (_STRING, _BYTES) and not field.is_repeated:
            size = len(value.encode()) if field.type == _STRING else len(value)
            if size > _SHORT:
                yield message, field.name, size
        elif field.type == _MESSAGE and not _is_map(field):
            for one in value if field.is_repeated else (value,):
                yield from _long(one)


def _lists(trace: trace_pb2.Trace) -> Sequence[Any]:
    """What can have many members, the least telling first."""
    return (
        trace.embeddings.embeddings if trace.HasField("embeddings") else [],
        trace.embedding_spec.inputs if trace.HasField("embedding_spec") else [],
        trace.completion_spec.messages if trace.HasField("completion_spec") else [],
        trace.completion_spec.tools if trace.HasField("completion_spec") else [],
        trace.completion.choices if trace.HasField("completion") else [],
        trace.attempts,
    )
