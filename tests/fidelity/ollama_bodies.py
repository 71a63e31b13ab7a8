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


def result_names(body: dict[str, Any]) -> None:
    calls: list[dict[str, Any]] = []
    for message in body["messages"]:
        if message.get("role") != "tool":
            calls = list(message.get("tool_calls") or ())
            continue
        answered = message.get("tool_call_id")
        call = next((call for call in calls if not answered or call.get("id") == answered), None)
        if call is None:
            continue
        calls.remove(call)
        if message.get("tool_name") == call["function"].get("name"):
            del message["tool_name"]
