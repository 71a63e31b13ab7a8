"""Transformations of tool schemas, shared by the dialects: the strict form, and the argument in which a model says why.

Schemas are texts. What is not touched keeps its bytes: only the objects on the way to a change are written anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Raw

from trunkline.v1 import completion_pb2
from trunkline_server.errors import LLMBadRequestError
from trunkline_server.providers.jsontext import Reader, dumps, loads

_OBJECT: Reader[dict[str, Raw]] = Reader(dict[str, Raw])

#: Schema of a function without arguments.
NO_ARGUMENTS = '{"type":"object","properties":{}}'

#: What the model is told about the injected argument.
_WHY = "Say in one sentence why you call this function with these arguments."

#: Keywords whose value is a schema, a list of schemas, or schemas by name.
_ONE = ("items", "additionalItems", "contains", "not", "if", "then", "else", "propertyNames")
_LIST = ("anyOf", "oneOf", "allOf", "prefixItems")
_NAMED = ("properties", "$defs", "definitions", "patternProperties", "dependentSchemas")


def parameters_of(
    tool: completion_pb2.FunctionTool, spec: completion_pb2.CompletionSpec, *, nullable: bool = True
) -> str:
    """The schema of a function's arguments as it is sent: as given, unless the spec asks for more."""
    text = tool.parameters_json_schema or NO_ARGUMENTS
    if spec.strict_tools:
        text = strict_schema(text, nullable=nullable)
    if spec.HasField("reasoning_argument"):
        text = with_argument(text, spec.reasoning_argument)
    return text


def strict_schema(text: str, *, nullable: bool = True) -> str:
    """The schema in the form that strict providers want: no other properties, all required, optional ones nullable.

    An object that is open on purpose (a map) stays as it is: closed, it could hold nothing. Not `nullable` is for
    providers whose strict form has optional properties: those stay optional.
    """
    try:
        return dumps(_strict(loads(text), nullable)).decode()
    except RecursionError:
        raise LLMBadRequestError("a function's schema is nested too deeply") from None


def _strict(schema: Any, nullable: bool) -> Any:
    if not isinstance(schema, dict):
        return schema
    result = dict(schema)
    for name in _ONE:
        if name in result:
            result[name] = _strict(result[name], nullable)
    for name in _LIST:
        if isinstance(result.get(name), list):
            result[name] = [_strict(inner, nullable) for inner in result[name]]
    for name in _NAMED:
        if isinstance(result.get(name), dict):
            result[name] = {key: _strict(inner, nullable) for key, inner in result[name].items()}
    properties = result.get("properties")
    is_map = not isinstance(properties, dict) and bool(result.get("additionalProperties"))
    if (isinstance(properties, dict) or result.get("type") == "object") and not is_map:
        properties = properties if isinstance(properties, dict) else {}
        required = result.get("required")
        needed = set(required) if isinstance(required, list) else set()
        result["properties"] = properties
        if nullable:
            result["properties"] = {
                name: inner if name in needed else _nullable(inner) for name, inner in properties.items()
            }
            result["required"] = list(properties)
        result["additionalProperties"] = False
    return result


def _nullable(schema: Any) -> Any:
    """The schema, or null."""
    if not isinstance(schema, dict):
        return {"anyOf": [schema, {"type": "null"}]} if schema is not True else schema
    kind = schema.get("type")
    if isinstance(kind, str) and not ({"$ref", "const", *_LIST} & schema.keys()):
        if kind == "null":
            return schema
        result = {**schema, "type": [kind, "null"]}
        if isinstance(result.get("enum"), list) and None not in result["enum"]:
            result["enum"] = [*result["enum"], None]
        return result
    if isinstance(kind, list) and "enum" not in schema:
        return schema if "null" in kind else {**schema, "type": [*kind, "null"]}
    if isinstance(schema.get("anyOf"), list) and "type" not in schema:
        if any(isinstance(inner, dict) and inner.get("type") == "null" for inner in schema["anyOf"]):
            return schema
        return {**schema, "anyOf": [*schema["anyOf"], {"type": "null"}]}
    return {"anyOf": [schema, {"type": "null"}]}


def with_argument(text: str, argument: completion_pb2.ReasoningArgument) -> str:
    """Adds the required string property to an object schema, before or after the others, which keep their bytes."""
    schema = _members(text)
    properties = _members(bytes(schema["properties"])) if "properties" in schema else {}
    last = argument.position == completion_pb2.REASONING_ARGUMENT_POSITION_LAST
    added: dict[str, Any] = {argument.name: {"type": "string", "description": _WHY}}
    required = loads(bytes(schema["required"])) if "required" in schema else []
    schema.setdefault("type", Raw(b'"object"'))
    changed: dict[str, Any] = dict(schema)
    changed["properties"] = {**properties, **added} if last else {**added, **properties}
    changed["required"] = [*required, argument.name] if last else [argument.name, *required]
    return dumps(changed).decode()


def arguments_with_reasoning(text: str, reasoning: str, argument: completion_pb2.ReasoningArgument) -> str:
    """Puts what was taken out of a call's arguments back in, for a conversation whose schemas have the argument."""
    members = _members(text or "{}")
    last = argument.position == completion_pb2.REASONING_ARGUMENT_POSITION_LAST
    added: Mapping[str, Any] = {argument.name: reasoning}
    return dumps({**members, **added} if last else {**added, **members}).decode()


def _members(text: str | bytes) -> dict[str, Any]:
    """Members of an object with their values verbatim; none for anything else."""
    return _OBJECT.read(text) if loads(text).__class__ is dict else {}
