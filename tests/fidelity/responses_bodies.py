"""Common forms of Responses bodies: what may differ between two that ask the same. Applied in place."""

from __future__ import annotations

import contextlib
import json
from typing import Any


def _messages(body: dict[str, Any]) -> list[dict[str, Any]]:
    return [item for item in body.get("input") or () if isinstance(item, dict)]


def items(body: dict[str, Any]) -> None:
    if isinstance(body.get("input"), str):
        body["input"] = [{"role": "user", "content": body["input"]}]
    for item in _messages(body):
        item.setdefault("type", "reasoning" if "summary" in item else "message")
        if item["type"] != "message" and item.get("content") == []:
            del item["content"]
    if "input" in body:
        body["input"] = [item for item in body["input"] if item.get("content") != []]


def stored_prompt(body: dict[str, Any]) -> None:
    if "prompt" in body:
        body.pop("model", None)
        if not body.get("input"):
            body.pop("input", None)


def leading(body: dict[str, Any]) -> None:
    instructions = body.pop("instructions", None)
    if instructions:
        system = {"type": "message", "role": "system", "content": instructions}
        body["input"] = [system, *(body.get("input") or ())]
    for item in _messages(body):
        if item.get("role") == "developer":
            item["role"] = "system"


def texts(body: dict[str, Any]) -> None:
    for item in _messages(body):
        for name in ("content", "output"):
            said = item.get(name)
            if isinstance(said, str):
                item[name] = [{"type": "input_text", "text": said}]
            for piece in item[name] if isinstance(item.get(name), list) else ():
                if piece.get("type") == "output_text":
                    piece["type"] = "input_text"
                for empty in ("annotations", "logprobs"):
                    if not piece.get(empty, True):
                        del piece[empty]


def statuses(body: dict[str, Any]) -> None:
    for item in _messages(body):
        if item.get("status") == "completed":
            del item["status"]


def call_text(body: dict[str, Any]) -> None:
    for item in _messages(body):
        if item["type"] == "function_call" and isinstance(item.get("arguments"), str):
            with contextlib.suppress(ValueError):
                item["arguments"] = json.loads(item["arguments"]) if item["arguments"].strip() else {}


def included(body: dict[str, Any]) -> None:
    include = [name for name in body.pop("include", None) or () if name != "reasoning.encrypted_content"]
    if include:
        body["include"] = include


def summary(body: dict[str, Any]) -> None:
    reasoning = body.get("reasoning") or {}
    if reasoning.get("summary"):
        reasoning["summary"] = "auto"


def answer_format(body: dict[str, Any]) -> None:
    text = body.get("text") or {}
    if text.get("format") == {"type": "text"}:
        del text["format"]
    elif isinstance(text.get("format"), dict):
        text["format"] = {name: value for name, value in text["format"].items() if value not in (None, "")}
    if not text:
        body.pop("text", None)


def item_detail(body: dict[str, Any]) -> None:
    for item in _messages(body):
        for piece in (*(item.get("content") or ()), *(item.get("output") or ())):
            if isinstance(piece, dict) and piece.get("detail") == "auto":
                del piece["detail"]
