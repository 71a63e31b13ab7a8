"""The commands of `trunkline traces`: list, show, tail, export, delete."""

import functools
import inspect
import re
import sys
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import grpc
import typer
from google.protobuf.json_format import MessageToJson

from trunkline import NotFound, PermissionDenied, Unimplemented
from trunkline.channel import LOOKUP_TIMEOUT, STREAM_TIMEOUT
from trunkline.cli import problems, trace_list, trace_view
from trunkline.cli.connection import Connection
from trunkline.filters import FilterOptions

app = typer.Typer(
    help="Look at the records of calls: your own, as an operator everybody's.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_ADVICE: problems.Advice = {
    NotFound: "to see what there is: trunkline traces list",
    PermissionDenied: "",
    Unimplemented: "does the gateway at {address} keep records, where they can be read? see its setting `traces`",
}

_AGO = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d)")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_CODES = {code.name: code.value[0] for code in grpc.StatusCode}


def _time(text: str) -> datetime:
    ago = _AGO.fullmatch(text.strip())
    if ago:
        return datetime.now().astimezone() - timedelta(seconds=float(ago[1]) * _UNITS[ago[2]])
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise typer.BadParameter('write a time ago such as "90s", "2h" or "7d", or a date and time') from None


def _span(text: str) -> float:
    found = _AGO.fullmatch(text.strip())
    if found is None and not re.fullmatch(r"\d+(\.\d+)?", text.strip()):
        raise typer.BadParameter('write seconds, or a number with s, m or h, e.g. "2.5s"')
    return float(found[1]) * _UNITS[found[2]] if found else float(text)


def _status(text: str) -> FilterOptions:
    """One of three fields of the filter."""
    word = text.upper()
    if word in ("OK", "FAILED"):
        return {"failed": word == "FAILED"}
    code = _CODES.get(word, int(word) if word.isascii() and word.isdigit() else None)
    return {"reason": word} if code is None else {"code": code}


def _labels(pairs: Iterable[str]) -> dict[str, str]:
    labels = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise typer.BadParameter(f"{pair!r} is not NAME=VALUE", param_hint="--label")
        labels[name] = value
    return labels


def _filters(
    since: Annotated[
        datetime | None,
        typer.Option(parser=_time, metavar="TIME", help='Calls that began at this time or later: "2h" ago, or a date.'),
    ] = None,
    until: Annotated[
        datetime | None, typer.Option(parser=_time, metavar="TIME", help="Calls that began before this time.")
    ] = None,
    provider: Annotated[str | None, typer.Option(metavar="NAME", help="Provider of the last attempt.")] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", metavar="NAME", help="Model, or name asked for.")
    ] = None,
    caller: Annotated[str | None, typer.Option(metavar="NAME", help="Who called.")] = None,
    method: Annotated[str | None, typer.Option(metavar="RPC", help="E.g. StreamCompletion.")] = None,
    status: Annotated[
        str | None,
        typer.Option(metavar="STATUS", help="ok, failed, a code such as NOT_FOUND, or a reason: LLM_RATE_LIMITED."),
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A label that the call had; may be repeated.")
    ] = None,
    min_cost: Annotated[float | None, typer.Option(min=0, metavar="DOLLARS", help="Cost at least this much.")] = None,
    min_duration: Annotated[
        float | None, typer.Option(parser=_span, metavar="TIME", help='Took at least this long: "2.5s".')
    ] = None,
    error: Annotated[str | None, typer.Option(metavar="WORDS", help="Words of the error's message.")] = None,
) -> FilterOptions:
    which: FilterOptions = {} if status is None else _status(status)
    given: dict[str, Any] = {
        "start_time": since,
        "end_time": until,
        "provider": provider,
        "model": model,
        "caller": caller,
        "method": method,
        "labels": _labels(label or ()) or None,
        "min_cost": min_cost,
        "min_duration": min_duration,
        "error_text": error,
    }
    which.update({name: value for name, value in given.items() if value is not None})  # type: ignore[typeddict-item]  # by name
    return which


