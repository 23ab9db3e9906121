"""Before, after, and what changed, side by side."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..base.drawing import to_image, to_picture
from .keep import Kept

PAPER, INK = (24, 25, 29), (236, 238, 242)
MARK = (1.0, 0.25, 0.1)
PANEL, GAP, CAPTION = 384, 16, 40
TITLES = ("original", "edited", "kept", "from the edit")
MAX_ROWS = 8


def draw_sheet(kept: Sequence[Kept]) -> Tensor:
    """IMAGE `[1, H, W, 3]`: a row a picture, the first eight of them."""
    rows = [_list_panels(one) for one in kept[:MAX_ROWS]]
    height = max(panel.height for row in rows for panel in row)
    size = (GAP + len(TITLES) * (PANEL + GAP), GAP + CAPTION + len(rows) * (height + GAP))
    sheet = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(sheet)
    for column, title in enumerate(TITLES):
        middle = (GAP + column * (PANEL + GAP) + PANEL / 2, GAP + CAPTION / 2 - 4)
        pen.text(middle, title, font=ImageFont.load_default(20), fill=INK, anchor="mm")
    for row, panels in enumerate(rows):
        for column, panel in enumerate(panels):
            left = GAP + column * (PANEL + GAP) + (PANEL - panel.width) // 2
            sheet.paste(panel, (left, GAP + CAPTION + row * (height + GAP) + (height - panel.height) // 2))
    return to_image(sheet)


def _list_panels(kept: Kept) -> list[Image.Image]:
    return [_fit(picture) for picture in (kept.original, kept.edited, kept.picture, _mark(kept))]


def _mark(kept: Kept) -> Tensor:
    """The original in grey, what comes from the edit in red over it."""
    grey = kept.original[..., :3].float().mean(dim=-1, keepdim=True).expand(-1, -1, 3) * 0.6
    return torch.lerp(grey, grey.new_tensor(MARK) * 0.6 + grey * 0.4, kept.mask[..., None] * 0.8)


def _fit(picture: Tensor) -> Image.Image:
    image = to_picture(picture)
    scale = PANEL / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST)
