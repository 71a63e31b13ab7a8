"""What it costs to decode: CPU of one streamed event and of one whole answer, for each dialect, as a ratio to OpenAI's.

Run it with `python -m bench.decode`. Every dialect gets the same answer in its own wire: 200 words in a stream, and the
same text of about 1 KB at once. A turn takes all dialects one after the other; the best of the turns counts, so that a
neighbour on the machine disturbs all alike.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import json
import struct
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from trunkline_server import providers
from trunkline_server.providers.assembly import Assembly
from trunkline_server.providers.framing import FRAMINGS

WORDS = [f" word{number}" for number in range(200)]
TEXT = "".join(WORDS)[:1000]
#: The most that a dialect may cost, as a multiple of OpenAI's.
TARGET = 3.0
BASE = "openai_chat"


def _sse(*events: Any, names: bool = False) -> bytes:
    return b"".join(
        (f"event: {event['type']}\n" if names else "").encode() + b"data: " + json.dumps(event).encode() + b"\n\n"
        for event in events
    )


def _frames(*events: tuple[str, Any]) -> bytes:
    """AWS's event stream. Its client only reads that framing, so writing it is done here."""
    made = []
    for name, payload in events:
        body = json.dumps(payload).encode()
        headers = b"".join(
            bytes([len(key)]) + key + b"\x07" + struct.pack(">H", len(value)) + value
            for key, value in (
                (b":event-type", name.encode()),
                (b":content-type", b"application/json"),
                (b":message-type", b"event"),
            )
        )
        prelude = struct.pack(">II", 16 + len(headers) + len(body), len(headers))
        prelude += struct.pack(">I", binascii.crc32(prelude))
        message = prelude + headers + body
        made.append(message + struct.pack(">I", binascii.crc32(message)))
    return b"".join(made)


def _chat() -> tuple[bytes, Any]:
    head = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "system_fingerprint": "f",
    }
    usage = {"prompt_tokens": 9, "completion_tokens": 200, "total_tokens": 209}
    chunks = [{**head, "choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]} for word in WORDS]
    end = {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    whole = {
        **head,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}],
        "usage": usage,
    }
    return _sse(*chunks, end, {**head, "choices": [], "usage": usage}) + b"data: [DONE]\n\n", whole


def _responses() -> tuple[bytes, Any]:
    item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed"}
    content = {"type": "output_text", "text": TEXT, "annotations": []}
    whole = {
        "id": "resp_1", "object": "response", "created_at": 1, "status": "completed", "model": "m",
        "output": [{**item, "content": [content]}],
        "usage": {"input_tokens": 9, "output_tokens": 200, "total_tokens": 209},
    }  # fmt: skip
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    deltas = [
        {"type": "response.output_text.delta", "sequence_number": n, **place, "delta": word, "logprobs": []}
        for n, word in enumerate(WORDS)
    ]
    stream = _sse(
        {"type": "response.created", "response": {**whole, "status": "in_progress", "output": [], "usage": None}},
        {"type": "response.output_item.added", "output_index": 0, "item": {**item, "content": []}},
        {"type": "response.content_part.added", **place, "part": {**content, "text": ""}},
        *deltas,
        {"type": "response.output_text.done", **place, "text": "".join(WORDS)},
        {"type": "response.output_item.done", "output_index": 0, "item": {**item, "content": [content]}},
        {"type": "response.completed", "response": whole},
        names=True,
    )
    return stream, whole


def _anthropic_events() -> tuple[list[dict[str, Any]], Any]:
    usage = {"input_tokens": 9, "output_tokens": 200}
    whole = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn",
        "content": [{"type": "text", "text": TEXT}], "stop_sequence": None, "usage": usage,
    }  # fmt: skip
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {**whole, "content": [], "stop_reason": None}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}} for word in WORDS),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": usage},
        {"type": "message_stop"},
    ]
    return events, whole


def _anthropic() -> tuple[bytes, Any]:
    events, whole = _anthropic_events()
    return _sse(*events, names=True), whole


def _invoke() -> tuple[bytes, Any]:
    events, whole = _anthropic_events()
    return _packed(events), whole


def _packed(events: Sequence[Any]) -> bytes:
    return _frames(*(("chunk", {"bytes": base64.b64encode(json.dumps(e).encode()).decode()}) for e in events))


def _invoke_chat() -> tuple[bytes, Any]:
    stream, whole = _chat()
    lines = [line.removeprefix("data: ") for line in stream.decode().split("\n\n") if line]
    return _packed([json.loads(line) for line in lines if line != "[DONE]"]), whole


def _invoke_nova() -> tuple[bytes, Any]:
    events, whole = _converse_events()
    return _packed([{name: payload} for name, payload in events]), whole


def _gemini() -> tuple[bytes, Any]:
    def answer(text: str, **more: Any) -> dict[str, Any]:
        candidate = {"content": {"role": "model", "parts": [{"text": text}]}, "index": 0, **more}
        usage = {"promptTokenCount": 9, "candidatesTokenCount": 200, "totalTokenCount": 209}
        return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "m", "responseId": "r"}

    stream = b"".join(
        b"data: " + json.dumps(event).encode() + b"\r\n\r\n"
        for event in (*map(answer, WORDS), answer("", finishReason="STOP"))
    )
    return stream, answer(TEXT, finishReason="STOP")


