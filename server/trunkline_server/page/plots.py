"""Stacked bars over time as plain shapes, in percent of the plot: a browser draws them without a script."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from trunkline_server.traces.base import Total

#: Series with a colour of their own; the smaller ones are drawn as one.
COLOURS = 7
OTHERS = "others"

#: Share of its place that a bar fills.
_FILLED = 0.8


#: What a value is called; the second number is the distance of the lines across the plot.
Told = Callable[[float, float], str]
#: What a bar shows of a sum: counted, and estimated.
Measure = Callable[[Total], tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Box:
    """A piece of a bar: place and size in percent, from the upper left."""

    x: float
    y: float
    width: float
    height: float
    #: Number of the colour.
    colour: int
    #: When its span of time begins, and what it stands for.
    start: int
    name: str
    said: str
    #: Nobody counted it.
    estimated: bool


@dataclass(frozen=True, slots=True)
class Tick:
    """A line across the plot."""

    #: In percent from the top.
    y: float
    label: str


@dataclass(frozen=True, slots=True)
class Plot:
    """What is drawn."""

    boxes: Sequence[Box]
    ticks: Sequence[Tick]
    #: Name and number of the colour of each series.
    legend: Sequence[tuple[str, int]]

    @property
    def empty(self) -> bool:
        return not self.boxes

    @property
    def estimated(self) -> bool:
        """Is a part of it estimated?"""
        return any(box.estimated for box in self.boxes)


def stacked(
    totals: Sequence[Total], starts: Sequence[int], ranks: Mapping[str, int], measure: Measure, told: Told
) -> Plot:
    """Bars over the spans of time that begin at `starts`, a piece for each model, and above what was counted another
    one for what is estimated; `ranks` say in which colour.
    """
    values: dict[int, dict[tuple[bool, int], float]] = {}
    for total in totals:
        points = values.setdefault(total.start_us, {})
        for estimated, value in enumerate(measure(total)):
            piece = bool(estimated), ranks[model_of(total)]
            points[piece] = points.get(piece, 0.0) + value
    top, step = _scale(max((math.fsum(points.values()) for points in values.values()), default=0.0))
    names = _names(ranks)
    boxes: list[Box] = []
    place = 100 / max(len(starts), 1)
    for index, start in enumerate(starts):
        bottom = 100.0
        for (estimated, rank), value in sorted(values.get(start, {}).items()):
            height = value / top * 100
            bottom -= height
            x = (index + (1 - _FILLED) / 2) * place
            if value > 0:
                boxes.append(
                    Box(x, bottom, place * _FILLED, height, rank, start, names[rank], told(value, step), estimated)
                )
    lines = round(top / step)
    ticks = [Tick(100 - 100 * n / lines, told(step * n, step)) for n in range(lines + 1)]
    drawn = {box.colour for box in boxes}
    return Plot(boxes, ticks, [(name, rank) for rank, name in sorted(names.items()) if rank in drawn])


def ranked(totals: Sequence[Total]) -> dict[str, int]:
    """The number of each model's colour, the same in all plots: the dearest first, then those with most tokens.
    Models without a colour of their own share the last one.
    """
    weights: dict[str, tuple[int, int, int]] = {}
    for total in totals:
        dollars, spent, calls = weights.get(model_of(total), (0, 0, 0))
        weights[model_of(total)] = (dollars + cost(total), spent + sum(tokens(total)), calls + total.calls)
    ordered = sorted(weights, key=lambda name: (*(-weight for weight in weights[name]), name))
    return {name: min(rank, COLOURS) for rank, name in enumerate(ordered)}


def cost(total: Total) -> int:
    """With what is estimated: for an order, and nowhere told."""
    return total.cost_nano_usd + total.estimated_cost_nano_usd


def tokens(total: Total) -> tuple[int, int]:
    """In and out: counted, and estimated."""
    return total.input_tokens + total.output_tokens, total.estimated_input_tokens + total.estimated_output_tokens


def model_of(total: Total) -> str:
    return f"{total.provider}/{total.model}" if total.provider else total.model or "not known"


def short(value: float, step: float) -> str:
    """A number of things: 950, 1.5k, 20M."""
    for unit in ("", "k", "M", "G"):
        if abs(value) < 1000 or unit == "G":
            return f"{value:.3g}{unit}"
        value /= 1000
    return ""


def dollars(value: float, step: float) -> str:
    """As many decimals as tell the lines of the plot apart."""
    decimals = 2 if step >= 1 else max(2, 1 - math.floor(math.log10(step)))
    return f"${value:,.{decimals}f}"


def _names(ranks: Mapping[str, int]) -> dict[int, str]:
    names: dict[int, str] = {}
    for name, rank in ranks.items():
        names[rank] = OTHERS if rank in names else name
    return names


def _scale(most: float) -> tuple[float, float]:
    """The value at the top, and the distance of round values up to it."""
    if most <= 0:
        return 1.0, 1.0
    raw = most / 4
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * unit for factor in (1, 2, 2.5, 5, 10) if factor * unit >= raw * 0.999999)
    return step * math.ceil(most / step * 0.999999), step
