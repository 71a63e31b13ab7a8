"""Common forms of generateContent bodies: the functions behind the rows of `equivalences.GEMINI`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.fidelity.requests import gemini


def either_case(body: dict[str, Any]) -> None:
    renamed = gemini.camel(dict(body))
    body.clear()
    body.update(renamed)


def nothing_said(body: dict[str, Any]) -> None:
    cleaned = _without_nothing(dict(body))
    body.clear()
    body.update(cleaned)


def _without_nothing(value: Any, name: str = "") -> Any:
    if isinstance(value, dict) and name not in gemini.VERBATIM:
        cleaned = {key: _without_nothing(inner, key) for key, inner in value.items()}
        return {
            key: inner
            for key, inner in cleaned.items()
            if inner is not None and (inner not in ({}, []) or key in _SAYS)
        }
    if isinstance(value, list):
        return [_without_nothing(item, name) for item in value]
    return value


#: Members that say something even if they are empty: a tool without settings, arguments of none.
_SAYS = frozenset({
    "args", "codeExecution", "computerUse", "contents", "functionCall", "googleMaps", "googleSearch",
    "googleSearchRetrieval", "response", "urlContext",
})  # fmt: skip


def parts(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All parts, also those of answers of tools."""
    for content in (*(body.get("contents") or ()), body.get("systemInstruction") or {}):
        for part in content.get("parts") or ():
            yield part
            yield from (part.get("functionResponse") or {}).get("parts") or ()


def list_of_parts(body: dict[str, Any]) -> None:
    for content in body.get("contents") or ():
        content["parts"] = gemini.parts_of(content)
    if body.get("systemInstruction"):
        body["systemInstruction"] = {"parts": gemini.parts_of(body["systemInstruction"])}


def roles(body: dict[str, Any]) -> None:
    for content in body.get("contents") or ():
        content["role"] = "model" if content.get("role") == "model" else "user"


def one_turn(body: dict[str, Any]) -> None:
    turns: list[dict[str, Any]] = []
    for content in body.get("contents") or ():
        if turns and turns[-1]["role"] == content["role"]:
            turns[-1]["parts"] = [*turns[-1]["parts"], *content["parts"]]
        else:
            turns.append(content)
    body["contents"] = turns


def no_thought(body: dict[str, Any]) -> None:
    for part in parts(body):
        if part.get("thought") is False:
            del part["thought"]


def no_arguments(body: dict[str, Any]) -> None:
    for part in parts(body):
        if "functionCall" in part:
            part["functionCall"].setdefault("args", {})


def blank_texts(body: dict[str, Any]) -> None:
    for content in body.get("contents") or ():
        said = [part for part in content["parts"] if part != {"text": ""}]
        content["parts"] = said or content["parts"]


def same_bytes(body: dict[str, Any]) -> None:
    for part in parts(body):
        blob = part.get("inlineData")
        if blob and isinstance(blob.get("data"), str):
            blob["data"] = gemini.bytes_of(blob["data"])


def one_list_of_functions(body: dict[str, Any]) -> None:
    tools = list(gemini.tools_of(body))
    functions = [value for kind, value in tools if kind == "functionDeclarations"]
    others = [{kind: value} for kind, value in tools if kind != "functionDeclarations"]
    if tools:
        body["tools"] = [*([{"functionDeclarations": functions}] if functions else []), *others]


def schema_names(body: dict[str, Any]) -> None:
    for tool in body.get("tools") or ():
        for function in tool.get("functionDeclarations") or ():
            schema = function.pop("parameters", None)
            if schema:
                function.setdefault("parametersJsonSchema", schema)
            if not function.get("description"):
                function.pop("description", None)
    config = body.get("generationConfig") or {}
    if config.get("responseSchema"):
        config.setdefault("responseJsonSchema", config.pop("responseSchema"))


def choice_words(body: dict[str, Any]) -> None:
    config = body.get("toolConfig") or {}
    calling = config.get("functionCallingConfig")
    if calling and calling.get("mode"):
        calling["mode"] = calling["mode"].upper()
        if calling == {"mode": "AUTO"} or not body.get("tools"):
            del config["functionCallingConfig"]
    if not config:
        body.pop("toolConfig", None)


def defaults(body: dict[str, Any]) -> None:
    config = body.get("generationConfig") or {}
    if config.get("responseMimeType") == "text/plain":
        del config["responseMimeType"]
    if [str(name).upper() for name in config.get("responseModalities") or ()] == ["TEXT"]:
        del config["responseModalities"]
    thinking = config.get("thinkingConfig") or {}
    if thinking.get("thinkingLevel"):
        thinking["thinkingLevel"] = thinking["thinkingLevel"].lower()
    if not config:
        body.pop("generationConfig", None)
