"""What was measured, for people and for programs."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median

HOLDS, MISSES = "holds", "misses"


@dataclass
class Figure:
    """One line of the table."""

    what: str
    value: float
    unit: str
    #: What `value` is held against, in the same unit.
    floor: float | None = None
    ratio: float | None = None
    #: Most, or least, that the ratio may be; of the value where there is no ratio.
    most: float | None = None
    least: float | None = None
    #: Each round's own.
    rounds: list[float] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """Empty without a target."""
        held = self.value if self.ratio is None else self.ratio
        if self.most is None and self.least is None:
            return ""
        kept = (self.most is None or held <= self.most) and (self.least is None or held >= self.least)
        return HOLDS if kept else MISSES

    @property
    def target(self) -> str:
        unit = f" {self.unit}" if self.ratio is None else " x"
        if self.most is not None:
            return f"<= {self.most:g}{unit}"
        return f">= {self.least:g}{unit}" if self.least is not None else ""


def compared(what: str, values: Sequence[float], floors: Sequence[float], *, most: float | None) -> Figure:
    """Microseconds of CPU in several rounds. The ratio is that of each round, so that a slow moment is in both."""
    ratios = [value / floor for value, floor in zip(values, floors, strict=True)]
    return Figure(what, median(values), "us", median(floors), median(ratios), most=most, rounds=ratios)


def machine() -> dict[str, object]:
    """Where it was measured."""
    return {
        "cpu": _cpu_kind(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{name: version(name) for name in ("grpcio", "protobuf", "uvloop", "aiohttp")},
        "load": round(os.getloadavg()[0], 1),
    }


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns; all but the first to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = []
    for first, *others in (head, ["-" * width for width in widths], *rows):
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]).rstrip())
    return "\n".join(lines)


def rows(figures: Sequence[Figure]) -> list[list[str]]:
    return [
        [
            figure.what,
            f"{figure.value:,.{_digits(figure.value)}f} {figure.unit}",
            "" if figure.floor is None else f"{figure.floor:,.{_digits(figure.floor)}f} {figure.unit}",
            "" if figure.ratio is None else f"{figure.ratio:.2f} x",
            f"{min(figure.rounds):.2f} - {max(figure.rounds):.2f}" if len(figure.rounds) > 1 else "",
            figure.target,
            figure.verdict,
        ]
        for figure in figures
    ]


def _digits(value: float) -> int:
    return 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2


def write(file: Path, figures: Sequence[Figure], **more: object) -> None:
    """All of it as JSON."""
    lines = [{**asdict(figure), "verdict": figure.verdict} for figure in figures]
    file.write_text(json.dumps({"machine": machine(), **more, "figures": lines}, indent=2) + "\n")


def _cpu_kind() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
