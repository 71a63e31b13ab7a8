"""No key is in any trace, log, span or metric over what providers really answer: recordings, in which the upstream
echoes the key that it was sent, wherever an answer has room for words.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.fidelity import corpus, targets
from tests.fidelity.calls import Caller
from tests.fidelity.corpus import Recording
from tests.scale import FULL
from tests.traces.searched import STRAY, keyed, planted, searched, secret
from tests.upstream import Exchange, upstream

ROOT = Path(__file__).resolve().parents[2]
CORPUS = Path(os.environ.get("CORPUS") or ROOT.parent / "shared/corpus")

#: Kinds of providers that the run must have at least.
LEAST = 40
#: Recordings of a family that are replayed of each sort of answer; where FULL is set, all.
FEW = 2
SIDE_BY_SIDE = 24

#: Members of an answer in which words may stand: what was said, and what is said of errors.
_WORDS = frozenset({
    "content", "description", "detail", "details", "error", "error_message", "message", "Message", "msg", "reasoning",
    "reasoning_content", "refusal", "text", "thinking", "title",
})  # fmt: skip
_TYPES = {
    "sse": "text/event-stream", "eventstream": "application/vnd.amazon.eventstream", "ndjson": "application/x-ndjson",
}  # fmt: skip


@dataclass(frozen=True)
class Replayed:
    """A recording, as it is asked for and as it was answered."""

    recording: Recording
    kind: str
    row: dict[str, Any]

    def body(self, echo: str) -> bytes:
        """The answer, with the echo wherever it has room for words."""
        told: str = self.row["response_body"] or ""
        if self.row.get("response_encoding") == "base64":
            return base64.b64decode(told)
        if self.row["body_format"] in ("json", "json-array"):
            return _echoed(told, echo).encode("utf-8", "surrogatepass")
        lines = (
            begin + _echoed(data, echo) + end
            for line in told.splitlines(keepends=True)
            for begin, data, end in (_parts(line),)
        )
        return "".join(lines).encode("utf-8", "surrogatepass")


def _parts(line: str) -> tuple[str, str, str]:
    """What is JSON in a line of a stream, and what stands before and behind it."""
    begin = "data:" if line.startswith("data:") else ""
    data = line[len(begin) :]
    bare = data.rstrip("\r\n")
    return begin, bare, data[len(bare) :]


def _echoed(text: str, echo: str) -> str:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return " " + json.dumps(_with(value, echo)) if isinstance(value, dict | list) else text


def _with(value: Any, echo: str, name: str = "") -> Any:
    if isinstance(value, dict):
        return {member: _with(inner, echo, member) for member, inner in value.items()}
    if isinstance(value, list):
        return [_with(inner, echo) for inner in value]
    return f"{value} {echo}" if isinstance(value, str) and name in _WORDS else value


def replayed(folder: Path, kinds: frozenset[str]) -> Iterator[Replayed]:
    """The recordings of these kinds: of each family some of each sort, or all."""
    for family in corpus.families(folder):
        kind = targets.kind_for(family, kinds)
        sorts: Counter[tuple[object, ...]] = Counter()
        for row in corpus.rows(folder, family) if kind is not None else ():
            sort = (row["status"], row["body_format"], bool(row.get("streaming")))
            sorts[sort] += 1
            if kind is not None and (FULL or sorts[sort] <= FEW):
                yield Replayed(corpus.recording_of(row, family), kind, row)


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_no_key_is_told_over_the_recordings_of_forty_providers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measured: Any
):
    if not (CORPUS / "recordings").is_dir():
        pytest.skip(f"no recordings in {CORPUS}: CORPUS=DIR names them")
    rows = keyed(monkeypatch)
    answers = {one.recording.id: one for one in replayed(CORPUS, frozenset(rows))}
    kinds = {one.kind for one in answers.values()}
    assert len(kinds) >= LEAST
    caller_key = planted("caller")
    monkeypatch.setenv("CALLER_KEY", caller_key)
    sent: Counter[str] = Counter()

    async def replay(exchange: Exchange) -> None:
        one = answers[exchange.headers["x-replay-id"]]
        sent[one.kind] += planted(one.kind) in json.dumps(dict(exchange.headers)) + exchange.path
        echo = f"(you sent {planted(one.kind)}; Authorization: Bearer {planted(one.kind)}, not {STRAY})"
        body = one.body(echo)
        kind = _TYPES.get(one.row["body_format"], "application/json")
        if one.row["body_format"] == "json-array" and "alt=sse" in exchange.path:
            body = b"".join(b"data: %s\r\n\r\n" % json.dumps(each).encode() for each in json.loads(body))
            kind = _TYPES["sse"]
        headers = {"content-type": kind, "x-request-id": "req-1", "x-echo": f"Bearer {planted(one.kind)}"}
        await exchange.answer(body, one.row["status"] or 200, headers)

    async with upstream(replay) as up:
        settings: dict[str, Any] = {
            "providers": {kind: {**rows[kind], "base_url": f"{up.url}/v1"} for kind in kinds},
            "callers": [{"name": "me", "api_key_env": "CALLER_KEY", "operator": True}],
            "forward_metadata": ["x-replay-id", "x-tenant-token"],
        }
        async with searched(tmp_path, **settings) as (gw, told):
            beside = (
                ("authorization", f"Bearer {caller_key}"),
                ("x-tenant-token", planted("tenant")),
                ("cookie", f"session={planted('cookie')}"),
            )
            caller = Caller(gw.channel, beside)
            gate = asyncio.Semaphore(SIDE_BY_SIDE)

            async def ask(one: Replayed) -> None:
                async with gate:
                    await caller.call(one.recording, one.kind, one.kind)

            await asyncio.gather(*map(ask, answers.values()))
    assert any(planted("tenant") == exchange.headers.get("x-tenant-token") for exchange in up.exchanges)
    assert {kind for kind, count in sent.items() if count} == kinds, "the keys were never there to be told"
    planted_all = {name: secret(name) for name in (*kinds, "caller", "tenant", "cookie")}
    assert told.found({**planted_all, "stray": STRAY}) == []
    # There was something to mask at each.
    masked = {a.provider for t in told.traces for a in t.attempts if b"***" in a.response.body}
    assert kinds - masked == set()
    assert {trace.status.code for trace in told.traces} > {0, 3, 5, 8}
    measured("recordings", len(answers))
    measured("kinds", len(kinds))
    measured("records", len(told.traces))
    measured("spans", len(told.spans))
