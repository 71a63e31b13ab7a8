"""The list of models, as OpenAI and most others shape it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trunkline_server.providers.base import ListedModel, UpstreamRequest
from trunkline_server.providers.jsontext import loads, unreadable

#: Names of the same fact at different providers, the most usual first.
_NAMES = ("display_name", "name")
_WINDOWS = ("context_length", "context_window", "max_context_length", "max_model_len")
_LONGEST = ("max_completion_tokens", "max_output_tokens", "max_output_length")


class Listing:
    """A dialect that lists models so. See `providers.base.ListingDialect`."""

    models_path = "/models"
    #: The member that holds a model's id.
    model_id = "id"

    def models_request(self) -> UpstreamRequest:
        return UpstreamRequest(self.models_path, b"", method="GET")

    def decode_models(self, body: bytes) -> list[ListedModel]:
        return decode_models(body, self.model_id)


def decode_models(body: bytes, key: str) -> list[ListedModel]:
    """Takes {data: [..]}, a bare list, and one model by itself."""
    value = loads(body)
    rows = value
    if isinstance(value, dict):
        rows = [value] if isinstance(value.get(key), str) else value.get("data", value.get("models"))
    if not isinstance(rows, list):
        raise unreadable(body)
    return [_listed(row, key) for row in rows if isinstance(row, dict) and isinstance(row.get(key), str) and row[key]]


def _listed(row: dict[str, Any], key: str) -> ListedModel:
    top = row.get("top_provider")
    return ListedModel(
        id=row[key],
        display_name=next((row[name] for name in _NAMES if name != key and isinstance(row.get(name), str)), ""),
        created=_positive(row.get("created")),
        context_window_tokens=_tokens(row, _WINDOWS),
        max_output_tokens=_tokens(row, _LONGEST) or (_tokens(top, _LONGEST) if isinstance(top, dict) else None),
    )


def _tokens(row: dict[str, Any], names: Sequence[str]) -> int | None:
    found = next((number for name in names if (number := _positive(row.get(name))) is not None), None)
    return None if found is None or found >= 2**31 else int(found)


def _positive(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else None
