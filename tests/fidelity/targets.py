"""Which of the gateway's providers plays which family, as data."""

from __future__ import annotations

#: Wires that the gateway speaks, by the second part of a family's name, and the kind that overrides the first part
#: or is made of it.
_WIRES: dict[str, str | None] = {
    "chat": None,
    "converse": None,
    "converse-stream": None,
    "count-tokens": None,
    "invoke": "{}-invoke",
    "invoke-with-response-stream": "{}-invoke",
    "embed": None,
    "native-chat": "{}-native",
    "native-embed": "{}-native",
    "native-embeddings": "{}-native",
    "openai-chat": "{}-openai",
    "embeddings": None,
    "models": None,
    "messages": None,
    "count_tokens": None,
    "anthropic-messages": "anthropic",
    "anthropic-rawPredict": None,
    "anthropic-streamRawPredict": None,
    "generateContent": None,
    "streamGenerateContent": None,
    "countTokens": None,
    "embedContent": None,
    "batchEmbedContents": None,
    "predict": None,
    "openai-responses": "{}-responses",
    "responses": "{}-responses",
    "responses-input_tokens": "{}-responses",
}

#: Kinds of providers by what the table above makes of a family's name, where they have another name.
_SAME = {"chatgpt-responses": "chatgpt"}

#: Pairs that look served and are not: another wire under a common name.
_OTHER_WIRES = frozenset({"vertex.models"})


def kind_for(family: str, kinds: frozenset[str]) -> str | None:
    """The kind of provider that plays the family; None if the gateway does not speak its wire."""
    provider, _, wire = family.partition(".")
    if wire not in _WIRES or family in _OTHER_WIRES:
        return None
    given = _WIRES[wire]
    kind = given.format(provider) if given else provider
    kind = _SAME.get(kind, kind)
    return kind if kind in kinds else None
