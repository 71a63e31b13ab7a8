"""Errors as providers word them: one a line, with what each must become."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.providers.bedrock_wire import chunk, event, exception, framed

from trunkline_server.errors import LLMError
from trunkline_server.providers import DIALECTS, KINDS
from trunkline_server.providers.assembly import Assembly
from trunkline_server.providers.base import Dialect
from trunkline_server.providers.framing import FRAMINGS

_FIXTURES = Path(__file__).parent / "fixtures"


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (_FIXTURES / name).read_text().splitlines()]


def dialect_of(kind: str, model: str = "") -> Dialect:
    return DIALECTS[KINDS[kind].tongue_of(model).dialect]()


def shape(value: Any) -> Any:
    """The members of a JSON value and how they nest, without what they say."""
    if isinstance(value, dict):
        return tuple(sorted((name, shape(inner)) for name, inner in value.items()))
    if isinstance(value, list):
        return ["[]"] if not value else ["[]", *sorted({repr(shape(inner)) for inner in value})]
    return "."


#: How a frame of an event stream is written in a fixture: a list of its kind, its name and its payload.
_FRAMES = {
    "event": event,
    "exception": exception,
    "chunk": lambda _, payload: chunk(payload),
    "error": lambda name, said: framed({":message-type": "error", ":error-code": name, ":error-message": said}, b""),
}


def stream_bytes(row: dict[str, Any]) -> bytes:
    """A stream as it is on the wire: text, or frames."""
    said = row["stream"]
    return said.encode() if isinstance(said, str) else b"".join(_FRAMES[kind](*rest) for kind, *rest in said)


def streamed(dialect: Dialect, stream: bytes, chunk_bytes: int = 1 << 20) -> tuple[LLMError | None, str]:
    """The error that ends a stream, and the text that came before it."""
    assembly = Assembly("x", "asked-for")
    try:
        framer, decoder = FRAMINGS[dialect.framing](), dialect.decoder(assembly)
        for at in range(0, len(stream), chunk_bytes):
            for each in framer.feed(stream[at : at + chunk_bytes]):
                decoder.event(each)
        for each in framer.end():
            decoder.event(each)
        decoder.end()
    except LLMError as error:
        return error, _text(assembly)
    return None, _text(assembly)


def whole(dialect: Dialect, body: bytes) -> LLMError | None:
    """The error in a whole answer that began well."""
    assembly = Assembly("x", "asked-for")
    try:
        dialect.decode(body, assembly)
        assembly.require_content()
    except LLMError as error:
        return error
    return None


def _text(assembly: Assembly) -> str:
    choices = assembly.completion().choices
    return "".join(part.text.text for part in choices[0].message.parts) if choices else ""
