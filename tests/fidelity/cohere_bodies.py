"""Common forms of Cohere's chat bodies: the functions behind the rows of `equivalences.COHERE_CHAT`."""

from __future__ import annotations

from typing import Any


def nothing_said(body: dict[str, Any]) -> None:
    if not body.get("documents"):
        body.pop("documents", None)
    for message in body["messages"]:
        for name in ("tool_calls", "citations"):
            if message.get(name) in (None, []):
                message.pop(name, None)
        if message["role"] == "assistant":
            message["content"] = [block for block in message["content"] if block != {"type": "text", "text": ""}]


def given_ids(body: dict[str, Any]) -> None:
    for document in (*(body.get("documents") or ()), *_in_results(body)):
        if isinstance(document, dict):
            document.pop("id", None)


def plain_documents(body: dict[str, Any]) -> None:
    if body.get("documents"):
        body["documents"] = [
            {"data": {"text": document}} if isinstance(document, str) else document for document in body["documents"]
        ]


def _in_results(body: dict[str, Any]) -> list[Any]:
    blocks = [block for message in body["messages"] if message["role"] == "tool" for block in message["content"]]
    return [block["document"] for block in blocks if block.get("type") == "document"]


def schema_name(body: dict[str, Any]) -> None:
    asked = body.get("response_format")
    if isinstance(asked, dict) and "schema" in asked:
        asked.setdefault("json_schema", asked.pop("schema"))
    if asked == {"type": "text"}:
        del body["response_format"]
