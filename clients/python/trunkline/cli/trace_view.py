"""One record for a person at a terminal: what was asked and said, the attempts on a time line, what it came to."""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from trunkline.cli import figures
from trunkline.cli.trace_list import style_of
from trunkline.v1.completion_pb2 import (
    USAGE_SOURCE_ESTIMATED,
    USAGE_SOURCE_PARTIAL,
    FinishReason,
    RawPayload,
    Usage,
)
from trunkline.v1.message_pb2 import ContentPart, Media, Message, Role
from trunkline.v1alpha.trace_pb2 import Attempt, AttemptCause, Trace

_SOURCES = {USAGE_SOURCE_PARTIAL: "partial", USAGE_SOURCE_ESTIMATED: "estimated"}
_ROLE_STYLES = {"system": "magenta", "developer": "magenta", "user": "cyan", "assistant": "green", "tool": "yellow"}
#: Characters of one text that are shown; `--json` has all.
_LONGEST = 20_000


def show(trace: Trace, *, raw: bool) -> None:
    """Prints the record."""
    console = Console(highlight=False, markup=False, emoji=False)
    with console.capture() as captured:
        console.print(_head(trace))
        for title, body in _sections(trace, console.width, raw=raw):
            console.print()
            console.print(Text(title, style="bold"))
            console.print(Padding(body, (0, 0, 0, 2), expand=False))
    shown = captured.get()
    if not console.is_terminal:
        # What fills a table's columns is of no use in a file.
        shown = "".join(f"{line.rstrip()}\n" for line in shown.splitlines())
    sys.stdout.write(shown)


def _sections(trace: Trace, width: int, *, raw: bool) -> Iterator[tuple[str, RenderableType]]:
    if trace.HasField("status") and trace.status.code:
        yield "error", _error(trace)
    if trace.attempts:
        yield "attempts", _attempts(trace, width - 2)
    asked = list(_asked(trace))
    if asked:
        yield "asked", Group(*asked)
    answered = list(_answered(trace))
    if answered:
        yield "answered", Group(*answered)
    if trace.HasField("usage"):
        yield "usage", _usage(trace.usage)
    if raw:
        for attempt in trace.attempts:
            for name, payload in (("request", attempt.request), ("response", attempt.response)):
                if payload.body:
                    yield f"attempt {attempt.number}: {name}, {_described(payload)}", _body(payload)


def _head(trace: Trace) -> RenderableType:
    spent = figures.spent(trace)
    first = Text.assemble(
        (trace.name.removeprefix("traces/"), "bold"),
        "  ",
        (figures.outcome(trace), f"bold {style_of(trace)}"),
        "  ",
        figures.line(trace.method),
        *([f"  {figures.seconds(spent)}"] if spent is not None else []),
        *([f"  {figures.dollars(trace.usage.cost_nano_usd)}"] if trace.usage.HasField("cost_nano_usd") else []),
    )
    usual = ("", trace.model, f"{trace.provider}/{trace.model}")
    asked = f" (asked for as {trace.asked_model})" if trace.asked_model not in usual else ""
    facts = (
        ("began", figures.moment(trace).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + figures.moment(trace).strftime(" %z")),
        ("model", f"{trace.provider}/{trace.model}{asked}" if trace.model else trace.asked_model),
        ("caller", trace.caller),
        ("request id", trace.request_id),
        ("labels", ", ".join(f"{name}={value}" for name, value in sorted(trace.labels.items()))),
        ("span", f"{trace.otel_trace_id} {trace.otel_span_id}".strip()),
        ("remarks", ", ".join(_remarks(trace))),
    )
    return Group(first, _facts(facts))


def _remarks(trace: Trace) -> Iterator[str]:
    if trace.streamed:
        yield f"streamed, {trace.events:,} events" if trace.events else "streamed"
    if trace.cancelled:
        yield "the caller left"
    if trace.truncated:
        yield "cut to the server's limit of size"
    if trace.timing.HasField("queued"):
        yield f"waited {figures.seconds(figures.of(trace.timing.queued))} to be admitted"
    if trace.timing.HasField("time_to_first_token"):
        yield f"first content after {figures.seconds(figures.of(trace.timing.time_to_first_token))}"


