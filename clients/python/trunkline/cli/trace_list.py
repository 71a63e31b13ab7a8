"""Records one a line: a table for a terminal, tabs for a pipe, JSON for a program."""

import sys
from collections.abc import Callable
from dataclasses import dataclass

from google.protobuf.json_format import MessageToJson
from rich.console import Console
from rich.table import Table
from rich.text import Text

from trunkline.cli import figures
from trunkline.v1alpha.trace_pb2 import Trace


@dataclass(frozen=True, slots=True)
class Column:
    """One fact of a record."""

    name: str
    #: As a terminal shows it.
    shown: Callable[[Trace], str]
    width: int
    #: As a pipe is told it, where that differs.
    told: Callable[[Trace], str] | None = None
    #: Width of the terminal from which on it is shown.
    least: int = 0
    right: bool = False


def _tokens(trace: Trace) -> str:
    usage = trace.usage
    known = usage.HasField("input_tokens") or usage.HasField("output_tokens")
    return f"{usage.input_tokens:,} → {usage.output_tokens:,}" if known else ""


def _cost(trace: Trace) -> str:
    return figures.dollars(trace.usage.cost_nano_usd) if trace.usage.HasField("cost_nano_usd") else ""


def _took(trace: Trace) -> str:
    spent = figures.spent(trace)
    return "" if spent is None else figures.seconds(spent)


def _model(trace: Trace) -> str:
    return figures.line(f"{trace.provider}/{trace.model}" if trace.provider else trace.asked_model)


_COLUMNS = (
    Column(
        "time",
        lambda trace: figures.moment(trace).strftime("%m-%d %H:%M:%S"),
        14,
        told=lambda trace: figures.moment(trace).isoformat(timespec="milliseconds"),
    ),
    Column("id", lambda trace: figures.line(trace.name.removeprefix("traces/")), 37),
    Column("method", lambda trace: figures.line(trace.method), 16, least=170),
    Column("caller", lambda trace: figures.line(trace.caller), 12, least=140),
    Column("model", _model, 26),
    Column("status", figures.outcome, 16),
    Column("took", _took, 8, told=lambda trace: _plain(figures.spent(trace)), least=96, right=True),
    Column(
        "tokens",
        _tokens,
        15,
        told=lambda trace: f"{trace.usage.input_tokens}\t{trace.usage.output_tokens}",
        least=126,
        right=True,
    ),
    Column("cost", _cost, 9, told=lambda trace: _plain(_cost_of(trace)), least=110, right=True),
)


def _cost_of(trace: Trace) -> float | None:
    return trace.usage.cost_nano_usd / 1e9 if trace.usage.HasField("cost_nano_usd") else None


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:.9f}".rstrip("0").rstrip(".")


class Rows:
    """Prints records as they are added. `growing`: each at once; else a table is fitted to all of them."""

    def __init__(self, *, as_json: bool, growing: bool = False) -> None:
        self._console = Console(highlight=False, markup=False, emoji=False)
        self._as_json = as_json
        self._growing = growing
        self._columns = [column for column in _COLUMNS if self._console.width >= column.least]
        self._table = self._new_table()
        #: The head stands there.
        self.begun = False

    def begin(self) -> None:
        """Prints the head, where there is one."""
        self.begun = True
        if self._growing and self._console.is_terminal and not self._as_json:
            self._console.print(self._row([Text(column.name, style="bold") for column in self._columns]))

    def add(self, trace: Trace) -> None:
        if self._as_json:
            sys.stdout.write(MessageToJson(trace, preserving_proto_field_name=True, indent=None) + "\n")
            sys.stdout.flush()
        elif not self._console.is_terminal:
            sys.stdout.write("\t".join((column.told or column.shown)(trace) for column in _COLUMNS) + "\n")
            sys.stdout.flush()
        elif self._growing:
            self._console.print(self._row(self._cells(trace)))
        else:
            self._table.add_row(*self._cells(trace))

    def end(self) -> None:
        if self._table.row_count:
            self._console.print(self._table)

    def _cells(self, trace: Trace) -> list[Text]:
        cells = [Text(column.shown(trace)) for column in self._columns]
        style = style_of(trace)
        for column, cell in zip(self._columns, cells, strict=True):
            if column.name == "status":
                cell.stylize(style)
        return cells

    def _row(self, cells: list[Text]) -> Table:
        """A line of fixed widths, so that those before and after it stand in columns."""
        table = self._new_table(head=False, fixed=True)
        table.add_row(*cells)
        return table

    def _new_table(self, *, head: bool = True, fixed: bool = False) -> Table:
        table = Table(box=None, header_style="bold", show_header=head, pad_edge=False, padding=(0, 1, 0, 0))
        # The model has what the others leave.
        left = self._console.width - sum(column.width + 1 for column in self._columns if column.name != "model")
        fixed = fixed or left < 26
        for column in self._columns:
            width = max(8, left) if column.name == "model" else column.width
            table.add_column(
                column.name,
                justify="right" if column.right else "left",
                no_wrap=True,
                overflow="ellipsis",
                # An id that is cut is of no use.
                width=width if fixed or column.name in ("id", "time") else None,
            )
        return table


def style_of(trace: Trace) -> str:
    """The colour of its outcome."""
    if not trace.HasField("status"):
        return "yellow"
    return "red" if trace.status.code else "green"
