"""A provider as a row of data: where it is, how it is asked, what its models can do."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from trunkline_server.providers.auth import Authorizer
from trunkline_server.providers.base import Capabilities

_HEADERS = {
    "bearer": ("authorization", "Bearer "),
    "x-api-key": ("x-api-key", ""),
    "api-key": ("api-key", ""),
    "x-goog-api-key": ("x-goog-api-key", ""),
}


@dataclass(frozen=True, slots=True)
class ModelRule:
    """What is different about some models of a provider."""

    #: Regular expression for the beginning of the model's name.
    pattern: str
    #: Fields of Capabilities that differ.
    capabilities: Mapping[str, Any] = field(default_factory=dict)
    #: Parameters that these models do not take.
    without: frozenset[str] = frozenset()
    #: Fields of the quirks of the row's dialect that differ.
    quirks: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Setting:
    """What a kind of provider is told beside its key, such as a region."""

    #: What to write, as in "set PROVIDER.settings.region: ...".
    about: str
    #: Environment variables that usually hold it; the first that is set counts.
    env: tuple[str, ...] = ()
    default: str = ""


@dataclass(frozen=True, slots=True)
class Tongue:
    """Models of a provider that are spoken to in another dialect than its others."""

    #: Regular expression for the beginning of the model's name.
    pattern: str
    #: Key of `providers.DIALECTS`.
    dialect: str
    #: Kind of provider whose signatures these models make and take. Empty: the provider's own.
    origin: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """A provider that speaks a known dialect."""

    #: Usual address. Empty: it has none, and the configuration must say.
    base_url: str
    #: Environment variable that usually holds the key. Empty: no key is usual.
    key_env: str
    capabilities: Capabilities = field(default_factory=Capabilities)
    auth: Literal["bearer", "x-api-key", "api-key", "x-goog-api-key"] = "bearer"
    #: Key of `providers.DIALECTS`.
    dialect: str = "openai_chat"
    #: Models that are spoken to in another dialect. The first that matches counts.
    tongues: tuple[Tongue, ...] = ()
    #: What it is told beside its key, by name.
    settings: Mapping[str, Setting] = field(default_factory=dict)
    #: Another kind with the same key. Without a configuration only that one is there.
    beside: str = ""
    #: Sent with every request.
    headers: Mapping[str, str] = field(default_factory=dict)
    #: Added to the query of every address.
    query: Mapping[str, str] = field(default_factory=dict)
    #: The first that matches a model counts.
    models: tuple[ModelRule, ...] = ()

    def authorization(self, key: str) -> dict[str, str]:
        """The headers that carry the key; none without one."""
        name, prefix = _HEADERS[self.auth]
        return {name: prefix + key} if key else {}

    def configured(self, settings: Mapping[str, str]) -> Row:
        """The row as the settings make it. Raises ValueError for settings that are wrong."""
        return self

    def address(self, settings: Mapping[str, str]) -> str:
        """The usual address with these settings. Raises ValueError for settings that are missing or wrong."""
        missing = [name for name in self.settings if f"{{{name}}}" in self.base_url and not settings.get(name)]
        if missing:
            needed = (
                f"set {' or '.join([f'settings.{name}', *self.settings[name].env])}: {self.settings[name].about}"
                for name in missing
            )
            raise ValueError("; ".join(needed))
        return self.base_url.format_map({name: value.rstrip("/") for name, value in settings.items()})

    def listing_address(self, settings: Mapping[str, str]) -> str:
        """Where models are listed; "" where everything else is. Raises ValueError as `address` does."""
        return ""

    def authorizer(self, key: str, settings: Mapping[str, str], base_url: str) -> Authorizer | None:
        """What authenticates each request by itself; None: the headers of `authorization` do.

        Credentials of the machine go to the cloud's own hosts only. Raises ValueError for settings that cannot work.
        """
        return None

    def tongue_of(self, model: str) -> Tongue:
        """How the model is spoken to."""
        return _tongue_of(self, model)

    def capabilities_of(self, model: str) -> Capabilities:
        """What the model can be asked for."""
        return _capabilities_of(self, model) if self.models else self.capabilities


@functools.lru_cache(maxsize=4096)
def _tongue_of(row: Row, model: str) -> Tongue:
    return next((tongue for tongue in row.tongues if re.match(tongue.pattern, model)), Tongue("", row.dialect))


@functools.lru_cache(maxsize=4096)
def _capabilities_of(row: Row, model: str) -> Capabilities:
    rule = next((rule for rule in row.models if re.match(rule.pattern, model)), None)
    if rule is None:
        return row.capabilities
    changes: dict[str, Any] = dict(rule.capabilities)
    if rule.without and row.capabilities.params is not None:
        changes["params"] = row.capabilities.params - rule.without
    if rule.quirks:
        # Quirks are named after their dialect.
        quirks: Any = row.capabilities.quirks[row.dialect]
        changes["quirks"] = {**row.capabilities.quirks, row.dialect: dataclasses.replace(quirks, **rule.quirks)}
    return dataclasses.replace(row.capabilities, **changes)
