"""Reads a corpus of recordings: `recordings/<family>.jsonl.xz`, and `families.tsv` where there is one."""

from __future__ import annotations

import json
import lzma
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any


@dataclass(frozen=True, slots=True)
class Recording:
    """One recorded interaction, as far as calling it again needs."""

    id: str
    family: str
    kind: str
    #: The recorded request's body; None if it was not kept.
    request: Any
    #: The request's path, which names the model at some providers.
    path: str
    model: str
    streamed: bool
    #: How many vectors came back.
    vectors: int


#: What a family is called with, by the end of its name; chat is everything else.
_KINDS = {
    "embeddings": (
        "embeddings",
        "embedContent",
        "batchEmbedContents",
        "embed",
        "native-embed",
        "native-embeddings",
        "predict",
    ),
    "count_tokens": ("count_tokens", "count-tokens", "countTokens", "input_tokens", "responses-input_tokens"),
    "models": ("models",),
}
_KIND_OF = {end: kind for kind, ends in _KINDS.items() for end in ends}


def kind_of(family: str) -> str:
    """What a recording of the family is called with: chat, embeddings, count_tokens or models."""
    return _KIND_OF.get(family.partition(".")[2], "chat")


def families(corpus: Path) -> list[str]:
    """The families in scope: those that families.tsv says, or all that have recordings."""
    table = corpus / "families.tsv"
    if table.exists():
        rows = [line.split("\t") for line in table.read_text().splitlines()[1:] if line]
        return [row[0] for row in rows if row[3] != "no"]
    names = {path.name.partition(".jsonl")[0] for path in (corpus / "recordings").glob("*.jsonl*")}
    return sorted(names)


def read(corpus: Path, family: str) -> Iterator[Recording]:
    """The recordings of a family; none if the corpus has no file of that name."""
    for row in rows(corpus, family):
        yield recording_of(row, family)


def rows(corpus: Path, family: str) -> Iterator[dict[str, Any]]:
    """The recordings of a family as they are kept, answers included."""
    for name in (f"{family}.jsonl.xz", f"{family}.jsonl"):
        path = corpus / "recordings" / name
        if path.exists():
            yield from lines(path)


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file of JSON lines, packed or not."""
    with _opened(path) as opened:
        yield from (json.loads(line) for line in opened if line.strip())


#: Base64 that a recording shortened.
_ELIDED = re.compile(r"<elided \d+ chars>")


def with_whole_base64(value: Any) -> Any:
    """A copy in which base64 that was cut short in the recording ends where four characters make bytes."""
    if isinstance(value, dict):
        return {name: with_whole_base64(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [with_whole_base64(inner) for inner in value]
    if not isinstance(value, str) or not (cut := _ELIDED.search(value)):
        return value
    kept = value[: cut.start()]
    begins = kept.rfind(",") + 1
    return kept[: len(kept) - (len(kept) - begins) % 4]


def _opened(path: Path) -> IO[str]:
    return lzma.open(path, "rt", encoding="utf8") if path.suffix == ".xz" else path.open(encoding="utf8")


def recording_of(row: dict[str, Any], family: str) -> Recording:
    """A row as it is kept, as far as calling it again needs."""
    request = row.get("request_json")
    model = _model(row, request)
    kind = kind_of(family)
    if ".invoke" in family and "embed" in model:
        # One operation for all that models do.
        kind = "embeddings"
    return Recording(
        id=row["id"],
        family=family,
        kind=kind,
        request=request,
        path=row.get("url_path") or "",
        model=model,
        streamed=bool(row.get("stream_requested") or row.get("streaming")),
        vectors=_vectors(row) if kind == "embeddings" else 0,
    )


#: Members that hold a vector for each input.
_VECTORS = ("data", "embeddings", "predictions")


def _vectors(row: dict[str, Any]) -> int:
    """How many inputs were asked for, where the request was not kept: as many as were answered."""
    try:
        answer = json.loads(row.get("response_body") or "")
    except ValueError:
        return 0
    found = next((answer[name] for name in _VECTORS if name in answer), None) if isinstance(answer, dict) else None
    if isinstance(found, dict):
        # By the type of their numbers.
        found = next(iter(found.values()), None)
    return len(found) if isinstance(found, list) else 0


def _model(row: dict[str, Any], request: Any) -> str:
    asked = request.get("model") if isinstance(request, dict) else None
    return next((name for name in (asked, row.get("model")) if isinstance(name, str) and name), "unknown")
