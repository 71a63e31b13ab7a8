"""What is known of models from genai-prices: prices and context windows. Loaded at first use, or by `load`."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any

from trunkline.v1 import completion_pb2
from trunkline.v1 import model_service_pb2 as pb

Usage = completion_pb2.Usage

#: Our kind of provider to genai-prices' id, where they differ.
_IDS = {"gemini": "google", "vertex": "google", "bedrock": "aws", "xai": "x-ai", "huggingface": "huggingface_hub"}


def context_window(kind: str, model: str) -> int | None:
    """Tokens; None if unknown."""
    found = _model(kind, model)
    return None if found is None else found.context_window  # type: ignore[attr-defined]


#: Prices of what a model makes, and what that is.
_MAKES = {
    "output_mtok": "TEXT",
    "output_audio_mtok": "AUDIO",
    "output_image_mtok": "IMAGE",
    "output_video_mtok": "VIDEO",
}


def makes(kind: str, model: str) -> frozenset[str]:
    """What a model makes, as Modality names it, by what of it is paid for; empty if unknown."""
    found = _model(kind, model)
    if found is None:
        return frozenset()
    prices = found.get_prices(datetime.now(UTC))  # type: ignore[attr-defined]
    return frozenset(what for name, what in _MAKES.items() if getattr(prices, name, None))


def load() -> None:
    """Takes up to a second, for a thread beside the event loop. Costs are unknown until it is done."""
    global _loaded  # noqa: PLW0603  # what one process knows
    _rates("openai", "gpt-5", "", 0)
    _loaded = True


_loaded = False


def add_cost(kind: str, asked: str, usage: Usage, model: str, service_tier: str = "") -> None:
    """Sets `cost_nano_usd` where it is known what the model costs: by its reported name, else by the one asked for.

    A cost that the provider told stays. Costs a few microseconds.
    """
    if not _loaded or usage.HasField("cost_nano_usd"):
        return
    # Some prices depend on the time of day.
    minute = int(time.time() // 60)
    rates = _rates(kind, model, service_tier, minute) or (_rates(kind, asked, service_tier, minute) if asked else None)
    if rates is not None:
        cost = rates.cost(usage)
        if cost is not None:
            usage.cost_nano_usd = cost


def pricing(kind: str, model: str) -> pb.Pricing | None:
    """Today's base prices; None if unknown. Tiers are told by their lowest price."""
    found = _model(kind, model)
    if found is None:
        return None
    prices = found.get_prices(datetime.now(UTC))  # type: ignore[attr-defined]
    made = pb.Pricing()
    for name, field in (
        ("input_mtok", "input_nano_usd_per_token"),
        ("output_mtok", "output_nano_usd_per_token"),
        ("cache_read_mtok", "cache_read_nano_usd_per_token"),
        ("cache_write_mtok", "cache_write_nano_usd_per_token"),
    ):
        price = getattr(prices, name, None)
        base = getattr(price, "base", price)
        if isinstance(base, Decimal):
            # Dollars a million tokens are 1,000 nano-dollars a token.
            setattr(made, field, float(base * 1000))
    return made if made.ByteSize() else None


def known_models(kind: str) -> tuple[str, ...]:
    """Ids of the provider's models; none if it is unknown."""
    found = _provider(kind)
    return () if found is None else tuple(model.id for model in found.models)  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class _Band:
    """Nano-dollars a token, by what kind of token it is; the last is what a request costs beside its tokens."""

    text: float
    cache_read: float
    cache_write: float
    audio_in: float
    image_in: float
    output: float
    reasoning: float
    audio_out: float
    request: float

    def cost(self, usage: Usage) -> float:
        read, write = usage.cache_read_input_tokens, usage.cache_write_input_tokens
        audio_in, image_in = usage.input_audio_tokens, usage.input_image_tokens
        reasoning, audio_out = usage.reasoning_tokens, usage.output_audio_tokens
        text = max(0, usage.input_tokens - read - write - audio_in - image_in)
        written = max(0, usage.output_tokens - reasoning - audio_out)
        return (
            self.text * text
            + self.cache_read * read
            + self.cache_write * write
            + self.audio_in * audio_in
            + self.image_in * image_in
            + self.output * written
            + self.reasoning * reasoning
            + self.audio_out * audio_out
            + self.request
        )


