"""The picture with its faces numbered as they are painted: what to look at before changing a setting."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..base.drawing import to_image, to_picture
from ..regions.geometry import Box
from .plan import FacePlan

PAINTED_COLOURS = ((255, 196, 0), (0, 200, 255), (255, 96, 160), (120, 220, 80), (190, 140, 255))
LEFT_OUT_COLOUR = (150, 150, 150)


def draw_preview(image: Tensor, plan: FacePlan) -> Tensor:
    """IMAGE `[B, H, W, C]` -> `[B, H, W, 3]` with the faces to be painted in colour, numbered and scored,
    their crops as thin frames, and the ones left out in grey."""
    pictures = []
    for index in range(len(image)):
        picture = to_picture(image[index])
        _mark(picture, index, plan)
        pictures.append(to_image(picture))
    return torch.cat(pictures)


def _mark(picture: Image.Image, index: int, plan: FacePlan) -> None:
    pen = ImageDraw.Draw(picture)
    short = min(picture.size)
    width = max(1, round(short / 300))
    font = ImageFont.load_default(max(9, round(short / 36)))
    for left in plan.left_out:
        if left.picture == index:
            _frame(pen, left.face.box, LEFT_OUT_COLOUR, width, picture.size)
    regions = [region for region in plan.regions if region.picture == index]
    for region in regions:
        colour = PAINTED_COLOURS[(region.number - 1) % len(PAINTED_COLOURS)]
        faint = tuple(round(0.6 * part) for part in colour)
        _frame(pen, region.crop.box, faint, 1, picture.size)
    for region in regions:
        colour = PAINTED_COLOURS[(region.number - 1) % len(PAINTED_COLOURS)]
        _frame(pen, region.face.box, colour, width + 1, picture.size)
        _label(pen, region.face.box, f"{region.number}  {region.face.score:.2f}", colour, font, picture.size)


def _frame(
    pen: ImageDraw.ImageDraw, box: Sequence[float], colour: tuple, width: int, size: tuple[int, int]
) -> None:
    x0, y0 = max(0, round(box[0])), max(0, round(box[1]))
    x1, y1 = min(size[0], round(box[2])) - 1, min(size[1], round(box[3])) - 1
    pen.rectangle((x0, y0, max(x0, x1), max(y0, y1)), outline=colour, width=width)


def _label(
    pen: ImageDraw.ImageDraw,
    box: Box,
    text: str,
    colour: tuple,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    size: tuple[int, int],
) -> None:
    """A filled tag above the box, or inside its upper edge where there is no room above."""
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
    wide, high = right - left + 6, bottom - top + 6
    x = min(max(0, round(box[0])), max(0, size[0] - wide))
    y = round(box[1]) - high
    y = y if y >= 0 else min(round(box[1]), size[1] - high)
    pen.rectangle((x, y, x + wide - 1, y + high - 1), fill=colour)
    pen.text((x + 3 - left, y + 3 - top), text, fill=(0, 0, 0), font=font)
