"""From Python types to JSON Schema and back. Whatever needs pydantic is here, and pydantic is imported on first use."""

import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar, get_type_hints

import grpc

from trunkline.errors import ParseError, Violation
from trunkline.v1.completion_pb2 import (
    FINISH_REASON_LENGTH,
    Completion,
    FinishReason,
    JsonSchemaFormat,
    ResponseFormat,
)

if TYPE_CHECKING:
    import pydantic

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Parsed(Generic[T]):
    """An answer of the type that was asked for, and the whole completion it came in."""

    value: T
    completion: Completion


def json_schema(kind: Any) -> dict[str, Any]:
    """JSON Schema of a type that pydantic knows: a model, a dataclass, a TypedDict, a list of them."""
    schema: dict[str, Any] = _pydantic().TypeAdapter(kind).json_schema()
    return schema


def describe(source: type[Any] | Callable[..., Any]) -> tuple[str, dict[str, Any]]:
    """What a model or a function says of itself: its docstring's first paragraph and the schema of its parameters."""
    pydantic = _pydantic()
    doc = inspect.getdoc(source) or ""
    if isinstance(source, type):
        own = "" if doc == inspect.getdoc(pydantic.BaseModel) else doc
        return own.partition("\n\n")[0], json_schema(source)
    hints = get_type_hints(source, include_extras=True)
    fields: dict[str, Any] = {}
    for parameter in inspect.signature(source).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise TypeError(f"{source.__name__}: parameter {parameter} cannot be named in JSON; give it a plain name")
        if parameter.name not in hints:
            raise TypeError(f"{source.__name__}: parameter {parameter.name!r} has no type; annotate it")
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[parameter.name] = (hints[parameter.name], default)
    model = pydantic.create_model(source.__name__, **fields)
    return doc.partition("\n\n")[0], model.model_json_schema()


def response_format(kind: Any, strict: bool | None = None) -> ResponseFormat:
    """The response format that asks for JSON of this type."""
    schema = json_schema(kind)
    name = "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "_" for c in getattr(kind, "__name__", ""))
    return ResponseFormat(
        json_schema=JsonSchemaFormat(
            name=name[:64],
            description=schema.get("description", ""),
            json_schema=json.dumps(schema),
            strict=strict,
        )
    )


def parse_answer(completion: Completion, kind: type[T]) -> Parsed[T]:
    """The first choice's text as `kind`. Raises ParseError, which keeps the completion, if it does not fit."""
    choice = completion.choices[0] if completion.choices else None
    parts = choice.message.parts if choice else []
    refusal = "".join(part.refusal.text for part in parts if part.WhichOneof("kind") == "refusal")
    words = "".join(part.text.text for part in parts if part.WhichOneof("kind") == "text")
    if refusal:
        raise _unfit(f"the model declined: {refusal}", completion=completion)
    if not words:
        reason = FinishReason.Name(choice.finish_reason).removeprefix("FINISH_REASON_") if choice else "no choice"
        raise _unfit(f"the answer has no text (finish reason: {reason})", completion=completion)
    pydantic = _pydantic()
    try:
        return Parsed(pydantic.TypeAdapter(kind).validate_json(words), completion)
    except pydantic.ValidationError as error:
        name = getattr(kind, "__name__", str(kind))
        cut = choice is not None and choice.finish_reason == FINISH_REASON_LENGTH
        hint = "; it was cut off: allow more with max_output_tokens" if cut else ""
        raise _unfit(f"the answer is not a {name}{hint}", _violations(error), completion) from error


def parse_object(words: str, name: str) -> dict[str, Any]:
    """The JSON object in `words`; none at all counts as an empty one."""
    try:
        value = json.loads(words or "{}")
    except json.JSONDecodeError as error:
        raise _unfit(f"the arguments of {name} are not JSON: {error}") from error
    if not isinstance(value, dict):
        raise _unfit(f"the arguments of {name} are not a JSON object but {type(value).__name__}")
    return value


def parse_arguments(words: str, name: str, kind: type[T]) -> T:
    """The JSON object in `words` as `kind`."""
    pydantic = _pydantic()
    try:
        value: T = pydantic.TypeAdapter(kind).validate_json(words or "{}")
    except pydantic.ValidationError as error:
        raise _unfit(f"the arguments of {name} do not fit", _violations(error)) from error
    return value


def _unfit(message: str, violations: list[Violation] | None = None, completion: Completion | None = None) -> ParseError:
    return ParseError(message, code=grpc.StatusCode.OK, violations=violations or (), completion=completion)


def _violations(error: "pydantic.ValidationError") -> list[Violation]:
    return [Violation(".".join(map(str, item["loc"])) or "$", item["msg"]) for item in error.errors(include_url=False)]


def _pydantic() -> Any:
    try:
        import pydantic
    except ImportError as error:
        raise ImportError("this needs pydantic: pip install 'trunkline-client[pydantic]'") from error
    return pydantic
