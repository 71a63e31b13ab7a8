"""For every row of the equivalences of Converse two bodies that ask the same by it, and one that asks another thing."""

from __future__ import annotations

from typing import Any

Body = dict[str, Any]
Case = tuple[Body, Body, Body]


def _asked(*blocks: Body, **members: Any) -> Body:
    return {"messages": [{"role": "user", "content": list(blocks) or [{"text": "Hi"}]}], **members}


def _turns(*turns: tuple[str, list[Body]]) -> Body:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def _result(*said: Body, **members: Any) -> Body:
    return {"toolResult": {"toolUseId": "t1", "content": list(said), **members}}


def _tool(**members: Any) -> Body:
    tool = {"toolSpec": {"name": "f", "inputSchema": {"json": {"type": "object"}}, **members}}
    return _asked(toolConfig={"tools": [tool]})


def _choice(choice: Body | None) -> Body:
    made = _tool()
    if choice is not None:
        made["toolConfig"]["toolChoice"] = choice
    return made


def _document(source: Body) -> Body:
    return _asked({"document": {"format": "txt", "name": "d", "source": source}})


def _more(**members: Any) -> Body:
    return _asked(additionalModelRequestFields=members)


_HI: Body = {"text": "Hi"}
_HO: Body = {"text": "Ho"}

CONVERSE: dict[str, Case] = {
    "nothing said": (_asked(inferenceConfig={}, system=[]), _asked(), _asked(inferenceConfig={"topP": 0.5})),
    "one turn": (
        _turns(("user", [_HI, {"text": " "}]), ("user", [_result(_HO)])),
        _turns(("user", [_result(_HO), _HI])),
        _turns(("user", [_result(_HO), _HO])),
    ),
    "plain results": (
        _asked(_result(_HI, status="success")), _asked(_result(_HI)), _asked(_result(_HI, status="error")),
    ),
    "JSON results": (
        _asked(_result({"json": {"b": 1, "a": 2}})),
        _asked(_result({"text": '{"a":2,"b":1}'})),
        _asked(_result({"text": '{"a":2}'})),
    ),
    "text documents": (_document({"text": "Hi"}), _document({"bytes": "SGk="}), _document({"bytes": "SG8="})),
    "default choice": (_choice({"auto": {}}), _choice(None), _choice({"any": {}})),
    "tool shape": (_tool(description="", strict=False), _tool(), _tool(strict=True)),
    "short cache": (
        _asked(_HI, {"cachePoint": {"type": "default", "ttl": "5m"}}),
        _asked(_HI, {"cachePoint": {"type": "default"}}),
        _asked(_HI, {"cachePoint": {"type": "default", "ttl": "1h"}}),
    ),
    "thinking name": (
        _more(reasoning_config={"type": "enabled"}),
        _more(thinking={"type": "enabled"}),
        _more(thinking={"type": "disabled"}),
    ),
    "usual effort": (
        _more(thinking={"type": "adaptive"}, output_config={"effort": "high"}),
        _more(thinking={"type": "adaptive"}),
        _more(thinking={"type": "adaptive"}, output_config={"effort": "low"}),
    ),
    "most tokens": (
        _asked(inferenceConfig={"max_new_tokens": 5}),
        _asked(inferenceConfig={"maxTokens": 5}),
        _asked(inferenceConfig={"maxTokens": 6}),
    ),
    "schema version": (_asked(schemaVersion="messages-v1"), _asked(), _asked(_HO)),
}  # fmt: skip

INVOKE: dict[str, Case] = {
    "in the path": (_asked(model="m", stream=True), _asked(), _asked(_HO)),
}
