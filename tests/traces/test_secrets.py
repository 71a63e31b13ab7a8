"""No key is in any trace, log, span or metric, whichever provider it belongs to and however a call to it fails."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.gateway import create, failing, stream
from tests.rpc.error_rows import ERROR_ROWS
from tests.traces.searched import STRAY, keyed, planted, searched, secret
from tests.upstream import Exchange, chat, chat_events, upstream

from trunkline_server.errors import GatewayError
from trunkline_server.providers.fake import FakeUpstream

#: Providers that the run must have at least.
LEAST = 40


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    made = keyed(monkeypatch)
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


async def test_no_key_of_forty_providers_is_in_a_trace_a_log_a_span_or_a_metric(
    tmp_path: Path, rows: dict[str, dict[str, Any]]
):
    async with upstream(_answers) as up:
        configured = {name: {**row, "base_url": f"{up.url}/v1"} for name, row in rows.items()}
        async with searched(tmp_path, providers=configured) as (gw, told):
            for name in rows:
                model = f"{name}/some-model"
                for text in ("hello", *(f"fail with {status}" for status in (400, 401, 403, 404, 429, 500))):
                    with suppress(grpc.aio.AioRpcError):  # in whichever way: what is told of it is looked at below
                        await gw.complete(create(model, text), timeout=10)
                await gw.stream(stream(model, "hello"), timeout=10).rest()
    sent = sum(planted(name) in json.dumps(dict(e.headers)) + e.path for e in up.exchanges for name in rows)
    assert sent > 4 * LEAST, "the keys were never there to be told"
    assert told.found({name: secret(name) for name in rows}) == []
    masked = sum(b"***" in attempt.response.body for trace in told.traces for attempt in trace.attempts)
    assert masked > 4 * LEAST
    assert "***" in told.places["spans"]


async def test_no_key_in_any_error_is_in_a_trace_a_log_a_span_or_a_metric(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    key = planted("house")
    monkeypatch.setenv("HOUSE", key)
    waiting = list(ERROR_ROWS)
    count = len(waiting)

    async def fails(self: FakeUpstream, request: Any, *rest: Any) -> Any:
        error: GatewayError = waiting.pop(0).error()
        error.args = (f"{error}: Authorization: Bearer {key} and {STRAY}",)
        if hasattr(error, "body"):
            error.body = json.dumps({"error": {"message": f"{key} {STRAY}"}}).encode()
        raise error

    monkeypatch.setattr(FakeUpstream, "send", fails)
    callers = [{"name": "me", "api_key_env": "HOUSE", "operator": True}]
    async with searched(tmp_path, callers=callers) as (gw, told):
        while waiting:
            await failing(gw.complete(create("fake/echo"), metadata=[("authorization", f"Bearer {key}")]))
    assert told.found({"house": secret("house"), "stray": STRAY}) == []
    assert len(told.traces) == count
    assert sum("***" in t.status.message or "***" in t.attempts[0].message for t in told.traces) > count / 2