def _facts(rows: Iterable[tuple[str, str]]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in rows:
        if value:
            table.add_row(name, Text(figures.line(value)))
    return table


# -- attempts ---------------------------------------------------------------------------------------------------------


def _attempts(trace: Trace, width: int) -> RenderableType:
    """One bar for each, on the scale of the whole call."""
    began = _at(trace)
    ends = [_offset(began, attempt) + figures.of(attempt.duration) for attempt in trace.attempts]
    whole = max([figures.spent(trace) or 0.0, *ends, 1e-9])
    table = Table.grid(padding=(0, 1, 0, 0))
    names = [Text(figures.line(f"{a.number}  {a.provider}/{a.model}")) for a in trace.attempts]
    bar_width = max(10, width - max(len(name) for name in names) - 32) if width > 70 else 0
    for _ in range(4 if bar_width else 3):
        table.add_column(overflow="fold")
    for attempt, name in zip(trace.attempts, names, strict=True):
        bar = [_bar(began, attempt, whole, bar_width)] if bar_width else []
        told = _told(attempt)
        table.add_row(name, *bar, figures.seconds(figures.of(attempt.duration)), told)
    if not bar_width:
        return table
    scale = Text("░ until it answered  █ answering", style="dim")
    return Group(table, scale)


def _at(trace: Trace) -> float:
    return trace.start_time.seconds + trace.start_time.nanos / 1e9


def _offset(began: float, attempt: Attempt) -> float:
    """Seconds from the call's beginning to the attempt's."""
    return max(0.0, attempt.start_time.seconds + attempt.start_time.nanos / 1e9 - began)


def _bar(began: float, attempt: Attempt, whole: float, width: int) -> Text:
    def at(seconds: float) -> int:
        return min(width, round(seconds / whole * width))

    start = _offset(began, attempt)
    end = start + figures.of(attempt.duration)
    answering = start + figures.of(attempt.time_to_first_event) if attempt.HasField("time_to_first_event") else end
    waits, says = at(answering) - at(start), at(end) - at(answering)
    if not waits + says:
        waits = 1
    lead = min(at(start), width - waits - says)
    colour = "red" if attempt.reason else "green"
    return Text.assemble(" " * lead, ("░" * waits, "dim"), ("█" * says, colour), " " * (width - lead - waits - says))


def _told(attempt: Attempt) -> Text:
    """How it went and why it was made."""
    words = [attempt.reason or "OK"]
    if attempt.HasField("upstream_status"):
        words.append(str(attempt.upstream_status))
    cause = AttemptCause.Name(attempt.cause) if attempt.cause in AttemptCause.values() else ""
    cause = cause.removeprefix("ATTEMPT_CAUSE_").lower()
    if cause not in ("", "unspecified", "first"):
        words.append(f"({cause})")
    return Text(figures.line(" ".join(words)), style="red" if attempt.reason else "")


# -- what was said ----------------------------------------------------------------------------------------------------


def _asked(trace: Trace) -> Iterator[RenderableType]:
    kind = trace.WhichOneof("request")
    if kind == "completion_spec":
        spec = trace.completion_spec
        if spec.HasField("extra_system_text"):
            yield _turn("system", [_text(spec.extra_system_text)])
        for message in spec.messages:
            yield _message(message)
        if not spec.messages:
            yield Text("what was said is not kept", style="dim")
        if spec.tools:
            names = [tool.function.name or tool.provider.type for tool in spec.tools]
            yield Text(figures.line(f"tools: {', '.join(names)}"), style="dim")
        if spec.HasField("params"):
            yield Text(figures.line(f"parameters: {spec.params}"), style="dim")
    elif kind == "embedding_spec":
        count = len(trace.embedding_spec.inputs)
        yield Text(f"{count:,} input{'' if count == 1 else 's'} to embed")


def _answered(trace: Trace) -> Iterator[RenderableType]:
    kind = trace.WhichOneof("response")
    if kind == "completion":
        for choice in trace.completion.choices:
            yield _message(choice.message)
            reason = FinishReason.Name(choice.finish_reason).removeprefix("FINISH_REASON_").lower()
            raw = choice.raw_finish_reason
            yield Text(figures.line(f"ended: {reason}" + (f" ({raw})" if raw not in ("", reason) else "")), style="dim")
        for warning in trace.completion.warnings:
            yield Text(figures.line(f"note: {warning.field}: {warning.message or warning.reason}"), style="yellow")
    elif kind == "embeddings":
        yield Text(f"{len(trace.embeddings.embeddings):,} vectors")
    elif kind == "counted_tokens":
        yield Text(f"{trace.counted_tokens:,} tokens")


def _message(message: Message) -> RenderableType:
    role = Role.Name(message.role).removeprefix("ROLE_").lower() if message.role in Role.values() else "?"
    return _turn(role, [_part(part) for part in message.parts])


def _turn(role: str, parts: Sequence[RenderableType]) -> RenderableType:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style=_ROLE_STYLES.get(role, ""), width=9)
    table.add_column(overflow="fold")
    table.add_row(role, Group(*parts))
    return table


