"""What a row of data says about a provider: settings beside its key, and models that speak another dialect."""

from __future__ import annotations

import dataclasses

import pytest

from trunkline_server import config, providers
from trunkline_server.providers import ProviderOptions
from trunkline_server.providers.row import Row, Setting, Tongue


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Regional(Row):
    def address(self, settings):
        if not settings.get("region"):
            raise ValueError("set settings.region")
        return f"https://{settings['region']}.test/v1"


ROW = Regional(
    "",
    "",
    dialect="openai_chat",
    tongues=(Tongue("claude-", "anthropic_messages", "anthropic"),),
    settings={"region": Setting("a region", ("CLOUD_REGION", "REGION")), "tier": Setting("a tier", default="gold")},
)


@pytest.fixture(autouse=True)
def _kinds(monkeypatch):
    monkeypatch.setattr(providers, "KINDS", {**providers.KINDS, "regional": ROW})


def test_settings_come_from_the_environment_in_their_order_and_else_have_their_default():
    assert providers.settings_from("regional", {"REGION": "b"}) == {"region": "b", "tier": "gold"}
    assert providers.settings_from("regional", {"REGION": "b", "CLOUD_REGION": "a"})["region"] == "a"
    assert providers.settings_from("regional", {"REGION": ""}) == {"tier": "gold"}
    assert providers.settings_from("fake", {}) == {}


def test_a_model_is_spoken_to_in_its_own_dialect_and_its_signatures_are_its_makers():
    provider = providers.build(ProviderOptions("cloud", "regional", settings={"region": "eu"}))

    assert provider.dialect_for("claude-9").name == "anthropic_messages"
    assert provider.dialect_for("gpt-9").name == "openai_chat"
    assert provider.dialect.name == "openai_chat"
    assert [provider.target(model).origin for model in ("claude-9", "gpt-9")] == ["anthropic", "regional"]


def test_a_setting_that_is_missing_or_that_no_such_provider_has_is_named():
    with pytest.raises(ValueError, match=r"set settings\.region"):
        providers.build(ProviderOptions("cloud", "regional"))
    with pytest.raises(ValueError, match=r"no such settings: regoin; .* takes region, tier"):
        providers.build(ProviderOptions("cloud", "regional", settings={"regoin": "eu"}))
    with pytest.raises(ValueError, match="takes none"):
        providers.build(ProviderOptions("openai", "openai", settings={"region": "eu"}))


def test_what_yaml_reads_as_a_date_or_a_number_is_the_text_that_was_written(tmp_path):
    file = tmp_path / "trunkline.yaml"
    file.write_text("providers: {openai: {settings: {version: 2024-10-21, project: 123, name: abc}}}")

    read = config.load(file)

    assert read.providers is not None
    assert read.providers["openai"].settings == {"version": "2024-10-21", "project": "123", "name": "abc"}


def test_a_setting_that_is_no_text_is_refused(tmp_path):
    file = tmp_path / "trunkline.yaml"
    file.write_text("providers: {openai: {settings: {deep: {a: b}}}}")

    with pytest.raises(config.ConfigError, match=r"providers\.openai\.settings\.deep"):
        config.load(file)
