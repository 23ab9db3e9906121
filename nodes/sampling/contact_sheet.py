"""Several pictures on one sheet, each in a place of its own, while they are made."""

from __future__ import annotations

import math

from PIL import Image

GAP = 4
GROUND = (32, 32, 32)


class ContactSheet:
    """A sheet for `count` pictures of one size, its longer side at most about `side` pixels.

    It has its full size from the beginning, so nothing moves while it fills.
    """

    def __init__(self, count: int, side: int) -> None:
        self.columns = math.ceil(math.sqrt(count))
        self.rows = math.ceil(count / self.columns)
        self._side = side
        self._cell: tuple[int, int] | None = None
        self._kept: dict[int, Image.Image] = {}

    def keep(self, index: int, picture: Image.Image) -> None:
        """A finished picture."""
        self._kept[index] = self._fit(picture)

    def draw(self, index: int = -1, picture: Image.Image | None = None) -> Image.Image:
        """The finished ones, and the one in the making at its place `index`."""
        shown = {**self._kept, **({} if picture is None else {index: self._fit(picture)})}
        width, height = self._cell or (1, 1)
        size = (self.columns * (width + GAP) - GAP, self.rows * (height + GAP) - GAP)
        sheet = Image.new("RGB", size, GROUND)
        for place, one in shown.items():
            row, column = divmod(place, self.columns)
            sheet.paste(one, (column * (width + GAP), row * (height + GAP)))
        return sheet

    def _fit(self, picture: Image.Image) -> Image.Image:
        if self._cell is None:  # previews are smaller than pictures, of the same shape
            scale = (self._side // max(self.columns, self.rows) - GAP) / max(picture.size)
            self._cell = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
        return picture.convert("RGB").resize(self._cell, Image.Resampling.BILINEAR)
