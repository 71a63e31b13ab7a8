"""Checks of the messages of a spec: roles and kinds, media, and that tool calls and results pair.

Runs over every message of every call, so it asks protobuf little: 100 messages of text take about 80 us.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from trunkline.v1 import message_pb2
from trunkline_server.rpc.checks import Check, json_object, json_value, known, matching, shown
from trunkline_server.rpc.findings import Findings, TooMuch

MAX_MESSAGES = 10_000
#: Parts in all, those of tool results and citations included. More would keep the server from its other calls.
MAX_PARTS = 50_000
MAX_MEDIA_BYTES = 20 * 1024 * 1024

_ASSISTANT = message_pb2.ROLE_ASSISTANT
_TOOL = message_pb2.ROLE_TOOL
_ROLES = ", ".join(message_pb2.Role.keys()[1:])
_SPEAKERS = frozenset(
    {message_pb2.ROLE_SYSTEM, message_pb2.ROLE_DEVELOPER, message_pb2.ROLE_USER, message_pb2.ROLE_ASSISTANT}
)


# -- parts ------------------------------------------------------------------------------------------------------------

_URI = re.compile(r"(?:https?|gs|s3)://[^\s/?#]\S*", re.IGNORECASE)
_mime_type = matching(
    r"[\w.+-]+/[\w.+-]+(?:\s*;.*)?", 'write an IANA media type with its subtype, e.g. "image/png" or "application/pdf"'
)
_detail = known(message_pb2.MediaDetail)
_ttl = known(message_pb2.CacheTtl)


def check_media(media: message_pb2.Media, path: str, findings: Findings) -> None:
    source = media.WhichOneof("source")
    if source is None:
        findings.add(path, "no source: set one of data, uri and file_id")
    elif source == "data":
        _data(media, path, findings)
    elif source == "uri":
        _uri(media.uri, f"{path}.uri", findings)
    elif not media.file_id:
        findings.add(f"{path}.file_id", "empty: give the handle that the provider's files API returned")
    if media.mime_type:
        _mime_type(media.mime_type, f"{path}.mime_type", findings)
    if media.detail:
        _detail(media.detail, f"{path}.detail", findings)


def _data(media: message_pb2.Media, path: str, findings: Findings) -> None:
    if not media.mime_type:
        findings.add(f"{path}.mime_type", 'missing: data needs its media type, e.g. "image/png"')
    # The size of the message costs nothing; the data itself would be copied.
    size = media.ByteSize()
    if size > MAX_MEDIA_BYTES and (size := len(media.data)) > MAX_MEDIA_BYTES:
        findings.add(f"{path}.data", f"{size:,} bytes are too many: send at most 20 MiB, or give a uri or file_id")
    elif size < 1024 and not media.data:
        findings.add(f"{path}.data", "empty: send the bytes, or give a uri or file_id")


def _uri(uri: str, path: str, findings: Findings) -> None:
    if uri[:5].lower() == "data:":
        findings.add(
            path, "a data: URL is not allowed: put the bytes, not base64, into data and the type into mime_type"
        )
    elif _URI.fullmatch(uri) is None:
        findings.add(path, f"{shown(uri)} is not an address that providers fetch: use https:, http:, gs: or s3:")


def _text(text: message_pb2.Text, path: str, findings: Findings) -> None:
    findings.count_parts(len(text.citations), MAX_PARTS)
    for at, citation in enumerate(text.citations):
        if citation.raw_json:
            json_value(citation.raw_json, f"{path}.citations[{at}].raw_json", findings)


def _opaque(block: message_pb2.OpaqueBlock, path: str, findings: Findings) -> None:
    json_object(block.json, f"{path}.json", findings)


def _tool_call(call: message_pb2.ToolCall, path: str, findings: Findings) -> None:
    if not call.id:
        findings.add(f"{path}.id", "missing: give each call the id that its result names")


_RESULT_KINDS: dict[str, Check | None] = {"text": _text, "image": check_media, "document": check_media}


def _tool_result(result: message_pb2.ToolResult, path: str, findings: Findings) -> None:
    if not result.tool_call_id:
        findings.add(f"{path}.tool_call_id", "missing: give the id of the tool call that this answers")
    findings.count_parts(len(result.parts), MAX_PARTS)
    for at, part in enumerate(result.parts):
        _part(part, f"{path}.parts[{at}]", _RESULT_KINDS, "the result of a tool", findings)


#: What each role may say, and how it is looked at.
_SAID: dict[str, Check | None] = {
    "text": _text,
    "image": check_media,
    "audio": check_media,
    "video": check_media,
    "document": check_media,
    "opaque": _opaque,
}
_KINDS: dict[int, tuple[str, dict[str, Check | None]]] = {
    message_pb2.ROLE_SYSTEM: ("a system message", _SAID),
    message_pb2.ROLE_DEVELOPER: ("a developer message", _SAID),
    message_pb2.ROLE_USER: ("a user message", _SAID),
    _ASSISTANT: ("an assistant message", {**_SAID, "tool_call": _tool_call, "reasoning": None, "refusal": None}),
    _TOOL: ("a tool message", {"tool_result": _tool_result}),
}
#: Where a kind that stands in the wrong place belongs.
_BELONGS = {
    "tool_result": "put it into a message of its own with ROLE_TOOL",
    "tool_call": "only ROLE_ASSISTANT calls tools",
    "reasoning": "only ROLE_ASSISTANT thinks",
    "refusal": "only ROLE_ASSISTANT refuses",
}


def _part(
    part: message_pb2.ContentPart, path: str, kinds: dict[str, Check | None], place: str, findings: Findings
) -> str:
    """Checks one part; returns its kind if it may stand here, else nothing."""
    kind = part.WhichOneof("kind")
    if part.HasField("cache_control") and part.cache_control.ttl:
        _ttl(part.cache_control.ttl, f"{path}.cache_control.ttl", findings)
    if kind is None:
        findings.add(path, f"no kind, or one that this server does not know: set one of {', '.join(kinds)}")
        return ""
    if kind not in kinds:
        belongs = _BELONGS.get(kind, f"it holds {', '.join(kinds)}")
        findings.add(f"{path}.{kind}", f"{kind} cannot stand in {place}: {belongs}")
        return ""
    check = kinds[kind]
    if check is not None:
        check(getattr(part, kind), f"{path}.{kind}", findings)
    return kind


# -- messages ---------------------------------------------------------------------------------------------------------


def check_messages(
    messages: Sequence[message_pb2.Message], path: str, findings: Findings, *, earlier_kept: bool = False
) -> None:
    """`earlier_kept`: the provider keeps what came before, so that results may answer calls that are not here."""
    if len(messages) > MAX_MESSAGES:
        findings.add(path, f"{len(messages):,} messages are too many: send at most {MAX_MESSAGES:,}")
    try:
        _walk(messages[:MAX_MESSAGES], path, findings, earlier_kept)
    except TooMuch:
        findings.add(path, f"more than {MAX_PARTS:,} parts in all messages: send fewer, or join texts")


def _walk(messages: Sequence[message_pb2.Message], path: str, findings: Findings, earlier_kept: bool) -> None:
    pairs: _Pairs | None = None
    for at, message in enumerate(messages):
        role = message.role
        parts = message.parts
        # One part of text is what most messages are. Indexing is cheaper than iterating.
        if len(parts) == 1 and role in _SPEAKERS:
            only = parts[0]
            if (
                only.WhichOneof("kind") == "text"
                and not only.HasField("cache_control")
                and not (role == _ASSISTANT and only.text.citations)
            ):
                continue
        if pairs is None:
            pairs = _Pairs(findings, {}, {}, set(), earlier_kept)
        _message(message, at, f"{path}[{at}]", pairs, findings)
    if pairs is not None:
        pairs.finish(len(messages) - 1)


def _message(message: message_pb2.Message, at: int, path: str, pairs: _Pairs, findings: Findings) -> None:
    role = message.role
    found = _KINDS.get(role)
    if found is None:
        fault = f"{role} is no Role that this server knows" if role else "missing"
        findings.add(f"{path}.role", f"{fault}: set one of {_ROLES}")
        return
    place, kinds = found
    findings.count_parts(len(message.parts), MAX_PARTS)
    parts = message.parts[:]
    if not parts and role != _ASSISTANT:
        findings.add(f"{path}.parts", f"empty: {place} has at least one part")
    for index, part in enumerate(parts):
        where = f"{path}.parts[{index}]"
        kind = _part(part, where, kinds, place, findings)
        if kind == "tool_call":
            pairs.call(part.tool_call, f"{where}.tool_call", at)
        elif kind == "tool_result":
            pairs.result(part.tool_result.tool_call_id, f"{where}.tool_result.tool_call_id")


@dataclass(slots=True)
class _Pairs:
    """Tool calls and their results, in the order of the conversation.

    An id may come again once it was answered: some providers number the calls of each answer from 0.
    """

    findings: Findings
    #: Calls that wait for their result: id to path and index of the message.
    waiting: dict[str, tuple[str, int]]
    #: Calls that have it: id to path of the result.
    answered: dict[str, str]
    #: Calls that the provider runs itself.
    provider_executed: set[str]
    earlier_kept: bool

    def call(self, call: message_pb2.ToolCall, path: str, at: int) -> None:
        if not call.id:
            return
        if call.provider_executed:
            self.provider_executed.add(call.id)
            return
        if call.id in self.waiting:
            other, _ = self.waiting[call.id]
            self.findings.add(f"{path}.id", f"{shown(call.id)} is the id of {other} too: give each call its own")
            return
        self.answered.pop(call.id, None)
        self.waiting[call.id] = (path, at)

    def result(self, call_id: str, path: str) -> None:
        if not call_id:
            return
        if self.waiting.pop(call_id, None) is not None:
            self.answered[call_id] = path
        elif call_id in self.answered:
            first = self.answered[call_id]
            self.findings.add(path, f"a second result for the tool call {shown(call_id)}: {first} names it too")
        elif call_id in self.provider_executed:
            self.findings.add(path, f"the provider runs the tool call {shown(call_id)} itself: leave its result out")
        elif not self.earlier_kept:
            self.findings.add(path, f"no tool call with id {shown(call_id)} before this result")

    def finish(self, last: int) -> None:
        """Calls in the last message may still wait: nothing follows that needs their results."""
        for call_id, (path, at) in self.waiting.items():
            if at < last:
                self.findings.add(
                    path,
                    f"no result for the tool call {shown(call_id)} in the messages that follow: add a tool_result with "
                    "this tool_call_id in a ROLE_TOOL message",
                )
