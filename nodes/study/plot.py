"""A plot of speed against likeness: which way to a faster picture keeps most of it.

Drawn with Pillow alone, twice as large as asked and scaled down, in the colours of the run chart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from ..acceleration.chart import GRID, PANEL, PAPER, QUIET, TEXT

SIZE = (1280, 760)
SMOOTH = 2
LEFT, RIGHT, TOP, BOTTOM = 92, 1236, 176, 676
LETTERS, LINE = 16, 20
# Okabe and Ito's colours, told apart with any colour vision; each series has its own mark as well.
COLOURS = ("#f0b44c", "#56b4e9", "#3fb7a9", "#e5736d", "#cc79a7", "#d8d2c4", "#8f9bff")
MARKS = ("disc", "square", "diamond", "triangle", "ring", "cross", "disc")


@dataclass(frozen=True)
class Point:
    """One measured way. speed: times less work. value: higher is better. low: its 5th percentile.

    series: points of one series share colour and mark; those on its curve are joined. label: written beside
    the mark.
    """

    speed: float
    value: float
    series: str
    label: str = ""
    low: float | None = None
    on_curve: bool = True


def draw_plot(points: Sequence[Point], title: str, caption: str, unit: str, across: str) -> Image.Image:
    """RGB, `SIZE` pixels. caption: a line under the title. unit, across: what the axes show."""
    sheet = _Sheet()
    sheet.write(LEFT, 58, title, 34)
    sheet.write(LEFT, 90, caption, 18, QUIET)
    sheet.box(LEFT, TOP, RIGHT, BOTTOM, PANEL)
    if not points:
        sheet.write((LEFT + RIGHT) / 2, (TOP + BOTTOM) / 2, "nothing was measured", 20, QUIET, "mm")
        return sheet.finish()
    speeds = [point.speed for point in points]
    values = [v for point in points for v in (point.value, point.low) if v is not None]
    x = _Axis(min(1.0, *speeds), max(*speeds, 1.2) * 1.04, LEFT, RIGHT)
    y = _Axis(min(values), max(values), BOTTOM - 16, TOP + 20)
    _draw_axes(sheet, x, y, unit, across)
    series = list(dict.fromkeys(point.series for point in points))
    _draw_legend(sheet, series)
    taken: list[tuple[float, float, float, float]] = []
    for number, name in enumerate(series):
        colour, mark = COLOURS[number % len(COLOURS)], MARKS[number % len(MARKS)]
        mine = sorted((point for point in points if point.series == name), key=lambda point: point.speed)
        curve = [point for point in mine if point.on_curve]
        for left, right in zip(curve[:-1], curve[1:], strict=True):
            sheet.line(x.at(left.speed), y.at(left.value), x.at(right.speed), y.at(right.value), colour, 1.5)
        for point in mine:
            at = x.at(point.speed), y.at(point.value)
            if point.low is not None:
                sheet.line(at[0], at[1], at[0], y.at(point.low), colour, 1)
                sheet.line(at[0] - 4, y.at(point.low), at[0] + 4, y.at(point.low), colour, 1)
            sheet.mark(*at, mark, colour)
            taken.append((at[0] - 7, at[1] - 7, at[0] + 7, at[1] + 7))
    for point in points:
        colour = COLOURS[series.index(point.series) % len(COLOURS)]
        _draw_label(sheet, point.label, x.at(point.speed), y.at(point.value), colour, taken)
    return sheet.finish()


@dataclass(frozen=True)
class _Axis:
    """Values `low..high` along pixels `start..end`."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        span = (self.high - self.low) or 1.0
        return self.start + (value - self.low) / span * (self.end - self.start)

    def ticks(self, most: int = 8) -> list[float]:
        span = (self.high - self.low) or 1.0
        raw = span / most
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(power * n for n in (1, 2, 2.5, 5, 10) if power * n >= raw)
        first = math.ceil(self.low / step - 1e-9)
        return [i * step for i in range(first, int(math.floor(self.high / step + 1e-9)) + 1)]


