"""What is told of models: by their providers' lists, by their prices, by the gateway's own data."""

from __future__ import annotations

from typing import Any

import pytest
from tests.gateway import Gateway, gateway
from tests.upstream import Exchange, Script, upstream

from trunkline.v1 import model_service_pb2 as pb


def lists(*rows: dict[str, Any], member: str = "data") -> Script:
    async def script(exchange: Exchange) -> None:
        await exchange.answer({member: rows})

    return script


async def listed(gw: Gateway, provider: str = "up") -> dict[str, pb.Model]:
    answer = await gw.models.ListModels(pb.ListModelsRequest(provider=provider))
    return {model.provider_model: model for model in answer.models}


def capabilities(model: pb.Model) -> set[str]:
    return {pb.Capability.Name(value).removeprefix("CAPABILITY_") for value in model.capabilities}


def modalities(values: Any) -> list[str]:
    return [pb.Modality.Name(value).removeprefix("MODALITY_") for value in values]


async def test_a_router_says_what_each_of_its_models_can() -> None:
    rows = [
        {
            "id": "a/sees",
            "architecture": {"input_modalities": ["image", "text", "file"], "output_modalities": ["text"]},
            "supported_parameters": ["tools", "reasoning", "structured_outputs"],
            "expiration_date": "2030-01-02",
        },
        {
            "id": "b/draws",
            "architecture": {"input_modalities": ["text"], "output_modalities": ["image", "text"]},
            "supported_parameters": ["max_tokens"],
        },
    ]
    async with upstream(lists(*rows)) as up, gateway(up, {"kind": "openrouter"}) as gw:
        models = await listed(gw)

    sees, draws = models["a/sees"], models["b/draws"]
    assert modalities(sees.input_modalities) == ["TEXT", "IMAGE", "DOCUMENT"]
    assert modalities(sees.output_modalities) == ["TEXT"]
    assert modalities(draws.output_modalities) == ["TEXT", "IMAGE"]
    assert {"TOOLS", "PARALLEL_TOOLS", "REASONING", "JSON_SCHEMA"} <= capabilities(sees)
    assert not {"TOOLS", "PARALLEL_TOOLS", "REASONING", "JSON_SCHEMA", "LOGPROBS"} & capabilities(draws)
    assert sees.deprecation_time.seconds == 1893542400
    assert not draws.HasField("deprecation_time")


@pytest.mark.parametrize(
    ("kind", "member", "row", "can", "cannot", "reads"),
    [
        (
            "mistral", "data",
            {"id": "m", "capabilities": {"function_calling": False, "vision": True}, "deprecation": None},
            set(), {"TOOLS", "PARALLEL_TOOLS"}, ["TEXT", "IMAGE", "AUDIO", "DOCUMENT"],
        ),
        (
            "huggingface", "data",
            {
                "id": "m", "architecture": {"input_modalities": ["text"], "output_modalities": ["text"]},
                "providers": [{"supports_tools": False}, {"supports_tools": True, "supports_structured_output": False}],
            },
            {"TOOLS"}, {"JSON_SCHEMA"}, ["TEXT"],
        ),
        (
            "anthropic", "data",
            {
                "id": "claude-opus-5",
                "capabilities": {"thinking": {"supported": True}, "structured_outputs": {"supported": False},
                                 "pdf_input": {"supported": False}},
            },
            {"REASONING", "TOOLS"}, {"JSON_SCHEMA"}, ["TEXT", "IMAGE"],
        ),
        (
            "cohere", "models", {"name": "command-x", "features": ["tools", "json_schema"]},
            {"TOOLS", "JSON_SCHEMA"}, {"REASONING"}, ["TEXT"],
        ),
        (
            "bedrock", "modelSummaries",
            {"modelId": "acme.talks-v1:0", "inputModalities": ["TEXT", "VIDEO"], "outputModalities": ["TEXT"],
             "responseStreamingSupported": False},
            {"TOOLS"}, {"STREAMING"}, ["TEXT", "VIDEO"],
        ),
        (
            "gemini", "models",
            {"name": "models/gemini-9-flash", "supportedGenerationMethods": ["generateContent"], "thinking": False},
            {"TOOLS"}, {"REASONING", "TOKEN_COUNT"}, ["TEXT", "IMAGE", "AUDIO", "DOCUMENT"],
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
async def test_what_a_provider_says_of_a_model_counts_before_what_its_kind_can_usually(
    kind: str, member: str, row: dict[str, Any], can: set[str], cannot: set[str], reads: list[str]
) -> None:
    settings = {"region": "eu-central-1"} if kind == "bedrock" else {}
    async with upstream(lists(row, member=member)) as up, gateway(up, {"kind": kind, "settings": settings}) as gw:
        (model,) = (await listed(gw)).values()

    assert can <= capabilities(model)
    assert not cannot & capabilities(model)
    assert modalities(model.input_modalities) == reads


@pytest.mark.parametrize(
    ("kind", "model", "makes", "embeds"),
    [
        ("openai", "gpt-4.1", ["TEXT"], False),
        ("openai", "gpt-audio", ["TEXT", "AUDIO"], False),
        ("openai", "text-embedding-3-small", ["EMBEDDING"], True),
        ("gemini", "gemini-2.5-flash-image", ["TEXT", "IMAGE"], False),
        ("voyage", "voyage-4", ["EMBEDDING"], True),
        ("vllm", "unheard-of", ["TEXT"], True),
    ],
)
async def test_what_a_model_makes_is_told_by_its_prices_and_its_name_where_nobody_says(
    kind: str, model: str, makes: list[str], embeds: bool
) -> None:
    async with upstream(lists()) as up, gateway(up, {"kind": kind, "models": [model]}) as gw:
        found = (await listed(gw))[model]

    assert modalities(found.output_modalities) == makes
    assert ("EMBEDDINGS" in capabilities(found)) == embeds
    # What makes vectors can be asked for nothing else; of what nobody knows, the provider has the last word.
    assert ("STREAMING" in capabilities(found)) == (makes != ["EMBEDDING"])


async def test_a_list_is_asked_for_once_in_a_while() -> None:
    async with upstream(lists({"id": "m"})) as up, gateway(up) as gw:
        first, second = await listed(gw), await listed(gw)

    assert first == second
    assert len(up.exchanges) == 1


@pytest.mark.parametrize("garbage", [7, "x", None, {"a": [1]}, [[]], True])
async def test_nonsense_in_a_list_is_no_knowledge(garbage: Any) -> None:
    names = ("architecture", "supported_parameters", "features", "capabilities", "providers", "input_modalities",
             "expiration_date", "created", "context_length")  # fmt: skip
    async with upstream(lists({"id": "m", **dict.fromkeys(names, garbage)})) as up, gateway(up) as gw:
        model = (await listed(gw))["m"]

    assert "TEXT" in modalities(model.output_modalities)
    assert not model.HasField("deprecation_time")
