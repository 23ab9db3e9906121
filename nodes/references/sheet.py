"""The contact sheet: every reference with its number, the size it came in, the size used, what was lost."""

from __future__ import annotations

import math

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..base.drawing import to_image, to_picture
from ..base.references import Reference, References
from .report import format_lost, format_size

PAPER, CARD, LINE = (24, 25, 29), (38, 40, 46), (58, 61, 70)
INK, FAINT, ACCENT, WARM = (236, 238, 242), (150, 155, 166), (64, 132, 214), (236, 176, 92)
GAP, PADDING, RADIUS = 20, 16, 14
WINDOW, CAPTION = 320, 100
_DENSE = 2
"""Drawn at twice the size and scaled down: round corners come out smooth."""


def draw_sheet(references: References) -> Tensor:
    """IMAGE `[1, H, W, 3]`: cards in rows, left to right, as the prompt numbers them."""
    count = len(references)
    columns = count if count <= 4 else math.ceil(math.sqrt(count * 1.4))
    rows = math.ceil(count / columns)
    card = (WINDOW + 2 * PADDING, WINDOW + 2 * PADDING + CAPTION)
    sheet = Image.new("RGB", (GAP + columns * (card[0] + GAP), GAP + rows * (card[1] + GAP)), PAPER)
    for index, item in enumerate(references.items):
        x = GAP + index % columns * (card[0] + GAP)
        y = GAP + index // columns * (card[1] + GAP)
        sheet.paste(_draw_card(item, index + 1, index + 1 == references.matched, card), (x, y))
    return to_image(sheet)


def _draw_card(item: Reference, number: int, matched: bool, size: tuple[int, int]) -> Image.Image:
    width, height = size
    card = Image.new("RGB", size, PAPER)
    card.paste(CARD, (0, 0), _rounded(size, RADIUS))
    picture = _thumbnail(item)
    x, y = (width - picture.width) // 2, PADDING + (WINDOW - picture.height) // 2
    card.paste(picture, (x, y), _rounded(picture.size, 8))
    _draw_badge(card, str(number), (PADDING - 4, PADDING - 4))
    pen = ImageDraw.Draw(card)
    top = PADDING + WINDOW + 14
    pen.line((PADDING, top - 1, width - PADDING, top - 1), fill=LINE)
    changed = item.size != item.given
    rows = [
        ("size in", format_size(item.given).replace("x", " x "), INK),
        ("size used", format_size(item.size).replace("x", " x "), INK if not changed else ACCENT),
        ("lost by crop", format_lost(item).removesuffix(" cut off"), WARM if item.lost > 0.05 else INK),
    ]
    for index, (title, text, colour) in enumerate(rows):
        baseline = top + 24 + index * 27
        pen.text((PADDING, baseline), title, font=_font(17), fill=FAINT, anchor="ls")
        pen.text((width - PADDING, baseline), text, font=_font(19), fill=colour, anchor="rs")
    if matched:
        _draw_tag(card, "width and height", (width - PADDING + 4, PADDING - 4))
    return card


def _thumbnail(item: Reference) -> Image.Image:
    picture = to_picture(item.image[0])
    scale = WINDOW / max(picture.size)
    # A small picture is shown in large pixels, so that it is seen to be small.
    method = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST
    width, height = (max(8, round(side * scale)) for side in picture.size)
    return picture.resize((width, height), method)


def _draw_badge(card: Image.Image, text: str, corner: tuple[int, int]) -> None:
    side = 40 if len(text) < 3 else 52
    card.paste(ACCENT, corner, _rounded((side, 40), 12))
    middle = (corner[0] + side / 2, corner[1] + 20)
    ImageDraw.Draw(card).text(middle, text, font=_font(24), fill="white", anchor="mm")


def _draw_tag(card: Image.Image, text: str, corner: tuple[int, int]) -> None:
    """`corner`: the upper right one."""
    font = _font(15)
    width = round(font.getlength(text)) + 20
    left, top = corner[0] - width, corner[1]
    card.paste(CARD, (left, top), _rounded((width, 28), 9))
    pen = ImageDraw.Draw(card)
    pen.text((left + width / 2, top + 14), text, font=font, fill=INK, anchor="mm")


def _rounded(size: tuple[int, int], radius: int) -> Image.Image:
    mask = Image.new("L", (size[0] * _DENSE, size[1] * _DENSE), 0)
    box = (0, 0, mask.width - 1, mask.height - 1)
    ImageDraw.Draw(mask).rounded_rectangle(box, radius * _DENSE, fill=255)
    return mask.resize(size, Image.Resampling.BOX)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
