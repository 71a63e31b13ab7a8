"""Every recorded error maps to the class that its recording has, and each of its shapes is among our fixtures.

Needs the recordings, which are no part of the project: see the fixture `recordings`.
"""

from __future__ import annotations

import base64
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.fidelity import corpus, targets
from tests.fidelity.answers import CLASSES
from tests.providers.error_tables import dialect_of, rows, shape, streamed, whole

from trunkline_server.errors import LLMError
from trunkline_server.providers import KINDS

ROOT = Path(__file__).resolve().parents[2]
#: What a status alone says, for recordings of endpoints that are not served and so have no expectation.
STATUSES = {400: "bad_request", 401: "authentication", 403: "permission_denied", 404: "not_found", 500: "server_error",
            501: "server_error"}  # fmt: skip
#: Codes or words that say of a 400 that there is no such model.
_NO_MODEL = re.compile(r"\bmodel\b.*\bdoes not exist")
_ROW = re.compile(r"^\|.*\| ([0-9a-f]{16}) \|$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Recorded:
    """A recorded error."""

    id: str
    kind: str
    model: str
    status: int
    headers: dict[str, str]
    body: bytes
    streamed: bool
    #: Classes that it may have.
    classes: frozenset[str]

    def seen(self) -> LLMError | None:
        dialect = dialect_of(self.kind, self.model)
        if self.status >= 400:
            return dialect.classify(self.status, self.headers, self.body)
        return streamed(dialect, self.body)[0] if self.streamed else whole(dialect, self.body)


@pytest.fixture(scope="module")
def folder() -> Path:
    found = Path(os.environ.get("CORPUS", ROOT.parent / "shared" / "corpus"))
    if not (found / "recordings").is_dir():
        pytest.skip("no recordings of providers: name their folder in CORPUS")
    return found


@pytest.fixture(scope="module")
def recordings(folder: Path) -> list[Recorded]:
    """Every recorded error: each answer that is no success, and each success that is expected to hold an error."""
    expected = {row["id"]: row["expected"] for row in corpus.lines(folder / "expected.jsonl.xz") if row["expected"]}
    found = []
    for path in sorted((folder / "recordings").glob("*.jsonl*")):
        family = path.name.partition(".jsonl")[0]
        for raw in corpus.rows(folder, family):
            reading = expected.get(raw["id"], {})
            if raw["status"] and (raw["status"] >= 400 or (reading.get("outcome") == "error" and _is_chat(family))):
                found.append(_recorded(raw, family, reading))
    return found


def _is_chat(family: str) -> bool:
    return corpus.kind_of(family) == "chat" and targets.kind_for(family, frozenset(KINDS)) is not None


def _recorded(raw: dict[str, Any], family: str, expected: dict[str, Any]) -> Recorded:
    text = raw["response_body"] or ""
    body = base64.b64decode(text) if raw.get("response_encoding") == "base64" else text.encode()
    # Endpoints that are not served are read as the provider's others.
    provider = family.partition(".")[0]
    kind = targets.kind_for(family, frozenset(KINDS)) or (provider if provider in KINDS else "openai")
    classes = {expected["class"], *expected.get("class_also", [])} if expected else {STATUSES[raw["status"]]}
    if not expected and raw["status"] == 400 and _NO_MODEL.search(text):
        classes = {"not_found"}
    return Recorded(
        id=raw["id"],
        kind=kind,
        model=raw.get("model") or "",
        status=raw["status"],
        headers={name.lower(): str(value) for name, value in (raw.get("response_headers") or {}).items()},
        body=body,
        streamed=bool(raw.get("streaming")),
        classes=frozenset(classes),
    )


def test_every_error_body_of_the_list_is_read(folder: Path, recordings: list[Recorded]):
    listed = set(_ROW.findall((folder / "ERRORS.md").read_text()))

    assert len(listed) > 200
    assert sorted(listed - {recorded.id for recorded in recordings}) == []


def test_every_recorded_error_has_its_class(recordings: list[Recorded]):
    wrong = {}
    for recorded in recordings:
        found = recorded.seen()
        reason = CLASSES.get(found.reason, found.reason) if found is not None else "no error"
        if reason not in recorded.classes:
            wrong[recorded.id] = (recorded.kind, reason, sorted(recorded.classes))

    assert len({(each.kind, each.status, each.body) for each in recordings}) >= 274
    assert wrong == {}


def test_every_shape_that_was_recorded_is_among_the_fixtures(recordings: list[Recorded]):
    known = {(row["status"], repr(shape(row["body"]))) for row in rows("errors.jsonl")}
    unknown: dict[tuple[int, str], str] = {}
    for recorded in recordings:
        if recorded.status >= 400:
            key = (recorded.status, repr(shape(json.loads(recorded.body or b"null"))))
            if key not in known:
                unknown.setdefault(key, recorded.id)

    assert unknown == {}
