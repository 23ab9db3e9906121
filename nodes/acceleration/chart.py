"""The chart of a run: every step as a bar, what was computed and what was reused, and how wrong reusing was.

Drawn with Pillow alone, twice as large as asked and scaled down, so that all edges are smooth.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..base.drawing import to_image
from .report import COMPUTED, REUSED, STEP_KINDS, RunReport, StepRecord

SIZE = (1280, 760)
SMOOTH = 2

PAPER, PANEL, GRID = "#15171c", "#1c1f26", "#2c313b"
TEXT, QUIET = "#f1efe9", "#969dab"
ERROR = "#f2726f"

LEFT, RIGHT = 96, 1236
TOP, BOTTOM = 190, 736
ERRORS_HEIGHT, LINE, MAX_NOTES = 112, 23, 3
NICE = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)


def chart_image(runs: Sequence[RunReport], labels: Sequence[str] = ()) -> Tensor:
    """The chart as IMAGE `[1, H, W, 3]`, float32 in 0..1."""
    return to_image(draw_chart(runs, labels))


def draw_chart(runs: Sequence[RunReport], labels: Sequence[str] = ()) -> Image.Image:
    """RGB, `SIZE` pixels.

    runs: one or more runs of equal length (others are left out), drawn as one: bars show the first, the
    strip below shows every one, errors are the largest of all. labels: a word for each run ("seed 7").
    """
    paper = _Paper()
    if not runs or not runs[0].records:
        paper.write(LEFT, 52, "Nothing was sampled", 34)
        paper.write(LEFT, 100, "The picture is as it came, so there are no steps to show.", 19, QUIET)
        return paper.finish()
    length = len(runs[0].records)
    alike = [i for i, run in enumerate(runs) if len(run.records) == length]
    shown = [runs[i] for i in alike]
    names = [labels[i] if i < len(labels) else f"run {i + 1}" for i in alike]
    columns = _Columns(length)
    _draw_head(paper, shown)
    # The frame is filled from below: what the notes, the errors and the strip leave belongs to the noise.
    bottom = _draw_notes(paper, shown, BOTTOM)
    _draw_steps(paper, columns, bottom - 8, "step" if shown[0].unit == "steps" else "call")
    bottom = _draw_errors(paper, columns, shown, bottom - 32)
    bottom = _draw_strip(paper, columns, shown, names, bottom - 12)
    _draw_noise(paper, columns, shown[0].records, bottom)
    return paper.finish()


@dataclass(frozen=True)
class _Columns:
    """Where the steps lie across the chart."""

    count: int

    def span(self, i: int) -> tuple[float, float]:
        """Left and right edge of step `i`'s bar."""
        pitch = (RIGHT - LEFT) / self.count
        gap = min(6.0, 0.22 * pitch)
        return LEFT + i * pitch + gap / 2, LEFT + (i + 1) * pitch - gap / 2

    def middle(self, i: int) -> float:
        return sum(self.span(i)) / 2


class _Paper:
    """A drawing surface in chart pixels."""

    def __init__(self) -> None:
        self._image = Image.new("RGB", (SIZE[0] * SMOOTH, SIZE[1] * SMOOTH), PAPER)
        self._draw = ImageDraw.Draw(self._image)
        self._fonts: dict[int, Any] = {}

    def _font(self, size: int) -> Any:
        if size not in self._fonts:
            self._fonts[size] = ImageFont.load_default(size * SMOOTH)
        return self._fonts[size]

    def write(
        self, x: float, y: float, text: str, size: int = 16, colour: str = TEXT, anchor: str = "ls"
    ) -> None:
        """Text whose `anchor` (Pillow's: l m r, then s baseline or m middle) lies at x, y."""
        at = (x * SMOOTH, y * SMOOTH)
        self._draw.text(at, text, fill=colour, font=self._font(size), anchor=anchor)

    def width(self, text: str, size: int = 16) -> float:
        return self._font(size).getlength(text) / SMOOTH

    def box(
        self,
        left: float,
        top: float,
        right: float,
        bottom: float,
        fill: str | None = None,
        edge: str | None = None,
        round_by: float = 0.0,
    ) -> None:
        corners = [left * SMOOTH, top * SMOOTH, right * SMOOTH - 1, max(bottom, top + 1) * SMOOTH - 1]
        radius = min(round_by, (right - left) / 2, (bottom - top) / 2) * SMOOTH
        self._draw.rounded_rectangle(corners, max(0.0, radius), fill, edge, width=round(1.5 * SMOOTH))

    def line(self, x0: float, y0: float, x1: float, y1: float, colour: str = GRID, width: float = 1) -> None:
        ends = [x0 * SMOOTH, y0 * SMOOTH, x1 * SMOOTH, y1 * SMOOTH]
        self._draw.line(ends, fill=colour, width=round(width * SMOOTH))

    def finish(self) -> Image.Image:
        return self._image.resize(SIZE, Image.Resampling.BOX)


