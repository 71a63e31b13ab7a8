"""Takes a configuration file as it is now, while calls go on: those in flight keep what they began with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from trunkline_server.access import Callers
from trunkline_server.config import ConfigError, Settings
from trunkline_server.embedded import Endpoint
from trunkline_server.engine import Engine
from trunkline_server.errors import InvalidRequest, Violation
from trunkline_server.providers.provider import Provider
from trunkline_server.redact import Redactor
from trunkline_server.registry import Registry
from trunkline_server.routing.health import Healths
from trunkline_server.targets import provider_settings, targets_of

#: Settings that take effect at once. All others want the workers to be replaced, or the server to start again.
LIVE = frozenset({"providers", "models", "routing", "credentials", "callers", "operators"})

#: Reads settings again. Raises ConfigError.
Load = Callable[[], Settings]


def changes(old: Settings, new: Settings) -> list[str]:
    """Settings that differ, by field; of mappings each entry."""
    found: list[str] = []
    for name in type(old).model_fields:
        before, after = getattr(old, name), getattr(new, name)
        if before == after:
            continue
        if isinstance(before, dict) and isinstance(after, dict):
            found += [f"{name}.{key}" for key in sorted({*before, *after}) if before.get(key) != after.get(key)]
        else:
            found.append(name)
    return found


def needs_restart(changed: str) -> bool:
    return changed.partition(".")[0] not in LIVE


async def check(settings: Settings, environ: Mapping[str, str], local: Endpoint | None) -> None:
    """Raises ConfigError for what cannot be built: it is built, and thrown away."""
    await _close(targets_of(settings, environ, local, Healths()).providers.values())


@dataclass(slots=True)
class Reloader:
    """Of one serving process."""

    settings: Settings
    environ: Mapping[str, str]
    local: Endpoint | None
    load: Load
    engine: Engine
    registry: Registry
    callers: Callers
    redactor: Redactor
    healths: Healths
    #: What providers are, by name, as told to those who show it.
    kinds: dict[str, str]
    callers_of: Callable[[Settings], Callers]
    secrets_of: Callable[[Settings], list[str]]
    told: Callable[..., None]
    #: Tells the processes beside the server what is in force from now on.
    beside: Callable[[Settings], None]
    #: Has every other process of the server read the file, too, and this one with them; None: this is the only one.
    everywhere: Callable[[], None] | None = None

    async def ask(self, validate_only: bool) -> tuple[list[str], list[str]]:
        """For ReloadConfig. Raises InvalidRequest with every mistake of the file."""
        try:
            new = await asyncio.to_thread(self.load)
            changed = self._changes(new)
            if validate_only:
                await check(new, self.environ, self.local)
            elif self.everywhere is not None:
                self.everywhere()
            else:
                self._apply(new, changed)
        except ConfigError as error:
            lines = [line.strip() for line in str(error).splitlines()]
            raise InvalidRequest(
                "the configuration file cannot be used", violations=[Violation("", line) for line in lines]
            ) from None
        return changed, [name for name in changed if needs_restart(name)]

    async def reread(self) -> None:
        """For SIGHUP. What is wrong goes to the log, and nothing changes."""
        try:
            new = await asyncio.to_thread(self.load)
            changed = self._changes(new)
            self._apply(new, changed)
        except ConfigError as error:
            self.told("configuration not reloaded", mistakes=str(error))

    def _changes(self, new: Settings) -> list[str]:
        # The port was bound once and for all; the command line may have said which.
        return [name for name in changes(self.settings, new) if name != "listen" or not new.listen.endswith(":0")]

    def _apply(self, new: Settings, changed: list[str]) -> None:
        """All or nothing. Raises ConfigError."""
        merged = self.settings.model_copy(update={name: getattr(new, name) for name in LIVE})
        old = provider_settings(self.settings, self.environ)
        asked = provider_settings(merged, self.environ)
        same = {name for name in asked if asked[name] == old.get(name) and not self._recredentialed(name, merged)}
        known = self.engine.providers
        kept = {name: provider for name, provider in known.items() if name in same or name not in old}
        gates = {name: gate for name, gate in self.engine.admission.providers.items() if name in same}
        targets = targets_of(merged, self.environ, self.local, self.healths, kept, gates)
        # A key is known where records are masked before a call can have used it.
        self.beside(merged)
        self.redactor.learn(self.secrets_of(merged))
        self.callers.become(self.callers_of(merged))
        self.kinds.clear()
        self.kinds.update((name, provider.kind) for name, provider in targets.providers.items())
        self.engine.admission.providers.clear()
        self.engine.admission.providers.update(targets.admission.providers)
        self.registry.rebase(targets.table)
        self.settings = merged
        self.told(
            "configuration reloaded",
            changed=[name for name in changed if not needs_restart(name)],
            need_restart=[name for name in changed if needs_restart(name)],
        )

    def _recredentialed(self, name: str, new: Settings) -> bool:
        """Has the provider other credentials now?"""

        def of(settings: Settings) -> dict[str, object]:
            return {key: one for key, one in settings.credentials.items() if one.provider == name}

        return of(self.settings) != of(new)


async def _close(providers: Iterable[Provider]) -> None:
    for provider in list(providers):
        await provider.aclose()
