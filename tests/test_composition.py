"""What settings are put together to, and what is told where they do not fit."""

from __future__ import annotations

import os
from typing import Any

import pytest
from tests.gateway import create, failing, gateway

from trunkline_server import app as composition
from trunkline_server import config


def settings(**more: Any) -> config.Settings:
    return config.load(None, **{"listen": "127.0.0.1:0", "local": {"enabled": False}, **more})


def test_a_credential_that_shares_its_name_with_a_provider_hides_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOUSE", "house-secret-1")
    monkeypatch.setenv("TENANT", "tenant-secret-2")
    made = settings(
        providers={"openai": {"api_key_env": "HOUSE"}},
        credentials={"openai": {"provider": "openai", "api_key_env": "TENANT"}},
    )

    assert set(composition.secrets_of(made, os.environ)) == {"house-secret-1", "tenant-secret-2"}


def test_all_that_does_not_fit_together_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", "a-key-of-somebody")
    credential = {"api_key_env": "KEY"}
    made = settings(
        providers={"fake": {}},
        credentials={"scripted": {"provider": "fake", **credential}},
        models={
            "hot": {"targets": ["fake/echo"], "defaults": {"temperature": 5, "n": 0}},
            "odd": {"targets": ["fake/echo"], "defaults": {"temprature": 1}},
        },
    )
    with pytest.raises(config.ConfigError) as told:
        composition.build(made, os.environ)

    text = str(told.value)
    assert "credentials.scripted: the provider 'fake' takes no credentials" in text
    assert "models.hot.defaults.temperature: 5.0 is out of range" in text
    assert "models.hot.defaults.n: 0 is out of range" in text
    assert 'models.odd.defaults: Message type "trunkline.v1.GenerationParams" has no field named "temprature"' in text


def test_a_credential_of_no_provider_is_a_mistake_without_a_list_of_providers_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KEY", "a-key-of-somebody")
    made = settings(credentials={"lost": {"provider": "nobody", "api_key_env": "KEY"}})
    with pytest.raises(config.ConfigError, match=r"credentials\.lost: no provider 'nobody' is configured"):
        composition.build(made, os.environ)


async def test_an_alias_of_the_embedded_model_where_it_does_not_run_is_no_model() -> None:
    async with gateway(models={"small": "local/any"}, local={"enabled": True}) as gw:
        failed = await failing(gw.completions.CreateCompletion(create("small")))

    assert failed.reason == "MODEL_NOT_FOUND"
    assert "'local', which this server does not run" in failed.message
