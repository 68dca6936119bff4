"""Plots as inline SVG: three small kinds, all pure functions of numbers.

Colours come from the page's style sheet through classes. Lines differ in their dashes, too, so that a plot can be read
without colour; the data stands in a table beside it. A plot is drawn for a width in pixels and keeps its size of text.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import msgspec

from compare.pages.markup import Markup, element, join

_MOST_TICKS = 9
CHARACTER = 6.6  # width of a character of a label, in pixels, on the safe side


class Line(msgspec.Struct, frozen=True):
    """A series of (x, y), rising in x."""

    label: str
    css: str
    points: tuple[tuple[float, float], ...]


class Axis(msgspec.Struct, frozen=True):
    """From where to where, and what is written at it."""

    title: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    log: bool = False

    def at(self, value: float) -> float:
        """Where a value lies between the ends: 0 to 1, or beyond."""
        if self.log:
            return math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


class Mark(msgspec.Struct, frozen=True):
    """A point worth naming. Without y it is a line across the plot."""

    x: float
    y: float | None
    label: str
    css: str


class Bar(msgspec.Struct, frozen=True):
    """One bar with its name above it and its figure at the end."""

    label: str
    detail: str
    value: float
    figure: str
    css: str


def linear_axis(title: str, high: float, prefix: str = "") -> Axis:
    """From 0 to `high`, with about five round ticks."""
    high = high if high > 0 else 1.0
    step = _round_step(high / 5)
    count = math.floor(high / step + 1e-9)
    ticks = tuple((step * n, f"{prefix}{step * n:,.{_decimals(step)}f}") for n in range(count + 1))
    return Axis(title, 0.0, high, ticks)


def log_axis(title: str, low: float, high: float) -> Axis:
    """A logarithmic axis with ticks at 1, 2 and 5 of every decade, widened to the next of them."""
    steps = [mantissa * 10.0**power for power in range(-3, 8) for mantissa in (1, 2, 5)]
    start = max((step for step in steps if step <= low), default=steps[0])
    end = min((step for step in steps if step >= high and step > start), default=steps[-1])
    shown = [step for step in steps if start <= step <= end]
    if len(shown) > _MOST_TICKS:  # tens only, so that a phone has room for them
        shown = [step for step in shown if math.log10(step) % 1 < 1e-9 or step in (start, end)]
    ticks = tuple((step, f"{step:g}" if step < 1e3 else f"{step:,.0f}") for step in shown)
    return Axis(title, start, end, ticks, log=True)


def line_plot(title: str, lines: Sequence[Line], x: Axis, y: Axis, marks: Sequence[Mark], width: int) -> Markup:
    """Lines over a grid, and marks on them."""
    height = round(min(340, width * 0.62))
    left = 14 + CHARACTER * max(len(label) for _, label in y.ticks)
    right, top, bottom = width - 14.0, 26.0, height - 44.0

    def across(value: float) -> float:
        return left + x.at(value) * (right - left)

    def up(value: float) -> float:
        return bottom - y.at(value) * (bottom - top)

    grid = [
        join(
            element("line", x1=left, x2=right, y1=up(value), y2=up(value), class_="grid"),
            element("text", label, x=left - 8, y=up(value) + 4, text_anchor="end"),
        )
        for value, label in y.ticks
    ]
    below = [
        join(
            element("line", x1=across(value), x2=across(value), y1=bottom, y2=bottom + 5, class_="axis"),
            element(
                "text",
                label,
                x=min(across(value), width - CHARACTER * len(label) / 2),
                y=bottom + 19,
                text_anchor="middle",
            ),
        )
        for value, label in _apart(x.ticks, across)
    ]
    drawn = [
        element(
            "path", d=_path([(across(a), up(b)) for a, b in _inside(line.points, x.high)]), class_=f"line {line.css}"
        )
        for line in lines
    ]
    return _svg(
        title,
        width,
        height,
        *grid,
        element("line", x1=left, x2=right, y1=bottom, y2=bottom, class_="axis"),
        *below,
        element("text", x.title, x=right, y=height - 6.0, text_anchor="end", class_="title"),
        element("text", y.title, x=2, y=12, class_="title"),
        *[_mark(mark, across, up, top, bottom, left, right) for mark in marks if mark.y is None],
        *drawn,
        *[_mark(mark, across, up, top, bottom, left, right) for mark in marks if mark.y is not None],
    )


def bar_plot(title: str, bars: Sequence[Bar], most: float, width: int) -> Markup:
    """Horizontal bars to a common scale, the name above each."""
    step, thick = 42.0, 10.0
    figures = 12 + CHARACTER * 1.15 * max((len(bar.figure) for bar in bars), default=0)
    room = width - figures
    rows = []
    for index, bar in enumerate(bars):
        top = index * step
        length = max(1.5, room * bar.value / most) if most > 0 else 1.5
        rows.append(
            join(
                element(
                    "text",
                    bar.label,
                    element("tspan", f"  {bar.detail}", class_="title"),
                    x=0,
                    y=top + 15,
                ),
                element("rect", x=0, y=top + 22, width=length, height=thick, rx=2, class_=f"bar {bar.css}"),
                element("text", bar.figure, x=length + 8, y=top + 31, class_="figure"),
            )
        )
    return _svg(title, width, round(step * len(bars)), *rows)


def cell_map(
    title: str,
    columns: Sequence[str],
    rows: Sequence[str],
    cells: Sequence[Sequence[tuple[str, str]]],
    x: str,
    y: str,
    width: int,
) -> Markup:
    """A field of cells, each a style class and a letter; the first row is the lowest."""
    step = 22.0
    left = 14 + CHARACTER * max(len(name) for name in rows)
    top, right = 26.0, width - 2.0
    height = round(top + step * len(rows) + 44)
    bottom = top + step * len(rows)
    across = (right - left) / len(columns)
    drawn = [
        join(
            element(
                "rect",
                x=left + column * across + 0.5,
                y=bottom - (row + 1) * step + 0.5,
                width=across - 1,
                height=step - 1,
                class_=f"cell {css}",
            ),
            element(
                "text",
                letter,
                x=left + (column + 0.5) * across,
                y=bottom - row * step - 7,
                text_anchor="middle",
                class_="letter",
            )
            if across >= 12
            else None,
        )
        for row, line in enumerate(cells)
        for column, (css, letter) in enumerate(line)
    ]
    beside = [
        element("text", name, x=left - 8, y=bottom - row * step - 7, text_anchor="end") for row, name in enumerate(rows)
    ]
    places = [((column + 0.5), name) for column, name in enumerate(columns)]
    below = [
        element("text", name, x=left + place * across, y=bottom + 17, text_anchor="middle")
        for place, name in _apart(places, lambda place: left + place * across)
    ]
    return _svg(
        title,
        width,
        height,
        *drawn,
        *beside,
        *below,
        element("text", x, x=right, y=height - 6.0, text_anchor="end", class_="title"),
        element("text", y, x=2, y=12, class_="title"),
    )


def swatch(css: str) -> Markup:
    """A short piece of a line, for a legend."""
    line = element("path", d="M1 6 H33", class_=f"line {css}")
    return element("svg", line, width="34", height="12", viewbox="0 0 34 12", aria_hidden="true", class_="swatch")


def _svg(title: str, width: int, height: int, *content: Markup) -> Markup:
    return element(
        "svg",
        element("title", title),
        *content,
        viewbox=f"0 0 {width} {height}",
        width=width,
        height=height,
        role="img",
        class_="plot",
    )


def _mark(
    mark: Mark,
    across: Callable[[float], float],
    up: Callable[[float], float],
    top: float,
    bottom: float,
    left: float,
    right: float,
) -> Markup:
    x = across(mark.x)
    half = CHARACTER * len(mark.label) / 2
    label_x = min(max(x, left + half + 4), right - half)
    if mark.y is None:
        return join(
            element("line", x1=x, x2=x, y1=top, y2=bottom, class_=f"rule {mark.css}"),
            element("text", mark.label, x=label_x, y=top - 8, text_anchor="middle", class_="label"),
        )
    y = up(mark.y)
    label = (
        element("text", mark.label, x=label_x, y=y - 13, text_anchor="middle", class_="label") if mark.label else None
    )
    return join(element("circle", cx=x, cy=y, r=5, class_=f"dot {mark.css}"), label)


def _apart(ticks: Sequence[tuple[float, str]], across: Callable[[float], float]) -> list[tuple[float, str]]:
    """The ticks whose labels don't touch, from the first on."""
    kept: list[tuple[float, str]] = []
    end = -math.inf
    for value, label in ticks:
        half = CHARACTER * len(label) / 2
        if across(value) - half > end + 8:
            kept.append((value, label))
            end = across(value) + half
    return kept


def _inside(points: Sequence[tuple[float, float]], high: float) -> list[tuple[float, float]]:
    """The part of a line up to `high`, cut where it crosses it."""
    inside = [point for point in points if point[0] <= high]
    for (x, y), (next_x, next_y) in pairwise(points):
        if x < high < next_x:
            inside.append((high, y + (next_y - y) * (high - x) / (next_x - x)))
    return inside


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return power * next(mantissa for mantissa in (1, 2, 2.5, 5, 10) if mantissa * power >= rough * (1 - 1e-9))


def _decimals(step: float) -> int:
    """Digits after the point that tell the multiples of a step apart."""
    return next((digits for digits in range(6) if abs(round(step, digits) - step) < step * 1e-6), 6)
