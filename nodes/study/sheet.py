"""The contact sheet of Klein Compare: each picture, what it cost, how near it came, and where it differs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..acceleration.chart import PANEL, PAPER, QUIET, TEXT
from ..base.drawing import to_image, to_picture
from .comparison import Outcome, plot_points
from .plot import draw_plot

CELL, GAP, PADDING, CAPTION = 384, 20, 14, 86
MAX_COLUMNS = 5
# A miss of one grey level in ten becomes white: what the eye would not find is seen to be there.
AMPLIFIED = 10
GOOD, FAIR, POOR = "#3fb7a9", "#f0b44c", "#f2726f"


def sheet_image(outcomes: Sequence[Outcome], differences: bool = True) -> Tensor:
    """IMAGE `[1, H, W, 3]`: see `draw_sheet`."""
    return to_image(draw_sheet(outcomes, differences))


def plot_image(outcomes: Sequence[Outcome]) -> Tensor:
    """IMAGE `[1, H, W, 3]`: times less work against PSNR, one mark a run."""
    caption = "One seed, on your model: how much of the picture with every step computed each run kept"
    picture = draw_plot(
        plot_points(outcomes), "Speed against likeness", caption, "PSNR, dB", "times less work"
    )
    return to_image(picture)


def draw_sheet(outcomes: Sequence[Outcome], differences: bool = True) -> Image.Image:
    """RGB cards in rows: picture, name, speed and likeness; the first is what the others are held to.

    differences: under each picture, ten times its distance from the first.
    """
    rows = math.ceil(len(outcomes) / MAX_COLUMNS)
    columns = math.ceil(len(outcomes) / rows)
    window = _fit(outcomes[0].image)
    card = (
        CELL,
        window[1] * (2 if differences else 1) + CAPTION + 2 * PADDING + (PADDING if differences else 0),
    )
    sheet = Image.new("RGB", (GAP + columns * (card[0] + GAP), GAP + rows * (card[1] + GAP)), PAPER)
    for index, outcome in enumerate(outcomes):
        at = (GAP + index % columns * (card[0] + GAP), GAP + index // columns * (card[1] + GAP))
        sheet.paste(_draw_card(outcome, outcomes[0], card, window, differences), at)
    return sheet


def _fit(image: Tensor) -> tuple[int, int]:
    """Size at which pictures are shown: as wide as a card, at most as high."""
    height, width = image.shape[1:3]
    scale = (CELL - 2 * PADDING) / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _draw_card(
    outcome: Outcome, first: Outcome, size: tuple[int, int], window: tuple[int, int], differences: bool
) -> Image.Image:
    card = Image.new("RGB", size, PANEL)
    pen = ImageDraw.Draw(card)
    left = (size[0] - window[0]) // 2
    pictures = [outcome.image]
    if differences:
        pictures.append(((outcome.image - first.image).abs() * AMPLIFIED).clamp(0, 1))
    top = PADDING
    for pixels in pictures:
        card.paste(_as_picture(pixels, window), (left, top))
        top += window[1] + PADDING
    if differences:
        words = "what the others are held to" if outcome is first else f"difference, {AMPLIFIED} times"
        pen.text((left + 8, top - PADDING - 8), words, font=_font(13), fill=QUIET, anchor="ls")
    baseline = top + 20
    pen.text((PADDING, baseline), outcome.candidate.name, font=_font(22), fill=TEXT, anchor="ls")
    speed = f"{outcome.seconds:.2f} s"
    if outcome is not first:
        speed += f"   {1 / max(outcome.work, 1e-9):.1f}x less work"
    pen.text((PADDING, baseline + 27), speed, font=_font(17), fill=QUIET, anchor="ls")
    if outcome is not first:
        words, colour = judge(outcome.ssim)
        text = f"PSNR {outcome.psnr:.1f} dB   SSIM {outcome.ssim:.3f}   {words}"
        pen.text((PADDING, baseline + 53), text, font=_font(17), fill=colour, anchor="ls")
    return card


def judge(ssim: float) -> tuple[str, str]:
    """A word an artist knows for a likeness, and its colour."""
    for least, words, colour in (
        (0.99, "the same", GOOD),
        (0.95, "very close", GOOD),
        (0.85, "similar", FAIR),
    ):
        if ssim >= least:
            return words, colour
    return "another picture", POOR


def _as_picture(pixels: Tensor, size: tuple[int, int]) -> Image.Image:
    picture = to_picture(pixels[0])
    # Enlarged in whole pixels, so that small pictures show what they are.
    method = Image.Resampling.LANCZOS if picture.width > size[0] else Image.Resampling.NEAREST
    return picture.resize(size, method)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