def _draw_head(paper: _Paper, runs: Sequence[RunReport]) -> None:
    computed, calls = {run.computed for run in runs}, len(runs[0].records)
    count = f"{min(computed)}" if len(computed) == 1 else f"{min(computed)} to {max(computed)}"
    speed = sum(run.speed for run in runs) / len(runs)
    unit = runs[0].unit
    title = f"{count} of {calls} {unit} computed" if min(computed) < calls else f"All {calls} {unit} computed"
    if runs[0].shortened:
        title = f"{runs[0].steps} steps in the place of {runs[0].asked}"
    paper.write(LEFT, 62, title, 36)
    if speed > 1.005:
        # Work, not time: that depends on the machine.
        paper.write(RIGHT, 62, f"about {speed:.2f}x faster", 36, STEP_KINDS[REUSED].colour, "rs")
    words = [runs[0].method]
    errors = [run.largest_error for run in runs if run.largest_error is not None]
    if errors:
        words.append(f"largest forecast error {percent(max(errors))}")
    if runs[0].threshold is not None:
        words.append(f"internal threshold {runs[0].threshold:.3f}")
    if len(runs) > 1:
        words.append(f"{len(runs)} pictures")
    paper.write(LEFT, 96, "   |   ".join(words), 19, QUIET)
    x = float(LEFT)
    for kind, look in STEP_KINDS.items():
        if kind == COMPUTED or any(kind in run.pattern for run in runs):
            paper.box(x, 124, x + 16, 140, look.fill, look.colour, 3)
            paper.write(x + 26, 138, look.meaning, 17)
            x += 26 + paper.width(look.meaning, 17) + 34


def _draw_noise(paper: _Paper, columns: _Columns, records: Sequence[StepRecord], bottom: float) -> None:
    paper.write(LEFT, TOP - 18, "Noise left in the picture (sigma)", 16, QUIET)
    paper.box(LEFT - 8, TOP - 8, RIGHT + 8, bottom, PANEL)
    highest = max(1.0, *(record.sigma for record in records))
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = bottom - share * (bottom - TOP)
        if share:
            paper.line(LEFT - 8, y, RIGHT + 8, y)
        paper.write(LEFT - 18, y, f"{100 * share * highest:.0f}%", 15, QUIET, "rm")
    for i, record in enumerate(records):
        left, right = columns.span(i)
        look = STEP_KINDS[record.kind]
        height = record.sigma / highest * (bottom - TOP)
        paper.box(left, bottom - height, right, bottom, look.fill, look.colour, 3)


def _draw_strip(
    paper: _Paper, columns: _Columns, runs: Sequence[RunReport], names: Sequence[str], bottom: float
) -> float:
    """One row a run, where they differ, down to `bottom`; returns where the noise may end."""
    if len({run.pattern for run in runs}) == 1:
        return bottom
    pitch = min(16.0, 100 / len(runs))
    first = bottom - len(runs) * pitch
    for row, (run, name) in enumerate(zip(runs, names, strict=True)):
        top = first + row * pitch
        for i, record in enumerate(run.records):
            fill = STEP_KINDS[record.kind].fill
            left, right = columns.span(i)
            paper.box(left, top, right, top + pitch - 2, fill, None, 2)
        if pitch >= 12 or row in (0, len(runs) - 1):
            paper.write(LEFT - 12, top + pitch / 2 - 1, name, 12, QUIET, "rm")
    return first - 14


def _draw_errors(paper: _Paper, columns: _Columns, runs: Sequence[RunReport], bottom: float) -> float:
    """Bars of the errors, standing on `bottom`; returns where their caption begins."""
    top = bottom - ERRORS_HEIGHT
    caption = "Forecast error: what reusing would have cost, measured wherever a step was computed"
    paper.write(LEFT, top - 18, caption, 16, QUIET)
    paper.box(LEFT - 8, top - 8, RIGHT + 8, bottom, PANEL)
    errors = [_largest(run.records[i].error for run in runs) for i in range(columns.count)]
    known = [error for error in errors if error is not None]
    if not known:
        text = "no step was forecast, so there is no forecast error"
        paper.write((LEFT + RIGHT) / 2, (top + bottom) / 2, text, 17, QUIET, "mm")
        return top - 36
    scale = next((nice for nice in NICE if nice >= max(known)), max(known))
    for share in (0.0, 0.5, 1.0):
        y = bottom - share * (bottom - top)
        if share:
            paper.line(LEFT - 8, y, RIGHT + 8, y)
        paper.write(LEFT - 18, y, percent(share * scale), 15, QUIET, "rm")
    for i, error in enumerate(errors):
        left, right = columns.span(i)
        if error is not None:
            height = min(error, scale) / scale * (bottom - top)
            paper.box(left, bottom - height, right, bottom, ERROR, None, 3)
        elif all(run.records[i].kind == REUSED for run in runs):
            middle = columns.middle(i)
            paper.box(middle - 2, bottom - 6, middle + 2, bottom - 2, STEP_KINDS[REUSED].colour, None, 2)
    return top - 36


def _draw_steps(paper: _Paper, columns: _Columns, baseline: float, word: str) -> None:
    every = next(n for n in (1, 2, 5, 10, 20, 50, 100, 1000) if columns.count / n <= 32)
    for number in range(1, columns.count + 1):
        if every == 1 or number % every == 0:
            paper.write(columns.middle(number - 1), baseline, str(number), 14, QUIET, "ms")
    paper.write(LEFT - 18, baseline, word, 14, QUIET, "rs")


def _draw_notes(paper: _Paper, runs: Sequence[RunReport], bottom: float) -> float:
    """The runs' notes, down to `bottom`; returns where they begin."""
    notes = list(dict.fromkeys(note for run in runs for note in run.notes))
    lines = [line for note in notes for line in _wrap(paper, note, 17, RIGHT - LEFT)][:MAX_NOTES]
    for row, line in enumerate(reversed(lines)):
        paper.write(LEFT, bottom - row * LINE, line, 17, QUIET)
    return bottom - len(lines) * LINE - (10 if lines else 0)


def _wrap(paper: _Paper, text: str, size: int, width: float) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and paper.width(longer, size) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _largest(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def percent(share: float) -> str:
    """0.0312 -> 3.1%, with as many digits as are worth reading."""
    number = 100 * share
    return f"{number:.0f}%" if number >= 10 or number == round(number) else f"{number:.2g}%"
