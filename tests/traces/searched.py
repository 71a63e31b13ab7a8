"""All that a gateway tells to anybody, to be searched for secrets that were planted."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import prometheus_client
import pytest
from tests.gateway import Gateway, settings, until
from tests.telemetry.receiver import Seen, receiver
from tests.traces.recorded import Trace, everything, recorded, stored
from tests.upstream import Upstream

from trunkline_server import app as composition
from trunkline_server import providers
from trunkline_server.config import ConfigError
from trunkline_server.traces import status

#: Seconds until what ended is delivered.
DELIVERY = 60.0
#: Methods whose calls leave a record.
METHODS = frozenset({"CreateCompletion", "StreamCompletion", "CreateEmbeddings", "CountTokens"})


@dataclass
class Told:
    """Filled when the gateway has gone down."""

    traces: list[Trace] = field(default_factory=list)
    spans: list[Seen] = field(default_factory=list)
    #: The same, and all else, as text.
    places: dict[str, str] = field(default_factory=dict)

    def found(self, secrets: Mapping[str, str]) -> list[tuple[str, str]]:
        """Where which of the secrets is, by name."""
        return [
            (place, name) for place, text in self.places.items() for name, secret in secrets.items() if secret in text
        ]


@asynccontextmanager
async def searched(folder: Path, upstream: Upstream | None = None, **more: Any) -> AsyncIterator[tuple[Gateway, Told]]:
    """A gateway that tells all that it can: full records, here and as spans with what was said, and its own spans."""
    told = Told()
    with receiver() as to:
        backends = ["sqlite:", to.url.replace("http:", "otlp:") + "?content=1"]
        async with recorded(folder, upstream, backends=backends, otel={"endpoint": to.url}, bugs=True, **more) as gw:
            yield gw, told
            await gw.idle()
            count = sum(line["method"] in METHODS for line in gw.calls())
            await until(lambda: _delivered(gw, count), DELIVERY)
            told.places["delivery's log"] = json.dumps(gw.delivery_lines)
            told.places["metrics"] = prometheus_client.generate_latest(gw.app.telemetry.metrics.registry).decode()
    told.traces, told.spans = await stored("sqlite:", folder, full=True), to.spans
    assert len(told.traces) == count
    told.places["log"] = gw.log
    told.places["spans"] = to.text
    told.places["traces"] = "\n".join(trace.SerializeToString().decode("utf-8", "replace") for trace in told.traces)
    told.places["files"] = everything(folder).decode("utf-8", "replace")
    # What tells nothing cannot tell a secret.
    assert all(told.places.values())
    calls = [span for span in to.spans if span.scope == "trunkline.traces"]
    assert 0 < len(calls) < len(to.spans)


def _delivered(gw: Gateway, count: int) -> bool:
    assert gw.spool is not None
    found = status.read(gw.spool.slot.status)
    return found is not None and found.made >= count and all(one.up and not one.waiting for one in found.backends)


# -- what is planted --------------------------------------------------------------------------------------------------

#: A key of a form that is known, and nobody configured.
STRAY = "sk-proj-abcdefghijklmnop0123456789"


def secret(name: str) -> str:
    """Begins every secret of a name: what is searched for, so that a part of one is found, too."""
    return f"Zq7{re.sub('[^a-z]', '', name)}Xw9"


def planted(name: str) -> str:
    """A key of no known form: only that it is configured tells that it is one."""
    return secret(name) + "K3v" * 4


def keyed(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """Every kind of provider that needs nothing but a key and an address, each with a key of its own."""
    made: dict[str, dict[str, Any]] = {}
    for kind in sorted(providers.KINDS):
        variable = f"PLANTED_{re.sub('[^a-z]', '', kind)}"
        monkeypatch.setenv(variable, planted(kind))
        made[kind] = {"kind": kind, "base_url": "http://127.0.0.1:9/v1", "api_key_env": variable}
    try:
        composition.build(settings(providers={**made}), {})
    except ConfigError as error:
        for name in re.findall(r"providers\.([\w-]+):", str(error)):
            made.pop(name, None)
    return made
