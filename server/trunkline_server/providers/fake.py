"""A provider that is not one: it answers from a script, without a network, and says so in its name.

It speaks the OpenAI dialect inside the process, so that a call to it takes every step of a call to a real provider
but the socket. Models: `echo`, `tool`, `rate-limit`, `json`, `script`. The script of `fake/script` is an object in
`provider_options_json["fake"]`:

    {"script": {"text": "…", "reasoning": "…", "tool_calls": [{"name": "…", "arguments": "…"}], "finish": "stop",
                "usage": {…}, "status": 429, "error": {…}, "headers": {…}, "delay": 0.1, "word_delay": 0.01,
                "cut_after": 3}}

`delay` is before the answer, `word_delay` between words (seconds); `cut_after` breaks a stream after so many events;
`status` and `error` fail the call with that HTTP status and error object.
"""

from __future__ import annotations

import asyncio
import collections
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec

from trunkline_server.errors import LLMConnectionError
from trunkline_server.providers import jsontext
from trunkline_server.providers.base import Capabilities, UpstreamRequest

MODELS = ("echo", "json", "rate-limit", "script", "tool")

#: It can be asked for everything that the dialect can say.
CAPABILITIES = Capabilities(audio=True, reasoning=True, embeddings=True, prompt_cache=True)

#: Most numbers of a vector.
_MOST_DIMENSIONS = 4096