@dataclass(frozen=True, slots=True)
class _Rates:
    """What a model costs. Beyond so many tokens of input, all tokens have another price."""

    above: Sequence[int]
    #: One more than `above`.
    bands: Sequence[_Band]
    prices_input: bool
    prices_output: bool

    def cost(self, usage: Usage) -> int | None:
        """In nano-dollars; None if what was used has no price."""
        if (usage.input_tokens and not self.prices_input) or (usage.output_tokens and not self.prices_output):
            return None
        band = self.bands[bisect_left(self.above, usage.input_tokens)] if self.above else self.bands[0]
        return round(band.cost(usage))


@lru_cache(maxsize=4096)
def _rates(kind: str, name: str, service_tier: str, minute: int) -> _Rates | None:
    try:
        return _found_rates(kind, name, service_tier, minute)
    except Exception:  # noqa: BLE001  # a list of prices that cannot be read fails no call
        return None


def _found_rates(kind: str, name: str, service_tier: str, minute: int) -> _Rates | None:
    model: Any = _model(kind, name)
    if model is None:
        return None
    now = datetime.fromtimestamp(minute * 60, UTC) if minute else datetime.now(UTC)
    prices = model.get_prices(now, {"service_tier": service_tier} if service_tier else None)
    by_key = {key: price for key, price in vars(prices).items() if price is not None and not key.startswith("_")}
    tiers = [tier for price in by_key.values() for tier in getattr(price, "tiers", ())]
    above = sorted({int(tier.start) for tier in tiers})
    flat = [{key: _at(price, tokens) for key, price in by_key.items()} for tokens in (0, *(a + 1 for a in above))]
    request = "requests_kcount" in by_key
    return _Rates(
        above, [_band(prices) for prices in flat], "input_mtok" in by_key or request, "output_mtok" in by_key or request
    )


def _at(price: Any, tokens: int) -> Decimal:
    """The price where the input has so many tokens."""
    found: Decimal = getattr(price, "base", price)
    for tier in getattr(price, "tiers", ()):
        if tokens > tier.start:
            found = tier.price
    return found


def _band(prices: Mapping[str, Decimal]) -> _Band:
    """By what genai-prices asks for a million of each: it knows which price stands in for one that is not there."""
    from genai_prices import Usage as Counts
    from genai_prices.types import ModelPrice

    made = ModelPrice(**prices)

    def costs(**counts: int) -> float:
        return float(made.calc_price(Counts(**counts))["total_price"])

    request = costs(input_tokens=0)

    def rate(side: str, of: str = "") -> float:
        counts = {side: 1_000_000, **({of: 1_000_000} if of else {})}
        return (costs(**counts) - request) * 1000

    return _Band(
        text=rate("input_tokens"),
        cache_read=rate("input_tokens", "cache_read_tokens"),
        cache_write=rate("input_tokens", "cache_write_tokens"),
        audio_in=rate("input_tokens", "input_audio_tokens"),
        image_in=rate("input_tokens", "input_image_tokens"),
        output=rate("output_tokens"),
        reasoning=rate("output_tokens", "output_reasoning_tokens"),
        audio_out=rate("output_tokens", "output_audio_tokens"),
        request=request * 1e9,
    )


@lru_cache(maxsize=4096)
def _model(kind: str, model: str) -> object | None:
    provider = _provider(kind)
    return None if provider is None else provider.find_model(model)  # type: ignore[attr-defined]


def _provider(kind: str) -> object | None:
    from genai_prices import data_snapshot  # 40 ms and 20 MB that only a listing needs

    # The same provider, spoken to in another dialect.
    kind = kind.removesuffix("-responses")
    return data_snapshot.find_provider_by_id(data_snapshot.get_snapshot().providers, _IDS.get(kind, kind))
