"""Every error of a provider has the class that design and docs/errors.md give it, wherever it stands.

The fixtures hold each shape that was recorded (`test_recorded_errors` says so) or told of in public, in our own words.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.providers.error_tables import dialect_of, rows, stream_bytes, streamed, whole

from trunkline_server import errors
from trunkline_server.errors import LLMError
from trunkline_server.providers import KINDS

STATUSES = rows("errors.jsonl")
STREAMS = rows("stream_errors.jsonl")
ANSWERS = rows("answer_errors.jsonl")


def named(row: dict[str, Any]) -> str:
    return "-".join(str(row[name]) for name in ("kind", "status", "class", "code") if name in row)


def assert_told(found: LLMError | None, row: dict[str, Any], status: int) -> None:
    """The error is what its row says, and says nothing that the row does not."""
    assert found is not None
    assert type(found).__name__ == row["class"]
    assert found.provider_code == row["code"]
    assert found.retry_after == row.get("retry_after")
    assert found.http_status == (status if row["class"] != "LLMConnectionError" else None)
    for name in ("field", "request_id", "metadata", "help_link"):
        if name in row:
            assert getattr(found, name) == row[name]


@pytest.mark.parametrize("row", STATUSES, ids=named)
def test_an_answer_that_is_no_success_has_its_class(row: dict[str, Any]):
    found = dialect_of(row["kind"]).classify(row["status"], row.get("headers", {}), json.dumps(row["body"]).encode())

    assert_told(found, row, row["status"])


@pytest.mark.parametrize("chunk_bytes", [1 << 20, 7])
@pytest.mark.parametrize("row", STREAMS, ids=named)
def test_an_error_in_a_stream_has_its_class_and_what_came_before_stands(row: dict[str, Any], chunk_bytes: int):
    found, text = streamed(dialect_of(row["kind"]), stream_bytes(row), chunk_bytes)

    assert_told(found, row, 200)
    assert text == row["text"]


@pytest.mark.parametrize("row", ANSWERS, ids=named)
def test_an_error_in_a_success_has_its_class(row: dict[str, Any]):
    assert_told(whole(dialect_of(row["kind"]), json.dumps(row["body"]).encode()), row, 200)


def test_every_class_that_a_provider_can_cause_has_a_row():
    shown = {row["class"] for row in (*STATUSES, *STREAMS, *ANSWERS)}
    theirs = {kind.__name__ for kind in errors.classes(LLMError)}

    # An empty answer and one that cannot be read are no errors of the provider's own; what fits nowhere is a redirect.
    assert theirs - shown == {"LLMEmptyResponseError", "LLMInvalidResponseError"}


def test_every_dialect_has_rows_for_all_three_places():
    def dialects(table: list[dict[str, Any]]) -> set[str]:
        return {KINDS[row["kind"]].dialect for row in table}

    spoken = {row.dialect for row in KINDS.values()}
    assert dialects(STATUSES) == dialects(STREAMS) == dialects(ANSWERS) == spoken