#: Most keys of `fake/rate-limit` that are remembered.
_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class FakeReply:
    """An answer made here."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    async def read(self) -> bytes:
        return self.body

    async def chunks(self) -> AsyncGenerator[bytes]:
        yield self.body


@dataclass(slots=True)
class _Script:
    """What an answer consists of."""

    text: str = ""
    reasoning: str = ""
    tool_calls: Sequence[Mapping[str, str]] = ()
    finish: str = ""
    usage: Mapping[str, Any] | None = None
    status: Annotated[int, msgspec.Meta(ge=200, le=599)] = 200
    error: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    word_delay: float = 0.0
    cut_after: int | None = None


class FakeUpstream:
    """Answers requests of the OpenAI dialect."""

    address = ""
    propagates = False

    def __init__(self) -> None:
        self._limited: collections.OrderedDict[str, None] = collections.OrderedDict()
        self._made = 0

    async def send(self, request: UpstreamRequest, extra_headers: Sequence[tuple[str, str]] = ()) -> FakeReply:
        if request.method == "GET":
            listed = [{"id": name, "object": "model", "owned_by": "fake"} for name in MODELS]
            return self._reply(200, {"object": "list", "data": listed})
        body = jsontext.loads(request.body)
        if request.path.endswith("/embeddings"):
            return self._embeddings(body)
        script = self._script(body)
        if script.delay:
            await asyncio.sleep(script.delay)
        if script.error is not None or script.status != 200:
            return self._failure(script)
        message: dict[str, Any] = {"role": "assistant", "content": script.text or None}
        if script.reasoning:
            message["reasoning_content"] = script.reasoning
        if script.tool_calls:
            message["tool_calls"] = [_call(index, call) for index, call in enumerate(script.tool_calls)]
        choice = {"index": 0, "message": message, "finish_reason": _finish(script)}
        return self._reply(
            200, {**self._head(body, "chat.completion"), "choices": [choice], "usage": _usage(body, script)}
        )

    @asynccontextmanager
    async def stream(
        self, request: UpstreamRequest, extra_headers: Sequence[tuple[str, str]] = ()
    ) -> AsyncIterator[FakeReply | _FakeStream]:
        body = jsontext.loads(request.body)
        script = self._script(body)
        if script.delay:
            await asyncio.sleep(script.delay)
        if script.error is not None or script.status != 200:
            yield self._failure(script)
            return
        head = self._head(body, "chat.completion.chunk")
        yield _FakeStream(200, {"content-type": "text/event-stream", "x-request-id": head["id"]}, head, body, script)

    async def aclose(self) -> None:
        self._limited.clear()

    def _head(self, body: Mapping[str, Any], kind: str) -> dict[str, Any]:
        self._made += 1
        return {"id": f"fake-{self._made}", "object": kind, "created": 0, "model": body.get("model", "")}

    def _reply(self, status: int, value: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> FakeReply:
        known = {"content-type": "application/json", "x-request-id": str(value.get("id", "fake-request"))}
        return FakeReply(status, {**known, **(headers or {})}, jsontext.dumps(value))

    def _failure(self, script: _Script) -> FakeReply:
        status = script.status if script.status != 200 else 500
        error = script.error or {"message": f"scripted failure {status}", "type": "scripted", "code": None}
        return self._reply(status, {"error": error}, script.headers)

    def _script(self, body: Mapping[str, Any]) -> _Script:
        model = body.get("model")
        if model == "echo":
            return _Script(text=f"You said: {_last_text(body)}")
        if model == "tool":
            return _tool_script(body)
        if model == "json":
            schema = ((body.get("response_format") or {}).get("json_schema") or {}).get("schema") or {}
            return _Script(text=jsontext.dumps(_example(schema)).decode())
        if model == "rate-limit":
            return self._limit(body)
        if model == "script":
            asked = body.get("script")
            known = _Script.__slots__
            if not isinstance(asked, dict) or not asked.keys() <= set(known):
                allowed = ", ".join(known)
                return _invalid(
                    f'provider_options_json["fake"] must be {{"script": {{…}}}} with members among {allowed}'
                )
            try:
                return msgspec.convert(asked, _Script)
            except msgspec.ValidationError as error:
                return _invalid(f'provider_options_json["fake"].script: {error}')
        return _Script(
            status=404,
            error={
                "message": f"The model {model!r} does not exist",
                "type": "invalid_request_error",
                "code": "model_not_found",
            },
        )

    def _limit(self, body: Mapping[str, Any]) -> _Script:
        """Refuses the first request of each end user, for so long that a caller in a hurry hears of it."""
        key = str(body.get("user") or body.get("safety_identifier") or "")
        if key in self._limited:
            del self._limited[key]
            return _Script(text=f"You said: {_last_text(body)}")
        self._limited[key] = None
        while len(self._limited) > _REMEMBERED:
            self._limited.popitem(last=False)
        return _Script(
            status=429,
            error={"message": "Rate limit reached for requests", "type": "requests", "code": "rate_limit_exceeded"},
            headers={"retry-after-ms": "3000"},
        )

    def _embeddings(self, body: Mapping[str, Any]) -> FakeReply:
        """Eight numbers a text, from its characters: equal texts have equal vectors."""
        asked = body.get("input")
        inputs = asked if isinstance(asked, list) and not all(isinstance(i, int) for i in asked) else [asked]
        size = body.get("dimensions") or 8
        if not isinstance(size, int) or not 0 < size <= _MOST_DIMENSIONS:
            message = f"dimensions is {size!r}: give from 1 to {_MOST_DIMENSIONS}"
            return self._failure(_invalid(message, "dimensions"))
        data = []
        for index, text in enumerate(inputs):
            codes = text if isinstance(text, list) else [ord(letter) for letter in str(text)]
            vector = [sum(codes[place::size]) % 97 / 97 for place in range(size)]
            data.append({"object": "embedding", "index": index, "embedding": vector})
        words = sum(len(str(text).split()) for text in inputs)
        usage = {"prompt_tokens": words, "total_tokens": words}
        return self._reply(200, {"object": "list", "data": data, "model": body.get("model", ""), "usage": usage})


@dataclass(frozen=True, slots=True)
class _FakeStream:
    status: int
    headers: Mapping[str, str]
    head: Mapping[str, Any]
    request: Mapping[str, Any]
    script: _Script

    async def read(self) -> bytes:
        return b""

    async def chunks(self) -> AsyncGenerator[bytes]:
        for sent, delta in enumerate(self._deltas()):
            if self.script.cut_after is not None and sent >= self.script.cut_after:
                raise LLMConnectionError("the provider's connection broke in the middle of the answer")
            if sent and self.script.word_delay:
                await asyncio.sleep(self.script.word_delay)
            yield b"data: " + jsontext.dumps({**self.head, **delta}) + b"\n\n"
        yield b"data: [DONE]\n\n"

    def _deltas(self) -> Iterator[dict[str, Any]]:
        script = self.script
        yield _chunk({"role": "assistant", "content": ""})
        for word in _words(script.reasoning):
            yield _chunk({"reasoning_content": word})
        for word in _words(script.text):
            yield _chunk({"content": word})
        for index, call in enumerate(script.tool_calls):
            whole = _call(index, call)
            arguments = whole["function"]["arguments"]
            third = max(1, -(-len(arguments) // 3))
            whole["function"]["arguments"] = ""
            yield _chunk({"tool_calls": [{"index": index, **whole}]})
            for start in range(0, len(arguments), third):
                piece = {"index": index, "function": {"arguments": arguments[start : start + third]}}
                yield _chunk({"tool_calls": [piece]})
        yield _chunk({}, _finish(script))
        yield {"choices": [], "usage": _usage(self.request, script)}


def _chunk(delta: Mapping[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def _call(index: int, call: Mapping[str, str]) -> dict[str, Any]:
    function = {"name": call.get("name", ""), "arguments": call.get("arguments", "{}")}
    return {"id": call.get("id", f"call_{index + 1}"), "type": "function", "function": function}


def _finish(script: _Script) -> str:
    return script.finish or ("tool_calls" if script.tool_calls else "stop")


def _usage(body: Mapping[str, Any], script: _Script) -> Mapping[str, Any]:
    if script.usage is not None:
        return script.usage
    words_in = sum(len(_text_of(message).split()) for message in body.get("messages") or ())
    words_out = len(script.text.split()) + len(script.reasoning.split())
    return {"prompt_tokens": words_in, "completion_tokens": words_out, "total_tokens": words_in + words_out}


def _tool_script(body: Mapping[str, Any]) -> _Script:
    messages = body.get("messages") or []
    if messages and messages[-1].get("role") == "tool":
        return _Script(text=f"The tool said: {_text_of(messages[-1])}")
    names = [tool["function"]["name"] for tool in body.get("tools") or () if tool.get("type") == "function"]
    if not names:
        return _Script(text="I have no tools.")
    return _Script(text="Let me look that up.", tool_calls=[{"name": names[0], "arguments": '{"city":"Paris"}'}])


def _invalid(message: str, param: str | None = None) -> _Script:
    error = {"message": message, "type": "invalid_request_error", "code": None, "param": param}
    return _Script(status=400, error=error)


def _words(text: str) -> Iterator[str]:
    """The text in pieces: each word with the space before it."""
    piece = ""
    for letter in text:
        if letter == " " and piece.strip():
            yield piece
            piece = ""
        piece += letter
    if piece:
        yield piece


def _last_text(body: Mapping[str, Any]) -> str:
    said = [_text_of(message) for message in body.get("messages") or () if message.get("role") == "user"]
    return said[-1] if said else ""


def _text_of(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _example(schema: Mapping[str, Any]) -> Any:
    """A value that satisfies the common part of JSON Schema."""
    if schema.get("enum"):
        return schema["enum"][0]
    if "const" in schema:
        return schema["const"]
    for union in ("anyOf", "oneOf"):
        if schema.get(union):
            return _example(schema[union][0])
    kind = schema.get("type", "object")
    if isinstance(kind, list):
        kind = kind[0]
    if kind == "object":
        return {name: _example(inner) for name, inner in (schema.get("properties") or {}).items()}
    if kind == "array":
        return [_example(schema.get("items") or {"type": "string"})]
    return {"string": "text", "number": 1, "integer": 1, "boolean": True, "null": None}.get(kind)
