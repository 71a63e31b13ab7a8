"""No key is in any trace, log or metric, whichever provider it belongs to and however a call to it fails."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import prometheus_client
import pytest
from tests.gateway import Gateway, create, failing, settings, stream
from tests.rpc.error_rows import ERROR_ROWS
from tests.traces.recorded import everything, found, recorded
from tests.upstream import Exchange, chat, chat_events, upstream

from trunkline_server import app as composition
from trunkline_server import providers
from trunkline_server.config import ConfigError
from trunkline_server.errors import GatewayError
from trunkline_server.providers.fake import FakeUpstream

#: Providers that the run must have at least.
LEAST = 40


def planted(name: str) -> str:
    """A key of no known form: only that it is configured tells that it is one."""
    return f"Zq7{name}Xw9" + "K3v" * 4


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """Every kind of provider that needs nothing but a key and an address, each with a key of its own."""
    made: dict[str, dict[str, Any]] = {}
    for kind in sorted(providers.KINDS):
        name = re.sub("[^a-z]", "", kind)
        monkeypatch.setenv(f"PLANTED_{name}", planted(name))
        made[kind] = {"kind": kind, "base_url": "http://127.0.0.1:9/v1", "api_key_env": f"PLANTED_{name}"}
    try:
        composition.build(settings(providers={**made}), {})
    except ConfigError as error:
        for name in re.findall(r"providers\.([\w-]+):", str(error)):
            made.pop(name, None)
    assert len(made) >= LEAST
    return made


async def _answers(exchange: Exchange) -> None:
    """Says what it was told in the prompt: an answer, a stream, or an error; with the key that it was sent, always."""
    sent = json.dumps(dict(exchange.headers)) + exchange.path
    body = exchange.body.decode()
    status = re.search(r"fail with (\d+)", body)
    if status:
        text = f"no: {sent}"
        await exchange.answer({"error": {"message": text, "type": "x", "code": "y"}, "message": text}, int(status[1]))
    elif '"stream":true' in body.replace(" ", ""):
        await exchange.events(chat_events("You sent ", sent[:40], sent[40:]))
    else:
        await exchange.answer(chat(f"You sent {sent}"), headers={"x-request-id": "req-1"})


def told(gw: Gateway) -> str:
    """The logs and the metrics."""
    metrics = prometheus_client.generate_latest(gw.app.telemetry.metrics.registry).decode()
    return gw.log + json.dumps(gw.delivery_lines) + metrics


async def test_no_key_of_forty_providers_is_in_a_trace_a_log_or_a_metric(
    tmp_path: Path, rows: dict[str, dict[str, Any]]
):
    async with upstream(_answers) as up:
        configured = {name: {**row, "base_url": f"{up.url}/v1"} for name, row in rows.items()}
        async with recorded(tmp_path, providers=configured, bugs=True) as gw:
            calls = 0
            for name in rows:
                model = f"{name}/some-model"
                for text in ("hello", *(f"fail with {status}" for status in (400, 401, 403, 404, 429, 500))):
                    with suppress(grpc.aio.AioRpcError):  # in whichever way: what is told of it is looked at below
                        await gw.complete(create(model, text), timeout=10)
                    calls += 1
                await gw.stream(stream(model, "hello"), timeout=10).rest()
                calls += 1
            traces = await found(gw, calls)
            held = told(gw)
    # While a server runs, its journal holds what was said for a moment.
    held += everything(tmp_path).decode("utf-8", "replace")
    assert len(up.exchanges) > 4 * LEAST
    keys = {name: planted(re.sub("[^a-z]", "", name)) for name in rows}
    sent = sum(key in json.dumps(dict(e.headers)) + e.path for e in up.exchanges for key in keys.values())
    assert sent > 4 * LEAST, "the keys were never there to be told"
    for name, key in keys.items():
        assert key not in held, name
    for trace in traces:
        text = trace.SerializeToString().decode("utf-8", "replace")
        for name, key in keys.items():
            assert key not in text, (name, trace)
    masked = sum(b"***" in attempt.response.body for trace in traces for attempt in trace.attempts)
    assert masked > 4 * LEAST


async def test_no_key_in_any_error_is_in_a_trace_or_a_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    key = planted("house")
    monkeypatch.setenv("HOUSE", key)
    secrets = (key, "sk-proj-abcdefghijklmnop0123456789")
    waiting = list(ERROR_ROWS)

    async def fails(self: FakeUpstream, request: Any, *rest: Any) -> Any:
        error: GatewayError = waiting.pop(0).error()
        error.args = (f"{error}: Authorization: Bearer {secrets[0]} and {secrets[1]}",)
        if hasattr(error, "body"):
            error.body = json.dumps({"error": {"message": " ".join(secrets)}}).encode()
        raise error

    monkeypatch.setattr(FakeUpstream, "send", fails)
    async with recorded(tmp_path, callers=[{"name": "me", "api_key_env": "HOUSE", "operator": True}], bugs=True) as gw:
        mine = [("authorization", f"Bearer {key}")]
        count = len(waiting)
        while waiting:
            await failing(gw.complete(create("fake/echo"), metadata=mine))
        traces = await found(gw, count, metadata=mine)
        text = told(gw)
    text += everything(tmp_path).decode("utf-8", "replace")
    for secret in secrets:
        assert secret not in text
        for trace in traces:
            assert secret.encode() not in trace.SerializeToString()
    assert sum("***" in trace.status.message or "***" in trace.attempts[0].message for trace in traces) > count / 2
