"""Citations: one of Cohere's becomes one for each of its sources, all of the same passage."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from trunkline.v1 import message_pb2
from trunkline_server.providers.answers import cite
from trunkline_server.providers.assembly import clean
from trunkline_server.providers.dialects.cohere_chat import wire

#: Id that a document of the request is sent with, by its index.
_DOCUMENT_ID = "doc:{}"
_NUMBERED = re.compile(r"doc:(\d{1,6})")

#: Members of a document, or of what a tool answered, that hold what the contract names; the first that is there counts.
_TITLES = ("title", "name")
_TEXTS = ("text", "snippet", "content", "output")
_ADDRESSES = ("url", "uri", "link")


def document_id(index: int) -> str:
    """The id of a document by its index among the documents of the request."""
    return _DOCUMENT_ID.format(index)


def is_about_text(citation: wire.Citation) -> bool:
    """Is the passage in the text of the answer, not in a thought or a plan?"""
    return citation.type in (None, "", "TEXT_CONTENT")


def citations_of(citation: wire.Citation, raw: str) -> Iterator[message_pb2.Citation]:
    """The passage and one source each. All hold the same verbatim citation, which goes back once."""
    for source in citation.sources or [None]:
        made = message_pb2.Citation(raw_json=raw)
        cite(made, citation.start, citation.end)
        if isinstance(source, dict):
            _name(source, made)
        yield made


def _name(source: dict[str, Any], made: message_pb2.Citation) -> None:
    """What is known of the source."""
    held = source.get("document", source.get("tool_output"))
    shown: dict[str, Any] = held if isinstance(held, dict) else {}
    made.title, made.cited_text = _text(shown, _TITLES), _text(shown, _TEXTS)
    numbered = _NUMBERED.fullmatch(_text(source, ("id",)))
    address = _text(shown, _ADDRESSES)
    if numbered:
        made.document_index = int(numbered.group(1))
    elif address:
        made.uri = address


def _text(value: dict[str, Any], names: tuple[str, ...]) -> str:
    return clean(next((value[name] for name in names if isinstance(value.get(name), str)), ""))
