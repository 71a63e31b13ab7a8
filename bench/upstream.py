"""A provider that costs next to nothing: OpenAI's Chat Completions over bare sockets, every byte made beforehand.

Prints its port and serves until it is ended.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import uvloop

from bench.workload import CALLS, Call, word

_FACTS = {
    "id": "chatcmpl-CxUmq3Zt7yR2vQe1NhPbK8sWdLfA4",
    "created": 1764000000,
    "model": "gpt-5-mini-2026-08-07",
    "service_tier": "default",
    "system_fingerprint": "fp_44709d6fcb",
}
_USAGE = {
    "prompt_tokens": 217,
    "completion_tokens": 100,
    "total_tokens": 317,
    "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0, "accepted_prediction_tokens": 0},
}
_HEADERS = (
    b"HTTP/1.1 200 OK\r\ndate: Sun, 22 Nov 2026 12:00:00 GMT\r\nopenai-processing-ms: 312\r\n"
    b"x-request-id: req_5a0c7f6f3b0d4a55a1f0f2c7b4b0e6d1\r\nx-ratelimit-limit-requests: 10000\r\n"
    b"x-ratelimit-remaining-requests: 9999\r\nx-ratelimit-reset-requests: 6ms\r\n"
)


def _unary(call: Call) -> bytes:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": call.text, "refusal": None, "annotations": []},
        "logprobs": None,
        "finish_reason": "stop",
    }
    body = json.dumps({**_FACTS, "object": "chat.completion", "choices": [choice], "usage": _USAGE}).encode()
    return _HEADERS + b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body


def _event(choices: list[object], usage: object = None) -> bytes:
    body = {**_FACTS, "object": "chat.completion.chunk", "choices": choices, "usage": usage, "obfuscation": "kd82Xz"}
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


def _delta(delta: dict[str, object], finish: str | None = None) -> bytes:
    return _event([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}])


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _writes(call: Call) -> Iterator[bytes]:
    """What is written to a stream, in order; a pause lies before each."""
    begin = _HEADERS + b"content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
    yield begin + _chunk(_delta({"role": "assistant", "content": "", "refusal": None}))
    for first in range(0, call.events, call.together):
        yield _chunk(b"".join(_delta({"content": word(at)}) for at in range(first, first + call.together)))
    if not call.held:
        yield _chunk(_delta({}, "stop") + _event([], _USAGE) + b"data: [DONE]\n\n") + b"0\r\n\r\n"


_ANSWERS = {name: list(_writes(call)) if call.events else [_unary(call)] for name, call in CALLS.items()}


class Upstream(asyncio.Protocol):
    """One connection: requests one after the other."""

    def __init__(self) -> None:
        self._received = b""
        self._transport: Any = None
        self._streams: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        for stream in self._streams:
            stream.cancel()

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head = self._received[:end].lower()
            _, _, length = head.partition(b"content-length:")
            until = end + 4 + int(length.partition(b"\r\n")[0] or 0)
            if len(self._received) < until:
                return
            body, self._received = self._received[end + 4 : until], self._received[until:]
            self._answer(body)

    def _answer(self, body: bytes) -> None:
        name = json.loads(body)["model"]
        call, writes = CALLS[name], _ANSWERS[name]
        if not call.events:
            self._transport.write(writes[0])
            return
        stream = asyncio.get_running_loop().create_task(self._stream(call, writes))
        self._streams.add(stream)
        stream.add_done_callback(self._streams.discard)

    async def _stream(self, call: Call, writes: list[bytes]) -> None:
        for write in writes:
            self._transport.write(write)
            await asyncio.sleep(call.pause)


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