class _Sheet:
    """A drawing surface in plot pixels."""

    def __init__(self) -> None:
        self._image = Image.new("RGB", (SIZE[0] * SMOOTH, SIZE[1] * SMOOTH), PAPER)
        self._draw = ImageDraw.Draw(self._image)

    def write(
        self, x: float, y: float, text: str, size: int = 16, colour: str = TEXT, anchor: str = "ls"
    ) -> None:
        font = ImageFont.load_default(size * SMOOTH)
        self._draw.text((x * SMOOTH, y * SMOOTH), text, fill=colour, font=font, anchor=anchor)

    def width(self, text: str, size: int) -> float:
        return ImageFont.load_default(size * SMOOTH).getlength(text) / SMOOTH

    def box(self, left: float, top: float, right: float, bottom: float, fill: str) -> None:
        self._draw.rectangle([v * SMOOTH for v in (left, top, right, bottom)], fill)

    def line(self, x0: float, y0: float, x1: float, y1: float, colour: str, width: float) -> None:
        self._draw.line([v * SMOOTH for v in (x0, y0, x1, y1)], fill=colour, width=round(width * SMOOTH))

    def mark(self, x: float, y: float, kind: str, colour: str) -> None:
        x, y, r = x * SMOOTH, y * SMOOTH, 6 * SMOOTH
        if kind == "disc":
            self._draw.ellipse((x - r, y - r, x + r, y + r), colour)
        elif kind == "ring":
            self._draw.ellipse((x - r, y - r, x + r, y + r), PANEL, colour, 2 * SMOOTH)
        elif kind == "square":
            self._draw.rectangle((x - r * 0.85, y - r * 0.85, x + r * 0.85, y + r * 0.85), colour)
        elif kind == "cross":
            for side in (-1, 1):
                self._draw.line((x - r, y - side * r, x + r, y + side * r), colour, round(2.5 * SMOOTH))
        else:
            sides = 4 if kind == "diamond" else 3
            self._draw.regular_polygon((x, y, r * 1.25), sides, 45 if sides == 4 else 0, fill=colour)

    def finish(self) -> Image.Image:
        return self._image.resize(SIZE, Image.Resampling.BOX)


def _draw_axes(sheet: _Sheet, x: _Axis, y: _Axis, unit: str, across: str) -> None:
    for value in y.ticks():
        sheet.line(LEFT, y.at(value), RIGHT, y.at(value), GRID, 1)
        sheet.write(LEFT - 12, y.at(value), f"{value:g}", 15, QUIET, "rm")
    for value in x.ticks():
        sheet.line(x.at(value), TOP, x.at(value), BOTTOM, GRID, 1)
        sheet.write(x.at(value), BOTTOM + 24, f"{value:g}x", 15, QUIET, "ms")
    sheet.write(LEFT, TOP - 12, unit, 16, QUIET)
    sheet.write(RIGHT, BOTTOM + 52, across, 16, QUIET, "rs")


def _draw_legend(sheet: _Sheet, series: Sequence[str]) -> None:
    left = float(LEFT)
    for number, name in enumerate(series):
        colour = COLOURS[number % len(COLOURS)]
        sheet.mark(left + 7, 122, MARKS[number % len(MARKS)], colour)
        sheet.write(left + 22, 128, name, 16)
        left += 22 + sheet.width(name, 16) + 28


def _draw_label(
    sheet: _Sheet, text: str, x: float, y: float, colour: str, taken: list[tuple[float, float, float, float]]
) -> None:
    """Write beside the mark at the first place that is free; nowhere, where none is."""
    if not text:
        return
    width = sheet.width(text, LETTERS)
    for dx, dy in ((12, -LINE * 0.7), (12, LINE * 0.7), (12, 0), (-12 - width, 0), (-12 - width, -LINE),
                   (-12 - width, LINE), (-width / 2, -LINE - 4), (-width / 2, LINE + 4)):  # fmt: skip
        box = (x + dx, y + dy - LINE / 2, x + dx + width, y + dy + LINE / 2)
        inside = LEFT <= box[0] and box[2] <= RIGHT and TOP <= box[1] and box[3] <= BOTTOM
        if inside and not any(_meet(box, other) for other in taken):
            taken.append(box)
            sheet.write(box[0], y + dy, text, LETTERS, colour, "lm")
            return


def _meet(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
