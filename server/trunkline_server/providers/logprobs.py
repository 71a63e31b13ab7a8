"""Log probabilities in the shape that OpenAI's APIs share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import msgspec

from trunkline.v1 import completion_pb2
from trunkline_server.providers.assembly import clean


class TopToken(msgspec.Struct, gc=False):
    token: str | None = None
    logprob: float | None = None
    bytes: list[int] | None = None


class Token(msgspec.Struct, gc=False):
    token: str | None = None
    logprob: float | None = None
    bytes: list[int] | None = None
    top_logprobs: list[TopToken] | None = None


def token_logprobs(tokens: Iterable[Token]) -> Iterator[completion_pb2.TokenLogprob]:
    """One entry per token, with its alternatives."""
    for token in tokens:
        made = completion_pb2.TokenLogprob(
            token=clean(token.token or ""), logprob=finite(token.logprob), token_bytes=_small(token.bytes)
        )
        for top in token.top_logprobs or ():
            made.top.add(token=clean(top.token or ""), logprob=finite(top.logprob), token_bytes=_small(top.bytes))
        yield made


def finite(number: float | None) -> float:
    """OpenAI's own word for minus infinity is -9999."""
    return number if number is not None and math.isfinite(number) else -9999.0


def _small(numbers: list[int] | None) -> bytes:
    return bytes(number & 255 for number in numbers) if numbers else b""
