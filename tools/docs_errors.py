"""The tables of docs/errors.md, from how `rpc.status` behaves, the tree of errors and the comments of error.proto."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from google.rpc.status_pb2 import Status
from tools.docs_tables import code, table

from trunkline.errors import BY_CODE, BY_REASON
from trunkline_server import errors
from trunkline_server.errors import GatewayError, LLMError, Violation
from trunkline_server.rpc.details import MAX_MESSAGE_BYTES, MAX_RAW_ERROR_BYTES, CallFacts
from trunkline_server.rpc.fitting import MAX_DETAILS_BYTES
from trunkline_server.rpc.status import Failure, failure

ROOT = Path(__file__).resolve().parents[1]
PROTO = ROOT / "proto/trunkline/v1/error.proto"
SERVER = ROOT / "server/trunkline_server"

#: Errors that the gateway did not make: code, message, meaning.
_UNTOLD = (
    ("DEADLINE_EXCEEDED", "Deadline Exceeded", "the caller's own deadline; our error, 20 to 250 ms before, was lost"),
    ("CANCELLED", "", "the caller itself left"),
    ("UNAVAILABLE", "failed to connect, connection reset", "no gateway at the address, or the connection broke"),
    (
        "RESOURCE_EXHAUSTED",
        "SERVER: Received message larger than max",
        "the request is larger than `limits.max_request_bytes`; the call never began",
    ),
    (
        "RESOURCE_EXHAUSTED",
        "CLIENT: Received message larger than max",
        "the answer is larger than the client's own limit",
    ),
    ("UNIMPLEMENTED", "Method not found!", "this server does not know the method"),
)

_LIMITS = """
- Details: {details:,} bytes in all; violations that do not fit are counted in the last one.
- Message: {message:,} bytes, one printable line without secrets.
- `raw_error_json`: the first {raw:,} bytes of the provider's own error body, redacted.
"""

_COMMENT = re.compile(r"((?:  //[^\n]*\n)+)  ERROR_REASON_(\w+) = \d+;")
_WAIT = 2.0
_PUSHBACK = "grpc-retry-pushback-ms"


def blocks() -> Mapping[str, str]:
    own = [kind for kind in _classes() if not issubclass(kind, LLMError)]
    theirs = [kind for kind in _classes() if issubclass(kind, LLMError)]
    untold = ([code(status), text or "–", meaning, code(_untold(status, text))] for status, text, meaning in _UNTOLD)
    return {
        "limits": _LIMITS.format(details=MAX_DETAILS_BYTES, message=MAX_MESSAGE_BYTES, raw=MAX_RAW_ERROR_BYTES),
        "gateway": _table(own),
        "provider": _table(theirs, _ATTEMPTS),
        "untold": table(["code", "message", "meaning", "client's class"], untold),
    }


def reasons() -> Iterator[tuple[str, str]]:
    """Names of ErrorReason without the prefix, and their comments."""
    for comment, name in _COMMENT.findall(PROTO.read_text()):
        if name != "UNSPECIFIED":
            yield name, " ".join(line.strip().removeprefix("//").strip() for line in comment.splitlines())


def _classes() -> list[type[GatewayError]]:
    return list(dict.fromkeys(errors.classes()))


def _yes(known: bool) -> str:
    return "yes" if known else "no"


#: What the gateway itself does after such an error.
_ATTEMPTS: tuple[tuple[str, Callable[[type[GatewayError]], str]], ...] = (
    ("same target again", lambda kind: _yes(kind.same_target)),
    ("next target", lambda kind: kind.next_target.value),
    ("breaker counts it", lambda kind: _yes(kind.unwell)),
)


def _table(
    kinds: Sequence[type[GatewayError]], more: Sequence[tuple[str, Callable[[type[GatewayError]], str]]] = ()
) -> str:
    head = ["reason", "gRPC code", "meaning", "details", *(title for title, _ in more), "pushback", "retryable"]
    head.append("client's class")
    told, raised = dict(reasons()), _raised()
    rows = []
    for kind in kinds:
        status = failure(_full(kind), CallFacts("")).code.name
        # The comment ends with the code, which has a column here.
        meaning = told[kind.reason].removesuffix(f" {status}.")
        if kind.__name__ not in raised:
            meaning += " *This version never sends it.*"
        client = code(BY_REASON[kind.reason].__name__)
        facts = [say(kind) for _, say in more]
        told_of = [_details(kind), *facts, _pushback(kind), _yes(kind.retryable)]
        rows.append([code(kind.reason), code(status), meaning, *told_of, client])
    return table(head, rows)


def _raised() -> set[str]:
    """Names in the server's code, but for the tree of errors and the table of their statuses."""
    text = "\n".join(path.read_text() for path in SERVER.rglob("*.py") if path.name != "errors.py")
    return set(re.findall(r"\w+", re.sub(r"^ +errors\.\w+: _Row", "", text, flags=re.MULTILINE)))


def _bare(kind: type[GatewayError]) -> GatewayError:
    return kind("it failed")


def _full(kind: type[GatewayError]) -> GatewayError:
    """With all that an error of this class may know."""
    known: dict[str, Any] = {"violations": [Violation("spec.model", "it is wrong")], "retry_after": _WAIT}
    if issubclass(kind, LLMError):
        known["help_link"] = "https://example.com"
    return kind("it failed", **known)


def _details(kind: type[GatewayError]) -> str:
    always, sometimes = _names(_bare(kind)), _names(_full(kind))
    return ", ".join(code(name) if name in always else f"[{code(name)}]" for name in sometimes) or "–"


def _names(error: GatewayError) -> list[str]:
    """Types of the details beyond those that all errors have."""
    packed = _trailers(failure(error, CallFacts("cmpl_0")))["grpc-status-details-bin"]
    common = {"ErrorInfo", "RequestInfo", "LlmErrorDetail"}
    names = [detail.type_url.rpartition(".")[2] for detail in Status.FromString(packed).details]
    return [name for name in names if name not in common]


def _pushback(kind: type[GatewayError]) -> str:
    facts = CallFacts("cmpl_0", remaining=60.0)
    first, last = (_trailers(failure(_full(kind), replace(facts, spent=spent))) for spent in (False, True))
    wait = str(int(_WAIT * 1000))
    words = {
        (None, None): "–",
        ("-1", "-1"): "never",
        (wait, wait): "the wait",
        (wait, "-1"): "the wait, unless spent",
    }
    return words[first.get(_PUSHBACK), last.get(_PUSHBACK)]


def _trailers(ended: Failure) -> dict[str, Any]:
    return dict(ended.trailers)


def _untold(status: str, text: str) -> str:
    (rows,) = (rows for name, rows in BY_CODE.items() if name.name == status)
    return next(kind.__name__ for part, kind in rows if part in text)
