"""Common forms of Ollama's chat bodies: the functions behind the rows of `equivalences.OLLAMA_CHAT`."""

from __future__ import annotations

from typing import Any


def nothing_said(body: dict[str, Any]) -> None:
    for name in ("format", "options", "tools", "keep_alive"):
        if body.get(name) in ("", {}, [], None):
            body.pop(name, None)
    for message in body["messages"]:
        message["content"] = message.get("content") or ""
        for name in ("images", "thinking", "tool_calls", "tool_name", "tool_call_id"):
            if not message.get(name):
                message.pop(name, None)


def functions(body: dict[str, Any]) -> None:
    for message in body["messages"]:
        for call in message.get("tool_calls") or ():
            call.pop("type", None)
            call["function"]["arguments"] = call["function"].get("arguments") or {}
            call["function"].pop("index", None)


def one_stop(body: dict[str, Any]) -> None:
    options = body.get("options")
    if isinstance(options, dict) and isinstance(options.get("stop"), str):
        options["stop"] = [options["stop"]]
