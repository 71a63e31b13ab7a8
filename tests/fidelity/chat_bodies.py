"""Common forms of Chat Completions bodies: what clients write differently for the same question."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Body = dict[str, Any]

#: Members of an answer's message that say nothing when they are sent back as these.
_ECHOES: tuple[tuple[str, Any], ...] = (("annotations", []), ("prefix", False), ("reasoning_content", ""))


def _messages(body: Body) -> Iterator[Body]:
    messages = body.get("messages")
    for message in messages if isinstance(messages, list) else ():
        if isinstance(message, dict):
            yield message


def echoes(body: Body) -> None:
    for message in _messages(body):
        for name, nothing in _ECHOES:
            if message.get(name) == nothing and type(message.get(name)) is type(nothing):
                del message[name]
        if message.get("tool_call_id") == "":
            del message["tool_call_id"]


def one_choice(body: Body) -> None:
    if body.get("n") == 1:
        del body["n"]


def function_type(body: Body) -> None:
    tools = body.get("tools")
    for tool in (*(tools if isinstance(tools, list) else ()), body.get("tool_choice")):
        if isinstance(tool, dict) and isinstance(tool.get("function"), dict):
            tool.setdefault("type", "function")


def unnamed_schema(body: Body) -> None:
    asked = body.get("response_format")
    schema = asked.get("json_schema") if isinstance(asked, dict) else None
    if isinstance(schema, dict) and schema.get("name") == "response":
        del schema["name"]


def default_sampling(body: Body) -> None:
    for name in ("temperature", "top_p"):
        if body.get(name) == 1:
            del body[name]


def parallel_calls(body: Body) -> None:
    if body.get("parallel_tool_calls") is True:
        del body["parallel_tool_calls"]


# -- of one provider ---------------------------------------------------------------------------------------------------


def openrouter_reasoning(body: Body) -> None:
    asked = body.get("reasoning")
    reasoning = dict(asked) if isinstance(asked, dict) else {}
    effort = body.pop("reasoning_effort", None)
    if effort is not None:
        reasoning.setdefault("effort", effort)
    shown = body.pop("include_reasoning", None)
    if shown is not None:
        reasoning.setdefault("exclude", not shown)
    if reasoning.pop("enabled", None) is True and "max_tokens" not in reasoning:
        reasoning.setdefault("effort", "medium")
    if reasoning.get("exclude") is False:
        del reasoning["exclude"]
    body.pop("reasoning", None)
    if reasoning:
        body["reasoning"] = reasoning


def openrouter_details(body: Body) -> None:
    for message in _messages(body):
        for detail in message.get("reasoning_details") or ():
            for name in ("index", "format"):
                detail.pop(name, None)


def openrouter_usage(body: Body) -> None:
    if body.get("usage") == {"include": True}:
        del body["usage"]


def mistral_any(body: Body) -> None:
    if body.get("tool_choice") == "any":
        body["tool_choice"] = "required"


def mistral_documents(body: Body) -> None:
    for message in _messages(body):
        for part in message.get("content") or ():
            if isinstance(part, dict) and part.get("type") == "document_url":
                part.pop("document_name", None)


def mistral_sounds(body: Body) -> None:
    for message in _messages(body):
        for part in message.get("content") or ():
            sound = part.get("input_audio") if isinstance(part, dict) else None
            if isinstance(sound, dict):
                part["input_audio"] = sound.get("data")


def mistral_thoughts(body: Body) -> None:
    for message in _messages(body):
        content = message.get("content")
        if isinstance(content, list):
            for part in content:
                if isinstance(part, dict) and part.get("type") == "thinking":
                    part.pop("closed", None)


def claude_choice(body: Body) -> None:
    choice = body.get("tool_choice")
    if isinstance(choice, dict) and choice.get("type") == "tool" and "name" in choice:
        body["tool_choice"] = {"type": "function", "function": {"name": choice["name"]}}


def switched_on(body: Body) -> None:
    thinking = body.get("thinking")
    if isinstance(thinking, dict) and thinking == {"type": "enabled"} and "reasoning_effort" in body:
        del body["thinking"]


def groq_thoughts(body: Body) -> None:
    shown = {"parsed": True, "hidden": False}.get(str(body.get("reasoning_format")))
    if shown is not None:
        del body["reasoning_format"]
        body["include_reasoning"] = shown


def same_thought(body: Body) -> None:
    for message in _messages(body):
        if "reasoning_content" in message and message["reasoning_content"] == message.get("reasoning"):
            del message["reasoning_content"]
