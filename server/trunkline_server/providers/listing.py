"""The list of models, as OpenAI and most others shape it, and what any list says that a model can."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trunkline_server.providers.base import ListedModel, UpstreamRequest
from trunkline_server.providers.jsontext import loads, unreadable

#: Names of the same fact at different providers, the most usual first.
_NAMES = ("display_name", "name")
_WINDOWS = ("context_length", "context_window", "max_context_length", "max_model_len")
_LONGEST = ("max_completion_tokens", "max_output_tokens", "max_output_length")
_ENDS = ("expiration_date", "deprecation")

#: Names of Modality by the words of providers, in lower case.
_CONTENT = {
    "text": "TEXT", "transcription": "TEXT", "image": "IMAGE", "audio": "AUDIO", "speech": "AUDIO", "video": "VIDEO",
    "file": "DOCUMENT", "document": "DOCUMENT", "pdf": "DOCUMENT", "embedding": "EMBEDDING", "embeddings": "EMBEDDING",
}  # fmt: skip
_READS = ("input_modalities", "inputModalities")
_MAKES = ("output_modalities", "outputModalities")

_TOOLS = ("tools", "parallel_tools")
#: Fields of Capabilities by the words of providers for what they decide.
_ABILITIES: Mapping[str, tuple[str, ...]] = {
    "tools": _TOOLS,
    "function_calling": _TOOLS,
    "supports_tools": _TOOLS,
    "json_schema": ("json_schema",),
    "structured_outputs": ("json_schema",),
    "supports_structured_output": ("json_schema",),
    "reasoning": ("reasoning",),
    "thinking": ("reasoning",),
    "logprobs": ("logprobs",),
    "vision": ("images",),
    "image_input": ("images",),
    "supports_image_input": ("images",),
    "pdf_input": ("documents",),
    "audio": ("audio",),
    "responseStreamingSupported": ("streaming",),
}
#: Members that list what a model can, and the words that they would hold if it could.
_WHOLE_LISTS = {
    "supported_parameters": ("tools", "structured_outputs", "reasoning", "logprobs"),
    "features": ("tools", "json_schema", "reasoning", "vision"),
}


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
        **abilities(row),
    )


def abilities(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a list says of a model's abilities: the last fields of ListedModel."""
    architecture = row.get("architecture")
    places = [row, architecture] if isinstance(architecture, dict) else [row]
    ends = (_date(row.get(name)) for name in _ENDS)
    return {
        "inputs": _content(places, _READS),
        "outputs": _content(places, _MAKES),
        "can": dict(_told(row)),
        "ends": next((moment for moment in ends if moment is not None), None),
    }


def _told(row: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    """Fields of Capabilities, and whether the model can. The last word counts."""
    inner = row.get("capabilities")
    for word, said in [*row.items(), *(inner.items() if isinstance(inner, dict) else ())]:
        told = said.get("supported") if isinstance(said, dict) else said
        if isinstance(told, bool):
            yield from ((field, told) for field in _ABILITIES.get(word, ()))
    for name, words in _WHOLE_LISTS.items():
        listed = row.get(name)
        if isinstance(listed, list):
            yield from ((field, word in listed) for word in words for field in _ABILITIES[word])
    # A router's providers: what one of them can is what can be had.
    providers = row.get("providers")
    rows = [each for each in providers if isinstance(each, dict)] if isinstance(providers, list) else []
    for word in ("supports_tools", "supports_structured_output"):
        told_by = [each[word] for each in rows if isinstance(each.get(word), bool)]
        yield from ((field, any(told_by)) for field in _ABILITIES[word] if told_by)


def _content(places: Sequence[Mapping[str, Any]], names: Sequence[str]) -> frozenset[str]:
    lists = (place.get(name) for place in places for name in names)
    listed = next((found for found in lists if isinstance(found, list)), [])
    words = (word.lower() for word in listed if isinstance(word, str))
    return frozenset(_CONTENT[word] for word in words if word in _CONTENT)


def _date(value: Any) -> float | None:
    """Unix seconds of an RFC 3339 date or moment, in UTC where it does not say."""
    if not isinstance(value, str):
        return None
    try:
        moment = dt.datetime.fromisoformat(value)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp()


def _tokens(row: dict[str, Any], names: Sequence[str]) -> int | None:
    found = next((number for name in names if (number := _positive(row.get(name))) is not None), None)
    return None if found is None or found >= 2**31 else int(found)


def _positive(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else None
