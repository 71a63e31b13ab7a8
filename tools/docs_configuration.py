"""The settings of docs/configuration.md, from the fields in `config` and the `#:` comments above them."""

from __future__ import annotations

import ast
import inspect
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel, ByteSize, SecretStr
from pydantic.fields import FieldInfo
from tools.docs_tables import code, table

from trunkline_server import config
from trunkline_server.config import values

#: What a value of a type is called.
_WORDS: Mapping[Any, str] = {
    str: "text",
    bool: "true or false",
    int: "integer",
    float: "number",
    Path: "path",
    ByteSize: "size",
    Any: "value",
}


@dataclass(frozen=True, slots=True)
class Section:
    """The settings of one class, under a path."""

    path: tuple[str, ...]
    model: type[BaseModel]
    #: Is it one of a list? A list has no name in the environment for its members.
    in_list: bool = False


def blocks() -> Mapping[str, str]:
    return {"settings": "\n\n".join(block for section in sections() for block in _written(section))}


def sections(section: Section | None = None) -> Iterator[Section]:
    """All classes of settings, depth first, in the order of their fields."""
    section = section or Section((), config.Settings)
    yield section
    for name, field in _fields(section.model):
        for inner, steps, in_list in _models(field.annotation):
            yield from sections(Section((*section.path, name, *steps), inner, section.in_list or in_list))


def described(model: type[BaseModel]) -> dict[str, str]:
    """The `#:` comments above a class's fields and those that it inherits."""
    found: dict[str, str] = {}
    for parent in reversed(model.__mro__):
        if parent.__module__.startswith(config.__name__) and issubclass(parent, BaseModel):
            found.update(_comments(parent))
    return found


def _comments(model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    source = inspect.getsource(model)
    lines = source.splitlines()
    for statement in ast.parse(source).body[0].body:  # type: ignore[attr-defined]  # of a class
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            said: list[str] = []
            for line in reversed(lines[: statement.lineno - 1]):
                mark, _, text = line.strip().partition(" ")
                if mark != "#:":
                    break
                said.insert(0, text)
            yield statement.target.id, " ".join(said)


def _fields(model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    """What may be written: not what was read from a reference."""
    return ((name, field) for name, field in model.model_fields.items() if SecretStr not in get_args(field.annotation))


def _models(annotation: Any) -> Iterator[tuple[type[BaseModel], tuple[str, ...], bool]]:
    """Classes of settings inside a type, how their path goes on, and whether they stand in a list."""
    annotation, _ = _plain(annotation)
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        for one in inner:
            yield from _models(one)
    elif origin is dict:
        yield from ((model, ("NAME", *steps), listed) for model, steps, listed in _models(inner[1]))
    elif origin is tuple:
        yield from ((model, ("…", *steps), True) for model, steps, _ in _models(inner[0]))
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, (), False


def _written(section: Section) -> Iterator[str]:
    if section.path:
        yield f"## `{'.'.join(section.path)}`"
        if section.model.__doc__:
            yield section.model.__doc__
    else:
        yield "## The top level"
    said = described(section.model)
    head = ["setting", "value", "default", "meaning"]
    if not section.in_list:
        head.insert(3, "environment")
    rows = []
    for name, field in _fields(section.model):
        row = [code(name), _words(field.annotation, field.metadata), _default(field), said[name]]
        if not section.in_list:
            row.insert(3, code("TRUNKLINE_" + "__".join(step.upper() for step in (*section.path, name))))
        rows.append(row)
    yield table(head, rows)


def _plain(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """A type without its Annotated, and what that said."""
    if get_origin(annotation) is Annotated:
        inner, *metadata = get_args(annotation)
        return inner, tuple(metadata)
    return annotation, ()


def _words(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """What may be written, for people."""
    annotation, said = _plain(annotation)
    metadata = _flat((*metadata, *said))
    origin, inner = get_origin(annotation), get_args(annotation)
    if any(getattr(one, "func", None) is values.seconds_from for one in metadata):  # what makes it a time
        return "time"
    if origin in (Union, types.UnionType):
        return _words(next(one for one in inner if one is not type(None)), metadata)
    if annotation is ByteSize:
        return f"size, at least {_size(least)}" if (least := _least(metadata)) else "size"
    if origin is Literal:
        return " or ".join(code(str(one)) for one in inner)
    if origin is tuple:
        return f"list of {_plural(_words(inner[0]))}"
    if origin is dict:
        return f"mapping of names to {_plural(_words(inner[1]))}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "mapping"
    return _WORDS[annotation] + _range(metadata)


def _plural(words: str) -> str:
    return {"text": "texts", "mapping": "mappings", "value": "values"}.get(words, words)


def _flat(metadata: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(part for one in metadata for part in (one.metadata if isinstance(one, FieldInfo) else (one,)))


def _least(metadata: Sequence[Any]) -> Any:
    return next((one.ge for one in metadata if isinstance(one, annotated_types.Ge)), None)


def _range(metadata: Sequence[Any]) -> str:
    least = _least(metadata)
    most = next((one.le for one in metadata if isinstance(one, annotated_types.Le)), None)
    if least is None:
        return ""
    return f", {least:,} to {most:,}" if most is not None else f", at least {least:,}"


def _default(field: FieldInfo) -> str:
    value = field.default
    if field.is_required():
        return "required"
    if value is None:
        return "–"
    if isinstance(value, BaseModel):
        return "see below"
    if value in ((), {}):
        return "empty"
    if isinstance(value, bool):
        return code(str(value).lower())
    if isinstance(value, tuple):
        return ", ".join(code(str(one)) for one in value)
    if isinstance(value, ByteSize):
        return code(_size(value))
    # The only numbers with a fraction are times.
    return code(_time(value) if isinstance(value, float) else str(value))


def _time(seconds: float) -> str:
    return f"{seconds / 86_400:g}d" if seconds and seconds % 86_400 == 0 else f"{seconds:g}s"


def _size(size: int) -> str:
    unit = next(i for i in (9, 6, 3, 0) if size >= 10**i)
    return f"{size / 10**unit:g}{ {9: 'GB', 6: 'MB', 3: 'KB', 0: 'B'}[unit] }"
