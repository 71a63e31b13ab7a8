"""Providers in two wires that do as they are told, and a route that leads to them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tests.gateway import Gateway, Reader, create, failing, gateway, stream
from tests.upstream import Exchange, Script, Upstream, chat, chat_events, sse, upstream

#: A name that leads to all places, in their order.
FAST = "fast"


@dataclass(frozen=True)
class Wire:
    """What a provider of one kind says."""

    kind: str
    whole: Callable[[str], Mapping[str, Any]]
    #: All events of a stream; each text is one delta.
    events: Callable[..., list[bytes]]
    #: How many of them come before the first text, and how many after the last.
    before: int
    after: int


def _claude(text: str) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 7, "output_tokens": 3},
    }


def _claude_events(*texts: str) -> list[bytes]:
    begun = {**_claude(""), "content": [], "stop_reason": None, "usage": {"input_tokens": 7, "output_tokens": 1}}
    return [
        _named({"type": "message_start", "message": begun}),
        _named({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        *(
            _named({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}})
            for text in texts
        ),
        _named({"type": "content_block_stop", "index": 0}),
        _named({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}}),
        _named({"type": "message_stop"}),
    ]


def _named(payload: Mapping[str, Any]) -> bytes:
    return sse(payload, str(payload["type"]))


OPENAI = Wire("vllm", chat, chat_events, 1, 3)
ANTHROPIC = Wire("anthropic", _claude, _claude_events, 2, 3)
WIRES = {"openai": OPENAI, "anthropic": ANTHROPIC}


def says(*texts: str, wire: Wire = OPENAI) -> Script:
    """Answers, streamed where it was asked so."""

    async def script(exchange: Exchange) -> None:
        if exchange.json.get("stream"):
            await exchange.events(wire.events(*texts))
        else:
            await exchange.answer(wire.whole("".join(texts)))

    return script


def fails(status: int, error: Mapping[str, Any] | None = None, **headers: str) -> Script:
    """Answers with an error, whichever wire it is."""
    body = {"type": "error", "error": {"type": "some_error", "message": "it failed", **(error or {})}}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda exchange: exchange.answer(body, status, named)


def cut_after(*texts: str, wire: Wire = OPENAI) -> Script:
    """Streams the texts and breaks the connection."""

    async def script(exchange: Exchange) -> None:
        await exchange.head()
        for event in wire.events(*texts)[: -wire.after]:
            await exchange.chunk(event)
        exchange.cut()

    return script


def in_turn(*scripts: Script) -> Script:
    """One script for each request; the last one for all that follow."""
    left = list(scripts)

    async def script(exchange: Exchange) -> None:
        await (left.pop(0) if len(left) > 1 else left[0])(exchange)

    return script


def resets(exchange: Exchange) -> Awaitable[None]:
    """Ends the connection without an answer."""

    async def done() -> None:
        exchange.reset()

    return done()


class Places:
    """A gateway, and the providers p0, p1 ... behind it."""

    def __init__(self, gw: Gateway, ups: Sequence[Upstream]) -> None:
        self.gw = gw
        self.ups = ups

    @property
    def asked(self) -> list[int]:
        """Requests that each place was sent."""
        return [len(up.exchanges) for up in self.ups]

    async def ask(self, kind: str, model: str = FAST, **how: Any) -> Answer:
        """One call, unary or streamed."""
        call = {name: how.pop(name) for name in ("timeout",) if name in how}
        if kind == "unary":
            completion = await self.gw.complete(create(model, **how), **call)
            text = "".join(part.text.text for part in completion.choices[0].message.parts)
            return Answer(text, completion.provider, completion.attempts)
        reader = await self.gw.stream(stream(model, **how), **call).rest()
        assert reader.failed is None, reader.failed
        return Answer(reader.text, reader.completion.provider, reader.completion.attempts, reader)

    async def refused(self, kind: str, model: str = FAST, **how: Any) -> Any:
        """How a call ends that must fail."""
        call = {name: how.pop(name) for name in ("timeout",) if name in how}
        if kind == "unary":
            return await failing(self.gw.completions.CreateCompletion(create(model, **how), **call))
        reader = await self.gw.stream(stream(model, **how), **call).rest()
        assert reader.failed is not None
        return reader.failed


@dataclass(frozen=True)
class Answer:
    """What a caller got."""

    text: str
    provider: str
    attempts: int
    reader: Reader | None = None


@asynccontextmanager
async def places(
    *scripts: Script,
    wires: Sequence[Wire] = (),
    route: Mapping[str, Any] | None = None,
    provider: Mapping[str, Any] | None = None,
    retry: Mapping[str, Any] | None = None,
    **more: Any,
) -> AsyncIterator[Places]:
    """`fast` leads to a provider for each script; `route` says more about it, `provider` about each of them."""
    async with AsyncExitStack() as stack:
        ups = [await stack.enter_async_context(upstream(script)) for script in scripts]
        kinds = [*wires, *[OPENAI] * (len(ups) - len(wires))]
        providers: dict[str, Any] = {
            f"p{at}": {"kind": wire.kind, "base_url": f"{up.url}/v1", **(provider or {})}
            for at, (up, wire) in enumerate(zip(ups, kinds, strict=True))
        }
        targets = [f"p{at}/m" for at in range(len(ups))]
        models = {FAST: {"targets": targets, **(route or {})}, **more.pop("models", {})}
        # Short waits: what is tested is that there is one.
        routing = {"retry": {"initial_backoff": "10ms", **(retry or {})}}
        known = {"fake": {}, **providers, **more.pop("more_providers", {})}
        gw = await stack.enter_async_context(gateway(providers=known, models=models, routing=routing, **more))
        yield Places(gw, ups)


def target(at: int, **more: Any) -> dict[str, Any]:
    return {"model": f"p{at}/m", **more}


def body_of(exchange: Exchange) -> Any:
    return json.loads(exchange.body)