def _filtered(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the options of `_filters` instead of its parameter `which`."""
    options = inspect.signature(_filters).parameters

    @functools.wraps(command)
    def run(**given: Any) -> None:
        command(which=_filters(**{name: given.pop(name) for name in options}), **given)

    own = [p for p in inspect.signature(command).parameters.values() if p.name != "which"]
    together = [p.replace(kind=p.KEYWORD_ONLY) for p in (*own, *options.values())]
    run.__signature__ = inspect.Signature(together)  # type: ignore[attr-defined]  # typer reads it
    run.__annotations__ = {p.name: p.annotation for p in together}
    return run


AsJson = Annotated[bool, typer.Option("--json", help="Print records as JSON, one a line.")]
Name = Annotated[str, typer.Argument(metavar="ID", help='Id of the call, "cmpl_...".')]


@app.command("list")
@_filtered
def list_(
    context: typer.Context,
    which: FilterOptions,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, metavar="N", help="Most records.")] = 25,
    oldest_first: Annotated[bool, typer.Option("--oldest-first", help="In the order in which calls began.")] = False,
    as_json: AsJson = False,
) -> None:
    """List records, newest first; with tabs between the columns where it is not a terminal."""
    connection: Connection = context.obj
    with problems.told(connection.address, _ADVICE), connection.client() as client:
        found = client.traces.list(
            oldest_first=oldest_first, page_size=min(limit, 1000), timeout=_look_up(connection), **which
        )
        shown = 0
        rows = trace_list.Rows(as_json=as_json)
        for trace in found:
            rows.add(trace)
            shown += 1
            if shown == limit:
                break
        rows.end()
        if not shown:
            problems.note("no records")
        elif shown == limit and next(found, None) is not None:
            problems.note(f"there are more than these {limit}; see --limit")


@app.command()
def show(
    context: typer.Context,
    name: Name,
    raw: Annotated[bool, typer.Option("--raw", help="Show the bodies of the attempts, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole record as JSON.")] = False,
) -> None:
    """Show one call: its attempts on a time line, what was said, what it used and cost, why it failed."""
    connection: Connection = context.obj
    with problems.told(connection.address, _ADVICE), connection.client() as client:
        trace = client.traces.get(name, timeout=_look_up(connection))
        if as_json:
            sys.stdout.write(MessageToJson(trace, preserving_proto_field_name=True, indent=2) + "\n")
        else:
            trace_view.show(trace, raw=raw)


@app.command()
@_filtered
def tail(context: typer.Context, which: FilterOptions, as_json: AsJson = False) -> None:
    """Print records as calls end, until Ctrl-C."""
    connection: Connection = context.obj
    with problems.told(connection.address, _ADVICE), connection.client() as client:
        rows = trace_list.Rows(as_json=as_json, growing=True)
        dropped = 0
        for told in client.traces.tail(timeout=connection.timeout, **which):
            if not rows.begun:
                rows.begin()
                problems.note("following; Ctrl-C ends it")
            if told.dropped > dropped:
                problems.note(f"lost since they came faster than they were read: {told.dropped - dropped:,}")
                dropped = told.dropped
            if told.HasField("trace"):
                rows.add(told.trace)


@app.command()
@_filtered
def export(
    context: typer.Context,
    which: FilterOptions,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Default: standard output.")
    ] = None,
    content: Annotated[bool, typer.Option("--content/--no-content", help="With what was said.")] = True,
) -> None:
    """Write records as lines of JSON, oldest first."""
    connection: Connection = context.obj
    with problems.told(connection.address, _ADVICE), connection.client() as client:
        pieces = client.traces.export(full=content, timeout=connection.timeout or STREAM_TIMEOUT, **which)
        if output is None:
            count = _write(pieces, sys.stdout.buffer)
        else:
            try:
                with output.open("wb") as file:
                    count = _write(pieces, file)
            except OSError as error:
                problems.errors.print(f"error: cannot write {output}: {error.strerror}", style="red")
                raise typer.Exit(problems.FAILED) from None
    problems.note(f"{count:,} record{'' if count == 1 else 's'}")


@app.command()
def delete(
    context: typer.Context,
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete a record from every backend. For operators."""
    connection: Connection = context.obj
    if not yes and not _sure(f"Delete the record of {name} for good? [y/N] "):
        problems.note("nothing was deleted")
        raise typer.Exit(problems.FAILED)
    with problems.told(connection.address, _ADVICE), connection.client() as client:
        backends = client.traces.delete(name, timeout=_look_up(connection))
    sys.stdout.write(f"deleted from {', '.join(backends)}\n")


def _sure(question: str) -> bool:
    """Asks on standard error, so that what is printed stays what was done."""
    sys.stderr.write(question)
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _look_up(connection: Connection) -> float:
    return connection.timeout or LOOKUP_TIMEOUT


def _write(pieces: Iterable[bytes], file: BinaryIO) -> int:
    """Returns how many lines there were."""
    lines = 0
    for piece in pieces:
        file.write(piece)
        lines += piece.count(b"\n")
    file.flush()
    return lines