def _converse_events() -> tuple[list[tuple[str, Any]], Any]:
    usage = {"inputTokens": 9, "outputTokens": 200, "totalTokens": 209}
    message = {"role": "assistant", "content": [{"text": TEXT}]}
    events: list[tuple[str, Any]] = [
        ("messageStart", {"role": "assistant"}),
        *(("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": word}, "p": "abc"}) for word in WORDS),
        ("contentBlockStop", {"contentBlockIndex": 0}),
        ("messageStop", {"stopReason": "end_turn"}),
        ("metadata", {"usage": usage, "metrics": {"latencyMs": 1}}),
    ]
    return events, {"output": {"message": message}, "stopReason": "end_turn", "usage": usage}


def _converse() -> tuple[bytes, Any]:
    events, whole = _converse_events()
    return _frames(*events), whole


def _cohere() -> tuple[bytes, Any]:
    usage = {"tokens": {"input_tokens": 9, "output_tokens": 200}}
    message = {"role": "assistant", "content": [{"type": "text", "text": TEXT}]}
    deltas = [
        {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": word}}}} for word in WORDS
    ]
    stream = _sse(
        {"type": "message-start", "id": "c1", "delta": {"message": {"role": "assistant", "content": []}}},
        {"type": "content-start", "index": 0, "delta": {"message": {"content": {"type": "text", "text": ""}}}},
        *deltas,
        {"type": "content-end", "index": 0},
        {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": usage}},
        names=True,
    )
    return stream, {"id": "c1", "message": message, "finish_reason": "COMPLETE", "usage": usage}


def _ollama() -> tuple[bytes, Any]:
    def line(text: str, **more: Any) -> dict[str, Any]:
        return {
            "model": "m",
            "created_at": "t",
            "message": {"role": "assistant", "content": text},
            "done": False,
            **more,
        }

    end = {"done": True, "done_reason": "stop", "prompt_eval_count": 9, "eval_count": 200}
    stream = b"".join(json.dumps(part).encode() + b"\n" for part in (*map(line, WORDS), line("", **end)))
    return stream, line(TEXT, **end)


#: A stream and a whole answer in the wire of each dialect.
WIRES: dict[str, Callable[[], tuple[bytes, Any]]] = {
    "openai_chat": _chat,
    "openai_responses": _responses,
    "anthropic_messages": _anthropic,
    "vertex_anthropic": _anthropic,
    "bedrock_invoke_anthropic": _invoke,
    "bedrock_invoke_chat": _invoke_chat,
    "bedrock_invoke_nova": _invoke_nova,
    "gemini": _gemini,
    "vertex_gemini": _gemini,
    "bedrock_converse": _converse,
    "cohere_chat": _cohere,
    "ollama_chat": _ollama,
}


@dataclass(slots=True)
class Cost:
    """Microseconds of CPU; the best turn counts."""

    event: float = float("inf")
    whole: float = float("inf")


def measured(names: Sequence[str], turns: int) -> dict[str, Cost]:
    """Cost by dialect."""
    wires = {name: WIRES[name]() for name in names}
    costs = {name: Cost() for name in names}
    for _ in range(turns):
        for name in names:
            stream, whole = wires[name]
            cost = costs[name]
            cost.event = min(cost.event, _time(partial(_stream, name, stream), 20) / len(WORDS))
            body = json.dumps(whole).encode()
            cost.whole = min(cost.whole, _time(partial(_whole, name, body), 200))
    return costs


def _time(run: Callable[[], None], times: int) -> float:
    began = time.process_time_ns()
    for _ in range(times):
        run()
    return (time.process_time_ns() - began) / 1000 / times


def _stream(name: str, stream: bytes) -> None:
    """Four events a read, as a provider sends them under some load."""
    dialect = providers.DIALECTS[name]()
    assembly = Assembly("provider", "m", emits=True, keep=False)
    framer, decoder = FRAMINGS[dialect.framing](), dialect.decoder(assembly)
    size = max(1, len(stream) * 4 // len(WORDS))
    for at in range(0, len(stream), size):
        for event in framer.feed(stream[at : at + size]):
            decoder.event(event)
        assembly.events()
    for event in framer.end():
        decoder.event(event)
    decoder.end()
    assembly.events()


def _whole(name: str, body: bytes) -> None:
    assembly = Assembly("provider", "m")
    providers.DIALECTS[name]().decode(body, assembly)
    assembly.completion()


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="decode", description=__doc__)
    parser.add_argument("--turns", type=int, default=15)
    options = parser.parse_args(arguments)
    missing = sorted(providers.DIALECTS.keys() - WIRES.keys())
    if missing:
        sys.stderr.write(f"no wire is written here for {', '.join(missing)}\n")
        return 2
    costs = measured([name for name in WIRES if name in providers.DIALECTS], options.turns)
    base = costs[BASE]
    print(f"{'dialect':20s} {'µs an event':>12s} {'ratio':>6s} {'µs an answer':>13s} {'ratio':>6s}")
    for name, cost in costs.items():
        ratios = cost.event / base.event, cost.whole / base.whole
        verdict = "holds" if max(ratios) <= TARGET else "misses"
        print(f"{name:20s} {cost.event:12.2f} {ratios[0]:6.2f} {cost.whole:13.1f} {ratios[1]:6.2f}  {verdict}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