def _part(part: ContentPart) -> RenderableType:
    match part.WhichOneof("kind"):
        case "text":
            return _text(part.text.text)
        case "image" | "audio" | "video" | "document" as kind:
            return Text(f"[{kind}: {_media(getattr(part, kind))}]", style="dim")
        case "tool_call":
            call = part.tool_call
            return Text.assemble(
                ("→ ", "bold yellow"), figures.line(call.name), " ", figures.clean(call.arguments_json)
            )
        case "tool_result":
            result = part.tool_result
            head = Text.assemble(("← ", "bold yellow"), figures.line(result.name or result.tool_call_id))
            head.append("  failed" if result.is_error else "", style="red")
            return Group(head, *(_part(inner) for inner in result.parts))
        case "reasoning":
            return Text(_cut(part.reasoning.text) or "[reasoning that the provider withholds]", style="dim italic")
        case "refusal":
            return Text(_cut(part.refusal.text), style="red")
        case "opaque":
            return Text(f"[{figures.line(part.opaque.type)}: {figures.size(len(part.opaque.json))}]", style="dim")
        case _:
            return Text("[a kind of part that this version does not know]", style="dim")


def _text(text: str) -> Text:
    return Text(_cut(text))


def _cut(text: str) -> str:
    more = len(text) - _LONGEST
    return figures.clean(text[:_LONGEST]) + (f" … and {more:,} more characters" if more > 0 else "")


def _media(media: Media) -> str:
    where = media.uri or media.file_id or figures.size(len(media.data))
    return figures.line(" ".join(word for word in (media.mime_type, media.filename, where) if word))


# -- figures ----------------------------------------------------------------------------------------------------------


def _usage(usage: Usage) -> RenderableType:
    rows = (
        (
            "input",
            "input_tokens",
            (("cache_read_input_tokens", "from the cache"), ("cache_write_input_tokens", "cached")),
        ),
        ("output", "output_tokens", (("reasoning_tokens", "reasoning"),)),
    )
    facts = []
    for name, total, parts in rows:
        if usage.HasField(total):  # type: ignore[arg-type]  # the table names its fields
            of = [f"{getattr(usage, part):,} {what}" for part, what in parts if usage.HasField(part)]  # type: ignore[arg-type]  # as above
            facts.append((name, f"{getattr(usage, total):,} tokens" + (f" ({', '.join(of)})" if of else "")))
    if usage.HasField("cost_nano_usd"):
        facts.append(("cost", figures.dollars(usage.cost_nano_usd)))
    if usage.source in _SOURCES:
        facts.append(("counted", _SOURCES[usage.source]))
    return _facts(facts)


def _error(trace: Trace) -> RenderableType:
    status = trace.status
    said = Text(_cut(status.message), style="red")
    facts = [
        ("reason", status.reason),
        ("code", str(status.code)),
        ("provider's code", status.detail.provider_code),
        ("provider's id", next((a.provider_request_id for a in reversed(trace.attempts) if a.provider_request_id), "")),
    ]
    return Group(said, _facts(facts))


# -- bodies -----------------------------------------------------------------------------------------------------------


def _described(payload: RawPayload) -> str:
    cut = ", cut" if payload.truncated else ""
    return f"{payload.content_type or 'of no type'}, {figures.size(len(payload.body))}{cut}"


def _body(payload: RawPayload) -> RenderableType:
    text = payload.body.decode(errors="replace")
    try:
        text = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except ValueError:
        return Text(_cut(text))
    return Syntax(_cut(text), "json", background_color="default", word_wrap=True)
