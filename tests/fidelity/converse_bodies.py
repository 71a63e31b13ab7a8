"""Common forms of Converse bodies: the functions behind the rows of `equivalences.BEDROCK_CONVERSE`."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

Body = dict[str, Any]

#: Members whose values are the caller's: in them nothing is something.
_VERBATIM = frozenset({"json", "input"})
#: Members that say something even if they are empty.
_SAYS = frozenset({"auto", "any", "content", "messages"})


def nothing_said(body: Body) -> None:
    cleaned = _without_nothing(dict(body))
    body.clear()
    body.update(cleaned)


def _without_nothing(value: Any, name: str = "") -> Any:
    if isinstance(value, dict) and name not in _VERBATIM:
        cleaned = {key: _without_nothing(inner, key) for key, inner in value.items()}
        return {key: inner for key, inner in cleaned.items() if key in _SAYS or inner not in (None, {}, [])}
    if isinstance(value, list):
        return [_without_nothing(item, name) for item in value]
    return value


def blocks(body: Body) -> Iterator[Body]:
    """All blocks, also those of results."""
    for message in body.get("messages") or ():
        for block in message.get("content") or ():
            yield block
            yield from (block.get("toolResult") or {}).get("content") or ()


def one_turn(body: Body) -> None:
    turns: list[Body] = []
    for message in body.get("messages") or ():
        if turns and turns[-1]["role"] == message["role"]:
            turns[-1]["content"] = [*turns[-1]["content"], *message["content"]]
        else:
            turns.append({**message, "content": list(message["content"])})
    for turn in turns:
        content = turn["content"]
        said = [block for block in content if not _is_blank(block)]
        turn["content"] = sorted(said or content, key=lambda block: "toolResult" not in block)
    body["messages"] = [
        turn for turn in turns if turn["role"] != "assistant" or not all(map(_is_blank, turn["content"]))
    ]


def _is_blank(block: Body) -> bool:
    return isinstance(block.get("text"), str) and not block["text"].strip()


def plain_results(body: Body) -> None:
    for block in blocks(body):
        result = block.get("toolResult")
        if isinstance(result, dict) and result.get("status") == "success":
            del result["status"]


def json_results(body: Body) -> None:
    for message in body.get("messages") or ():
        for block in message.get("content") or ():
            for said in (block.get("toolResult") or {}).get("content") or ():
                if "json" in said:
                    said["text"] = json.dumps(said.pop("json"), sort_keys=True)
                elif (found := _object(said.get("text"))) is not None:
                    said["text"] = json.dumps(found, sort_keys=True)


def _object(text: Any) -> Any:
    try:
        value = json.loads(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def text_documents(body: Body) -> None:
    for block in blocks(body):
        source = (block.get("document") or {}).get("source") or {}
        if isinstance(source.get("text"), str):
            source["bytes"] = base64.b64encode(source.pop("text").encode()).decode()


def default_choice(body: Body) -> None:
    config = body.get("toolConfig") or {}
    if config.get("toolChoice") == {"auto": {}}:
        del config["toolChoice"]


def tool_shape(body: Body) -> None:
    for tool in (body.get("toolConfig") or {}).get("tools") or ():
        told = tool.get("toolSpec") or {}
        for name, value in (("description", ""), ("strict", False)):
            if told.get(name) == value:
                del told[name]


def short_cache(body: Body) -> None:
    tools = (body.get("toolConfig") or {}).get("tools") or ()
    for block in (*blocks(body), *(body.get("system") or ()), *tools):
        mark = block.get("cachePoint")
        if isinstance(mark, dict) and mark.get("ttl") == "5m":
            del mark["ttl"]


def thinking_name(body: Body) -> None:
    more = body.get("additionalModelRequestFields") or {}
    if isinstance(more.get("reasoning_config"), dict):
        more["thinking"] = more.pop("reasoning_config")


def usual_effort(body: Body) -> None:
    more = body.get("additionalModelRequestFields") or {}
    config = more.get("output_config") or {}
    if config.get("effort") == "high":
        del config["effort"]
    if config == {}:
        more.pop("output_config", None)


def schema_version(body: Body) -> None:
    body.pop("schemaVersion", None)


def in_the_path(body: Body) -> None:
    for name in ("model", "stream", "stream_options"):
        body.pop(name, None)


def most_tokens(body: Body) -> None:
    config = body.get("inferenceConfig") or {}
    if "max_new_tokens" in config:
        config["maxTokens"] = config.pop("max_new_tokens")
