"""Reads answers, line by line, into an assembly."""

from __future__ import annotations

from trunkline.v1 import completion_pb2, message_pb2
from trunkline_server.errors import LLMEmptyResponseError
from trunkline_server.providers.answers import by_content, close_flowing, last_open
from trunkline_server.providers.assembly import Assembly, clean
from trunkline_server.providers.base import Event
from trunkline_server.providers.classify import error_in_answer
from trunkline_server.providers.dialects.ollama_chat import wire
from trunkline_server.providers.dialects.ollama_chat.usage import usage_of
from trunkline_server.providers.framing import pour
from trunkline_server.providers.ids import made_call_id
from trunkline_server.providers.jsontext import loads, present, text_of, unreadable
from trunkline_server.providers.logprobs import token_logprobs
from trunkline_server.providers.sse import is_complete

FinishReason = completion_pb2.FinishReason

_FINISH_REASONS: dict[str, FinishReason.ValueType] = {
    # Older servers give no reason: the model was done.
    "": completion_pb2.FINISH_REASON_STOP,
    "stop": completion_pb2.FINISH_REASON_STOP,
    "length": completion_pb2.FINISH_REASON_LENGTH,
}


def decode(body: bytes, assembly: Assembly) -> None:
    """See `providers.base.Dialect.decode`."""
    decoder = LineDecoder(assembly)
    first = body.lstrip().partition(b"\n")[0]
    # A server that always streams sends several lines; one that writes for people breaks the only one.
    if len(first) < len(body.strip()) and is_complete(first):
        pour("ndjson", body, decoder)
    else:
        decoder.event(Event(b"", body))
        decoder.end()


class LineDecoder:
    """One answer in one line or in many. A line that says `done` ends it; of what follows only errors count."""

    __slots__ = ("_assembly", "_begun", "_calls", "_model")

    def __init__(self, assembly: Assembly) -> None:
        self._assembly = assembly
        self._calls = 0
        self._model: str | None = None
        #: When it began, which tells this answer from others: Ollama gives answers no ids.
        self._begun = ""

    def event(self, event: Event) -> None:
        data = event.data
        assembly = self._assembly
        answer = wire.ANSWER.read(data)
        if present(answer.error):
            raise error_in_answer(data)
        if assembly.finish_of(0) is not None:
            return
        message = answer.message
        if message is None and answer.done is None:
            raise unreadable(data)
        self._head(answer)
        if message is not None:
            if message.thinking:
                assembly.part(0, "reasoning").text(message.thinking)
            if message.content:
                assembly.part(0, "text").text(message.content)
            if answer.logprobs:
                assembly.logprobs(0, token_logprobs(answer.logprobs), last_open(assembly, 0))
            for call in message.tool_calls or ():
                self._call(call)
        if answer.done:
            self._finish(answer, data)
            assembly.ended = True

    def end(self) -> None:
        self._assembly.require_finished()

    def _head(self, answer: wire.Answer) -> None:
        self._assembly.touch(0)
        if answer.model != self._model:
            self._model = answer.model
            self._assembly.model = clean(answer.model or "") or self._assembly.model
        self._begun = self._begun or answer.created_at or ""

    def _call(self, call: wire.Call) -> None:
        """A tool call always comes whole."""
        close_flowing(self._assembly, 0)
        function = call.function or wire.Function()
        number, self._calls = self._calls, self._calls + 1
        name, arguments = clean(function.name or ""), _arguments(function)
        call_id = clean(call.id or "") or made_call_id(f"{self._begun} {name} {arguments}", 0, number)
        made = message_pb2.ToolCall(id=call_id, name=name)
        part = self._assembly.open(0, ("call", number), message_pb2.ContentPart(tool_call=made))
        part.text(arguments)
        part.close()

    def _finish(self, answer: wire.Answer, data: bytes) -> None:
        assembly = self._assembly
        usage = usage_of(answer.prompt_eval_count, answer.eval_count)
        if usage is not None:
            assembly.set_usage(usage)
        word = answer.done_reason or ""
        if not word and usage is None and not assembly.has_parts:
            raise LLMEmptyResponseError("the provider answered with no content and no finish reason", body=data)
        reason = _FINISH_REASONS.get(word, completion_pb2.FINISH_REASON_OTHER)
        if reason == completion_pb2.FINISH_REASON_STOP:
            reason = by_content(assembly, 0, reason)
        assembly.finish(0, reason, word)


def _arguments(function: wire.Function) -> str:
    """The text of the object; of a string, what it says."""
    text = text_of(function.arguments)
    said = loads(text) if text.startswith('"') else text
    return said if isinstance(said, str) else text
