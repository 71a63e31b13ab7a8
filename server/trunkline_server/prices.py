"""What is known of models from genai-prices: prices and context windows. Loaded at first use."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache

from trunkline.v1 import model_service_pb2 as pb

#: Our kind of provider to genai-prices' id, where they differ.
_IDS = {"gemini": "google", "vertex": "google", "bedrock": "aws", "xai": "x-ai", "huggingface": "huggingface_hub"}


def context_window(kind: str, model: str) -> int | None:
    """Tokens; None if unknown."""
    found = _model(kind, model)
    return None if found is None else found.context_window  # type: ignore[attr-defined]


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


@lru_cache(maxsize=4096)
def _model(kind: str, model: str) -> object | None:
    provider = _provider(kind)
    return None if provider is None else provider.find_model(model)  # type: ignore[attr-defined]


def _provider(kind: str) -> object | None:
    from genai_prices import data_snapshot  # 40 ms and 20 MB that only a listing needs

    # The same provider, spoken to in another dialect.
    kind = kind.removesuffix("-responses")
    return data_snapshot.find_provider_by_id(data_snapshot.get_snapshot().providers, _IDS.get(kind, kind))
