"""Anthropic's own API."""

from __future__ import annotations

from dataclasses import dataclass

from trunkline_server.providers.base import Capabilities
from trunkline_server.providers.claude import capabilities
from trunkline_server.providers.row import Row


@dataclass(frozen=True, slots=True, eq=False)
class AnthropicRow(Row):
    """A row whose models are told apart by the dialect's own table."""

    def capabilities_of(self, model: str) -> Capabilities:
        return capabilities(model)


ANTHROPIC = AnthropicRow(
    base_url="https://api.anthropic.com/v1",
    key_env="ANTHROPIC_API_KEY",
    auth="x-api-key",
    dialect="anthropic_messages",
)
